"""RA1 and RA2 as numbers, from steps and singular vectors; and the arithmetic that all scores share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..arithmetic import or_one, ratio
from ..operators import OperatorBatch
from ..residuals import Residual
from ..svd import TruncatedSVD, numerical_rank, unit_of
from ._svd import BlockSVD


def line_shape_score(steps: Tensor) -> Tensor:
    """Line-shape score of one run of steps (n, T, D): T / ‖Σ unit steps‖ (n,) (Gai & Zhang 2021).

    Steps of length zero have no direction and do not count in T; 0 where no step is left, ∞ where the unit steps
    cancel.
    """
    steps = in_own_unit(steps, (-1,))
    lengths = steps.norm(dim=-1)  # (n, T)
    units = steps / or_one(lengths)[..., None]
    moved = (lengths > 0).sum(1)
    return torch.where(moved > 0, moved / units.sum(1).norm(dim=-1), torch.zeros_like(lengths[:, 0]))


def trajectory_scores(residuals: list[Residual]) -> tuple[Tensor, Tensor, Tensor]:
    """RA1's two scores (n,), over runs of blocks of one shape weighted by their length, and the still steps (n, L)."""
    n, device = len(residuals[0].input), residuals[0].input.device
    still = torch.zeros(n, len(residuals), dtype=torch.bool, device=device)
    for index, residual in enumerate(residuals):
        if residual.step is not None:
            still[:, index] = (residual.step.flatten(1) == 0).all(1)
    scores, spreads, weights = [], [], []
    runs = _runs(residuals)
    if len(residuals) > 1 and all(len(run) == 1 for run in runs):
        runs = []  # single steps have no shape
    for run in runs:
        steps = torch.stack(run, 1)  # (n, T, D)
        lengths = in_own_unit(steps, (1, 2)).norm(dim=-1)
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


@dataclass(frozen=True)
class Frames:
    """The first k singular vectors of J blocks of one shape, left (n, J, k, *out) and right (n, J, k, *in).

    Vectors behind a block's numerical rank are zero: they are noise, which depends on the library that computed it.
    """

    left: Tensor
    right: Tensor


def frames_of(svds: Sequence[TruncatedSVD], k: int, tol: float) -> Frames:
    known = torch.stack([_known(svd, k, tol) for svd in svds], 1)  # (n, J, k)

    def stacked(side: str) -> Tensor:
        vectors = torch.stack([getattr(svd, side)[:, :k] for svd in svds], 1)
        return vectors.mul_(known.reshape(*known.shape, *[1] * (vectors.dim() - 3)))

    return Frames(stacked("U"), stacked("V"))


def couplings(
    residuals: Sequence[Residual], operators: Sequence[OperatorBatch], svds: Sequence[BlockSVD], k: int, tol: float
) -> dict[str, Tensor]:
    """The four scores (n, L, L) of every block's Jacobian in the frames of every other."""
    n, blocks = len(svds[0].S), len(svds)
    names = ("coupling", "coupling_ordered", "coupling_mixed", "misalignment")
    scores = {name: svds[0].S.new_full((n, blocks, blocks), math.nan) for name in names}
    comparable, frames, framed = comparable_blocks(residuals), None, list[int]()
    for i, (residual, operator, svd) in enumerate(zip(residuals, operators, svds, strict=True)):
        others = comparable[i].nonzero().flatten().tolist()
        diagonal, sigma = svd.S[:, :k], svd.S[:, :k].sum(1)
        if frames is None or others != framed:
            frames, framed = frames_of([svds[j] for j in others], k, tol), others
        inside = in_frames(operator, frames)  # (n, J, k, k) = U_jᵀ J_i V_j
        scores["coupling"][:, i, others] = ratio(_trace(inside), sigma[:, None])
        unit = unit_of(svd.S[:, :1])
        target = torch.diag_embed(diagonal)[:, None]
        off, unsigned = (((a - target).flatten(2) / unit[..., None]).norm(dim=-1) for a in (inside, inside.abs()))
        size = (diagonal / unit).norm(dim=-1, keepdim=True)
        scores["coupling_ordered"][:, i, others] = torch.where(size > 0, 1 - ratio(off, size), 0.0)
        scores["misalignment"][:, i, others] = torch.where(size > 0, ratio(unsigned, size), 1.0)
        if residual.input.shape == residual.output.shape:
            mixed = in_frames(operator, frames, mixed=True)
            scores["coupling_mixed"][:, i, others] = ratio(_trace(mixed), sigma[:, None])
        operator.release()
    return scores


def in_frames(operator: OperatorBatch, frames: Frames, *, mixed: bool = False) -> Tensor:
    """``U_jᵀ J V_j`` (n, J, k, k) of one Jacobian in J frames, mixed ``V_jᵀ J U_j``; all products in one call."""
    left, right = (frames.right, frames.left) if mixed else (frames.left, frames.right)
    images: Tensor = operator.matmat(right.flatten(1, 2)).flatten(2).unflatten(1, right.shape[1:3])  # (n, J, k, m)
    return left.flatten(3) @ images.mT


def comparable_blocks(residuals: Sequence[Residual]) -> Tensor:
    shapes = [(r.input.shape[1:], r.output.shape[1:]) for r in residuals]
    same = [[a == b for b in shapes] for a in shapes]
    return torch.tensor(same, device=residuals[0].input.device)


def left_right(svd: BlockSVD, k: int, tol: float) -> Tensor:
    """u_κ · v_κ (n, k); NaN behind the numerical rank, and where left and right have different shapes."""
    u, v = svd.U[:, :k], svd.V[:, :k]
    if u.shape != v.shape:
        return svd.S.new_full((len(svd.S), k), math.nan)
    return torch.where(_known(svd, k, tol), (u * v).flatten(2).sum(-1), math.nan)


def _known(svd: TruncatedSVD, k: int, tol: float) -> Tensor:
    """Whether a vector's number is not above the numerical rank, (n, k)."""
    return torch.arange(k, device=svd.S.device) < rank_of(svd, tol)[:, None]


def rank_of(svd: TruncatedSVD, tol: float) -> Tensor:
    """Numerical rank (n,), as far as singular values were computed."""
    return numerical_rank(svd.S, (svd.U[0, 0].numel(), svd.V[0, 0].numel()), tol)


def affine_share(residual: Residual, svd: BlockSVD) -> Tensor:
    motion = (svd.U[:, 0] * residual.branch(residual.input.clone())).flatten(1).sum(1)  # u₁ᵀ F(h), (n,)
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
    # a constant is fitted perfectly, but beyond rounding there is no variance to explain
    rounding = len(y) * (10 * torch.finfo(y.dtype).eps * y.abs().max()).square()
    r2 = 1 - rest / total if total > rounding else torch.zeros_like(total)
    return torch.stack([slope, y.mean() - slope * x.mean(), r2])


def mean_over(scores: Tensor, pairs: Tensor) -> Tensor:
    """Mean of (n, L, L) over the chosen pairs (L, L); NaN if there are none."""
    return scores[:, pairs].mean(1)


def in_own_unit(values: Tensor, dimensions: tuple[int, ...]) -> Tensor:
    """Values over a power of two of the size of the largest one along the dimensions."""
    return values / unit_of(values.abs().amax(dimensions, keepdim=True))


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=-2, dim2=-1).sum(-1)
