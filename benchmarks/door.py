"""What it costs to prove a branch's products, beside one product and beside a whole decomposition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

import resalign_utils as ra

from .operators import network
from .plan import Plan
from .recording import Row, Table, integer, key, number
from .timing import side_by_side

RANK = 10
BLOCK = 12  # vectors of a product


@dataclass(frozen=True)
class Blocks:
    """A kind of block: its state, or a fully-connected one of this width, at so many inputs."""

    label: str
    size: int
    n: int = 1
    connected: bool = False


BLOCKS = (
    Blocks("16 channels, 8 × 8", 1024),
    Blocks("16 channels, 14 × 14", 3136),
    Blocks("fully connected, width 64", 64, n=100, connected=True),
    Blocks("64 channels, 32 × 32", 65536),
)
QUICK = (Blocks("4 channels, 8 × 8", 256), Blocks("fully connected, width 16", 16, n=10, connected=True))


def door(plan: Plan) -> list[Table]:
    """Opening, a product and a decomposition, in turn."""
    rows = [_row(one, plan) for one in (QUICK if plan.quick else BLOCKS) if plan.goes_on(one.label)]
    columns = {
        "block": key("block"),
        "N": integer("N"),
        "inputs": integer("n"),
        "opening, ms": number("opening", ".2f"),
        "J v, ms": number("product", ".2f"),
        "decomposition, ms": number("whole", ".1f"),
        "opening / J v": number("products", ".1f"),
        "share of the decomposition": number("share", ".0%"),
    }
    note = (
        f"Opening evaluates the branch and proves its products. J v: one product with {BLOCK} vectors of each input. "
        f"Decomposition: `ra.jacobian_svd` of the one block, k = {RANK}, opening included. Medians, in turn."
    )
    return [Table("The price of the proof", columns, rows, note)]


def _row(one: Blocks, plan: Plan) -> Row:
    path = _path(one, plan.device)
    residual = path.residuals[0]
    operator = ra.JacobianBatch(residual.branch, residual.input)
    v = torch.randn(one.n, BLOCK, *operator.in_shape, device=plan.device)
    ways: dict[str, Callable[[], Any]] = {
        "opening": lambda: ra.JacobianBatch(residual.branch, residual.input),
        "product": lambda: operator.matmat(v),
        "whole": lambda: ra.jacobian_svd(path, RANK),
    }
    for work in ways.values():
        work()
    taken = {name: 1e3 * value for name, value in side_by_side(ways, plan.device, rounds=5).items()}
    ratios = {"products": taken["opening"] / taken["product"], "share": taken["opening"] / taken["whole"]}
    return {"block": one.label, "N": one.size, "n": one.n, **taken, **ratios}


def _path(one: Blocks, device: torch.device) -> ra.Trace:
    """The way through a network's last block alone."""
    if one.connected:
        data = ra.load_data("digits").to(device)
        model = ra.build_model(ra.ResNetConfig(depth=2, width=one.size), data, seed=0)
        ra.train(model, data, ra.TrainConfig(epochs=0))
        model.eval()
    else:
        model, data = network(one.size, 4, device=device)
    path = ra.trace(model, data.test_x[: one.n])
    return replace(path, residuals=path.residuals[-1:])
