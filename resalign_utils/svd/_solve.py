"""The k largest singular triplets of operators, dense or by block Krylov, whichever is cheaper."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ..arithmetic import exact_arithmetic, or_one
from ._copies import with_copies
from ._dense import dense_svd
from ._krylov import KrylovRun, Product, block_krylov, default_block, random_block
from ._operator import (
    Method,
    Operator,
    OperatorBatch,
    SVDOptions,
    TruncatedSVD,
    check_rank,
    fix_signs,
    residual_norms,
    unit_of,
)

HARMLESS = 2.0**-20  # sizes from here to its inverse can be squared in float32, and are left as they are
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
            (``cheaper_method``), and the result says which.
        tol: residual, relative to σ_1, below which a triplet counts as converged, and at which Krylov stops.
        seed: of Krylov's random vectors, drawn on the CPU.
        v0: vectors (b, *in) for Krylov to start near, such as the right singular vectors of a similar matrix; the
            first block mixes them at random, in equal parts with random vectors.
        max_matvecs: number of products at which Krylov stops; if not given, ``2 (min(m, d) + k)``, or the fewest that k
            triplets take, if those are more.

    A block of b random vectors finds at most b copies of a singular value. Where b or more of the values found agree to
    a thousandth (or to ``tol²``, if that is more), Krylov therefore starts again from fresh random vectors with what it
    has found taken out, until nothing larger comes; each time costs about as many products again. In exact arithmetic
    fresh vectors miss a copy with probability 0; after q steps a value is missed that is larger by a share ε with
    probability at most ``1.65 √d exp(−√(2ε) (2q − 1))`` (Kuczyński & Woźniakowski 1992, theorem 4.1, for σ²).

    Warns:
        RuntimeWarning: a triplet has not converged, or copies may be missing since ``max_matvecs`` does not suffice.

    Raises:
        ValueError: k out of range, unknown method, v0 of a wrong shape, NaN or infinite products, a max_matvecs that
            is too small to span and to check k triplets.

    Example:
        >>> import torch, resalign_utils as ra
        >>> scale = torch.tensor([1.0, 3.0, 2.0])
        >>> operator = ra.JacobianOperator(lambda x: scale * x, torch.ones(3))
        >>> found = ra.truncated_svd(operator, k=2)
        >>> found.S
        tensor([3., 2.])
        >>> found.converged
        tensor([True, True])
    """
    options = SVDOptions(method, tol, seed, max_matvecs)
    found = decompose(_Alone(operator), k, options, None if v0 is None else v0[None])
    warn_if_unconverged(found, tol)
    return replace(found, **{name: getattr(found, name)[0] for name in ("U", "S", "V", "residuals", "converged")})


def cheaper_method(shape: tuple[int, int], k: int) -> Literal["dense", "krylov"]:
    """The cheaper way for a matrix of this shape, as it was measured (``benchmarks/``, the book's page "Benchmarks").

    The rule knows shapes alone, so that a result does not depend on what else the machine is doing.
    """
    return "dense" if min(shape) <= max(SMALL, 6 * k) else "krylov"


def decompose(operators: OperatorBatch, k: int, options: SVDOptions, v0: Tensor | None = None) -> TruncatedSVD:
    """The k largest singular triplets of n operators at once.

    Args:
        operators: n matrices (m, d) by their products.
        k: number of triplets, 1 ≤ k ≤ min(m, d).
        options: the method, and when to stop.
        v0: vectors (n, b, *in) to start near.

    Returns:
        U (n, k, *out), S (n, k), V (n, k, *in) and the evidence.

    Warns:
        RuntimeWarning: the products of an operator disagree with the matrix that it forms.
    """
    k = check_rank(k, operators.shape)
    method = cheaper_method(operators.shape, k) if options.method == "auto" else options.method
    with exact_arithmetic(operators.device):
        found = _dense(operators, k, options.tol) if method == "dense" else _krylov(operators, k, options, v0)
    return TruncatedSVD(
        found.U.reshape(*found.S.shape, *operators.out_shape),
        found.S,
        found.V.reshape(*found.S.shape, *operators.in_shape),
        found.residuals,
        found.residuals <= options.tol,
        found.matvecs,
        method,
    )


def warn_if_unconverged(found: TruncatedSVD, tol: float, where: str = "") -> None:
    """Say how many of the triplets have residuals above the tolerance."""
    missed = int((~found.converged).sum())
    if missed and found.method == "krylov":
        warnings.warn(
            f"{missed} of {found.residuals.numel()} singular triplets{where} have not converged within {found.matvecs} "
            f"products: their residuals reach {float(found.residuals.max()):.1e}, asked were {tol:.1e}. Allow more "
            "(max_matvecs), ask for less (tol), or compute in float64, if the residual is near rounding.",
            RuntimeWarning,
            stacklevel=3,
        )


