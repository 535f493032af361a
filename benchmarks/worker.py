"""One measurement in a process that does nothing else: what a user waits for from the first call on.

Started as a script with the folder of a ``resalign_utils`` on the path, this commit's or another's, so it uses public
names that both have, and imports nothing but them before the clock runs.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

warnings.simplefilter("ignore")  # torch on its own use of torch.jit

RANK = 10
LOOSE = 1e-2  # tolerance of the networks of torchvision
CLASSES = 10  # of them: five more triplets are computed than classes, in every commit


def small(device: str, quick: bool) -> tuple[Any, Any]:
    """8 post-activation convolutional blocks of 16 channels, 8 × 8, with batch norm's statistics set, and an input."""
    import torch

    import resalign_utils as ra

    x = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to(device)
    labels = torch.arange(64, device=device) % 10
    data = ra.ImageData.from_tensors(x, labels, x, labels, name="noise", num_classes=10)
    width, depth = (4, 3) if quick else (16, 8)
    model = ra.build_model(ra.ResNetConfig(kind="conv", depth=depth, width=width), data, seed=0).to(device)
    with torch.no_grad():
        for _ in range(20):
            model.train()(x)
    return model.eval(), x[:1]


def torchvision_network(name: str, side: int) -> Callable[[str, bool], tuple[Any, Any]]:
    """A network of torchvision as it is made, and an input."""

    def build(device: str, quick: bool) -> tuple[Any, Any]:
        import torch
        from torchvision import models

        torch.manual_seed(0)
        model = getattr(models, name)(num_classes=CLASSES).eval().to(device)
        return model, torch.randn(1, 3, 32 if quick else side, 32 if quick else side).to(device)

    return build


def report(**how: Any) -> Callable[[Any, Any], Callable[[], Any]]:
    """``ra.measure_alignment`` with these keywords."""

    def prepare(model: Any, x: Any) -> Callable[[], Any]:
        import resalign_utils as ra

        return lambda: ra.measure_alignment(model, x, k=RANK, **how)

    return prepare


def triplets(model: Any, x: Any) -> Callable[[], Any]:
    """``ra.jacobian_svd`` of all blocks."""
    import resalign_utils as ra

    path = ra.trace(model, x)
    return lambda: ra.jacobian_svd(path, RANK)


def truncated(method: Literal["krylov", "dense"]) -> Callable[[Any, Any], Callable[[], Any]]:
    """``ra.truncated_svd`` of the last block, opening included."""

    def prepare(model: Any, x: Any) -> Callable[[], Any]:
        import resalign_utils as ra

        last = ra.trace(model, x).residuals[-1]
        return lambda: ra.truncated_svd(ra.JacobianOperator(last.branch, last.input), RANK, method=method)

    return prepare


resnet18, resnet50 = torchvision_network("resnet18", 64), torchvision_network("resnet50", 224)
TASKS: dict[str, tuple[Callable[[str, bool], tuple[Any, Any]], Callable[[Any, Any], Callable[[], Any]]]] = {
    "measure_alignment": (small, report()),
    "jacobian_svd": (small, triplets),
    "truncated_svd, Krylov": (small, truncated("krylov")),
    "truncated_svd, dense": (small, truncated("dense")),
    "resnet18": (resnet18, report(tol=LOOSE)),
    "resnet50": (resnet50, report(tol=LOOSE)),
}


def measure(task: str, device: str, threads: int, calls: int, quick: bool, account: bool) -> dict[str, Any]:
    """Seconds of the import and of each call, with what the first imports, memory, and how the last call's time goes.

    The account is of one more call, which is not among the timed ones; where no other is asked for, it is.
    """
    import_seconds, _, _ = timed(lambda: __import__("resalign_utils").measure_alignment, "cpu")
    import torch

    torch.set_num_threads(threads)
    build, prepare = TASKS[task]
    work = prepare(*build(device, quick))
    modules, start = set(sys.modules), peak_bytes(device)
    taken = [timed(work, device) for _ in range(calls)]
    row: dict[str, Any] = {"import": import_seconds, "modules": len(set(sys.modules) - modules), "start_bytes": start}
    if account:
        *times, row["account"] = accounted(work, device)
        taken = taken or [tuple(times)]
    wall, cpu, results = zip(*taken, strict=True)
    row |= {"seconds": wall, "cpu_seconds": cpu, "peak_bytes": peak_bytes(device)}
    if hasattr(results[-1], "alignment"):
        row["alignment"] = float(results[-1].alignment.mean())
    return row


def timed(work: Callable[[], Any], device: str) -> tuple[float, float, Any]:
    """Wall-clock seconds, CPU seconds and the result."""
    wait(device)
    begin, begin_cpu = time.perf_counter(), time.process_time()
    result = work()
    wait(device)
    return round(time.perf_counter() - begin, 5), round(time.process_time() - begin_cpu, 5), result


def accounted(work: Callable[[], Any], device: str) -> tuple[float, float, Any, dict[str, Any]]:
    """The same, and the seconds of opening, of products before the couplings, and of couplings, and products by block.

    The clocks are put around the package's own functions, for good: it is the process's last call.
    """
    from resalign_utils.alignment import _measure
    from resalign_utils.operators import JacobianBatch

    spent = {"opening": 0.0, "products": 0.0, "couplings": 0.0}
    blocks: dict[str, int] = {}

    def clocked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **how: Any) -> Any:
            if name == "products":
                blocks[arguments[0].called] += arguments[1].shape[1]
            elif name == "opening":
                arguments[0].called = how["name"]
                blocks[how["name"]] = 0
            seconds, _, result = timed(lambda: function(*arguments, **how), device)
            spent[name] += seconds
            return result

        return call

    couplings = _measure.couplings  # type: ignore[attr-defined]

    def coupled(*arguments: Any) -> Any:
        before = spent["products"]
        result = clocked("couplings", couplings)(*arguments)
        spent["products"] = before  # those of the couplings count as couplings
        return result

    opening = clocked("opening", JacobianBatch.__init__)
    JacobianBatch.__init__ = opening  # type: ignore[method-assign]
    for product in ("matmat", "rmatmat"):
        setattr(JacobianBatch, product, clocked("products", getattr(JacobianBatch, product)))
    _measure.couplings = coupled  # type: ignore[attr-defined, assignment]
    seconds, cpu, result = timed(work, device)
    return seconds, cpu, result, {"whole": seconds, **spent, "blocks": blocks}


def wait(device: str) -> None:
    """For what the device still computes."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def peak_bytes(device: str) -> int:
    """Resident memory of the process at its highest, or the allocator's on CUDA."""
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would also count what the process was before it became this program
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Print one row as JSON, with the folder of the package that was measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--calls", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--account", action="store_true")
    row = measure(**vars(parser.parse_args()))
    import resalign_utils as ra

    print(json.dumps(row | {"package": ra.__file__}))


if __name__ == "__main__":
    main()
