"""From a model and its inputs to a report."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..residuals import Residual, Trace, trace
from ..svd import check_rank
from ._report import AlignmentReport
from ._scores import (
    affine_share,
    comparable_blocks,
    couplings,
    in_frames_of,
    left_right,
    mean_over,
    ratio,
    trajectory_scores,
)
from ._svd import Method, decompose, open_operators, split


@torch.no_grad()
def measure_alignment(
    model: nn.Module,
    x: Tensor,
    *,
    k: int | None = None,
    num_classes: int | None = None,
    method: Method = "auto",
    tol: float = 1e-4,
    seed: int = 0,
) -> AlignmentReport:
    """Measure Residual Alignment of a network at n inputs, each at its own true states.

    Args:
        model: a network in eval mode with residual blocks that :func:`residual_branch` knows.
        x: inputs (n, ...), for images (n, c, h, w); ``ImageData.sample()`` gives ten test images of each class.
        k: number of singular vectors compared; the number of classes if not given.
        num_classes: C; the length of the logits if not given.
        method: how the singular vectors are computed, see :func:`jacobian_svd`; for each block the cheaper way.
        tol: residual, relative to σ_1, at which the Krylov method stops.
        seed: of its random vectors.

    Returns:
        An :class:`AlignmentReport` on x's device.

    Warns:
        RuntimeWarning: singular triplets have not converged.

    Raises:
        ValueError: what :func:`trace` refuses; k outside 1..min(m, d) of a block; no class count.
    """
    path = trace(model, x)
    classes = num_classes or _classes_of(path)
    sizes = [min(r.input[0].numel(), r.output[0].numel()) for r in path.residuals]
    k = min(classes, *sizes) if k is None else k
    check_rank(k, (min(sizes), min(sizes)))
    rank = min(*sizes, max(k, classes + 5))
    parts = [
        _measure_jacobians(part, k, rank, method=method, tol=tol, seed=seed, first=first)
        for first, part in split(path.residuals, rank, method)
    ]
    tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    sigma, comparable = tensors["singular_values"], comparable_blocks(path.residuals)
    pairs = comparable & ~torch.eye(len(sizes), dtype=torch.bool, device=x.device)
    line_shape, cv, still = trajectory_scores(path.residuals)
    top, energy, error = min(classes, rank), tensors.pop("squared_norm"), tensors.pop("squared_norm_error")
    share = ratio(sigma[..., :top].square().sum(-1), energy).clamp(max=1)
    dead = sigma[..., 0] == 0
    return AlignmentReport(
        line_shape_score=line_shape,
        step_cv=cv,
        rank_energy=share,
        rank_energy_error=share * ratio(error, energy),
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
        tol: residual, relative to σ_1, at which the Krylov method stops.
        seed: of its random vectors.

    Returns:
        (n, L, L, k, k), ``[:, i, j] = U_jᵀ J_i V_j``; diagonal in every panel iff the vectors agree one by one.

    Raises:
        ValueError: blocks of different shapes, or k out of range.
    """
    if not comparable_blocks(path.residuals).all():
        raise ValueError("Coupling matrices need blocks between equal shapes. Trace a part of constant shape.")
    parts = [
        _coupling_matrices(part, k, mixed=mixed, method=method, tol=tol, seed=seed)
        for _, part in split(path.residuals, k, method)
    ]
    return torch.cat(parts)


def _coupling_matrices(residuals: list[Residual], k: int, *, mixed: bool, **how: Any) -> Tensor:
    operators = open_operators(residuals, k, how.pop("method"))
    svds = decompose(residuals, operators, k, warm_start=True, **how)
    return torch.stack([in_frames_of(operator, svds, k, mixed=mixed) for operator in operators], 1)


def _measure_jacobians(residuals: list[Residual], k: int, rank: int, **how: Any) -> dict[str, Tensor]:
    """Everything that needs the Jacobians, for the inputs of ``residuals``; all operators live at once."""
    operators = open_operators(residuals, rank, how.pop("method"))
    svds = decompose(residuals, operators, rank, warm_start=True, **how)
    names = {"S": "singular_values", "residuals": "residuals"} | {
        name: name for name in ("squared_norm", "squared_norm_error")
    }
    return {
        **{name: torch.stack([getattr(svd, field) for svd in svds], 1) for field, name in names.items()},
        "left_right": torch.stack([left_right(svd, k) for svd in svds], 1),
        "affine_share": torch.stack([affine_share(r, svd) for r, svd in zip(residuals, svds, strict=True)], 1),
        **couplings(residuals, operators, svds, k),
    }


def _classes_of(path: Trace) -> int:
    if not isinstance(path.logits, Tensor) or path.logits.dim() != 2:
        came = f"shape {tuple(path.logits.shape)}" if isinstance(path.logits, Tensor) else type(path.logits).__name__
        raise ValueError(
            f"Cannot read the number of classes off the output, {came}; expected logits (n, C). Give num_classes=."
        )
    return path.logits.shape[1]
