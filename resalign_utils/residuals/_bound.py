"""Branches with constants: what else a block is called with, and the derivative of its outer activation.

Both belong to the n rows at which a block was traced; :func:`branch_rows` takes them along when rows are taken.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from ..operators import Branch
from ..precision import in_double

Eager = Callable[[], AbstractContextManager[object]]

_ROWS = 8  # at which an outer activation is looked at
_ATTEMPTS = 4  # points at which its derivative may agree with quotients of finite differences
_AS_SINGLE = 1e-2  # relative to the largest entry of a row: whether float64 computes the same function
_JITTER = 1e-2  # distance of these points, relative to the entries
# Error of a derivative against the quotients, by the arithmetic, relative to the largest of its row
_SLOPE_ERROR = {torch.float64: 1e-5, torch.float32: 0.05}


@dataclass(frozen=True)
class Arguments:
    """What a block is called with besides its state.

    Attributes:
        args: after the state.
        kwargs: by their names.
        n: number of rows of the state.
        per_row: places in ``args`` and names in ``kwargs`` whose tensors (n, ...) have a row for each row of the state.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    n: int
    per_row: frozenset[int | str] = frozenset()

    @property
    def undecided(self) -> list[int | str]:
        """The arguments that may have a row for each row of the state, by their shapes."""
        named: list[tuple[int | str, Any]] = [*enumerate(self.args), *self.kwargs.items()]
        return [name for name, value in named if any(self._fits(leaf) for leaf in tree_leaves(value))]

    def rows(self, index: Tensor) -> Arguments:
        """The same at some rows of the state."""

        def pick(name: int | str, value: Any) -> Any:
            if name not in self.per_row:
                return value
            return tree_map_only(Tensor, lambda leaf: leaf[index] if self._fits(leaf) else leaf, value)

        args = tuple(pick(place, value) for place, value in enumerate(self.args))
        return replace(self, args=args, kwargs={k: pick(k, v) for k, v in self.kwargs.items()}, n=len(index))

    def call(self, function: Branch, h: Tensor) -> Tensor:
        """Call ``function`` with everything if its signature takes that, else with h alone."""
        if not (self.args or self.kwargs):
            return function(h)
        try:
            signature = inspect.signature(function.forward if isinstance(function, nn.Module) else function)
            signature.bind(h, *self.args, **self.kwargs)
        except (TypeError, ValueError):  # other arguments, or a function of C without a signature
            return function(h)
        return function(h, *self.args, **self.kwargs)

    def _fits(self, leaf: Any) -> bool:
        return isinstance(leaf, Tensor) and leaf.dim() > 0 and len(leaf) == self.n


class Held(Protocol):
    """``f → J_σ(z) f`` (n, *out), with z (n, *out) held."""

    def __call__(self, f: Tensor) -> Tensor: ...

    def rows(self, index: Tensor) -> Held: ...


@dataclass(frozen=True)
class Slope:
    """J_σ(z) of an elementwise σ: the products with σ'(z) (n, *out)."""

    slope: Tensor

    def __call__(self, f: Tensor) -> Tensor:
        return self.slope * f

    def rows(self, index: Tensor) -> Slope:
        return Slope(self.slope[index])


class Pushforward:
    """J_σ(z) of any σ, as the transpose of ``u → J_σᵀ u``."""

    def __init__(self, outer: Branch, z: Tensor) -> None:
        self._outer, self._z = outer, z
        with torch.enable_grad():
            y, point = _graph(outer, z)
            self._u = torch.zeros_like(y).requires_grad_()
            (self._pulled,) = torch.autograd.grad((self._u * y).sum(), point, create_graph=True)

    def __call__(self, f: Tensor) -> Tensor:
        # f as grad_outputs: under the transforms of torch.func a product with f would hide the graph of _pulled
        return torch.autograd.grad(self._pulled, self._u, f, create_graph=True)[0]

    def rows(self, index: Tensor) -> Pushforward:
        return Pushforward(self._outer, self._z[index])


def hold(outer: Branch, z: Tensor) -> Held:
    """The derivative of the outer activation at z (n, *out), proved at a few rows against finite differences.

    They are taken in float64. Where the activation cannot be evaluated so, they are too coarse to show an error of less
    than 5 %.

    Raises:
        ValueError: autograd knows no derivative, or another one than the values have. The text begins with a verb.
    """
    few = z[:_ROWS]
    try:
        held = _derivative(outer, z)
        agrees = _agree(outer, few, held.rows(torch.arange(len(few), device=z.device)))
    except RuntimeError as error:
        raise ValueError(f"cannot be differentiated ({str(error).splitlines()[0]})") from error
    if not agrees:
        raise ValueError("has another derivative by autograd than by its values: something in it is detached")
    return held


def _agree(outer: Branch, z: Tensor, held: Held) -> bool:
    """Whether the derivative agrees with differences of the values, in float64 if the activation has them so."""
    for evaluate in (_plain, in_double):  # most activations compute in float64 by themselves when z is float64
        try:
            if evaluate(_agrees_near, outer, z.double(), held):
                return True
            refused = evaluate is in_double and _same_values(outer, z)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # it holds float32 weights; or it asks for a dtype, or is compiled
            refused = False
    return z.dtype != torch.float64 and not refused and _agrees_near(outer, z, held)


