"""Peak memory and results of a function in a process of its own."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from .timing import seconds_of, threads

STATUS = Path("/proc/self/status")


class PeakMemory:
    """Bytes above the level at which it was opened, at the peak: resident memory, or the allocator's on CUDA.

    The system's own counter of the peak is set back when the context opens. Where the system does not allow that, the
    number is an upper bound: the peak of the process's whole life above the level at the start.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._cuda = torch.device(device).type == "cuda"
        self.bytes = 0

    def __enter__(self) -> PeakMemory:
        if self._cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._start = torch.cuda.memory_allocated()
            return self
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM back to VmRSS
        self._start = _from_status("VmRSS") or _largest_ever()
        return self

    def __exit__(self, *_: object) -> None:
        if self._cuda:
            torch.cuda.synchronize()
            peak = torch.cuda.max_memory_allocated()
        else:
            peak = _from_status("VmHWM") or _largest_ever()
        self.bytes = max(0, peak - self._start)


def _from_status(name: str) -> int:
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0


def _largest_ever() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measured(
    work: Callable[[], Any], device: torch.device | str, repeats: Callable[[float], int] = lambda first: 1
) -> dict[str, Any]:
    """Peak memory of the first call, seconds of ``repeats(seconds of the first)`` calls, and the last result.

    The first call's seconds count only where there is no other: it also warms up.
    """
    with PeakMemory(device) as memory:
        first, result = seconds_of(work, device)
    taken = [seconds_of(work, device) for _ in range(repeats(first))]
    if taken:
        result = taken[-1][1]
    return {
        "seconds": [round(value, 5) for value, _ in taken] or [round(first, 5)],
        "peak_bytes": memory.bytes,
        "result": result,
    }


def in_child(function: Callable[..., dict[str, Any]], *arguments: Any, number: int = 1) -> dict[str, Any]:
    """Call ``function(*arguments)``, which can be pickled, in a new process with so many threads.

    Raises:
        RuntimeError: the process ended without a result.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, function, arguments, number))
    process.start()
    sender.close()
    try:
        result: dict[str, Any] = receiver.recv()
        return result
    except EOFError:
        raise RuntimeError(f"{function.__name__}{arguments} ended without a result; see its traceback above.") from None
    finally:
        process.join()
        receiver.close()


def _work(sender: Any, function: Callable[..., dict[str, Any]], arguments: tuple[Any, ...], number: int) -> None:
    with threads(number):
        sender.send(function(*arguments))
    sender.close()
