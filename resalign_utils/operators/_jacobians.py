"""Jacobians of a branch at n points, or at one, as operators."""

from __future__ import annotations

import torch
from torch import Tensor

from ..arithmetic import exact_arithmetic
from ._base import OperatorBatch, SingleOperator
from ._derivatives import BackwardOnce, Branch, DoubleBackward
from ._door import Way, proved_way, repeated
from ._matrices import MatrixBatch
from ._values import check_branch

MEMORY_BUDGET = 2**27  # bytes of intermediate results at a time


class JacobianBatch(OperatorBatch):
    """The Jacobians J_1..J_n (m, d) of a branch at n points, known by their products.

    ``Jᵀ u`` is a backward pass of a graph that is kept, and ``J v`` the transpose of that pass; to multiply with k
    vectors at once, the points are repeated k times. Where an operation has no second derivative, ``J v`` is done by
    forward mode, or by the matrix, formed once, if it has no forward mode either; where a branch is bound to its n
    rows, the vectors are done one after the other. Before use the products are *proved*: against a difference quotient,
    against each other, and against themselves. They are done with autocast off, with TF32 off on CUDA, and with the
    attention kernels that have second derivatives.

    Args:
        branch: ``(n, *in) → (n, *out)``, row by row, the same result for the same input. One that holds constants for
            n rows may have a method ``rows(index (r,)) → branch``; one that works on more numbers than a row of x holds
            says how many by an attribute ``entries``.
        x: where to differentiate, (n, *in), float32 or float64.
        memory: bytes of intermediate results at a time; the products are cut into chunks to fit.
        name: what an error calls the branch.

    Attributes: as of :class:`OperatorBatch`.

    Raises:
        ValueError: the branch is no function of each input alone, or its derivative cannot be proved; the text says
            what was found.
    """

    def __init__(
        self,
        branch: Branch,
        x: Tensor,
        *,
        memory: int = MEMORY_BUDGET,
        name: str = "the branch",
        _like: JacobianBatch | None = None,
    ) -> None:
        self._branch, self._x, self._memory, self._name = branch, x.detach(), memory, name
        with torch.inference_mode(False), exact_arithmetic(x.device):
            if _like is None:
                self._value = value = check_branch(branch, self._x, name)
                self._way = proved_way(branch, self._x, value, name)
            else:
                self._value = value = _like._value_at(branch, self._x)
                self._way = _like._way
        super().__init__(len(x), tuple(x.shape[1:]), tuple(value.shape[1:]), x.dtype, x.device)
        self._formed: MatrixBatch | None = None
        self._derivative: DoubleBackward | None = None
        self._copies = 0  # of the points in the derivative that is kept

    def moved(self, branch: Branch, x: Tensor) -> JacobianBatch:
        """The Jacobians of the same branch at other weights or points, by the products that were proved here.

        Nothing is proved anew, which takes several times as long as a few products. For a network in training, whose
        operations stay what they are while its weights change; prove now and then by opening it again.

        Args:
            branch: the same function, with its weights of now.
            x: as many points (n, *in), of the same shape.

        Raises:
            ValueError: points or results of another shape, dtype or device, or results that are NaN or infinite.
        """
        return JacobianBatch(branch, x, memory=self._memory, name=self._name, _like=self)

    def dense(self) -> Tensor:
        """The matrices themselves, (n, m, d), by products with unit vectors of their smaller side."""
        (m, d), n = self.shape, len(self)
        columns = d < m and self._way.derivative is not BackwardOnce
        side, shape = (d, self.in_shape) if columns else (m, self.out_shape)
        basis = torch.eye(side, dtype=self.dtype, device=self.device).reshape(1, side, *shape)
        basis = basis.expand(n, *basis.shape[1:])
        products = (self.matmat if columns else self.rmatmat)(basis).reshape(n, side, -1)
        return products.mT if columns else products

    def release(self) -> None:
        """Forget the kept graph; the next product makes it again."""
        self._derivative, self._copies = None, 0

    @torch.no_grad()
    def _value_at(self, branch: Branch, x: Tensor) -> Tensor:
        """The value (n, *out) of a branch that is to be like this one."""
        value = branch(x.clone()) if _alike(x, self._x) else None
        if value is None or not _alike(value, self._value):
            came = x if value is None else value
            want = self._x if value is None else self._value
            raise ValueError(
                f"Expected {self._name} as it was proved, with {'inputs' if value is None else 'results'} "
                f"{tuple(want.shape)} of {want.dtype} on {want.device}; got {tuple(came.shape)} of {came.dtype} on "
                f"{came.device}. Open it anew: JacobianBatch(branch, x)."
            )
        if not torch.isfinite(value).all():
            raise ValueError(f"The result of {self._name} is NaN or infinite. Look at the input and the weights.")
        return value

    def _forward(self, v: Tensor) -> Tensor:
        if self._way.derivative is BackwardOnce:
            self._formed = self._formed or MatrixBatch(self.dense(), self.in_shape, self.out_shape)
            return self._formed.matmat(v)
        return self._products("forward", v, self.out_shape)

    def _adjoint(self, u: Tensor) -> Tensor:
        return self._products("adjoint", u, self.in_shape)

    @torch.no_grad()
    def _products(self, name: str, block: Tensor, shape: tuple[int, ...]) -> Tensor:
        n, k = block.shape[:2]
        with torch.inference_mode(False), exact_arithmetic(self.device):
            result, first = block.new_empty(0), 0
            while first < k:
                copies = self._chunk(k - first)
                if (derivative := self._at(copies)) is None:
                    self._way = Way(self._way.derivative, repeats=False)
                    continue
                rows = block[:, first : first + copies].detach().transpose(0, 1)  # (c, n, ·): by vectors, then points
                if (spare := copies - len(rows)) > 0:
                    rows = torch.cat([rows, rows.new_zeros(spare, *rows.shape[1:])])
                product: Tensor = getattr(derivative, name)(rows.flatten(0, 1)).reshape(copies, n, *shape)
                if copies - spare == k:
                    return product[:k].transpose(0, 1)
                if first == 0:
                    result = block.new_empty(n, k, *shape)
                result[:, first : first + copies] = product[: copies - spare].transpose(0, 1)
                first += copies
            return result if k else block.new_empty(n, 0, *shape)

    def _chunk(self, k: int) -> int:
        """How many of k vectors to take at a time: as many as fit, or as the graph that is kept was made for."""
        if not self._way.repeats:
            return 1
        # about eight intermediate tensors of the widest layer live at once
        widest = max(*self.shape, getattr(self._branch, "entries", 0))
        fits = self._memory // (8 * len(self) * widest * self._x.element_size())
        most = max(1, min(k, fits))
        serves = self._derivative is not None and self._copies / 2 <= most < 4 * self._copies
        return self._copies if serves else most

    def _at(self, copies: int) -> DoubleBackward | None:
        """The derivative at the points, repeated so many times; None where the branch does not take so many."""
        if self._derivative is None or self._copies != copies:
            self.release()
            if copies > 1:
                self._derivative = repeated(self._branch, self._x, self._value, copies, self._way)
            else:
                self._derivative = self._way.derivative(self._branch, self._x)
            self._copies = copies
        return self._derivative


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device


