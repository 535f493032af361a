"""Truncated singular value decomposition of an operator that is known by its products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor


class Operator(Protocol):
    """What :func:`truncated_svd` needs to know: a matrix (m, d) by its products, see ``JacobianOperator``."""

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    shape: tuple[int, int]
    matvecs: int

    def matmat(self, v: Tensor) -> Tensor:
        """(k, *in) → (k, *out)."""
        ...

    def rmatmat(self, u: Tensor) -> Tensor:
        """(k, *out) → (k, *in)."""
        ...

    def dense(self) -> Tensor:
        """The matrix (m, d)."""
        ...


@dataclass(frozen=True)
class TruncatedSVD:
    """The k largest singular triplets, ``J v_i = σ_i u_i``, with the evidence that they are.

    Attributes:
        U: left singular vectors (k, *out), orthonormal.
        S: singular values (k,), descending.
        V: right singular vectors (k, *in), orthonormal; the entry of largest magnitude of each is positive.
        residuals: ``max(‖J v_i − σ_i u_i‖, ‖Jᵀ u_i − σ_i v_i‖) / σ_1`` (k,), 0 for a zero operator.
        converged: ``residuals ≤ tol`` (k,).
        matvecs: number of single products used, those for the residuals included.
        method: ``"dense"``, the way it was computed.
    """

    U: Tensor
    S: Tensor
    V: Tensor
    residuals: Tensor
    converged: Tensor
    matvecs: int
    method: str


def truncated_svd(
    operator: Operator, k: int, *, method: Literal["auto", "dense"] = "auto", tol: float = 1e-4
) -> TruncatedSVD:
    """Compute the k largest singular triplets of an operator.

    Args:
        operator: a matrix (m, d) with ``matmat``, ``rmatmat`` and ``dense``.
        k: number of triplets, 1 ≤ k ≤ min(m, d).
        method: ``"dense"`` forms the matrix and uses LAPACK; ``"auto"`` chooses, at present always ``"dense"``.
        tol: residual below which a triplet counts as converged.

    Raises:
        ValueError: k out of range, unknown method, or a matrix with NaN or infinite entries.
    """
    check_rank(k, operator.shape)
    if method not in ("auto", "dense"):
        raise ValueError(f"method must be 'auto' or 'dense'; got {method!r}.")
    before = operator.matvecs
    u, s, v = dense_svd(operator.dense(), k)
    u, v = u.reshape(k, *operator.out_shape), v.reshape(k, *operator.in_shape)
    right = (operator.matmat(v) - _scale(u, s)).flatten(1).norm(dim=1)
    left = (operator.rmatmat(u) - _scale(v, s)).flatten(1).norm(dim=1)
    residuals = torch.maximum(right, left) / torch.where(s[0] > 0, s[0], torch.ones_like(s[0]))  # (k,)
    return TruncatedSVD(u, s, v, residuals, residuals <= tol, operator.matvecs - before, "dense")


def dense_svd(matrices: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k largest singular triplets of a batch of matrices.

    Args:
        matrices: (..., m, d).
        k: number of triplets, 1 ≤ k ≤ min(m, d).

    Returns:
        U (..., k, m), S (..., k) descending, V (..., k, d): rows are singular vectors, and the entry of largest
        magnitude of each right vector is positive, which fixes the sign of the pair.

    Raises:
        ValueError: k out of range, NaN or infinite entries.
    """
    m, d = matrices.shape[-2:]
    check_rank(k, (m, d))
    if not torch.isfinite(matrices).all():
        raise ValueError("The matrix to decompose holds NaN or infinite entries: check the weights and the inputs.")
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    u, s, v = u[..., :k].mT, s[..., :k], vh[..., :k, :]
    sign = torch.sign(v.gather(-1, v.abs().argmax(-1, keepdim=True)))  # (..., k, 1), never 0: v has norm one
    return u * sign, s, v * sign


def check_rank(k: int, shape: tuple[int, int]) -> None:
    """Refuse a number of triplets that a matrix of this shape does not have.

    Raises:
        ValueError: k < 1 or k > min(shape).
    """
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= min(shape):
        raise ValueError(f"k must be a whole number from 1 to min{tuple(shape)} = {min(shape)}; got {k!r}.")


def _scale(vectors: Tensor, s: Tensor) -> Tensor:
    return vectors * s.reshape(-1, *[1] * (vectors.dim() - 1))
