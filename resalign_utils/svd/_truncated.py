"""One door to both ways."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ._dense import dense_svd
from ._krylov import KrylovSVD, block_krylov, default_block, random_block
from ._operator import Operator, OperatorBatch, TruncatedSVD, check_rank, fix_signs, residual_norms

Method = Literal["auto", "dense", "krylov"]

SMALL = 512  # side of a matrix whose dense SVD is cheaper whatever k is


def truncated_svd(
    operator: Operator,
    k: int,
    *,
    method: Method = "auto",
    tol: float = 1e-4,
    seed: int = 0,
    v0: Tensor | None = None,
    max_matvecs: int | None = None,
) -> TruncatedSVD:
    """Compute the k largest singular triplets of an operator.

    Args:
        operator: a matrix (m, d) with ``matmat``, ``rmatmat`` and, for the dense way, ``dense``.
        k: number of triplets, 1 ≤ k ≤ min(m, d).
        method: ``"dense"`` forms the matrix and uses LAPACK; ``"krylov"`` needs products alone, by block
            Golub–Kahan–Lanczos bidiagonalisation from a random block; ``"auto"`` takes the one that is cheaper
            (:func:`cheaper_method`), and the result says which.
        tol: residual, relative to σ_1, below which a triplet counts as converged, and at which Krylov stops.
        seed: of Krylov's random vectors, drawn on the CPU.
        v0: vectors (b, *in) for Krylov to start near, such as the right singular vectors of a similar matrix; the
            first block mixes them at random, in equal parts with random vectors.
        max_matvecs: number of products at which Krylov stops; if not given, ``2 (min(m, d) + k)``, or the fewest that k
            triplets take, if those are more.

    Warns:
        RuntimeWarning: a triplet has not converged.

    Raises:
        ValueError: k out of range, unknown method, v0 of a wrong shape, NaN or infinite products, a max_matvecs that
            is too small to span and to check k triplets.
    """
    check_rank(k, operator.shape)
    if method not in ("auto", "dense", "krylov"):
        raise ValueError(f"method must be 'auto', 'dense' or 'krylov'; got {method!r}.")
    if method == "auto":
        method = cheaper_method(operator.shape, k)
    if method == "dense":
        return _dense(operator, k, tol)
    found = krylov_svd(_Alone(operator), k, tol=tol, seed=seed, v0=None if v0 is None else v0[None], limit=max_matvecs)
    warn_if_unconverged(found.residuals, tol, found.matvecs)
    u, v = found.U[0].reshape(k, *operator.out_shape), found.V[0].reshape(k, *operator.in_shape)
    residuals = found.residuals[0]
    return TruncatedSVD(u, found.S[0], v, residuals, residuals <= tol, found.matvecs, "krylov")


def cheaper_method(shape: tuple[int, int], k: int) -> Literal["dense", "krylov"]:
    """The cheaper way for a matrix of this shape, as it was measured (``benchmarks/``, the book's page "Benchmarks").

    The rule knows shapes alone, so that a result does not depend on what else the machine is doing.
    """
    return "dense" if min(shape) <= max(SMALL, 6 * k) else "krylov"


def krylov_svd(
    operators: OperatorBatch, k: int, *, tol: float, seed: int = 0, v0: Tensor | None = None, limit: int | None = None
) -> KrylovSVD:
    """:func:`block_krylov` for n operators, from their smaller side.

    Args:
        operators: n matrices (m, d) by their products.
        k: number of triplets, 1 ≤ k ≤ min(m, d).
        tol: residual, relative to σ_1, at which to stop.
        seed: of the random vectors.
        v0: vectors (n, b, *in) to start near.
        limit: number of products a matrix at which to stop.

    Returns:
        Flat singular vectors, U (n, k, m) and V (n, k, d).
    """
    n, (m, d) = len(operators), operators.shape
    check_rank(k, (m, d))

    def forward(v: Tensor) -> Tensor:
        return operators.matmat(v.reshape(*v.shape[:2], *operators.in_shape)).flatten(2)

    def adjoint(u: Tensor) -> Tensor:
        return operators.rmatmat(u.reshape(*u.shape[:2], *operators.out_shape)).flatten(2)

    rows, wide = default_block(n, m, d, k), d > m
    start = random_block(n, rows, min(m, d), seed, operators.dtype, operators.device)
    if v0 is not None:
        near = _mixed(_checked_start(v0, operators), rows, seed)
        # from a wide matrix' other side, in the length of a Gaussian block there
        start = start + (_lengthened(forward(near)) if wide else near)
    solve = partial(block_krylov, k=k, tol=tol, seed=seed, max_matvecs=limit)
    if not wide:
        return solve(forward, adjoint, start, m)
    spent = 0 if v0 is None else rows
    turned = solve(adjoint, forward, start, d, spent=spent, names=("Jᵀ u", "J v"))  # Jᵀ = V Σ Uᵀ
    u, v = fix_signs(turned.V, turned.U)
    return replace(turned, U=u, V=v)


def warn_if_unconverged(residuals: Tensor, tol: float, matvecs: int, where: str = "") -> None:
    """Say how many of the triplets with these residuals are above the tolerance."""
    missed = int((residuals > tol).sum())
    if missed:
        warnings.warn(
            f"{missed} of {residuals.numel()} singular triplets{where} have not converged within {matvecs} products: "
            f"their residuals reach {float(residuals.max()):.1e}, asked were {tol:.1e}. Allow more (max_matvecs), "
            "ask for less (tol), or compute in float64, if the residual is near rounding.",
            RuntimeWarning,
            stacklevel=3,
        )


def _dense(operator: Operator, k: int, tol: float) -> TruncatedSVD:
    before = operator.matvecs
    u, s, v = dense_svd(operator.dense(), k)
    in_rows, out_rows = (k, *operator.in_shape), (k, *operator.out_shape)
    image, preimage = operator.matmat(v.reshape(in_rows)), operator.rmatmat(u.reshape(out_rows))
    residuals = residual_norms(image.flatten(1), preimage.flatten(1), u, s, v)
    if (residuals > tol).any():
        warnings.warn(
            f"The operator's products disagree with the matrix that it forms, by {float(residuals.max()):.1e} σ_1. "
            "They may be computed in lower precision, or not be linear.",
            RuntimeWarning,
            stacklevel=3,
        )
    return TruncatedSVD(
        u.reshape(out_rows), s, v.reshape(in_rows), residuals, residuals <= tol, operator.matvecs - before, "dense"
    )


def _checked_start(v0: Tensor, operators: OperatorBatch) -> Tensor:
    n, d = len(operators), operators.shape[1]
    fits = v0.dim() >= 2 and (v0.shape[0], *v0.shape[2:]) == (n, *operators.in_shape)
    if not fits or not 1 <= v0.shape[1] <= min(operators.shape):
        raise ValueError(
            f"Expected v0 of shape (b, {', '.join(map(str, operators.in_shape))}) with 1 ≤ b ≤ {min(operators.shape)}; "
            f"got {tuple(v0.shape[1:])}."
        )
    if not torch.isfinite(v0).all():
        raise ValueError("v0 holds NaN or infinite values.")
    return v0.reshape(n, -1, d).to(dtype=operators.dtype, device=operators.device)


def _mixed(v0: Tensor, rows: int, seed: int) -> Tensor:
    """Random mixtures (n, rows, d) of v0 (n, b, d), of the size of a Gaussian block.

    Mixtures and not v0 itself: the block stays small, and a small block needs fewer products. A Gaussian block is
    added, so that no direction is missing where v0 has none.
    """
    generator = torch.Generator().manual_seed(seed + 1)
    weights = torch.randn(rows, v0.shape[1], generator=generator, dtype=torch.float64).to(v0)
    return weights @ _lengthened(v0) * v0.shape[1] ** -0.5


def _lengthened(rows: Tensor) -> Tensor:
    """Rows (n, b, N) with the length √N of Gaussian ones; zero rows stay zero."""
    lengths = rows.norm(dim=-1, keepdim=True)
    return rows / torch.where(lengths > 0, lengths, torch.ones_like(lengths)) * rows.shape[2] ** 0.5


class _Alone:
    """An operator as a batch of one."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self.in_shape, self.out_shape, self.shape = operator.in_shape, operator.out_shape, operator.shape
        self.dtype, self.device = operator.dtype, operator.device

    def __len__(self) -> int:
        return 1

    def matmat(self, v: Tensor) -> Tensor:
        return self._operator.matmat(v[0])[None]

    def rmatmat(self, u: Tensor) -> Tensor:
        return self._operator.rmatmat(u[0])[None]
