"""What goes into a truncated singular value decomposition, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Operator(Protocol):
    """What :func:`truncated_svd` needs to know: a matrix (m, d) by its products, see ``JacobianOperator``."""

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device

    @property
    def matvecs(self) -> int:
        """Number of single products done so far."""
        ...

    def matmat(self, v: Tensor) -> Tensor:
        """(k, *in) → (k, *out)."""
        ...

    def rmatmat(self, u: Tensor) -> Tensor:
        """(k, *out) → (k, *in)."""
        ...

    def dense(self) -> Tensor:
        """The matrix (m, d)."""
        ...


class OperatorBatch(Protocol):
    """n matrices (m, d) of one shape by their products, see ``JacobianBatch``."""

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device

    def __len__(self) -> int:
        """The number n of matrices."""
        ...

    def matmat(self, v: Tensor) -> Tensor:
        """(n, k, *in) → (n, k, *out)."""
        ...

    def rmatmat(self, u: Tensor) -> Tensor:
        """(n, k, *out) → (n, k, *in)."""
        ...


@dataclass(frozen=True)
class TruncatedSVD:
    """The k largest singular triplets, ``J v_i = σ_i u_i``, with the evidence that they are.

    Attributes:
        U: left singular vectors (k, *out), orthonormal.
        S: singular values (k,), descending.
        V: right singular vectors (k, *in), orthonormal; the entry of largest magnitude of each is positive.
        residuals: ``max(‖J v_i − σ_i u_i‖, ‖Jᵀ u_i − σ_i v_i‖) / σ_1`` (k,), 0 for a zero operator. There is a
            singular value within ``residuals[i] · σ_1`` of σ_i; with a gap γσ_1 to the others, within
            ``residuals[i]² / γ · σ_1`` (Parlett 1998, theorem 11.7.1).
        converged: ``residuals ≤ tol`` (k,).
        matvecs: number of single products used, those for the residuals included.
        method: ``"dense"`` or ``"krylov"``, the way it was computed.
    """

    U: Tensor
    S: Tensor
    V: Tensor
    residuals: Tensor
    converged: Tensor
    matvecs: int
    method: str


def check_rank(k: int, shape: tuple[int, int]) -> None:
    """Refuse a number of triplets that a matrix of this shape does not have.

    Raises:
        ValueError: k < 1 or k > min(shape).
    """
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= min(shape):
        raise ValueError(f"k must be a whole number from 1 to min{tuple(shape)} = {min(shape)}; got {k!r}.")


def residual_norms(image: Tensor, preimage: Tensor, u: Tensor, s: Tensor, v: Tensor) -> Tensor:
    """``max(‖J v_i − σ_i u_i‖, ‖Jᵀ u_i − σ_i v_i‖) / σ_1`` (..., k) from ``J v`` (..., k, m), ``Jᵀ u`` (..., k, d)."""
    right = (image - s[..., None] * u).norm(dim=-1)
    left = (preimage - s[..., None] * v).norm(dim=-1)
    top = s[..., :1]
    return torch.maximum(right, left) / torch.where(top > 0, top, torch.ones_like(top))


def fix_signs(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Turn each pair u (..., k, m), v (..., k, d) so that v's entry of largest magnitude is positive."""
    sign = torch.sign(v.gather(-1, v.abs().argmax(-1, keepdim=True)))  # (..., k, 1), never 0: v has norm one
    return u * sign, v * sign
