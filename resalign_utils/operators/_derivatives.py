"""The derivative of a branch at some rows, in several ways; none traces the branch.

``Jᵀ u`` is a backward pass of a graph that is kept. ``J v`` is the transpose of that pass, which is linear in u:
differentiating backward twice (Christianson 1992). Where an operation has no second derivative it is done by forward
mode, and where it has no forward mode either, by a matrix that is formed from backward passes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from ._layers import ConstantLayers

Branch = Callable[..., Tensor]  # (n, *in) → (n, *out), row by row; after h, what else a block is called with


def branch_rows(branch: Branch, index: Tensor) -> Branch:
    """The branch at some of its rows: ``branch.rows(index)`` if it holds constants of its rows, else the branch itself.

    Args:
        branch: ``(n, *in) → (n, *out)``. One that holds constants for n rows has a method ``rows(index)``.
        index: (r,) numbers of rows; they may repeat.
    """
    rows = getattr(type(branch), "rows", None)
    return rows(branch, index) if callable(rows) else branch


class DoubleBackward:
    """J and Jᵀ of a branch at r rows, each row's own, by one kept backward graph and its transpose.

    Args:
        branch: ``(r, *in) → (r, *out)``, row by row. It may work in place on its argument, which is a copy.
        rows: where to differentiate, (r, *in).
    """

    layers: type[AbstractContextManager[object]] = ConstantLayers

    def __init__(self, branch: Branch, rows: Tensor) -> None:
        self._branch = branch
        with torch.inference_mode(False), torch.enable_grad():
            self._rows = rows.detach().clone().requires_grad_()
            buffers = [b for b in branch.buffers() if not b.requires_grad] if isinstance(branch, nn.Module) else []
            with self.layers():
                self._value = branch(self._rows.clone())
        for buffer in buffers:
            if buffer.requires_grad:
                buffer.detach_()  # the branch wrote on it, and it would stay part of this graph
        self._backward: tuple[Tensor, Tensor] | None = None

    @property
    def value(self) -> Tensor:
        """The branch's result (r, *out)."""
        return self._value.detach()

    def adjoint(self, u: Tensor) -> Tensor:
        """``Jᵀ u`` of each row: (r, *out) → (r, *in)."""
        if not self._value.requires_grad:
            return torch.zeros_like(self._rows, requires_grad=False)
        return _grad(self._value, self._rows, u)

    def forward(self, v: Tensor) -> Tensor:
        """``J v`` of each row: (r, *in) → (r, *out)."""
        if not self._value.requires_grad:
            return torch.zeros_like(self._value)
        if self._backward is None:
            with torch.inference_mode(False), torch.enable_grad():
                u = torch.zeros_like(self._value, requires_grad=True)
                self._backward = u, _grad(self._value, self._rows, u, create_graph=True)
        u, pulled = self._backward
        return _grad(pulled, u, v) if pulled.requires_grad else torch.zeros_like(self._value, requires_grad=False)


class AsItIs(DoubleBackward):
    """The same with torch's own layers: a checkpointed part is computed again later, and must meet the same layers."""

    layers = nullcontext


class ForwardMode(DoubleBackward):
    """The same with ``J v`` by forward mode, which evaluates the branch at each product."""

    def forward(self, v: Tensor) -> Tensor:
        """``J v`` of each row: (r, *in) → (r, *out)."""
        return forward_derivative(self._branch, self._rows.detach(), v)


class BackwardOnce(DoubleBackward):
    """Products with Jᵀ alone; who wants ``J v`` forms the matrix from them."""


def forward_derivative(branch: Branch, rows: Tensor, v: Tensor) -> Tensor:
    """``J v`` (r, *out) at rows (r, *in) by forward mode."""
    from torch.autograd import forward_ad

    with warnings.catch_warnings():
        # torch on its own use of torch.jit, when it loads its rules at first use, which takes three seconds
        warnings.simplefilter("ignore", FutureWarning)
        with torch.inference_mode(False), torch.no_grad(), forward_ad.dual_level():
            value = branch(forward_ad.make_dual(rows.clone(), v))
            tangent = forward_ad.unpack_dual(value).tangent
            return torch.zeros_like(value) if tangent is None else tangent.detach().clone()


def _grad(output: Tensor, point: Tensor, u: Tensor, *, create_graph: bool = False) -> Tensor:
    # of the scalar ⟨output, u⟩: torch imports 490 modules, which takes seconds, when it is given a grad_outputs
    with torch.enable_grad():
        scalar = torch.dot(output.flatten(), u.flatten())
    (result,) = torch.autograd.grad(scalar, point, retain_graph=True, create_graph=create_graph, materialize_grads=True)
    return result
