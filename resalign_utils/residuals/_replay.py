"""The proof that a block's registered parts are the block: they are evaluated and compared with what it gave."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor, nn

from ._bound import Arguments, BoundBranch, Held, hold
from ._registry import Branch, Parts, parts_of
from ._watch import Call, eagerly, logits_of, state_of

# Rounding of a block, relative to the largest entry of a row: the same sums, perhaps in another order.
ROUNDING = {torch.float32: 5e-5, torch.float64: 1e-10}
_OTHER_ROWS = 1e-3  # the same, between batches of different sizes
_CHANCE = 1e-3  # what two evaluations may differ by, relative to the largest entry


@dataclass(frozen=True)
class _Replay:
    """What a block's parts gave: z = shortcut + F and σ(z) (n, *out); the largest entries (n,) on the way."""

    z: Tensor
    output: Tensor
    largest: Tensor
    in_place: bool  # whether F changed its argument

    def error(self, output: Tensor) -> float:
        """The largest difference from the block's output, relative to the largest entry of its row; NaN if one is."""
        tiny = torch.finfo(output.dtype).tiny
        return float(((self.output - output).flatten(1).abs().amax(1) / self.largest.clamp(min=tiny)).max())


def replayed(call: Call) -> Branch:
    """The branch of a block with its constants held, after the replay.

    Raises:
        TypeError: a registered function returns no parts, or a part no tensor.
        ValueError: the parts do not give the block's output, or its outer activation has no derivative.
    """
    parts = parts_of(call.block)
    try:
        replay = _replay(call, parts, call.arguments, call.input)
    except Exception as raised:
        raised.add_note(
            f"It was raised by the replay of {call.label}. Parts that take them are called with all that the block is "
            "called with; register 'lambda h: f(h)' for one that is to get h alone."
        )
        raise
    if not (error := replay.error(call.output)) <= ROUNDING[call.output.dtype]:
        raise ValueError(_difference(call, parts, replay, error))
    arguments, eager = _decided(call, parts), eagerly(call.block)
    outer = None if parts.outer is None else _held(call, parts.outer, replay.z)
    if outer is None and eager is None and not (replay.in_place or arguments.args or arguments.kwargs):
        return parts.branch  # nothing to hold
    return BoundBranch(parts.branch, arguments, outer, replay.in_place, eager)


def check_repeatable(model: nn.Module, x: Tensor, logits: Tensor, calls: list[Call]) -> None:
    """Refuse a model whose second evaluation at x gives other logits (n, C).

    Raises:
        ValueError: it does; the text names the block where it begins, if it is one.
    """
    if _alike(logits, logits_of(model(x.clone()))):
        return
    drawing = (call.label for call in calls if not _alike(call.output, _again(call)))
    where = next(drawing, "a layer outside of its residual blocks")
    raise ValueError(
        f"Two evaluations of {type(model).__name__} at the same inputs differ; the first to differ is {where}. It "
        "draws by chance in eval mode too, or remembers: F.dropout needs training=self.training."
    )


def _again(call: Call) -> Tensor:
    arguments = call.arguments
    return state_of(call.name, call.block(call.input.clone(), *arguments.args, **arguments.kwargs))


def _alike(a: Tensor, b: Tensor) -> bool:
    a, b = a.nan_to_num(), b.nan_to_num()
    return a.shape == b.shape and bool((a - b).abs().max() <= _CHANCE * a.abs().max())


def _replay(call: Call, parts: Parts, arguments: Arguments, h: Tensor) -> _Replay:
    given = h.clone()
    before = given._version
    f = _tensor(call, "branch", arguments.call(parts.branch, given))
    in_place, terms = given._version != before or not torch.equal(given, h), [f]  # .data has no version
    if parts.shortcut is not None:
        terms.append(_tensor(call, "shortcut", arguments.call(parts.shortcut, h.clone())))
    if len({term.shape for term in terms}) > 1 or len(f) != len(h):
        shapes = " and its shortcut ".join(str(tuple(term.shape)) for term in terms)
        raise ValueError(
            f"{call.label}: its registered branch gives {shapes} for an input {tuple(h.shape)}. They must have one "
            "shape: where a block changes it, return (branch, shortcut, outer), with None for no shortcut."
        )
    z = sum(terms[1:], start=f)
    output = z if parts.outer is None else _tensor(call, "outer activation", parts.outer(z.clone()))
    if output.shape != (len(h), *call.output.shape[1:]):
        raise ValueError(
            f"{call.label}: its registered parts give {tuple(output.shape)}, the block {tuple(call.output.shape)}."
        )
    largest = torch.stack([part.flatten(1).abs().amax(1) for part in (*terms, z, output)]).amax(0)
    return _Replay(z, output, largest, in_place)


def _tensor(call: Call, part: str, value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{call.label}: its registered {part} must return a tensor; got {type(value).__name__}.")
    return value


def _decided(call: Call, parts: Parts) -> Arguments:
    """The arguments, with those told apart that have a row for each row of the state from those that are shared.

    Their shapes do not tell: a mask (T, T) may meet T inputs. Other rows in another number do, and they show a block
    that mixes its inputs, or that knows them from elsewhere.
    """
    n, undecided, failed = call.arguments.n, call.arguments.undecided, None
    index = torch.tensor([n - 1, 0, 0, n // 2][: 4 if n == 3 else 3], device=call.input.device)
    for per_row in product((True, False), repeat=len(undecided)):
        chosen = frozenset(name for name, rowwise in zip(undecided, per_row, strict=True) if rowwise)
        arguments = replace(call.arguments, per_row=chosen)
        try:
            replay = _replay(call, parts, arguments.rows(index), call.input[index])
        except Exception as error:  # whatever the block makes of shapes that do not fit: not this reading
            failed = error
            continue
        if replay.error(call.output[index]) <= _OTHER_ROWS:
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


def _difference(call: Call, parts: Parts, replay: _Replay, error: float) -> str:
    formula = "branch(h)" if parts.shortcut is None else "shortcut(h) + branch(h)"
    formula = formula if parts.outer is None else f"outer({formula})"
    hint = " Its branch changes its argument in place, which its shortcut may then see." if replay.in_place else ""
    return (
        f"{call.label} is not what is registered for it: {formula} differs from its output by {error:.1e} of the "
        f"largest entry.{hint} Check what the registered function returns, (branch, shortcut, outer): a skip that is "
        "not the identity or is taken only sometimes, another activation outside of the sum, a subclass with a forward "
        "of its own."
    )
