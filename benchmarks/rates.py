"""What share of the device's measured rate the products achieve."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import resalign_utils as ra
from resalign_utils.arithmetic import exact_arithmetic

from .operators import case, network
from .plan import Plan
from .recording import Row, Table, integer, key, number
from .timing import repeated

BLOCK = 16  # vectors of a product


def rates(plan: Plan) -> list[Table]:
    """Products with one Jacobian and with those of 64 inputs, and whole decompositions, beside a large product."""
    device, quick = plan.device, plan.quick
    cuda = device.type == "cuda"
    side = 256 if quick else 8192 if cuda else 2048
    fastest = matmul_rate(side, device)
    sizes = [256] if quick else [3136, 16384, 65536, *([262144] if cuda else [])]
    rows = [row for size in sizes if plan.goes_on(f"N = {size}") for row in _one(size, device)]
    rows.append(_many(64 if quick else 4096, 4 if quick else 64, device))
    for row in rows:
        row["share"] = row["rate"] / fastest
    columns = {
        "work": key("work"),
        "N": integer("N"),
        "inputs": integer("n"),
        "GFLOP": lambda row: f"{row['flops'] / 1e9:,.2f}",
        "seconds (median)": number("seconds", ".4f"),
        "GFLOP/s": lambda row: f"{row['rate'] / 1e9:,.0f}",
        "share of the matrix rate": number("share", ".0%"),
    }
    note = (
        f"The matrix rate, {fastest / 1e9:,.0f} GFLOP/s, was measured with a float32 product of two {side} × {side} "
        "matrices, TF32 off. Operations are those of the products' convolutions, as torch's FlopCounterMode counts "
        "them; a decomposition's other operations count as none; its opening is part of it."
    )
    return [Table("Share of the matrix rate", columns, rows, note)]


def matmul_rate(side: int, device: torch.device) -> float:
    """Float32 operations a second of a product of two large matrices, at its best."""
    a, b = torch.randn(2, side, side, device=device).unbind()
    with exact_arithmetic(device):
        torch.mm(a, b)
        return 2 * side**3 / min(repeated(lambda: torch.mm(a, b), device))


def _one(size: int, device: torch.device) -> list[Row]:
    one = case(size, device=device)
    operator = one.open()
    v = torch.randn(BLOCK, *operator.in_shape, device=device)
    u = torch.randn(BLOCK, *operator.out_shape, device=device)
    works: dict[str, Callable[[], Any]] = {
        f"J v, {BLOCK} vectors": lambda: operator.matmat(v),
        f"Jᵀ u, {BLOCK} vectors": lambda: operator.rmatmat(u),
        "truncated SVD, k = 10": lambda: ra.truncated_svd(one.open(), 10, method="krylov"),
    }
    return [{"work": name, "N": size, "n": 1} | _rate(work, device) for name, work in works.items()]


def _many(size: int, n: int, device: torch.device) -> Row:
    model, data = network(size, 4, device=device)
    residual = ra.trace(model, data.test_x[:n]).residuals[-1]
    batch = ra.JacobianBatch(residual.branch, residual.input)
    v = torch.randn(n, BLOCK, *batch.in_shape, device=device)
    return {"work": f"J v, {BLOCK} vectors each", "N": math.prod(batch.in_shape), "n": n} | _rate(
        lambda: batch.matmat(v), device
    )


def _rate(work: Callable[[], Any], device: torch.device) -> Row:
    work()
    with FlopCounterMode(display=False) as counter:
        work()
    seconds = statistics.median(repeated(work, device))
    # the mode also counts the matrix products between the products
    counts = counter.get_flop_counts()["Global"]
    flops = sum(count for name, count in counts.items() if "conv" in str(name))
    return {"flops": flops, "seconds": seconds, "rate": flops / seconds}
