"""What a block does to its sum: the activation, normalisation, or scale that makes the next state of it.

It is told from what comes after a block by two witnesses: the next sum takes its state from there, or it belongs to the
module that adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from ._found import ResidualSum
from ._operations import averages, is_matrix, is_outer, rescales
from ._program import Program


def with_outer(program: Program, model: nn.Module, sums: Sequence[ResidualSum]) -> list[ResidualSum]:
    """The sums, each with the number of its σ(z) if it has an outer operation."""
    outer = _Outer(program, model, sums)
    first = [replace(s, outer=outer.of(i)) for i, s in enumerate(sums)]
    return [
        s if s.outer is not None or s.z in outer.states else _likewise(outer, first, i) for i, s in enumerate(first)
    ]


def _likewise(outer: _Outer, sums: Sequence[ResidualSum], i: int) -> ResidualSum:
    """A sum in a module that holds several has an outer operation if the others of its kind have one."""
    alike = [s for j, s in enumerate(sums) if j != i and outer.kind(s) == outer.kind(sums[i])]
    if 2 * sum(s.outer is not None for s in alike) <= len(alike):
        return sums[i]
    return replace(sums[i], outer=outer.within_module(sums[i]))


class _Outer:
    def __init__(self, program: Program, model: nn.Module, sums: Sequence[ResidualSum]) -> None:
        self._program, self._model, self._sums = program, model, sums
        self.states = {s.h for s in sums}
        self._modules = [program.operations[s.place].module for s in sums]

    def kind(self, s: ResidualSum) -> type[nn.Module]:
        """The type of the module that adds."""
        return type(self._model.get_submodule(self._program.operations[s.place].module))

    def of(self, i: int) -> int | None:
        s = self._sums[i]
        if s.z in self.states:
            return None  # the sum itself is the next state
        module = self._program.operations[s.place].module
        alone = module != "" and self._modules.count(module) == self._calls(module)
        region = self._to_next_state(i)
        if region is not None and all(self._inside(place, s) for place in region[1]):
            return region[0]
        return self.within_module(s) if alone else None

    def _calls(self, module: str) -> int:
        """How often a module is called in which there are sums."""
        places = [s.place for s, name in zip(self._sums, self._modules, strict=True) if name == module]
        return len({self._program.operations[place].call for place in places})

    def _inside(self, place: int, s: ResidualSum) -> bool:
        """Whether an operation is done within the module that adds, or within a part of it."""
        module = self._program.operations[s.place].module
        name = self._program.operations[place].module
        return module == "" or name == module or name.startswith(f"{module}.")

    def _to_next_state(self, i: int) -> tuple[int, list[int]] | None:
        """The next sum's state and the operations that make it of this sum alone, without a matrix."""
        if i + 1 == len(self._sums):
            return None
        program, z, state = self._program, self._sums[i].z, self._sums[i + 1].h
        places, lacking = program.plan([z], [state])
        held = any(number in program.live for number in lacking)
        if not places or held or program.size(state) != program.size(z):
            return None
        operations = [program.operations[place] for place in places]
        if any(self._mixes(place) for place in places) or not any(is_outer(o) or rescales(o) for o in operations):
            return None
        return state, places

    def _mixes(self, place: int) -> bool:
        """Whether an operation mixes entries by a matrix and is no statistic of a norm, which is smaller than they are.

        What pools gets smaller too, and no state of the sum's size comes of it.
        """
        program, operation = self._program, self._program.operations[place]
        (first, *_), outputs = program.sources[place], self._outputs(place)
        statistic = averages(operation) and program.size(outputs[0]) < program.size(first)
        return is_matrix(operation) and not statistic

    def _outputs(self, place: int) -> list[int]:
        return [number for number in self._program.operations[place].outputs if number is not None]

    def within_module(self, s: ResidualSum) -> int | None:
        """σ(z), where all that the adding module does after its sum are activations and normalisations of it."""
        program, moving, last, seen = self._program, {s.z}, None, False
        open_ = set(program.takers[s.z])  # operations that take a value of ``moving`` and are not done yet
        for place in range(s.place + 1, len(program.operations)):
            if place not in open_ or not self._inside(place, s):
                continue
            operation = program.operations[place]
            sources = [number for number in program.sources[place] if number in program.live]
            if self._mixes(place) or not all(number in moving for number in sources):
                return last
            outputs = self._outputs(place)
            moving.update(outputs)
            open_.remove(place)
            seen = seen or is_outer(operation) or rescales(operation)
            only = not any(program.takers[number] for number in outputs[1:])
            comes_out = any(number in program.outputs for number in moving - set(outputs))
            # σ(z) is a value that all which depends on z, and is used later, has passed
            if seen and not open_ and only and not comes_out and program.size(outputs[0]) == program.size(s.z):
                last = outputs[0]
            open_.update(*(program.takers[number] for number in outputs))
        return last
