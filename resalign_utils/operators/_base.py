"""The one interface: n matrices of one shape by their products, and the view of a single one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse.linalg import LinearOperator

    from ._matrices import MatrixBatch

    Array = NDArray[Any]


class OperatorBatch(ABC):
    """n matrices (m, d) of one shape, known by their products.

    Attributes:
        in_shape: shape (*in) of an input, d = prod(in).
        out_shape: shape (*out) of an output, m = prod(out).
        shape: (m, d) of each matrix.
        dtype: of inputs and outputs.
        device: of inputs and outputs.
        matvecs: number of single products done so far with each matrix, to form it as well; those with a matrix that is
            held in memory are not counted.
        together: number of matrices that one call of the model multiplies with.
    """

    def __init__(
        self, n: int, in_shape: tuple[int, ...], out_shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> None:
        self._n, self.in_shape, self.out_shape = n, in_shape, out_shape
        self.shape = math.prod(out_shape), math.prod(in_shape)
        self.dtype, self.device, self.matvecs = dtype, device, 0
        self.together = n

    def __len__(self) -> int:
        return self._n

    def matmat(self, v: Tensor) -> Tensor:
        """``J_i v`` for k inputs of each matrix at once: (n, k, *in) → (n, k, *out)."""
        self._check(v, self.in_shape)
        self._count(v.shape[1])
        return self._forward(v)

    def rmatmat(self, u: Tensor) -> Tensor:
        """``J_iᵀ u`` for k outputs of each matrix at once: (n, k, *out) → (n, k, *in)."""
        self._check(u, self.out_shape)
        self._count(u.shape[1])
        return self._adjoint(u)

    def _count(self, products: int) -> None:
        self.matvecs += products

    @abstractmethod
    def _forward(self, v: Tensor) -> Tensor: ...

    @abstractmethod
    def _adjoint(self, u: Tensor) -> Tensor: ...

    @abstractmethod
    def dense(self) -> Tensor:
        """The matrices themselves, (n, m, d)."""

    def release(self) -> None:
        """Forget what is kept between products to make them fast; the next product makes it again."""
        return

    def materialise(self) -> MatrixBatch:
        """The same matrices, formed, behind the same interface."""
        from ._matrices import MatrixBatch

        formed = MatrixBatch(self.dense(), self.in_shape, self.out_shape)
        formed.matvecs = self.matvecs
        return formed

    def _check(self, block: Tensor, shape: tuple[int, ...]) -> None:
        fits = block.dim() >= 2 and (len(block), *block.shape[2:]) == (self._n, *shape)
        if not fits or block.dtype != self.dtype or block.device != self.device:
            raise ValueError(
                f"Expected a block of shape ({self._n}, k, {', '.join(map(str, shape))}), {self.dtype} on "
                f"{self.device}; got {tuple(block.shape)}, {block.dtype} on {block.device}."
            )


class SingleOperator:
    """The only matrix (m, d) of a batch of one: the same products without the first dimension.

    Attributes:
        batch: the batch of one.
        in_shape: shape (*in) of an input.
        out_shape: shape (*out) of an output.
        shape: (m, d).
        dtype: of inputs and outputs.
        device: of inputs and outputs.
    """

    def __init__(self, batch: OperatorBatch) -> None:
        self.batch = batch
        self.in_shape, self.out_shape, self.shape = batch.in_shape, batch.out_shape, batch.shape
        self.dtype, self.device = batch.dtype, batch.device

    @property
    def matvecs(self) -> int:
        """Number of single products done so far."""
        return self.batch.matvecs

    def matmat(self, v: Tensor) -> Tensor:
        """``J v`` for k inputs at once: (k, *in) → (k, *out)."""
        self._check(v, self.in_shape)
        return self.batch.matmat(v[None])[0]

    def rmatmat(self, u: Tensor) -> Tensor:
        """``Jᵀ u`` for k outputs at once: (k, *out) → (k, *in)."""
        self._check(u, self.out_shape)
        return self.batch.rmatmat(u[None])[0]

    def dense(self) -> Tensor:
        """J itself, (m, d)."""
        return self.batch.dense()[0]

    def materialise(self) -> SingleOperator:
        """The same matrix, formed, behind the same interface."""
        return SingleOperator(self.batch.materialise())

    def to_scipy(self) -> LinearOperator:
        """J as a ``scipy.sparse.linalg.LinearOperator`` of flat NumPy arrays, for solvers such as ``svds``."""
        from scipy.sparse.linalg import LinearOperator

        def on_columns(product: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Callable[[Array], Array]:
            def columns(x: Array) -> Array:  # (rows, k) or (rows,)
                block = torch.as_tensor(x.reshape(len(x), -1).T.copy()).to(self.device, self.dtype)  # (k, rows)
                return (
                    product(block.reshape(-1, *shape)).reshape(len(block), -1).T.cpu().numpy().reshape(-1, *x.shape[1:])
                )

            return columns

        forward, adjoint = on_columns(self.matmat, self.in_shape), on_columns(self.rmatmat, self.out_shape)
        dtype = torch.empty(0, dtype=self.dtype).numpy().dtype
        return LinearOperator(self.shape, matvec=forward, rmatvec=adjoint, matmat=forward, rmatmat=adjoint, dtype=dtype)

    def _check(self, block: Tensor, shape: tuple[int, ...]) -> None:
        if tuple(block.shape[1:]) != shape or block.dtype != self.dtype or block.device != self.device:
            raise ValueError(
                f"Expected a block of shape (k, {', '.join(map(str, shape))}), {self.dtype} on {self.device}; got "
                f"{tuple(block.shape)}, {block.dtype} on {block.device}."
            )
