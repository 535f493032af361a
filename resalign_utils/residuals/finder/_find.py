"""The finder: which residual sums a model has at some inputs, as blocks that a trace can take."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...precision import in_double
from .._bound import Arguments
from .._checks import HALF, check_state
from .._inputs import Inputs, logits_of, tensors_of
from .._registry import is_residual_block
from .._watch import Call, watched
from ._blocks import FoundBlock, from_rows, to_rows
from ._found import Other, ResidualSum
from ._operations import chooses, name_of
from ._outer import with_outer
from ._program import Program
from ._sums import find_sums
from ._tape import record
from ._whole import composed

# How far the program's output may be from the model's, relative to the largest entry. What a model makes in float32 by
# itself, a factor, a rotary angle, is rounded to it in the program, and not where the model is widened to float64.
_SAME = {torch.float32: 1e-4, torch.float64: 1e-9}
_SAME_IN_DOUBLE = 1e-6
_REGISTER = "Register its blocks by their types with @resalign_utils.residual_branch.register."

_ORDER = re.compile(r"#\d+")  # of a sum in its module


@dataclass(frozen=True)
class Found:
    """A residual sum that was found, with its name and its block."""

    name: str
    block: FoundBlock


class Finder:
    """The residual sums of a model, beside the blocks whose types are registered.

    Args:
        model: in eval mode.
        inputs: at which it is looked at; the first rows are enough.
        forced: names of sums that are to count as blocks although they were refused.
        whole: whether the sums of one call of a module count as one block.

    Attributes:
        program: all operations of the model.
        found: the residual sums outside of registered blocks, in order.
        others: what else adds or joins, with its name.

    Raises:
        ValueError: the model's operations cannot be followed; the text says why.
    """

    def __init__(self, model: nn.Module, inputs: Inputs, forced: Sequence[str] = (), *, whole: bool = False) -> None:
        self._model = model
        registered = [name for name, module in model.named_modules() if is_residual_block(module)]
        try:
            self.program = _program(model, inputs)
            sums, others = find_sums(self.program)
        except ValueError as error:
            raise ValueError(f"{type(model).__name__} {error}.") from error
        within = [s for s in sums if not self._is_within(s.place, registered)]
        self._names = self._named([s.place for s in sums] + [other.place for other in others])
        others = [other for other in others if not self._is_within(other.place, registered)]
        back = [other for other in others if self._names[other.place] in forced and other.sum is not None]
        within = sorted([*within, *(other.sum for other in back if other.sum is not None)], key=lambda s: s.place)
        self.others = [(self._names[other.place], other) for other in others if other not in back]
        within = with_outer(self.program, model, within)
        if whole:
            kept = composed(self.program, within)
            self._names |= {s.place: _ORDER.sub("", self._names[s.place]) for s in kept if s not in within}
            within = kept
        self.found = [found for s in within if (found := self._block(s, registered)) is not None]

    def run(self, inputs: Inputs) -> tuple[list[Call], Tensor]:
        """The calls of all blocks at some inputs, and the model's own output (n, C)."""
        registered, logits = watched(self._model, inputs)
        wanted = {n for f in self.found for n in (f.block.sum.h, f.block.sum.output, *f.block.streams)}
        values = self.program.evaluate(inputs.tensors, wanted)
        calls = [(f.block.sum.place, self._call(f, values, len(inputs))) for f in self.found]
        seen = Counter[str]()
        for call in registered:
            seen[call.name] += 1
            calls.append((self.program.ends[call.name, seen[call.name]], call))
        return [call for _, call in sorted(calls, key=lambda pair: pair[0])], logits

    def check(self, inputs: Inputs) -> None:
        """Refuse a program that is not the model: at all inputs, and in float64 at the first two.

        Raises:
            ValueError: it gives something else.
        """
        few = inputs.rows(torch.arange(min(2, len(inputs)), device=inputs.data.device))
        try:
            pair = in_double(lambda *tensors: self._both(few.with_tensors(tensors)), *few.tensors)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # it asks for a dtype: compared in its own arithmetic alone
            pair = [], []
        direct = self._both(inputs)
        if not any(tensor.is_floating_point() or tensor.is_complex() for tensor in direct[1]):
            raise ValueError(
                f"{type(self._model).__name__} gives an output whose way from its inputs cannot be seen, through NumPy "
                f"or a library of its own, say. {_REGISTER}"
            )
        for mine, own, tolerance in (
            *((a, b, _SAME.get(b.dtype, _SAME[torch.float32])) for a, b in zip(*direct, strict=True)),
            *((a, b, _SAME_IN_DOUBLE) for a, b in zip(*pair, strict=True)),
        ):
            if not _same(mine, own, tolerance):
                self._refuse_half()
                raise ValueError(
                    f"{type(self._model).__name__} does other operations for other inputs, or in float64: the list of "
                    f"those that it did for the first does not give its output at all. {_REGISTER}"
                )

    def _refuse_half(self) -> None:
        """Say so where a model that is not repeated computes in half precision: that is why."""
        program = self.program
        for operation in program.operations:
            if any(number in program.live and program.dtypes[number] in HALF for number in operation.outputs):
                raise ValueError(
                    f"{type(self._model).__name__} computes in half precision by itself ({operation.op} in "
                    f"'{operation.module}'), by an autocast of its own most likely. Take that out before measuring."
                )

    def output_from(self, block: FoundBlock, z: Tensor, inputs: Inputs) -> Tensor:
        """The model's first output where a sum gives z (n, *out) in place of its own, and all else follows."""
        program, number = self.program, block.sum.z
        (output,) = [n for n in program.outputs if n is not None][:1]
        places, lacking = program.plan([number], [output])
        live = [n for n in lacking if n in program.live]
        given = program.evaluate(inputs.tensors, live) | program.constants(lacking, len(inputs))
        given[number] = from_rows(program, number, z)
        return program.run(places, given, len(inputs), [output])[output]

    def words_of(self, block: FoundBlock) -> tuple[str, str]:
        """How the skip depends on the state, and the name of the last operation of σ, "" for none."""
        found = block.sum
        place = None if found.outer is None else self.program.producer[found.outer]
        return found.kind.name.lower(), "" if place is None else name_of(self.program.operations[place])

    def how(self, block: FoundBlock) -> str:
        """Whether other streams of data enter the block."""
        return "found, other inputs held" if block.streams else "found"

    def _both(self, inputs: Inputs) -> tuple[list[Tensor], list[Tensor]]:
        """The program's outputs and the model's."""
        own = _tensors(inputs.call(self._model))
        live = [i for i, number in enumerate(self.program.outputs) if number in self.program.live]
        numbers = [number for number in self.program.outputs if number in self.program.live]
        values = self.program.evaluate(inputs.tensors, [n for n in numbers if n is not None])
        return [values[n] for n in numbers if n is not None], [own[i] for i in live]

    def _block(self, s: ResidualSum, registered: Sequence[str]) -> Found | None:
        name = self._names[s.place]
        passed = {o.module for o in (self.program.operations[p] for p in self.program.plan([s.h], [s.z])[0])}
        if any(_is_in(module, registered) for module in passed):
            self.others.append(
                (name, Other(s.place, "long skip", "It passes over blocks whose types are registered.", s))
            )
            return None
        try:
            return Found(name, FoundBlock(self.program, s))
        except ValueError as error:
            self.others.append((name, Other(s.place, "sum", f"It {error}.")))
            return None

    def _call(self, found: Found, values: dict[int, Tensor], n: int) -> Call:
        block, program = found.block, self.program
        h, output = (to_rows(program, number, values[number]) for number in (block.sum.h, block.sum.output))
        check_state(found.name, h, n)
        check_state(found.name, output, n)
        streams = [to_rows(program, number, values[number]) for number in block.streams]
        return Call(found.name, block, h, Arguments((streams,) if streams else (), {}, n), output)

    def _is_within(self, place: int, registered: Sequence[str]) -> bool:
        return _is_in(self.program.operations[place].module, registered)

    def _named(self, places: Sequence[int]) -> dict[int, str]:
        """Names of sums: their module's, with ``#2`` for the second sum in it and ``@2`` for its second call."""
        operations, total, seen = self.program.operations, Counter[tuple[str, int]](), Counter[tuple[str, int]]()
        ordered = sorted(set(places))
        total.update((operations[p].module, operations[p].call) for p in ordered)
        names = dict[int, str]()
        for place in ordered:
            key = operations[place].module, operations[place].call
            seen[key] += 1
            name = key[0] or "(model)"
            name += f"#{seen[key]}" if total[key] > 1 else ""
            names[place] = name + (f"@{key[1]}" if key[1] > 1 else "")
        return names


