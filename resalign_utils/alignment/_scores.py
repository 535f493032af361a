"""RA1 and RA2 as numbers, from steps and singular vectors; and the arithmetic that all scores share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..residuals import Residual
from ..svd import OperatorBatch
from ._svd import BlockSVD


def line_shape_score(steps: Tensor) -> Tensor:
    """Line-shape score of one run of steps (n, T, D): T / ‖Σ unit steps‖ (n,) (Gai & Zhang 2021).

    Steps of length zero have no direction and do not count in T; 0 where no step is left, ∞ where the unit steps
    cancel.
    """
    lengths = steps.norm(dim=-1)  # (n, T)
    units = steps / torch.where(lengths > 0, lengths, torch.ones_like(lengths))[..., None]
    moved = (lengths > 0).sum(1)
    return torch.where(moved > 0, moved / units.sum(1).norm(dim=-1), torch.zeros_like(lengths[:, 0]))


def trajectory_scores(residuals: list[Residual]) -> tuple[Tensor, Tensor, Tensor]:
    """RA1's two scores (n,), over runs of blocks of one shape weighted by their length, and the still steps (n, L)."""
    n, device = len(residuals[0].input), residuals[0].input.device
    still = torch.zeros(n, len(residuals), dtype=torch.bool, device=device)
    for index, residual in enumerate(residuals):
        if residual.step is not None:
            still[:, index] = residual.step.flatten(1).norm(dim=1) == 0
    scores, spreads, weights = [], [], []
    for run in _runs(residuals):
        steps = torch.stack(run, 1)  # (n, T, D)
        lengths = steps.norm(dim=-1)
        scores.append(line_shape_score(steps))
        spreads.append(ratio(lengths.std(1, correction=0), lengths.mean(1)))
        weights.append(len(run))
    if not weights:
        return residuals[0].input.new_full((n,), math.nan), residuals[0].input.new_full((n,), math.nan), still
    weight = torch.tensor(weights, device=device, dtype=scores[0].dtype) / sum(weights)
    return torch.stack(scores, 1) @ weight, torch.stack(spreads, 1) @ weight, still


def _runs(residuals: list[Residual]) -> list[list[Tensor]]:
    """Steps (n, D) of consecutive blocks of one shape, with nothing between them."""
    runs: list[list[Tensor]] = []
    open_run = False
    for residual in residuals:
        if residual.step is None:
            open_run = False
            continue
        if not (open_run and residual.follows):
            runs.append([])
        runs[-1].append(residual.step.flatten(1))
        open_run = True
    return runs


def couplings(
    residuals: Sequence[Residual], operators: Sequence[OperatorBatch], svds: Sequence[BlockSVD], k: int
) -> dict[str, Tensor]:
    """The three scores (n, L, L) of every block's Jacobian in the frames of every other."""
    n, blocks = len(svds[0].S), len(svds)
    names = ("coupling", "coupling_ordered", "coupling_mixed")
    scores = {name: svds[0].S.new_full((n, blocks, blocks), math.nan) for name in names}
    comparable = comparable_blocks(residuals)
    for i, (residual, operator, svd) in enumerate(zip(residuals, operators, svds, strict=True)):
        others = comparable[i].nonzero().flatten().tolist()
        diagonal, sigma = svd.S[:, :k], svd.S[:, :k].sum(1)
        frames = [svds[j] for j in others]
        in_frames = in_frames_of(operator, frames, k)  # (n, J, k, k) = U_jᵀ J_i V_j
        scores["coupling"][:, i, others] = ratio(_trace(in_frames), sigma[:, None])
        off = (in_frames - torch.diag_embed(diagonal)[:, None]).flatten(2).norm(dim=-1)
        size = diagonal.norm(dim=-1, keepdim=True)
        scores["coupling_ordered"][:, i, others] = torch.where(size > 0, 1 - ratio(off, size), 0.0)
        if residual.input.shape == residual.output.shape:
            mixed = in_frames_of(operator, frames, k, mixed=True)
            scores["coupling_mixed"][:, i, others] = ratio(_trace(mixed), sigma[:, None])
    return scores


def in_frames_of(operator: OperatorBatch, svds: Sequence[BlockSVD], k: int, *, mixed: bool = False) -> Tensor:
    """``U_jᵀ J V_j`` (n, J, k, k) of one Jacobian in J frames, mixed ``V_jᵀ J U_j``; all products in one call."""
    left, right = ("V", "U") if mixed else ("U", "V")
    vectors = torch.cat([getattr(svd, right)[:, :k] for svd in svds], 1)  # (n, J·k, *in)
    images = operator.matmat(vectors).flatten(2).unflatten(1, (len(svds), k))  # (n, J, k, m)
    frames = torch.stack([getattr(svd, left)[:, :k].flatten(2) for svd in svds], 1)
    return frames @ images.mT


def comparable_blocks(residuals: Sequence[Residual]) -> Tensor:
    shapes = [(r.input.shape[1:], r.output.shape[1:]) for r in residuals]
    same = [[a == b for b in shapes] for a in shapes]
    return torch.tensor(same, device=residuals[0].input.device)


def left_right(svd: BlockSVD, k: int) -> Tensor:
    u, v = svd.U[:, :k].flatten(2), svd.V[:, :k].flatten(2)
    if svd.U.shape != svd.V.shape:
        return svd.S.new_full((len(svd.S), k), math.nan)
    return (u * v).sum(-1) * (svd.S[:, :k] > 0)


def affine_share(residual: Residual, svd: BlockSVD) -> Tensor:
    motion = (svd.U[:, 0] * residual.branch(residual.input)).flatten(1).sum(1)  # u₁ᵀ F(h), (n,)
    linear = svd.S[:, 0] * (svd.V[:, 0] * residual.input).flatten(1).sum(1)  # u₁ᵀ J h
    return torch.where((motion != 0) & (svd.S[:, 0] > 0), 1 - ratio(linear, motion), 0.0)


def fit_line(x: Tensor, y: Tensor) -> Tensor:
    """(slope, intercept, r2) of the least-squares line, NaN with fewer than three points."""
    if len(x) < 3:
        return x.new_full((3,), math.nan)
    dx, dy = x - x.mean(), y - y.mean()
    slope = (dx * dy).sum() / dx.square().sum()
    total = dy.square().sum()
    rest = (dy - slope * dx).square().sum()
    # a constant is fitted perfectly, but there is no variance to explain
    r2 = 1 - rest / total if total > 0 else torch.zeros_like(total)
    return torch.stack([slope, y.mean() - slope * x.mean(), r2])


def mean_over(scores: Tensor, pairs: Tensor) -> Tensor:
    """Mean of (n, L, L) over the chosen pairs (L, L); NaN if there are none."""
    return scores[:, pairs].mean(1)


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator, and 0 where the denominator is 0 (a dead block)."""
    live = denominator != 0
    return torch.where(live, numerator / torch.where(live, denominator, torch.ones_like(denominator)), 0.0)


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=-2, dim2=-1).sum(-1)
