"""Singular values that come in more copies than a block has vectors."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ._krylov import KrylovRun, Product, random_block
from ._lapack import thin_svd
from ._operator import SVDOptions, fix_signs, residual_norms

CLOSE = 1e-3  # values that agree to this share, or to the square of the residual, may be copies of one


def with_copies(
    solve: Callable[..., KrylovRun],
    forward: Product,
    adjoint: Product,
    start: Tensor,
    k: int,
    options: SVDOptions,
    spent: int = 0,
) -> KrylovRun:
    """``solve``, again and again with what was found taken out, until nothing larger comes.

    The Krylov space of a block of b generic vectors holds at most b copies of each singular value. So if no b of the
    values found are alike, none is missing, and nothing more is done.

    Args:
        solve: ``block_krylov`` for matrices J_i (m, d), m ≥ d, of n inputs.
        forward: ``v (n, b, d) → J_i v (n, b, m)``.
        adjoint: ``u (n, b, m) → J_iᵀ u (n, b, d)``.
        start: the first block (n, b, d).
        k: number of triplets.
        options: tolerance, seed, and limit of products.
        spent: products that ``start`` took.
    """
    limit, (n, block, d) = options.max_matvecs, start.shape
    found = solve(forward, adjoint, start, k=k, tol=options.tol, seed=options.seed, max_matvecs=limit, spent=spent)
    for again in range(1, k + 1):
        if found.complete or not _alike(found.S, block, options.tol):
            return found
        left = None if limit is None else limit - found.matvecs - 2 * k
        if left is not None and left < 8 * (k + block):
            warnings.warn(
                f"{block} or more singular values are alike, so copies of them may be missing; max_matvecs={limit} "
                "leaves no products to look for them. Allow more.",
                RuntimeWarning,
                stacklevel=5,
            )
            return found
        fresh = random_block(n, block, d, options.seed + 1000 * again, start.dtype, start.device)
        out = _Deflated(forward, adjoint, found.V)
        look = partial(
            solve,
            out.forward,
            out.adjoint,
            out.project(fresh),
            tol=options.tol,
            seed=options.seed + 1000 * again,
            size=found.S[:, :1],  # what is left of a matrix of low rank is noise, which never converges to its own size
        )
        rest = look(k=1, max_matvecs=left)
        found = replace(found, matvecs=found.matvecs + rest.matvecs)
        smallest = torch.maximum(found.S[:, -1], options.tol * found.S[:, 0])  # below tol σ_1 nothing is resolved
        if not (rest.S[:, 0] > smallest * (1 + options.tol)).any():
            break
        left = None if left is None else left - rest.matvecs
        found = _merged(forward, adjoint, found, look(k=min(k, d - k), max_matvecs=left), k)
    return found


class _Deflated:
    """J (I − VᵀV): what is left of matrices without the right singular vectors v (n, k, d)."""

    def __init__(self, forward: Product, adjoint: Product, v: Tensor) -> None:
        self._forward, self._adjoint, self._v = forward, adjoint, v

    def project(self, rows: Tensor) -> Tensor:
        return torch.baddbmm(rows, rows @ self._v.mT, self._v, alpha=-1)

    def forward(self, v: Tensor) -> Tensor:
        return self._forward(self.project(v))

    def adjoint(self, u: Tensor) -> Tensor:
        return self.project(self._adjoint(u))


def _alike(s: Tensor, block: int, tol: float) -> bool:
    """Whether in some matrix ``block`` values in a row are copies of one, as far as can be told."""
    if s.shape[1] < block:
        return False
    first, last = s[:, : s.shape[1] - block + 1], s[:, block - 1 :]
    return bool(((last >= (1 - max(CLOSE, tol**2)) * first) & (first > tol * s[:, :1])).any())


def _merged(forward: Product, adjoint: Product, found: KrylovRun, rest: KrylovRun, k: int) -> KrylovRun:
    """The k largest triplets in the span of both (Rayleigh–Ritz)."""
    v = torch.cat([found.V, rest.V], 1)
    q = torch.linalg.qr(v.mT)[0].mT  # (n, k + r, d)
    u, s, turn = thin_svd(forward(q).mT)  # J qᵀ
    u, s, v = u[..., :k].mT, s[:, :k], turn[:, :k] @ q
    residuals = residual_norms(forward, adjoint, u, s, v)
    u, v = fix_signs(u, v)
    return KrylovRun(u, s, v, residuals, found.matvecs + rest.matvecs + q.shape[1] + 2 * k, complete=False)