def _program(model: nn.Module, inputs: Inputs) -> Program:
    def call(*tensors: Tensor) -> object:
        args, kwargs = inputs.build(tensors)
        return _tensors(model(*args, **kwargs))

    tapes = []
    order = _masked_first(inputs)
    for rows in (2, 3):
        few = inputs.rows(order[torch.arange(rows, device=order.device) % len(inputs)])
        tapes.append(record(model, call, list(few.tensors)))
    program = Program(*tapes)
    by_value = program.reached_from(n for n in program.live if program.dtypes[n].is_floating_point)
    for place, operation in enumerate(program.operations):
        if chooses(operation) and any(number in by_value for number in program.sources[place]):
            raise ValueError(
                f"chooses what it does by the values of its inputs ({operation.op} in '{operation.module}'), so that "
                "its operations at one input say nothing of those at another; where it only prints or stores a number, "
                "or a hook does, take that out"
            )
    return program


def _tensors(output: object) -> list[Tensor]:
    """The logits, then all tensors in what a model returned."""
    return [logits_of(output), *tensors_of(output)]


def _masked_first(inputs: Inputs) -> Tensor:
    """The rows (n,), those first whose masks hide most: what a model leaves out for a full mask is to be seen."""
    hidden = torch.zeros(len(inputs), device=inputs.data.device)
    for tensor in inputs.tensors[1:]:
        hidden += (tensor == 0).reshape(len(tensor), -1).sum(1).to(hidden)
    return hidden.argsort(descending=True, stable=True)


def _same(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Whether all entries agree, relative to the largest; infinite ones and NaN have to be in the same places."""
    if a.shape != b.shape or not torch.equal(a.isfinite(), b.isfinite()):
        return False
    if not (b.is_floating_point() or b.is_complex()):
        return True  # places of a largest entry, say, which rounding may move
    a, b = (torch.where(b.isfinite(), tensor, 0) for tensor in (a, b))
    return b.numel() == 0 or bool((a - b).abs().max() <= tolerance * b.abs().max())


def _is_in(module: str, names: Sequence[str]) -> bool:
    return any(name == "" or module == name or module.startswith(f"{name}.") for name in names)
