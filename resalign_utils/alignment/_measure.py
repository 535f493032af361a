"""From a model and its inputs to a report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..arithmetic import exact_arithmetic, or_one, ratio
from ..residuals import BlockTable, ModelInputs, Residual, Tokens, Trace, at_tokens, inputs_of, trace
from ..svd import Method, SVDOptions, check_rank, whole_number
from ._report import AlignmentReport
from ._scores import (
    affine_share,
    comparable_blocks,
    couplings,
    frames_of,
    in_frames,
    left_right,
    mean_over,
    rank_of,
    trajectory_scores,
)
from ._svd import method_for, open_and_decompose, smallest_shape, split

FEW_CLASSES = 20  # up to so many, σ_{C+1} is computed without being asked for
DEAD = 1e-3  # of the median over blocks: a σ_1 below it


@torch.no_grad()
def measure_alignment(
    model: nn.Module,
    x: ModelInputs,
    *,
    k: int | None = None,
    rank: int | None = None,
    num_classes: int | None = None,
    tokens: Tokens | None = None,
    blocks: BlockTable | Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    whole: bool = False,
    method: Method = "auto",
    tol: float = 1e-4,
    seed: int = 0,
) -> AlignmentReport:
    """Measure Residual Alignment of a network at n inputs, each at its own true states.

    Args:
        model: a network in eval mode; its blocks are found, see :func:`find_blocks`.
        x: inputs (n, ...), for images (n, c, h, w), or a tuple or dictionary of arguments; ``ImageData.sample()`` gives
            ten test images of each class.
        k: number of singular vectors compared; min(C, 10) if not given, 10 without classes, or fewer if a block has
            fewer.
        rank: number of singular values computed, at least k. If not given, C + 5 for up to 20 classes, so that RA3's
            σ_{C+1} is among them, else k.
        num_classes: C; the length of the logits (n, C) if not given. Without classes, RA3's scores are NaN.
        tokens: of a transformer, whose states are (n, T, D): the positions t at which a block's output is
            differentiated by its input at t, as in Aubry et al. (2025): numbers, "last", "all", or "auto", the last of
            text and else another one of each input. Each is a row of the report. If not given, states are taken whole.
        blocks: names of the blocks that are measured, or a table of them, as in :func:`trace`.
        exclude: names of blocks to leave out.
        whole: whether the sums of one module count as one block, as in :func:`trace`.
        method: how the singular vectors are computed, see :func:`jacobian_svd`; for each block the cheaper way.
        tol: residual, relative to σ_1, at which the Krylov method stops; and, with every method, the share of σ_1 up
            to which a singular value counts as zero and its vectors as noise (``rank``).
        seed: of its random vectors.

    Returns:
        An :class:`AlignmentReport` on x's device.

    Warns:
        RuntimeWarning: singular triplets have not converged.

    Raises:
        ValueError: what :func:`trace` refuses; a block whose derivative cannot be proved; k, rank, num_classes or
            tokens out of range, or no whole number; tokens of states that are no sequences.

    Example:
        Three blocks with one linear branch have the same singular vectors:

        >>> import torch, resalign_utils as ra
        >>> layer = torch.nn.Linear(4, 4)
        >>> blocks = [ra.ResidualBlock(layer, skip=1.0, post=False) for _ in range(3)]
        >>> model = ra.ResNet(torch.nn.Identity(), blocks, torch.nn.Linear(4, 2)).eval()
        >>> report = ra.measure_alignment(model, torch.randn(5, 4))
        >>> tuple(report.coupling.shape)
        (5, 3, 3)
        >>> round(report.summary()["alignment"], 4)
        1.0
    """
    path = trace(model, x, blocks=blocks, exclude=exclude, whole=whole)
    positions = torch.empty(0, dtype=torch.long)
    if tokens is not None:
        path, positions = at_tokens(path, tokens, text=not inputs_of(x).data.is_floating_point())
    classes = _classes_of(path) if num_classes is None else _checked_classes(num_classes)
    return measure_path(path, k, rank, classes, SVDOptions(method, tol, seed), positions)


@torch.no_grad()
def measure_path(
    path: Trace,
    k: int | None,
    rank: int | None,
    classes: int | None,
    options: SVDOptions,
    positions: Tensor,
    after_block: Callable[[], None] = lambda: None,
) -> AlignmentReport:
    """The report of a trace, see :func:`measure_alignment`; ``positions`` (n,) are of tokens, if any."""
    k, rank, side = _sizes(path, k, rank, classes)
    parts = [
        _measure_jacobians(part, k, rank, options, first, after_block)
        for first, part in split(path.residuals, rank, options)
    ]
    tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    sigma, comparable = tensors["singular_values"], comparable_blocks(path.residuals)
    pairs = comparable & ~torch.eye(len(path.residuals), dtype=torch.bool, device=sigma.device)
    line_shape, cv, still = trajectory_scores(path.residuals)
    energy, error = tensors.pop("stable_rank"), tensors.pop("stable_rank_error")
    unknown = torch.full_like(energy, math.nan)
    sides = torch.tensor([min(r.input[0].numel(), r.output[0].numel()) for r in path.residuals], device=sigma.device)
    known = torch.zeros_like(sides, dtype=torch.bool)
    if classes is not None:  # (L,): whether all that there are of σ_1..σ_C were computed
        known = (sides <= rank) | (classes <= rank)
    relative = sigma[..., : min(classes or rank, rank)] / or_one(sigma[..., :1])
    share = torch.where(known, ratio(relative.square().sum(-1), energy).clamp(max=1), math.nan)
    top = sigma[..., 0]
    return AlignmentReport(
        line_shape_score=line_shape,
        step_cv=cv,
        rank_energy=share,
        rank_energy_error=share * ratio(error, energy),
        rank_drop=ratio(sigma[..., classes], top) if classes is not None and classes < rank else unknown,
        alignment=mean_over(tensors["coupling"], pairs),
        dead=top <= DEAD * top.quantile(0.5, 1, keepdim=True),
        still=still,
        comparable=comparable,
        num_classes=classes,
        k=k,
        block_names=tuple(r.name for r in path.residuals),
        missing=_missing(classes, rank, side, bool(known.all())) | _missing_shape(line_shape),
        tokens=tuple(positions.tolist()),
        tokens_per_input=max(1, len(positions) // len(path.logits)),
        **tensors,
    )


@torch.no_grad()
def coupling_matrices(
    path: Trace,
    k: int,
    *,
    mixed: bool = False,
    method: Method = "auto",
    tol: float = 1e-4,
    seed: int = 0,
) -> Tensor:
    """The matrices behind the coupling scores: block i's Jacobian in the singular frames of block j.

    Args:
        path: what :func:`trace` returned, of blocks of one shape; the result has n·L²·k² entries, so of few inputs.
        k: number of singular vectors.
        mixed: ``V_jᵀ J_i U_j`` (Li & Papyan's "VJU") in place of ``U_jᵀ J_i V_j`` ("UJV").
        method: how the singular vectors are computed, see :func:`jacobian_svd`.
        tol: residual, relative to σ_1, at which the Krylov method stops; and, with every method, the share of σ_1 up
            to which a singular value's vectors count as noise, and are zero here.
        seed: of its random vectors.

    Returns:
        (n, L, L, k, k), ``[:, i, j] = U_jᵀ J_i V_j``; diagonal in every panel iff the vectors agree one by one.

    Raises:
        ValueError: blocks of different shapes, or k out of range.
    """
    if not comparable_blocks(path.residuals).all():
        raise ValueError("Coupling matrices need blocks between equal shapes. Trace a part of constant shape.")
    k, options, parts = check_rank(k, smallest_shape(path.residuals)), SVDOptions(method, tol, seed), []
    for first, residuals in split(path.residuals, k, options):
        operators, svds = zip(*open_and_decompose(residuals, k, options, first), strict=True)
        frames = frames_of(svds, k, tol)
        parts.append(torch.stack([in_frames(operator, frames, mixed=mixed) for operator in operators], 1))
    return torch.cat(parts)


def _measure_jacobians(
    residuals: list[Residual], k: int, rank: int, options: SVDOptions, first: int, after_block: Callable[[], None]
) -> dict[str, Tensor]:
    """Everything that needs the Jacobians, for the inputs of ``residuals``; all operators live at once."""
    operators, svds = [], []
    for operator, svd in open_and_decompose(residuals, rank, options, first):
        operators.append(operator)
        # of the vectors behind k only the singular values are reported: those of large networks fill gigabytes
        svds.append(svd if k == rank else replace(svd, U=svd.U[:, :k].clone(), V=svd.V[:, :k].clone()))
        after_block()
    numbers = {"S": "singular_values"} | {name: name for name in ("residuals", "stable_rank", "stable_rank_error")}
    with exact_arithmetic(residuals[0].input.device):
        shares = [affine_share(r, svd) for r, svd in zip(residuals, svds, strict=True)]
    return {
        **{name: torch.stack([getattr(svd, field) for svd in svds], 1) for field, name in numbers.items()},
        "rank": torch.stack([rank_of(svd, options.tol) for svd in svds], 1),
        "left_right": torch.stack([left_right(svd, k, options.tol) for svd in svds], 1),
        "affine_share": torch.stack(shares, 1),
        **couplings(residuals, operators, svds, k, options.tol),
    }


def _missing_shape(line_shape: Tensor) -> dict[str, str]:
    if not line_shape.isnan().all():
        return {}
    said = "No two blocks of one shape follow each other directly: their steps make no line."
    return {"line_shape_score": said, "step_cv": said}


def _missing(classes: int | None, rank: int, side: int, known: bool) -> dict[str, str]:
    """Why a score of RA3 is NaN; ``known`` says whether σ_1..σ_C are, as far as there are so many."""
    if classes is None:
        said = "The output is no logits (n, C): there is no number of classes. Give num_classes= if there is one."
        return {"rank_drop": said, "rank_energy": said}
    if classes < rank:
        return {}
    if rank == side:
        said = f"A Jacobian has {side} singular values, no more than there are classes ({classes})"
        if known:
            return {"rank_drop": f"{said}."}
        said += ", so no more were computed of any block. Measure blocks of other sizes apart to see theirs."
        return {"rank_drop": said, "rank_energy": said}
    said = (
        f"With {classes} classes it needs {classes + 1} singular values, and {rank} were computed. Call "
        f"measure_alignment(..., rank={min(side, classes + 1)})."
    )
    return {"rank_drop": said} if classes == rank else {"rank_drop": said, "rank_energy": said}


def all_formed(path: Trace, k: int | None, classes: int | None) -> bool:
    """Whether every Jacobian of a trace is so small that :func:`measure_path` forms it, if the method is "auto"."""
    _, rank, _ = _sizes(path, k, None, classes)
    return all(method_for(residual, rank, SVDOptions("auto")) == "dense" for residual in path.residuals)


def _sizes(path: Trace, k: int | None, rank: int | None, classes: int | None) -> tuple[int, int, int]:
    """The numbers of vectors and of values that are asked for, and how many values the smallest block has."""
    side = min(smallest_shape(path.residuals))
    k = min(classes or 10, 10, side) if k is None else check_rank(k, (side, side))
    return k, _default_rank(k, classes, side) if rank is None else _checked_rank(rank, k, side), side


def _default_rank(k: int, classes: int | None, side: int) -> int:
    return min(side, max(k, classes + 5)) if classes is not None and classes <= FEW_CLASSES else k


def _checked_rank(given: Any, k: int, side: int) -> int:
    rank = whole_number(given)
    if rank is None or not k <= rank <= side:
        raise ValueError(f"rank must lie in k..{side} = {k}..{side}; got {given!r}.")
    return rank


def _checked_classes(given: Any) -> int:
    classes = whole_number(given)
    if classes is None or classes < 1:
        raise ValueError(
            f"num_classes must be a whole number of at least 1; got {given!r}. Leave it out to count the logits."
        )
    return classes


def _classes_of(path: Trace) -> int | None:
    return path.logits.shape[1] if path.logits.dim() == 2 else None