class JacobianOperator(SingleOperator):
    """The Jacobian J (m, d) of a branch at one point, known by its products; see :class:`JacobianBatch`.

    Args:
        branch: ``(n, *in) → (n, *out)``, row by row, the same result for the same input.
        point: where to differentiate, (*in) or (1, *in). A first dimension of length one is the batch's: an image
            of one channel (1, h, w) is given as (1, 1, h, w).
        memory: bytes of intermediate results at a time.

    Attributes: as of :class:`SingleOperator`.

    Raises:
        ValueError: as :class:`JacobianBatch`.

    Example:
        >>> import torch, resalign_utils as ra
        >>> operator = ra.JacobianOperator(torch.square, torch.tensor([1.0, 2.0, 3.0]))
        >>> operator.matmat(torch.ones(1, 3))
        tensor([[2., 4., 6.]])
    """

    def __init__(self, branch: Branch, point: Tensor, *, memory: int = MEMORY_BUDGET) -> None:
        if point.dim() == 0:
            raise ValueError("Expected a point of shape (*in) or (1, *in); got a scalar.")
        # (1,) is a one-dimensional point, not an empty-shaped batch of one
        batched = point.dim() > 1 and point.shape[0] == 1
        super().__init__(JacobianBatch(branch, point if batched else point[None], memory=memory))


def dense_jacobians(branch: Branch, x: Tensor, *, memory: int = MEMORY_BUDGET) -> Tensor:
    """Exact Jacobians of a branch at n inputs at once, by products with unit vectors of their smaller side.

    Args:
        branch: ``(n, *in) → (n, *out)``, row by row.
        x: inputs (n, *in).
        memory: bytes of intermediate results at a time; the products are cut into chunks to fit.

    Returns:
        J (n, m, d), with ``J[i] = ∂ branch(x)[i] / ∂ x[i]`` flattened.

    Raises:
        ValueError: as :class:`JacobianBatch`.
    """
    return JacobianBatch(branch, x, memory=memory).dense()