def _dense(operators: OperatorBatch, k: int, tol: float) -> KrylovRun:
    before = operators.matvecs
    u, s, v = dense_svd(operators.dense(), k)
    image, preimage = _flat_products(operators)
    residuals = residual_norms(image, preimage, u, s, v)
    if (residuals > max(tol, 1e3 * torch.finfo(s.dtype).eps)).any():
        warnings.warn(
            f"The products with the operator disagree with the triplets of the matrix that it forms, by "
            f"{float(residuals.max()):.1e} σ_1. They may be computed in lower precision, or not be linear, or the "
            "device's SVD of a matrix is coarse in float32 (cuSOLVER's is): take method='krylov', or float64.",
            RuntimeWarning,
            stacklevel=4,
        )
    return KrylovRun(u, s, v, residuals, operators.matvecs - before, complete=True)


def _krylov(operators: OperatorBatch, k: int, options: SVDOptions, v0: Tensor | None) -> KrylovRun:
    """Block Krylov in a unit of each matrix' size: what is squared on the way neither underflows nor overflows."""
    products = _InOwnUnit()
    forward, adjoint = (products.of(product) for product in _flat_products(operators))
    found = _from_the_smaller_side(operators, forward, adjoint, k, options, v0)
    assert products.unit is not None
    return replace(found, S=found.S * products.unit[..., 0])


def _from_the_smaller_side(
    operators: OperatorBatch, forward: Product, adjoint: Product, k: int, options: SVDOptions, v0: Tensor | None
) -> KrylovRun:
    """Block Krylov, until no copy of a singular value is missing."""
    n, (m, d) = len(operators), operators.shape
    rows, wide = default_block(operators.together, m, d, k), d > m
    start = random_block(n, rows, min(m, d), options.seed, operators.dtype, operators.device)
    if v0 is not None:
        near = _mixed(_checked_start(v0, operators), rows, options.seed)
        # from a wide matrix' other side, in the length of a Gaussian block there
        start = start + (_lengthened(forward(near)) if wide else near)
    if not wide:
        return with_copies(partial(block_krylov, m=m, names=("J v", "Jᵀ u")), forward, adjoint, start, k, options)
    spent = 0 if v0 is None else rows
    solve = partial(block_krylov, m=d, names=("Jᵀ u", "J v"))
    turned = with_copies(solve, adjoint, forward, start, k, options, spent)  # Jᵀ = V Σ Uᵀ
    u, v = fix_signs(turned.V, turned.U)
    return replace(turned, U=u, V=v)


class _InOwnUnit:
    """Products with n matrices over powers of two ``unit`` (n, 1, 1), which the first product tells; that is exact."""

    unit: Tensor | None = None
    _all_one = False

    def of(self, product: Product) -> Product:
        def scaled(vectors: Tensor) -> Tensor:
            images = product(vectors)  # (n, b, ...)
            if self.unit is None:
                unit = unit_of(images.abs().amax((1, 2), keepdim=True))
                harmless = (unit > HARMLESS) & (unit < 1 / HARMLESS)
                self.unit = torch.where(harmless, 1.0, unit)
                self._all_one = bool(harmless.all())
            return images if self._all_one else images / self.unit

        return scaled


def _flat_products(operators: OperatorBatch) -> tuple[Product, Product]:
    def forward(v: Tensor) -> Tensor:
        return operators.matmat(v.reshape(*v.shape[:2], *operators.in_shape)).reshape(*v.shape[:2], -1)

    def adjoint(u: Tensor) -> Tensor:
        return operators.rmatmat(u.reshape(*u.shape[:2], *operators.out_shape)).reshape(*u.shape[:2], -1)

    return forward, adjoint


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
    return weights @ _lengthened(v0) * math.pow(v0.shape[1], -0.5)


def _lengthened(rows: Tensor) -> Tensor:
    """Rows (n, b, N) with the length √N of Gaussian ones; zero rows stay zero."""
    lengths = rows.norm(dim=-1, keepdim=True)
    return rows / or_one(lengths) * math.pow(rows.shape[2], 0.5)


class _Alone:
    """An operator as a batch of one."""

    together = 1

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self.in_shape, self.out_shape, self.shape = operator.in_shape, operator.out_shape, operator.shape
        self.dtype, self.device = operator.dtype, operator.device

    def __len__(self) -> int:
        return 1

    @property
    def matvecs(self) -> int:
        return self._operator.matvecs

    def matmat(self, v: Tensor) -> Tensor:
        return self._operator.matmat(v[0])[None]

    def rmatmat(self, u: Tensor) -> Tensor:
        return self._operator.rmatmat(u[0])[None]

    def dense(self) -> Tensor:
        return self._operator.dense()[None]
