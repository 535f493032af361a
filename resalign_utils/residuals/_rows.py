"""The proof that no input of a batch meets another one, nor chance: some are changed, and the rest must stay.

It is taken of the whole model, since inputs can meet in a stem, a shortcut or a head as well as in a branch. Only
evaluations of the same shape are compared: others round differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..arithmetic import or_one
from ..precision import in_double
from ._inputs import Inputs
from ._watch import Call

Run = Callable[[Inputs], tuple[list[Call], Tensor]]
_OUTSIDE = "a layer outside of its residual blocks"
# What rows that should be the same may differ by, relative to the largest entry of a row
_SAME = {torch.float32: 1e-3, torch.float64: 1e-9}


@dataclass(frozen=True)
class _Run:
    """One evaluation of a model: the calls of its blocks, and its output (n, C)."""

    calls: list[Call]
    logits: Tensor


def check_rows(model: nn.Module, inputs: Inputs, run: Run, calls: list[Call], logits: Tensor) -> None:
    """Refuse a model in which a row of a state or of the logits depends on other inputs than its own, or on chance.

    Args:
        model: with residual blocks.
        inputs: n of them.
        run: evaluates the model at some inputs and gives the calls of its blocks and its output.
        calls: of its blocks at ``inputs``.
        logits: its output there.

    Raises:
        ValueError: a row does; the text names the block where it begins, if it is one.
    """
    for before, after, kept in _pairs(inputs):
        try:
            one = _Run(calls, logits) if before is inputs else _Run(*run(before))
            other = _Run(*run(after))
        except torch.OutOfMemoryError:
            raise
        except Exception:  # it does not take these values, or two rows: only chance can be looked for
            before = after = inputs
            kept = torch.arange(len(inputs), device=inputs.data.device)
            one, other = _Run(calls, logits), _Run(*run(inputs))
        if _first_difference(one, other, kept, 0.0) is not None:
            _refuse(model, run, before, after, kept, one, other)


def _pairs(inputs: Inputs) -> Iterator[tuple[Inputs, Inputs, Tensor]]:
    """Pairs of batches of one shape, and the rows (r,) that are the same in both; each row is kept in one."""
    x = inputs.data
    place = torch.arange(len(x), device=x.device)
    if len(x) == 1:  # a mean over one row is the row: give it a neighbour
        continuous = x.is_floating_point() or x.is_complex()
        double = inputs.rows(torch.zeros(2, dtype=torch.long))
        one = double.with_data(torch.cat([x, _changed(x, 0)]))
        yield one, double.with_data(torch.cat([x, _changed(x, 1) if continuous else x])), place
        return
    halves = [place < len(x) // 2, place % 2 == 0]  # the second split parts neighbours, which may meet in pairs
    for half in halves[: 2 if len(x) > 2 else 1]:
        for way, kept in enumerate((half, ~half)):
            mixed = torch.where(kept.reshape(-1, *[1] * (x.dim() - 1)), x, _changed(x, way))
            yield inputs, inputs.with_data(mixed), place[kept]


def _changed(x: Tensor, way: int) -> Tensor:
    """Other inputs (n, ...) of the same kind, in two ways; every row differs from what it was by value."""
    if x.dtype == torch.bool:
        return ~x
    if not x.is_floating_point() and not x.is_complex():  # token numbers: those that are there
        moved = x.flatten(1).roll(way + 1, 1).reshape(x.shape)
        same = (moved == x).flatten(1).all(1).reshape(-1, *[1] * (x.dim() - 1))
        return torch.where(same, torch.where(x > 0, x - 1, x + 1), moved)
    size = x.flatten(1).abs().square().mean(1).sqrt()
    size = or_one(size).reshape(-1, *[1] * (x.dim() - 1))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(way)).to(x)
    return 4 * size * noise + (x if way == 0 else -2 * x)  # larger, so that a maximum over rows changes


def _refuse(model: nn.Module, run: Run, before: Inputs, after: Inputs, kept: Tensor, one: _Run, other: _Run) -> None:
    """Raise if the difference is more than rounding: of rows that are routed together, say."""
    tolerance, every = _SAME[one.calls[0].output.dtype], torch.arange(len(before), device=before.data.device)
    again = _Run(*run(before))  # not in float64, where what a model writes into its buffers may be lost
    if (where := _first_difference(one, again, every, tolerance)) is not None:
        raise ValueError(
            f"Two evaluations of {type(model).__name__} at the same inputs differ; the first to differ is {where}. It "
            "draws by chance in eval mode too, or remembers: F.dropout needs training=self.training."
        )
    doubled = _doubled(run, before, after, one)
    if doubled is not None:
        (one, other), tolerance = doubled, _SAME[torch.float64]
    if (where := _first_difference(one, other, kept, tolerance)) is not None:
        where = f"{where[0].upper()}{where[1:]}"
        raise ValueError(
            f"{where}: its result for one input depends on the other inputs of the batch. Where some of them are "
            "changed, it gives the others another result. Residual Jacobians are defined for one input at a time: take "
            "out what mixes the batch (statistics of the batch, attention or a sequence along its first dimension)."
        )


def _doubled(run: Run, before: Inputs, after: Inputs, one: _Run) -> tuple[_Run, _Run] | None:
    """Both evaluations in float64; None where that is not what the model computes."""
    try:
        runs = _in_double(run, before), _in_double(run, after)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # it asks for a dtype, or is compiled
        return None
    every = torch.arange(len(before), device=before.data.device)
    return runs if _first_difference(one, runs[0], every, 1e-2) is None else None


def _in_double(run: Run, inputs: Inputs) -> _Run:
    return _Run(*in_double(lambda *tensors: run(inputs.with_tensors(tensors)), *inputs.tensors))


def _first_difference(one: _Run, other: _Run, kept: Tensor, tolerance: float) -> str | None:
    """Where the rows ``kept`` begin to differ, None if they do not."""
    for a, b in zip(one.calls, other.calls, strict=False):
        if a.block is not b.block or _differ(a.input, b.input, kept, tolerance):
            return f"{_OUTSIDE}, before {a.label}"
        if _differ(a.output, b.output, kept, tolerance):
            return a.label
    if len(one.calls) != len(other.calls) or _differ(one.logits, other.logits, kept, tolerance):
        return _OUTSIDE
    return None


def _differ(a: Tensor, b: Tensor, kept: Tensor, tolerance: float) -> bool:
    if a.shape != b.shape or a.dim() == 0 or len(a) <= int(kept.max()):
        return a.shape != b.shape or not torch.equal(a, b)  # not one row for each input: compared as a whole
    a, b = a[kept].flatten(1), b[kept].flatten(1)
    if torch.equal(a, b):
        return False
    if not torch.equal(a.isfinite(), b.isfinite()):
        return True
    a, b = a.nan_to_num().to(b.dtype), b.nan_to_num()
    return bool(((a - b).abs().amax(1) > tolerance * a.abs().amax(1)).any())
