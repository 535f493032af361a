"""From a model and its inputs to a report."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..jacobians import MEMORY_BUDGET
from ..residuals import Residual, Trace, trace
from ..svd import check_rank
from ._report import AlignmentReport
from ._scores import affine_share, comparable_blocks, couplings, left_right, mean_over, ratio, trajectory_scores
from ._svd import decompose, residual_jacobians


@torch.no_grad()
def measure_alignment(
    model: nn.Module, x: Tensor, *, k: int | None = None, num_classes: int | None = None
) -> AlignmentReport:
    """Measure Residual Alignment of a network at n inputs, each at its own true states.

    Args:
        model: a network in eval mode with residual blocks that :func:`residual_branch` knows.
        x: inputs (n, ...), for images (n, c, h, w); ``ImageData.sample()`` gives ten test images of each class.
        k: number of singular vectors compared; the number of classes if not given.
        num_classes: C; the length of the logits if not given.

    Returns:
        An :class:`AlignmentReport` on x's device.

    Raises:
        ValueError: what :func:`trace` refuses; k outside 1..min(m, d) of a block; no class count.
    """
    path = trace(model, x)
    classes = num_classes or _classes_of(path)
    sizes = [min(r.input[0].numel(), r.output[0].numel()) for r in path.residuals]
    k = min(classes, *sizes) if k is None else k
    check_rank(k, (min(sizes), min(sizes)))
    rank = min(*sizes, max(k, classes + 5))
    parts = [_measure_jacobians(part, k, rank) for part in _split(path, memory=4 * MEMORY_BUDGET)]
    tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    sigma, comparable = tensors["singular_values"], comparable_blocks(path.residuals)
    pairs = comparable & ~torch.eye(len(sizes), dtype=torch.bool, device=x.device)
    line_shape, cv, still = trajectory_scores(path.residuals)
    top, energy = min(classes, rank), tensors.pop("squared_norm")
    dead = sigma[..., 0] == 0
    return AlignmentReport(
        line_shape_score=line_shape,
        step_cv=cv,
        rank_energy=ratio(sigma[..., :top].square().sum(-1), energy).clamp(max=1),
        rank_drop=ratio(sigma[..., classes], sigma[..., 0]) if classes < rank else torch.full_like(energy, math.nan),
        alignment=mean_over(tensors["coupling"], pairs),
        dead=dead,
        still=still,
        comparable=comparable,
        num_classes=classes,
        k=k,
        block_names=tuple(r.name for r in path.residuals),
        **tensors,
    )


@torch.no_grad()
def coupling_matrices(path: Trace, k: int, *, mixed: bool = False) -> Tensor:
    """The matrices behind the coupling scores: block i's Jacobian in the singular frames of block j.

    Args:
        path: what :func:`trace` returned, of blocks of one shape; the result has n·L²·k² entries, so of few inputs.
        k: number of singular vectors.
        mixed: ``V_jᵀ J_i U_j`` (Li & Papyan's "VJU") in place of ``U_jᵀ J_i V_j`` ("UJV").

    Returns:
        (n, L, L, k, k), ``[:, i, j] = U_jᵀ J_i V_j``; diagonal in every panel iff the vectors agree one by one.

    Raises:
        ValueError: blocks of different shapes, or k out of range.
    """
    if not comparable_blocks(path.residuals).all():
        raise ValueError("Coupling matrices need blocks between equal shapes. Trace a part of constant shape.")
    jacobians = [residual_jacobians(r) for r in path.residuals]
    svds = [decompose(r, j, k) for r, j in zip(path.residuals, jacobians, strict=True)]
    u = torch.stack([svd.U.flatten(2) for svd in svds], 1)  # (n, L, k, m)
    v = torch.stack([svd.V.flatten(2) for svd in svds], 1)  # (n, L, k, d)
    left, right = (v, u) if mixed else (u, v)
    return torch.stack([left @ j[:, None] @ right.mT for j in jacobians], 1)


def _measure_jacobians(residuals: list[Residual], k: int, rank: int) -> dict[str, Tensor]:
    """Everything that needs the Jacobians, for the inputs of ``residuals``; all Jacobians are in memory at once."""
    jacobians = [residual_jacobians(r) for r in residuals]
    svds = [decompose(r, j, rank) for r, j in zip(residuals, jacobians, strict=True)]
    return {
        "singular_values": torch.stack([svd.S for svd in svds], 1),
        "squared_norm": torch.stack([svd.squared_norm for svd in svds], 1),
        "left_right": torch.stack([left_right(svd, k) for svd in svds], 1),
        "affine_share": torch.stack([affine_share(r, svd) for r, svd in zip(residuals, svds, strict=True)], 1),
        **couplings(residuals, jacobians, svds, k),
    }


def _split(path: Trace, memory: int) -> list[list[Residual]]:
    """The residuals at chunks of the inputs, so that all blocks' Jacobians and their SVD fit into the memory."""
    per_input = 4 * sum(r.input[0].numel() * r.output[0].numel() * r.input.element_size() for r in path.residuals)
    size = max(1, memory // per_input)
    starts = range(0, len(path.residuals[0].input), size)
    return [
        [
            Residual(r.index, r.name, r.branch, r.input[a : a + size], r.output[a : a + size], r.follows)
            for r in path.residuals
        ]
        for a in starts
    ]


def _classes_of(path: Trace) -> int:
    if not isinstance(path.logits, Tensor) or path.logits.dim() != 2:
        came = f"shape {tuple(path.logits.shape)}" if isinstance(path.logits, Tensor) else type(path.logits).__name__
        raise ValueError(
            f"Cannot read the number of classes off the output, {came}; expected logits (n, C). Give num_classes=."
        )
    return path.logits.shape[1]