def _same_values(outer: Branch, z: Tensor) -> bool:
    """Whether the activation computes the same in float64."""
    y, single = in_double(lambda z: outer(z.clone()), z), outer(z.clone())
    return y.dtype == torch.float64 and bool((_gap(y, single) <= _AS_SINGLE * _gap(single, 0.0)).all())


def _plain(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def _gap(a: Tensor, b: Tensor | float) -> Tensor:
    """The largest difference (n,) in each row (n, ...)."""
    return (a - b).flatten(1).abs().amax(1)


def _derivative(outer: Branch, z: Tensor) -> Held:
    """J_σ(z), a product if it is diagonal: then, and for a random r only then, ``J_σᵀ r = (J_σᵀ 1) ⊙ r``."""
    if outer(z[:1].clone()).shape == z[:1].shape:
        r = _random(z)
        slope = _pulled(outer, z, torch.ones_like(z))
        if _same(_pulled(outer, z, r), slope * r):
            return Slope(slope)
    return Pushforward(outer, z)


def _graph(outer: Branch, z: Tensor) -> tuple[Tensor, Tensor]:
    point = z.detach().requires_grad_()
    return outer(point.clone()), point  # cloned: the activation may work in place


def _pulled(outer: Branch, z: Tensor, weights: Tensor) -> Tensor:
    """``J_σᵀ w`` at z (n, *out)."""
    with torch.enable_grad():
        y, point = _graph(outer, z)
        # of a sum: grad_outputs make torch load sympy, which takes a second
        return torch.autograd.grad((weights * y).sum(), point)[0]


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether all rows are the same but for rounding."""
    difference, size = (part.flatten(1).abs().amax(1) for part in (a - b, a))
    return bool((difference <= 1e3 * torch.finfo(a.dtype).eps * size).all())


def _random(z: Tensor) -> Tensor:
    """A random tensor of z's shape (n, *out): one draw for each row times one for each unit."""
    generator = torch.Generator().manual_seed(0)
    units, rows = torch.randn(z.shape[1:], generator=generator), torch.randn(len(z), generator=generator)
    return units.to(z) * rows.to(z).reshape(-1, *[1] * (z.dim() - 1))


def _agrees_near(outer: Branch, z: Tensor, held: Held) -> bool:
    """Whether each row of the derivative agrees with finite differences at z (n, *out), or at a point beside it."""
    agrees = _agrees(outer, z, held if isinstance(held, Slope) else _derivative(outer, z))
    for attempt in range(1, _ATTEMPTS):
        if agrees.all():
            break
        noise = 0.5 + torch.rand(z.shape, generator=torch.Generator().manual_seed(attempt), dtype=torch.float64).to(z)
        near = z * (1 + attempt * _JITTER * noise)  # no sign changes
        agrees = agrees | _agrees(outer, near, _derivative(outer, near))
    return bool(agrees.all())


def _agrees(outer: Branch, z: Tensor, held: Held) -> Tensor:
    """Whether a directional derivative lies between the two one-sided quotients (n,), which at a kink differ."""
    eps, size = torch.finfo(z.dtype).eps, z.abs().flatten(1)
    spread = z.flatten(1).std(1, correction=0, keepdim=True)
    spread = torch.where(spread > 1e3 * eps * size.amax(1, keepdim=True), spread, 1.0)
    length = eps ** (1 / 3) * torch.minimum(torch.maximum(size, spread / 100), spread)
    step = length.reshape(z.shape) * _random(z).sign()
    y = outer(z.clone())
    linear = held(step).flatten(1)
    up, down = (outer(z + step) - y).flatten(1), (y - outer(z - step)).flatten(1)
    allowed = _SLOPE_ERROR[z.dtype] * linear.abs().amax(1, keepdim=True)
    allowed = allowed + 100 * eps * y.flatten(1).abs().amax(1, keepdim=True)
    outside = torch.maximum(linear - torch.maximum(up, down), torch.minimum(up, down) - linear)
    return (outside <= allowed).all(1)


@dataclass(frozen=True)
class BoundBranch:
    """``h (n, *in) → J_σ(z)·F(h, ...)`` (n, *out), with z and the further arguments held.

    Attributes:
        branch: F.
        arguments: what it is called with besides h.
        outer: J_σ(z), None for no outer activation.
        in_place: whether F changes its argument, and gets a copy.
        eager: makes the context in which F is evaluated, None for any.
    """

    branch: Branch
    arguments: Arguments
    outer: Held | None
    in_place: bool = False
    eager: Eager | None = None

    def __call__(self, h: Tensor) -> Tensor:
        n = self.arguments.n
        if len(h) != n and (self.outer is not None or self.arguments.per_row):
            if n == 1:  # the constants of a single row serve any number of them
                return self.rows(torch.zeros(len(h), dtype=torch.long, device=h.device))(h)
            raise ValueError(
                f"This branch is bound to the {n} inputs at which it was traced, by its outer activation or by further "
                f"arguments of its block; it was called with {len(h)}. Take residual.rows(index).branch."
            )
        with nullcontext() if self.eager is None else self.eager():
            f = self.arguments.call(self.branch, h.clone() if self.in_place else h)
        return f if self.outer is None else self.outer(f)

    def rows(self, index: Tensor) -> BoundBranch:
        """The same at some of its rows."""
        outer = None if self.outer is None else self.outer.rows(index)
        return replace(self, arguments=self.arguments.rows(index), outer=outer)
