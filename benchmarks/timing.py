"""Seconds, threads and devices."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

LONG = 2.0  # seconds; a call that takes longer is repeated less often


def synchronize(device: torch.device | str) -> None:
    """Wait for what the device still computes."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], Any], device: torch.device | str = "cpu") -> tuple[float, Any]:
    """Wall-clock seconds of one call, and its result."""
    synchronize(device)
    begin = time.perf_counter()
    result = work()
    synchronize(device)
    return time.perf_counter() - begin, result


def repeated(
    work: Callable[[], Any], device: torch.device | str = "cpu", *, short: int = 5, long: int = 3
) -> list[float]:
    """Wall-clock seconds of ``short`` calls, or of ``long`` ones if they take more than LONG seconds each."""
    times = [seconds_of(work, device)[0]]
    repeats = long if times[0] > LONG else short
    return times + [seconds_of(work, device)[0] for _ in range(repeats - 1)]


def side_by_side(
    ways: dict[str, Callable[[], Any]], device: torch.device | str = "cpu", rounds: int = 9
) -> dict[str, float]:
    """Median seconds of each way, taken in turn so that a busy moment of the machine touches all of them."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            times[name].append(seconds_of(work, device)[0])
    return {name: statistics.median(taken) for name, taken in times.items()}


@contextmanager
def threads(number: int) -> Iterator[None]:
    """So many threads for torch, NumPy and SciPy, whatever the environment asked for at the start."""
    before = torch.get_num_threads()
    with ExitStack() as stack:
        try:
            import scipy.linalg  # noqa: F401  # loads SciPy's BLAS, which has a pool of its own
            from threadpoolctl import threadpool_limits  # scikit-learn needs it, so it is there

            stack.enter_context(threadpool_limits(number))
        except ImportError:
            pass
        torch.set_num_threads(number)
        try:
            yield
        finally:
            torch.set_num_threads(before)
