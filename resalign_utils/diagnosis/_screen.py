"""The forward pass alone: how straight and how even the states of an input march."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..alignment import trajectory_scores
from ..arithmetic import or_one, ratio
from ..residuals import Trace


@dataclass(frozen=True)
class Screen:
    """What the states h_0..h_L of n inputs tell without a derivative.

    Attributes:
        line_shape_score: (n,) RA1, in [1, ∞], see :class:`AlignmentReport`.
        step_cv: (n,) RA1, standard deviation over mean of the step lengths.
        step_length: (n, L) ‖h_ℓ − h_{ℓ−1}‖, NaN where a block changes the shape.
        step_share: (n, L) the same over ‖h_{ℓ−1}‖.
        turn: (n, L−1) cosine of the angle between the steps of blocks ℓ and ℓ+1; NaN where they have other shapes or do
            not follow each other, or a step has no length.
        tokens_per_input: of how many tokens of one input there are rows, one after the other; 1 for whole states.
    """

    line_shape_score: Tensor
    step_cv: Tensor
    step_length: Tensor
    step_share: Tensor
    turn: Tensor
    tokens_per_input: int = 1


@torch.no_grad()
def screen(path: Trace, tokens_per_input: int = 1) -> Screen:
    """The screen of a trace, of inputs or of their tokens."""
    line_shape, cv, _ = trajectory_scores(path.residuals)
    n = len(path.residuals[0].input)
    unknown = path.residuals[0].input.new_full((n,), torch.nan)
    lengths, shares, turns = list[Tensor](), list[Tensor](), list[Tensor]()
    for residual in path.residuals:
        length = unknown if residual.step is None else residual.step.flatten(1).norm(dim=1)
        lengths.append(length)
        shares.append(ratio(length, residual.input.flatten(1).norm(dim=1)))
    for first, second in zip(path.residuals, path.residuals[1:], strict=False):
        a, b = first.step, second.step
        if a is None or b is None or a.shape != b.shape or not second.follows:
            turns.append(unknown)
            continue
        a, b = (step.flatten(1) / or_one(step.flatten(1).norm(dim=1))[:, None] for step in (a, b))
        cosine = (a * b).sum(1)
        turns.append(torch.where((a != 0).any(1) & (b != 0).any(1), cosine, torch.nan))
    turn = torch.stack(turns, 1) if turns else unknown.new_empty(n, 0)
    return Screen(line_shape, cv, torch.stack(lengths, 1), torch.stack(shares, 1), turn, tokens_per_input)


def join_screens(screens: Sequence[Screen]) -> Screen:
    """The screens of several networks, one after the other."""
    names = ("line_shape_score", "step_cv", "step_length", "step_share", "turn")
    joined = {name: torch.cat([getattr(one, name) for one in screens]) for name in names}
    return Screen(**joined, tokens_per_input=screens[0].tokens_per_input)
