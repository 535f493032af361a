"""What goes into a truncated singular value decomposition, and what comes out."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor

from ..arithmetic import or_one

Method = Literal["auto", "dense", "krylov"]


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
    together: int

    def __len__(self) -> int:
        """The number n of matrices."""
        ...

    @property
    def matvecs(self) -> int:
        """Number of single products done so far with each matrix."""
        ...

    def matmat(self, v: Tensor) -> Tensor:
        """(n, k, *in) → (n, k, *out)."""
        ...

    def rmatmat(self, u: Tensor) -> Tensor:
        """(n, k, *out) → (n, k, *in)."""
        ...

    def dense(self) -> Tensor:
        """The matrices (n, m, d)."""
        ...


@dataclass(frozen=True)
class SVDOptions:
    """How singular triplets are computed.

    Args:
        method: ``"dense"``, ``"krylov"``, or ``"auto"``, the cheaper one for the shape.
        tol: residual, relative to σ_1, below which a triplet counts as converged, and at which Krylov stops.
        seed: of Krylov's random vectors, drawn on the CPU.
        max_matvecs: number of products with a matrix at which Krylov stops; None for its own limit.

    Raises:
        ValueError: an unknown method, or a tol that is no number of at least 0.
    """

    method: Method = "auto"
    tol: float = 1e-4
    seed: int = 0
    max_matvecs: int | None = None

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ValueError(f"method must be 'auto', 'dense' or 'krylov'; got {self.method!r}.")
        if not self.tol >= 0:
            raise ValueError(f"tol must be a number of at least 0; got {self.tol!r}.")


@dataclass(frozen=True)
class TruncatedSVD:
    """The k largest singular triplets, ``J v_i = σ_i u_i``, with the evidence that they are.

    Of n matrices at once, every tensor has a first dimension n.

    Attributes:
        U: left singular vectors (k, *out), orthonormal.
        S: singular values (k,), descending.
        V: right singular vectors (k, *in), orthonormal; the entry of largest magnitude of each is positive.
        residuals: ``max(‖J v_i − σ_i u_i‖, ‖Jᵀ u_i − σ_i v_i‖) / σ_1`` (k,), 0 for a zero operator. There is a
            singular value within ``residuals[i] · σ_1`` of σ_i; with a gap γσ_1 to the others, within
            ``residuals[i]² / γ · σ_1`` (Parlett 1998, theorem 11.7.1).
        converged: ``residuals ≤ tol`` (k,).
        matvecs: number of single products used with each matrix, those for the residuals included.
        method: ``"dense"`` or ``"krylov"``, the way it was computed.
    """

    U: Tensor
    S: Tensor
    V: Tensor
    residuals: Tensor
    converged: Tensor
    matvecs: int
    method: str


def check_rank(k: Any, shape: tuple[int, int]) -> int:
    """The number of triplets as an int; refused where a matrix of this shape has not so many.

    Raises:
        ValueError: k is no whole number, of Python, NumPy or torch, or k < 1 or k > min(shape).
    """
    whole = whole_number(k)
    if whole is None or not 1 <= whole <= min(shape):
        raise ValueError(f"k must be a whole number from 1 to min{tuple(shape)} = {min(shape)}; got {k!r}.")
    return whole


def whole_number(value: Any) -> int | None:
    """A whole number of Python, NumPy or torch as an int; None for anything else, truth values too."""
    if isinstance(value, bool | np.bool_) or getattr(value, "dtype", None) is torch.bool:
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def unit_of(largest: Tensor) -> Tensor:
    """Powers of two (...) of the size of ``largest`` (...), to divide by before anything is squared; 1 where that is 0.

    Division by them is exact, and squares then neither overflow nor underflow: those of 1e-23 are 0 in float32.
    """
    sized = torch.where(largest.isfinite() & (largest >= torch.finfo(largest.dtype).tiny), largest, 1.0)
    powers = torch.ldexp(torch.ones_like(sized), torch.frexp(sized).exponent - 1)
    return powers.to(sized.dtype)  # ldexp of an older torch gives the default dtype


def numerical_rank(s: Tensor, shape: tuple[int, int], tol: float) -> Tensor:
    """Number (...,) of singular values (..., k) above ``max(max(shape) · ε, tol) · σ_1``: behind it vectors are noise.

    Args:
        s: singular values (..., k), descending.
        shape: (m, d) of the matrices.
        tol: relative residual to which they were computed.
    """
    smallest = max(max(shape) * torch.finfo(s.dtype).eps, tol)
    return (s > smallest * s[..., :1]).sum(-1)


def residual_norms(
    forward: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    u: Tensor,
    s: Tensor,
    v: Tensor,
    size: Tensor | None = None,
) -> Tensor:
    """``max(‖J v_i − σ_i u_i‖, ‖Jᵀ u_i − σ_i v_i‖) / σ_1`` (..., k); ``size`` (..., 1) takes the place of σ_1."""
    unit = or_one(s[..., :1] if size is None else size)[..., None]  # before anything is squared
    right = ((forward(v) - s[..., None] * u) / unit).norm(dim=-1)
    left = ((adjoint(u) - s[..., None] * v) / unit).norm(dim=-1)  # an operator may reuse the memory of the first
    return torch.maximum(right, left)


def fix_signs(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Turn each pair u (..., k, m), v (..., k, d) so that v's entry of largest magnitude is positive."""
    sign = torch.sign(v.gather(-1, v.abs().argmax(-1, keepdim=True)))  # (..., k, 1), never 0: v has norm one
    return u * sign, v * sign
