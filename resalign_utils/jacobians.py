"""Products with the Jacobian of a branch, with and without forming it.

A branch maps ``h (n, *in)`` to ``(n, *out)`` row by row. At one point its Jacobian is a matrix J of shape (m, d) with
``m = prod(out)`` and ``d = prod(in)``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

Branch = Callable[[Tensor], Tensor]

MEMORY_BUDGET = 2**28  # bytes of intermediate results at a time


class JacobianOperator:
    """The Jacobian J (m, d) of a branch at one point, known by its products.

    Args:
        branch: ``(n, *in) → (n, *out)``, row by row, the same result for the same input.
        point: where to linearise, (*in) or (1, *in).

    Attributes:
        in_shape: shape (*in) of an input.
        out_shape: shape (*out) of an output.
        shape: (m, d).
        dtype: of the point.
        device: of the point.
        matvecs: number of single products done so far.

    Raises:
        ValueError: the branch is no function of its input alone (see :func:`check_branch`).
    """

    def __init__(self, branch: Branch, point: Tensor) -> None:
        if point.dim() == 0:
            raise ValueError("Expected a point of shape (*in) or (1, *in); got a scalar.")
        # (1,) is a one-dimensional point, not an empty-shaped batch of one
        batched = point.dim() > 1 and point.shape[0] == 1
        self._branch, self._x = branch, (point if batched else point[None]).detach()
        value = check_branch(branch, self._x)
        self.in_shape, self.out_shape = tuple(self._x.shape[1:]), tuple(value.shape[1:])
        self.shape = math.prod(self.out_shape), math.prod(self.in_shape)
        self.dtype, self.device, self.matvecs = point.dtype, point.device, 0

    @torch.no_grad()
    def matmat(self, v: Tensor) -> Tensor:
        """``J v`` for k inputs at once: (k, *in) → (k, *out)."""
        self._check(v, self.in_shape)
        _load_forward_mode()

        def product(tangent: Tensor) -> Tensor:
            return torch.func.jvp(self._branch, (self._x,), (tangent[None],))[1][0]

        return torch.vmap(product, chunk_size=self._chunk())(v.contiguous())

    @torch.no_grad()
    def rmatmat(self, u: Tensor) -> Tensor:
        """``Jᵀ u`` for k outputs at once: (k, *out) → (k, *in)."""
        self._check(u, self.out_shape)
        pullback = torch.func.vjp(self._branch, self._x)[1]
        return torch.vmap(lambda cotangent: pullback(cotangent[None])[0][0], chunk_size=self._chunk())(u.contiguous())

    def dense(self) -> Tensor:
        """J itself, (m, d)."""
        self.matvecs += min(self.shape)
        return dense_jacobians(self._branch, self._x)[0]

    def _chunk(self) -> int:
        return _chunk_size(self._x, max(self.shape))

    def _check(self, block: Tensor, shape: tuple[int, ...]) -> None:
        if tuple(block.shape[1:]) != shape or block.dtype != self.dtype or block.device != self.device:
            raise ValueError(
                f"Expected a block of shape (k, {', '.join(map(str, shape))}), {self.dtype} on {self.device}; got "
                f"{tuple(block.shape)}, {block.dtype} on {block.device}."
            )
        self.matvecs += len(block)


@torch.no_grad()
def dense_jacobians(branch: Branch, x: Tensor, *, memory: int = MEMORY_BUDGET) -> Tensor:
    """Exact Jacobians of a branch at n inputs at once.

    One forward-mode product per input unit (reverse mode, one per output unit, if there are fewer of those), for all
    n inputs together; the rows of the branch are independent, so one tangent serves all of them.

    Args:
        branch: ``(n, *in) → (n, *out)``, row by row.
        x: inputs (n, *in).
        memory: bytes of intermediate results at a time; the products are cut into chunks to fit.

    Returns:
        J (n, m, d), with ``J[i] = ∂ branch(x)[i] / ∂ x[i]`` flattened.
    """
    _load_forward_mode()
    x = x.detach()
    out = branch(x)
    n, d, m = len(x), x[0].numel(), out[0].numel()
    chunk = _chunk_size(x, max(d, m), memory)
    if d <= m:
        basis = torch.eye(d, dtype=x.dtype, device=x.device).reshape(d, *x.shape[1:])

        def column(e: Tensor) -> Tensor:
            return torch.func.jvp(branch, (x,), (e.expand(x.shape).contiguous(),))[1]

        columns = torch.vmap(column, chunk_size=chunk)(basis)  # (d, n, *out)
        return columns.reshape(d, n, m).permute(1, 2, 0)
    basis = torch.eye(m, dtype=x.dtype, device=x.device).reshape(m, *out.shape[1:])
    pullback = torch.func.vjp(branch, x)[1]
    rows = torch.vmap(lambda e: pullback(e.expand(out.shape))[0], chunk_size=chunk)(basis)  # (m, n, *in)
    return rows.reshape(m, n, d).permute(1, 0, 2)


@torch.no_grad()
def check_branch(branch: Branch, x: Tensor) -> Tensor:
    """Evaluate the branch at x (n, *in), after making sure that it is a function of each row alone.

    Raises:
        ValueError: two evaluations differ (dropout in train mode), or a row's result depends on the other rows
            (batch norm in train mode), or the result is not (n, *out), or not finite.
    """
    # in pairs first: batch norm in train mode refuses a row that comes alone, without saying what to do
    other = x[:1] / 2 + 1
    pair, again, twins = (branch(torch.cat([x[:1], second])) for second in (other, other, x[:1]))
    if pair.dim() == 0 or len(pair) != 2:
        shape = (2, *x.shape[1:])
        raise ValueError(f"Expected a branch (n, *in) → (n, *out); {shape} gave {tuple(pair.shape)}.")
    if not torch.isfinite(pair[:1]).all():
        raise ValueError("The branch gives NaN or infinite values. Look at the input and the weights, or use float64.")
    if not torch.equal(pair.nan_to_num(), again.nan_to_num()):
        raise ValueError("Two evaluations of the branch at one point differ. Call model.eval(): dropout is on.")
    if _differ(pair[0], twins[0]) or _differ(pair[0], (value := branch(x))[0]):
        raise ValueError(
            "The branch's result for one input depends on the other inputs of the batch. Call model.eval(): batch norm "
            "is in train mode, or a layer mixes the batch."
        )
    return value


@cache
def _load_forward_mode() -> None:
    """Let torch load its forward-mode rules once, without its FutureWarning about its own use of ``torch.jit``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.func.jvp(torch.sin, (torch.zeros(1),), (torch.ones(1),))


def _differ(a: Tensor, b: Tensor) -> bool:
    """Whether more than 1 % of the entries differ by more than rounding.

    A few may: where rounding, which depends on the size of the batch, moves a unit across the kink of a ReLU.
    """
    scale = a.abs().max().clamp(min=torch.finfo(a.dtype).tiny)
    return float(((a - b).abs() > 1e3 * torch.finfo(a.dtype).eps * scale).float().mean()) > 0.01


def _chunk_size(x: Tensor, units: int, memory: int = MEMORY_BUDGET) -> int:
    """Number of products at a time; about eight intermediate tensors of the widest layer live at once."""
    return max(1, memory // (8 * len(x) * units * x.element_size()))
