"""The proof that a block's registered parts are the block: they are evaluated and compared with what it gave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ..operators import Branch
from ..precision import in_double
from ._bound import Arguments, BoundBranch, Held, hold
from ._registry import Parts, parts_of
from ._watch import Call, eagerly, state_of

# Rounding of a block, by the arithmetic: relative to what its branch adds, and to the largest entry of a row. The same
# sums may be taken in another order.
_ROUNDING = {torch.float64: (1e-9, 1e-13), torch.float32: (1e-3, 1e-6)}
_OTHER_ROWS = {torch.float64: 1e-9, torch.float32: 1e-3}  # between batches of different sizes
_AS_SINGLE = 1e-2  # relative to the largest entry: whether float64 computes the same function


@dataclass(frozen=True)
class _Replay:
    """What a block's parts gave.

    Attributes:
        f: F (n, *out).
        skip: the shortcut (n, *out), None for none.
        z: their sum (n, *out).
        output: σ(z) (n, *out).
        bare: σ(skip) (n, *out), None for none.
        in_place: whether F changed its argument.
    """

    f: Tensor
    skip: Tensor | None
    z: Tensor
    output: Tensor
    bare: Tensor | None
    in_place: bool

    @cached_property
    def added(self) -> Tensor:
        """The largest entry (n,) of what F adds to the output."""
        added = self.f if self.output is self.z else self.output if self.bare is None else self.output - self.bare
        return _size(added).nan_to_num(0.0)

    @cached_property
    def largest(self) -> Tensor:
        """The largest entry (n,) on the way."""
        parts = [self.f, self.z, self.output] if self.skip is None else [self.f, self.z, self.output, self.skip]
        return torch.stack([_size(part) for part in parts]).amax(0)

    def wrong(self, output: Tensor) -> tuple[float, float] | None:
        """The largest difference from the block's output, and what F adds there, relative to the row's largest entry.

        None if no row differs by more than rounding.
        """
        of_added, of_largest = _ROUNDING[self.output.dtype]
        gap = _size(self.output - output)
        if bool((gap <= of_added * self.added + of_largest * self.largest).all()):
            return None
        error = (gap / self.largest.clamp(min=torch.finfo(gap.dtype).tiny)).nan_to_num(torch.inf)
        row = int(error.argmax())
        return float(error[row]), float(self.added[row] / self.largest[row])

    def is_at(self, index: Tensor, whole: _Replay) -> bool:
        """Whether this is what the whole gave at the rows ``index``."""
        tolerance = _OTHER_ROWS[self.output.dtype]
        output = _size(self.output - whole.output[index]) <= tolerance * whole.largest[index]
        f = _size(self.f - whole.f[index]) <= tolerance * _size(whole.f)[index]
        return bool((output & f).all())


@dataclass(frozen=True)
class _Proof:
    """A replay, the block's output (n, *out) in the same arithmetic, and what evaluates in it."""

    replay: _Replay
    output: Tensor
    evaluate: Callable[..., Any]


def replayed(call: Call) -> tuple[Branch, Tensor | None]:
    """The branch of a block with its constants held, and its step ``output − input`` (n, *out), after the replay.

    Block and parts are compared in float64, where what is lost in the rounding of a large state shows too. Where that
    cannot be, in a block that asks for its dtype or is compiled, a branch below 1e-6 of the state is compared with
    nothing.

    The step is that of the replay in float64: in float32 that of a small branch is lost in the rounding of its state.
    It is None where a block changes the shape.

    Raises:
        TypeError: a registered function returns no parts, or a part no tensor.
        ValueError: the parts do not give the block's output, or its outer activation has no derivative.
    """
    parts = parts_of(call.block)
    replay = _replay(call, parts, call.arguments, call.input)
    proof = _doubled(call, parts) or _Proof(replay, call.output, lambda function, *args: function(*args))
    if (wrong := proof.replay.wrong(proof.output)) is not None:
        raise ValueError(_difference(call, parts, replay, *wrong))
    step = None
    if call.output.shape == call.input.shape:
        step = (proof.output - call.input.to(proof.output.dtype)).to(call.output.dtype)
    arguments, eager = _decided(call, parts, proof), eagerly(call.block)
    outer = None if parts.outer is None else _held(call, parts.outer, replay.z)
    if outer is None and eager is None and not (replay.in_place or arguments.args or arguments.kwargs):
        return parts.branch, step  # nothing to hold
    return BoundBranch(parts.branch, arguments, outer, replay.in_place, eager), step


def _doubled(call: Call, parts: Parts) -> _Proof | None:
    """The same in float64; None where that is not what the block computes."""
    if call.output.dtype == torch.float64:
        return None
    try:
        output = in_double(_output, call)
        replay = in_double(_replay, call, parts, call.arguments, call.input)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # it asks for a dtype, or is compiled; that the parts can be evaluated has been seen
        return None
    same = output.shape == call.output.shape and output.dtype == replay.output.dtype == torch.float64
    close = same and bool((_size(output - call.output) <= _AS_SINGLE * _size(output)).all())
    return _Proof(replay, output, in_double) if close else None


def _output(call: Call) -> Tensor:
    """The block's output, evaluated again."""
    args, kwargs = tree_map_only(Tensor, torch.clone, (call.arguments.args, dict(call.arguments.kwargs)))
    return state_of(call.name, call.block(call.input.clone(), *args, **kwargs))


