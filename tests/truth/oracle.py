"""Derivatives that know nothing of the package, and what the package says beside them."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import resalign_utils as ra

from .branches import Row

F64 = torch.float64
PACKAGE = Path(ra.__file__).resolve().parent
# How far a right number may be from the truth, relative to the Frobenius norm of J times that of the block.
TOLERANCE = {"autograd": {F64: 1e-10, torch.float32: 1e-4}, "difference": {F64: 1e-7, torch.float32: 1e-3}}
PRODUCTS = ("dense_jacobians", "dense", "matmat 1", "matmat 5", "rmatmat 1", "rmatmat 5", "matmat 5 again")


def by_autograd(branch: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
    """J (m, d) at one row (1, *in): one call of ``torch.autograd.grad`` for each entry of the output."""
    leaf = point.clone().requires_grad_()
    entries = branch(leaf.clone()).flatten()  # a clone, which a branch may write on
    if not entries.requires_grad:
        return point.new_zeros(len(entries), point.numel())
    rows = [torch.autograd.grad(entry, leaf, retain_graph=True, allow_unused=True)[0] for entry in entries]
    return torch.stack([torch.zeros_like(point) if row is None else row for row in rows]).flatten(1)


@torch.no_grad()
def by_difference(branch: Callable[[Tensor], Tensor], point: Tensor, step: float = 2e-4) -> tuple[Tensor, float]:
    """J (m, d) at one row (1, *in), and how far its two last estimates are apart, relative to it.

    Central differences at two steps and their Richardson extrapolation, which is exact for polynomials of degree four.
    """
    columns, moved = [], 0.0
    for unit in torch.eye(point.numel()).to(point):
        shift = step * unit.reshape(point.shape)
        ends = [branch(point + by * shift).flatten().double() for by in (1, -1, 0.5, -0.5)]
        wide, narrow = (ends[0] - ends[1]) / (2 * step), (ends[2] - ends[3]) / step
        columns.append((4 * narrow - wide) / 3)
        moved = max(moved, float((columns[-1] - narrow).norm()))
    jacobian = torch.stack(columns, -1)
    return jacobian, moved / max(float(jacobian.norm()), 1e-3)


def true_jacobians(row: Row, x: Tensor) -> tuple[Tensor, Tensor]:
    """(n, m, d) in float64 by the row's oracle, each row alone on a fresh copy, and an output (*out)."""
    matrices = []
    for i, point in enumerate(x.double()):
        branch = row.fresh()
        alone = row.row_of(branch, i) if row.row_of else branch
        out = alone(point[None].clone())[0]
        if row.oracle == "autograd":
            matrices.append(by_autograd(alone, point[None]))
        else:
            matrices.append(by_difference(alone, point[None])[0])
    return torch.stack(matrices), out


@dataclass(frozen=True)
class Outcome:
    """How one product ended: ``kind`` is right, refused, WRONG, crash or spoiled; ``text`` says more."""

    kind: str
    text: str = ""
    size: float = 0.0  # of the error, where it is one of a number

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}" if self.text else self.kind


def settings_of(branch: Any) -> dict[str, Any]:
    """What a call must leave as it was: torch's attention settings, and the gradients of the branch."""
    cuda, module = torch.backends.cuda, branch if isinstance(branch, nn.Module) else nn.Module()
    return {
        "flash": cuda.flash_sdp_enabled(),
        "memory-efficient": cuda.mem_efficient_sdp_enabled(),
        "math": cuda.math_sdp_enabled(),
        "cudnn": cuda.cudnn_sdp_enabled(),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "grad mode": torch.is_grad_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "train mode": [part.training for part in module.modules()],
        "parameters' requires_grad": [p.requires_grad for p in module.parameters()],
        "parameters' grad": [p.grad is not None for p in module.parameters()],
        "buffers' requires_grad": [b.requires_grad for b in module.buffers()],
    }


def attempt(action: Callable[[], Any], branch: Any, x: Tensor) -> tuple[Any, Outcome | None]:
    """The result of an action, or how it ended; the points are put back if the action has changed them."""
    before, point = settings_of(branch), x.clone()
    result, outcome = None, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the number counts here
            result = action()
    except Exception as error:
        outcome = (
            Outcome("refused", str(error))
            if deliberate(error)
            else Outcome("crash", f"{type(error).__name__}: {error}")
        )
    changed = [name for name, value in settings_of(branch).items() if value != before[name]]
    changed += [] if torch.equal(point, x) else ["the input"]
    x.copy_(point)
    return result, Outcome("spoiled", ", ".join(changed)) if changed else outcome


