"""Products with the Jacobian of a branch, with and without forming it.

A branch maps ``h (n, *in)`` to ``(n, *out)`` row by row. At one point its Jacobian is a matrix J of shape (m, d) with
``m = prod(out)`` and ``d = prod(in)``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

Branch = Callable[[Tensor], Tensor]

MEMORY_BUDGET = 2**28  # bytes of intermediate results at a time


class JacobianBatch:
    """The Jacobians J_1..J_n (m, d) of a branch at n points, known by their products.

    The branch is linearised once, at the first product: its derivative is traced into a graph in which all that does
    not depend on the direction is a constant (``torch.func.linearize``), and that graph is transposed for ``Jᵀ``. A
    product then costs one to two evaluations of the branch. Products are done with autocast off, and on CUDA with
    TF32 off.

    Args:
        branch: ``(n, *in) → (n, *out)``, row by row, the same result for the same input.
        x: where to linearise, (n, *in).
        memory: bytes of intermediate results at a time; the products are cut into chunks to fit.

    Attributes:
        in_shape: shape (*in) of an input.
        out_shape: shape (*out) of an output.
        shape: (m, d) of each matrix.
        dtype: of the points.
        device: of the points.
        matvecs: number of single products done so far with each matrix.

    Raises:
        ValueError: the branch is no function of its input alone (see :func:`check_branch`).
    """

    def __init__(self, branch: Branch, x: Tensor, *, memory: int = MEMORY_BUDGET) -> None:
        self._branch, self._x, self._memory = branch, x.detach(), memory
        with exact_arithmetic(x.device):
            value = check_branch(branch, self._x)
        self.in_shape, self.out_shape = tuple(x.shape[1:]), tuple(value.shape[1:])
        self.shape = math.prod(self.out_shape), math.prod(self.in_shape)
        self.dtype, self.device, self.matvecs = x.dtype, x.device, 0

    def __len__(self) -> int:
        return len(self._x)

    def matmat(self, v: Tensor) -> Tensor:
        """``J_i v`` for k inputs of each matrix at once: (n, k, *in) → (n, k, *out)."""
        return self._products(self._maps[0], v, self.in_shape)

    def rmatmat(self, u: Tensor) -> Tensor:
        """``J_iᵀ u`` for k outputs of each matrix at once: (n, k, *out) → (n, k, *in)."""
        return self._products(self._maps[1], u, self.out_shape)

    def dense(self) -> Tensor:
        """The matrices themselves, (n, m, d)."""
        self.matvecs += min(self.shape)
        return dense_jacobians(self._branch, self._x, memory=self._memory)

    @torch.no_grad()
    def _products(self, linear: Branch, block: Tensor, shape: tuple[int, ...]) -> Tensor:
        expected = (len(self._x), *shape)
        if (len(block), *block.shape[2:]) != expected or block.dtype != self.dtype or block.device != self.device:
            raise ValueError(
                f"Expected a block of shape ({len(self._x)}, k, {', '.join(map(str, shape))}), {self.dtype} on "
                f"{self.device}; got {tuple(block.shape)}, {block.dtype} on {block.device}."
            )
        self.matvecs += block.shape[1]
        chunk = _chunk_size(self._x, max(self.shape), self._memory)
        with exact_arithmetic(self.device):
            # the batching rules of convolutions want the new dimension first; of one matrix, that is a view
            products = torch.vmap(linear, chunk_size=chunk)(block.transpose(0, 1).contiguous())  # (k, n, ·)
        return products.transpose(0, 1).contiguous()

    @cached_property
    def _maps(self) -> tuple[Branch, Branch]:
        """``v (n, *in) → J v (n, *out)`` and ``u (n, *out) → Jᵀ u (n, *in)``."""
        with torch.no_grad(), exact_arithmetic(self.device):
            return _linearised(self._branch, self._x)


class JacobianOperator:
    """The Jacobian J (m, d) of a branch at one point, known by its products; see :class:`JacobianBatch`.

    Args:
        branch: ``(n, *in) → (n, *out)``, row by row, the same result for the same input.
        point: where to linearise, (*in) or (1, *in). A first dimension of length one is the batch's: an image
            of one channel (1, h, w) is given as (1, 1, h, w).
        memory: bytes of intermediate results at a time.

    Attributes:
        in_shape: shape (*in) of an input.
        out_shape: shape (*out) of an output.
        shape: (m, d).
        dtype: of the point.
        device: of the point.

    Raises:
        ValueError: the branch is no function of its input alone (see :func:`check_branch`).
    """

    def __init__(self, branch: Branch, point: Tensor, *, memory: int = MEMORY_BUDGET) -> None:
        if point.dim() == 0:
            raise ValueError("Expected a point of shape (*in) or (1, *in); got a scalar.")
        # (1,) is a one-dimensional point, not an empty-shaped batch of one
        batched = point.dim() > 1 and point.shape[0] == 1
        self._batch = JacobianBatch(branch, point if batched else point[None], memory=memory)
        self.in_shape, self.out_shape, self.shape = self._batch.in_shape, self._batch.out_shape, self._batch.shape
        self.dtype, self.device = self._batch.dtype, self._batch.device

    @property
    def matvecs(self) -> int:
        """Number of single products done so far."""
        return self._batch.matvecs

    def matmat(self, v: Tensor) -> Tensor:
        """``J v`` for k inputs at once: (k, *in) → (k, *out)."""
        self._check(v, self.in_shape)
        return self._batch.matmat(v[None])[0]

    def rmatmat(self, u: Tensor) -> Tensor:
        """``Jᵀ u`` for k outputs at once: (k, *out) → (k, *in)."""
        self._check(u, self.out_shape)
        return self._batch.rmatmat(u[None])[0]

    def dense(self) -> Tensor:
        """J itself, (m, d)."""
        return self._batch.dense()[0]

    def _check(self, block: Tensor, shape: tuple[int, ...]) -> None:
        if tuple(block.shape[1:]) != shape or block.dtype != self.dtype or block.device != self.device:
            raise ValueError(
                f"Expected a block of shape (k, {', '.join(map(str, shape))}), {self.dtype} on {self.device}; got "
                f"{tuple(block.shape)}, {block.dtype} on {block.device}."
            )


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
    with exact_arithmetic(x.device):
        return _dense_jacobians(branch, x.detach(), memory)


def _dense_jacobians(branch: Branch, x: Tensor, memory: int) -> Tensor:
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


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Full precision while it lasts: autocast off, and on CUDA TF32 off, which cuDNN has on by default.

    TF32 keeps ten bits of the mantissa: its products are wrong by 1e-3, more than the residuals that are asked for.
    """
    with torch.autocast(device.type, enabled=False):
        if device.type != "cuda":
            yield
            return
        cudnn: Any = torch.backends.cudnn
        settings: list[Any] = [cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul]
        before = [setting.fp32_precision for setting in settings]
        try:
            for setting in settings:
                setting.fp32_precision = "ieee"
            yield
        finally:
            for setting, value in zip(settings, before, strict=True):
                setting.fp32_precision = value


def _linearised(branch: Branch, x: Tensor) -> tuple[Branch, Branch]:
    """The linear maps ``v → J v`` and ``u → Jᵀ u`` of a branch at x (n, *in)."""
    _load_forward_mode()
    try:
        with warnings.catch_warnings():
            # torch on its own constant folding, and on its own use of torch.jit
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.fx")
            value, forward = torch.func.linearize(branch, x)
            pullback = torch.func.vjp(forward, torch.zeros_like(x))[1]
    except Exception as error:  # tracing fails in as many ways as there are branches
        warnings.warn(
            f"The branch cannot be traced ({type(error).__name__}: {str(error).splitlines()[0][:200]}). Its products "
            "are done by differentiating backward twice, which is correct and two to five times slower.",
            RuntimeWarning,
            stacklevel=5,
        )
        value, pullback = torch.func.vjp(branch, x)[:2]
        # u → Jᵀ u is linear: its own transpose is J
        transposed = torch.func.vjp(lambda u: pullback(u)[0], torch.zeros_like(value))[1]
        return (lambda v: transposed(v)[0]), (lambda u: pullback(u)[0])
    return forward, (lambda u: pullback(u)[0])


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