def _size(a: Tensor) -> Tensor:
    """The largest entry (n,) of each row (n, ...)."""
    return a.flatten(1).abs().amax(1)


def _replay(call: Call, parts: Parts, arguments: Arguments, h: Tensor) -> _Replay:
    given = h.clone()
    before = given._version
    f = _part(call, "branch", parts.branch, given, arguments)
    in_place = given._version != before or not torch.equal(given, h)  # .data has no version
    skip = None if parts.shortcut is None else _part(call, "shortcut", parts.shortcut, h.clone(), arguments)
    if len(f) != len(h) or (skip is not None and skip.shape != f.shape):
        shapes = " and its shortcut ".join(str(tuple(term.shape)) for term in (f, skip) if term is not None)
        raise ValueError(
            f"{call.label}: its registered branch gives {shapes} for an input {tuple(h.shape)}. They must have one "
            "shape: where a block changes it, return (branch, shortcut, outer), with None for no shortcut."
        )
    z = f if skip is None else skip + f
    output, bare = (_outside(call, parts, term) for term in (z, skip))
    if output.shape != (len(h), *call.output.shape[1:]):
        raise ValueError(
            f"{call.label}: its registered parts give {tuple(output.shape)}, the block {tuple(call.output.shape)}."
        )
    return _Replay(f, skip, z, output, bare, in_place)


def _outside(call: Call, parts: Parts, z: Tensor | None) -> Any:
    """σ(z), or z itself if there is no σ; None if z is None."""
    if z is None or parts.outer is None:
        return z
    return _part(call, "outer activation", parts.outer, z.clone(), None)


def _part(call: Call, part: str, function: Branch, h: Tensor, arguments: Arguments | None) -> Tensor:
    try:
        value = function(h) if arguments is None else arguments.call(function, h)
    except torch.OutOfMemoryError:
        raise
    except Exception as raised:  # a foreign function may raise anything
        why = next(iter(str(raised).strip().splitlines()), "")
        raise ValueError(
            f"{call.label}: its registered {part} cannot be evaluated at {tuple(h.shape)} "
            f"({type(raised).__name__}: {why}). Parts that take them are called with "
            "all that the block is called with; register 'lambda h: f(h)' for one that is to get h alone."
        ) from raised
    return _tensor(call, part, value)


def _tensor(call: Call, part: str, value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{call.label}: its registered {part} must return a tensor; got {type(value).__name__}.")
    return value


def _decided(call: Call, parts: Parts, proof: _Proof) -> Arguments:
    """The arguments, with those told apart that have a row for each row of the state from those that are shared.

    Their shapes do not tell: a mask (T, T) may meet T inputs. Other rows in another number do, and they show a block
    that mixes its inputs, or that knows them from elsewhere.
    """
    n, undecided, failed = call.arguments.n, call.arguments.undecided, None
    if n == 1 and not undecided:
        return call.arguments  # nothing to sort; that inputs do not meet was checked on the whole model
    index = torch.tensor([n - 1, 0, 0, n // 2][: 4 if n == 3 else 3], device=call.input.device)
    for per_row in product((True, False), repeat=len(undecided)):
        chosen = frozenset(name for name, rowwise in zip(undecided, per_row, strict=True) if rowwise)
        arguments = replace(call.arguments, per_row=chosen)
        try:
            replay = proof.evaluate(_replay, call, parts, arguments.rows(index), call.input[index])
        except Exception as error:  # the block cannot take arguments of these shapes: this reading is wrong
            failed = error
            continue
        if replay.is_at(index, proof.replay):
            return arguments
    names = ", ".join(f"'{name}'" if isinstance(name, str) else f"number {name + 2}" for name in undecided)
    further = (
        f", and no reading of its further arguments ({names}) as theirs or as shared by all explains it"
        if names
        else ""
    )
    raise ValueError(
        f"{call.label}: its result for one input depends on the other inputs of the batch, or on something of theirs "
        f"that it is not called with. Taken in another order and number, the inputs do not give the same rows{further}."
    ) from failed


def _held(call: Call, outer: Branch, z: Tensor) -> Held:
    try:
        return hold(outer, z)
    except ValueError as error:
        raise ValueError(f"{call.label}: its outer activation {error}.") from error


def _difference(call: Call, parts: Parts, replay: _Replay, error: float, added: float) -> str:
    formula = "branch(h)" if parts.shortcut is None else "shortcut(h) + branch(h)"
    formula = formula if parts.outer is None else f"outer({formula})"
    hint = " Its branch changes its argument in place, which its shortcut may then see." if replay.in_place else ""
    return (
        f"{call.label} is not what is registered for it: {formula} differs from its output by {error:.1e} of the "
        f"largest entry, where the branch adds {added:.1e}.{hint}{_hooks(call.block)} Check what the registered "
        "function returns, (branch, shortcut, outer): a skip that is not the identity or is taken only sometimes, "
        "another activation outside of the sum, a subclass with a forward of its own."
    )


def _hooks(block: nn.Module) -> str:
    """The sentence that names the block's forward hooks, which change its output unseen; empty if it has none."""
    hooks = [*block._forward_pre_hooks.values(), *block._forward_hooks.values()]
    if not hooks:
        return ""
    names = ", ".join(getattr(hook, "__name__", type(hook).__name__) for hook in hooks)
    return f" It has forward hooks ({names}), which its parts do not pass: remove them, or register what they do."
