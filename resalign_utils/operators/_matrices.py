"""Matrices that are formed, behind the interface of operators."""

from __future__ import annotations

from torch import Tensor

from ._base import OperatorBatch


class MatrixBatch(OperatorBatch):
    """n matrices that are held in memory; attributes as of :class:`OperatorBatch`.

    Args:
        matrices: (n, m, d).
        in_shape: (*in) of an input, prod(in) = d; (d,) if not given.
        out_shape: (*out) of an output, prod(out) = m; (m,) if not given.
    """

    def __init__(
        self, matrices: Tensor, in_shape: tuple[int, ...] | None = None, out_shape: tuple[int, ...] | None = None
    ) -> None:
        n, m, d = matrices.shape
        super().__init__(n, in_shape or (d,), out_shape or (m,), matrices.dtype, matrices.device)
        self._matrices = matrices

    def _count(self, products: int) -> None:
        """Nothing: the matrices are there."""

    def _forward(self, v: Tensor) -> Tensor:
        return (v.reshape(*v.shape[:2], -1) @ self._matrices.mT).reshape(*v.shape[:2], *self.out_shape)

    def _adjoint(self, u: Tensor) -> Tensor:
        return (u.reshape(*u.shape[:2], -1) @ self._matrices).reshape(*u.shape[:2], *self.in_shape)

    def dense(self) -> Tensor:
        """The matrices themselves, (n, m, d); no product is counted."""
        return self._matrices