def deliberate(error: Exception) -> bool:
    """Whether the package refuses, by a ``raise`` of its own of a ValueError or TypeError, and not by accident."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    own = PACKAGE in Path(place.filename).resolve().parents and (place.line or "").startswith("raise")
    return own and isinstance(error, ValueError | TypeError)


def calls(operator: Any, x: Tensor) -> dict[str, tuple[Callable[[], Tensor], str, Tensor | None]]:
    """Each product with an operator: the call, whether of J or its transpose, and the block."""
    generator = torch.Generator().manual_seed(2)
    single = isinstance(operator, ra.JacobianOperator)
    found: dict[str, tuple[Callable[[], Tensor], str, Tensor | None]] = {"dense": (operator.dense, "J", None)}
    for name in PRODUCTS[2:]:
        kind, k, *_ = name.split()
        shape = operator.in_shape if kind == "matmat" else operator.out_shape
        block = torch.randn(len(x), int(k), *shape, generator=generator).to(x)
        method = getattr(operator, kind)
        found[name] = (lambda method=method, b=block: method(b[0] if single else b), kind, block)
    return found


def compare(got: Any, kind: str, block: Tensor | None, truth: Callable[[], tuple[Tensor, Tensor]], row: Row) -> Outcome:
    """A number beside the truth (n, m, d): ``J``, ``J v`` or ``Jᵀ u``."""
    if row.oracle == "none":
        return Outcome("WRONG", "a number, where there is no right one")
    jacobians, out = truth()
    flat = None if block is None else block.reshape(*block.shape[:2], -1).double()  # (n, k, ·)
    if flat is None:
        want, shape = jacobians, tuple(jacobians.shape)
    elif kind == "matmat":
        want, shape = flat @ jacobians.mT, (*flat.shape[:2], *out.shape)
    else:
        want, shape = flat @ jacobians, (*flat.shape[:2], *row.shape)
    got = got[None] if got.dim() == len(shape) - 1 else got  # a single operator leaves out n = 1
    if tuple(got.shape) != shape:
        return Outcome("WRONG", f"shape {tuple(got.shape)} for {shape}")
    scale = float(jacobians.norm()) * (1 if flat is None else float(flat.norm()))
    error = float((got.double().flatten() - want.flatten()).norm()) / (scale or 1.0)
    if error <= max(TOLERANCE[row.oracle].get(dtype, 0) for dtype in (got.dtype, out.dtype)):
        return Outcome("right", size=error)
    return Outcome("WRONG", f"by {error:.1e} of the norm", error)


def measure(row: Row, n: int, dtype: torch.dtype = F64) -> dict[str, Outcome]:
    """What comes of each product with a row's Jacobians at n points."""
    x, kept = row.points(n, dtype), []

    def truth() -> tuple[Tensor, Tensor]:
        return kept[0] if kept else kept.append(true_jacobians(row, x)) or kept[0]

    branch = row.fresh(dtype)
    outcomes, got = {}, None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        got, ended = attempt(lambda: ra.dense_jacobians(branch, x), branch, x)
        outcomes["dense_jacobians"] = ended or compare(got, "J", None, truth, row)
        branch, kind = row.fresh(dtype), ra.JacobianOperator if n == 1 else ra.JacobianBatch
        operator, ended = attempt(lambda: kind(branch, x), branch, x)
        if ended:
            return outcomes | dict.fromkeys(PRODUCTS[1:], ended)
        for name, (call, side, block) in calls(operator, x).items():
            got, ended = attempt(call, branch, x)
            outcomes[name] = ended or compare(got, side, block, truth, row)
    return outcomes


def faults(row: Row, n: int, outcomes: dict[str, Outcome]) -> list[str]:
    """The products that are neither right nor refused, or not as the row must be."""
    allowed = {"right": ("right",), "refused": ("refused",), "either": ("right", "refused")}[row.verdict(n)]
    return [f"{name} is {outcome}" for name, outcome in outcomes.items() if outcome.kind not in allowed]
