"""A network as a list of operations that can be evaluated in part, for any number of inputs.

Two tapes, of two and of three rows, are laid on each other: a whole number that differs is linear in the number of
rows. That the list is the network is proved where it is used, by its output at all rows.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ...precision import doubled
from ._lowered import lowered
from ._tape import Operation, Ref, Tape

Values = Mapping[int, Tensor]


@dataclass(frozen=True)
class Affine:
    """The whole number ``constant + slope · n`` for n rows."""

    constant: int
    slope: int

    def at(self, n: int) -> int:
        return self.constant + self.slope * n


class Program:
    """The operations of a network.

    Args:
        two: its tape for two rows.
        three: the same for three.

    Attributes:
        operations: in order; a whole number in their arguments may be :class:`Affine`.
        inputs: numbers of the values that are given.
        outputs: numbers of the values that come out, None for constants.
        ends: for each call of a module, by its name and number, how many operations were done at its end.
        producer: for each value, the place of its operation; None for inputs.
        sources: for each operation, the numbers of the values that it takes.
        shapes: for each value, its shape; a side may be :class:`Affine`.
        dtypes: for each value.

    Raises:
        ValueError: the two tapes are not of one list of operations, or an operation draws by chance; the text begins
            with a verb.
    """

    def __init__(self, two: Tape, three: Tape) -> None:
        if len(two.operations) != len(three.operations) or two.outputs != three.outputs:
            raise ValueError("does other operations for another number of inputs")
        self.operations = [_merged(a, b) for a, b in zip(two.operations, three.operations, strict=True)]
        self.inputs, self.outputs, self.ends = two.inputs, two.outputs, two.ends
        self.shapes = [_merged_value(a, b, "a shape") for a, b in zip(two.shapes, three.shapes, strict=True)]
        self.dtypes = two.dtypes
        self.producer: list[int | None] = [None] * len(self.shapes)
        self.sources: list[list[int]] = []
        for place, operation in enumerate(self.operations):
            for number in operation.outputs:
                if number is not None:
                    self.producer[number] = place
            leaves = tree_leaves((operation.args, operation.kwargs))
            self.sources.append([leaf.number for leaf in leaves if isinstance(leaf, Ref)])
        self._constants: dict[tuple[int, bool], dict[int, Tensor]] = {}

    @cached_property
    def takers(self) -> list[list[int]]:
        """For each value, the places of the operations that take it."""
        takers: list[list[int]] = [[] for _ in self.shapes]
        for place, numbers in enumerate(self.sources):
            for number in set(numbers):
                takers[number].append(place)
        return takers

    def size(self, number: int) -> tuple[int, int]:
        """How many entries a value has at two rows and at three."""
        two, three = (
            [side.at(n) if isinstance(side, Affine) else side for side in self.shapes[number]] for n in (2, 3)
        )
        return math.prod(two), math.prod(three)

    def reached_from(self, numbers: Iterable[int]) -> set[int]:
        """The values that depend on some of ``numbers``, these included."""
        reached = set(numbers)
        for place, sources in enumerate(self.sources):
            if any(number in reached for number in sources):
                reached.update(number for number in self.operations[place].outputs if number is not None)
        return reached

    @cached_property
    def live(self) -> set[int]:
        """The values that depend on the inputs."""
        return self.reached_from(self.inputs)

    def plan(self, given: Iterable[int], wanted: Iterable[int]) -> tuple[list[int], list[int]]:
        """The places of the operations that lead from given values to wanted ones, and what they lack.

        Returns:
            The places in order, and the numbers of values on which the wanted ones depend beside ``given``: of live
            ones that do not depend on them, and of constants of the number of rows.
        """
        given, wanted = set(given), list(wanted)
        moving = self._reached_between(given, wanted)
        places, lacking, open_, seen = list[int](), list[int](), wanted, set[int]()
        while open_:
            number = open_.pop()
            if number in seen or number in given:
                continue
            seen.add(number)
            if number not in moving:
                lacking.append(number)
                continue
            place = self.producer[number]
            assert place is not None  # a moving value that is not given has an operation
            places.append(place)
            open_.extend(self.sources[place])
        return sorted(set(places)), sorted(lacking)

    def _reached_between(self, given: set[int], wanted: Sequence[int]) -> set[int]:
        """The values that depend on ``given``, these included, among those that ``wanted`` ones depend on.

        What was computed before all of ``given`` is not looked at: the blocks of a deep network are short.
        """
        places = [self.producer[number] for number in given]
        floor = min((-1 if place is None else place for place in places), default=len(self.operations))
        between, open_ = set[int](), list(wanted)
        while open_:
            number = open_.pop()
            place = self.producer[number]
            if number not in given and place is not None and place > floor and place not in between:
                between.add(place)
                open_.extend(self.sources[place])
        moving = set(given)
        for place in sorted(between):
            if any(number in moving for number in self.sources[place]):
                moving.update(number for number in self.operations[place].outputs if number is not None)
        return moving

    def constants(self, numbers: Iterable[int], n: int) -> dict[int, Tensor]:
        """Values that depend on no input, for n rows, in the arithmetic that is asked for."""
        wanted = [number for number in numbers if number not in self.live]
        kept = self._constants.setdefault((n, doubled()), {})
        if any(number not in kept for number in wanted):
            with torch.no_grad():
                found = self.run(self.before(wanted, kept), kept, n, wanted)
            kept.update(found)
            while len(self._constants) > 8:
                self._constants.pop(next(iter(self._constants)))
        return {number: kept[number] for number in wanted}

    def before(self, numbers: Iterable[int], kept: Container[int] = ()) -> list[int]:
        """The places of all operations on which values rest, but for what is kept already."""
        places, open_, seen = set[int](), list(numbers), set[int]()
        while open_:
            number = open_.pop()
            place = self.producer[number]
            if number in kept or number in seen or place is None:
                continue
            seen.add(number)
            places.add(place)
            open_.extend(self.sources[place])
        return sorted(places)

    def run(self, places: Sequence[int], given: Values, n: int, wanted: Iterable[int]) -> dict[int, Tensor]:
        """Do the operations at ``places`` from given values, for n rows, and return the wanted values."""
        values, wanted = dict(given), set(wanted)
        last = dict[int, int]()
        for place in places:
            for number in self.sources[place]:
                last[number] = place
        for place in places:
            operation = self.operations[place]
            args = [_filled(arg, values, n) for arg in operation.args]
            kwargs = {name: _filled(arg, values, n) for name, arg in operation.kwargs.items()}
            result = lowered(operation.op)(*args, **kwargs)
            for output, value in zip(operation.outputs, result if operation.several else [result], strict=True):
                if output is not None:
                    values[output] = value
            for number in self.sources[place]:
                if last[number] == place and number not in wanted:
                    values.pop(number, None)
        return {number: values[number] for number in wanted}

    def evaluate(self, tensors: Sequence[Tensor], wanted: Iterable[int]) -> dict[int, Tensor]:
        """Some values at given inputs (n, ...), one tensor an input."""
        given = dict(zip(self.inputs, tensors, strict=True))
        n = len(tensors[0])
        wanted = list(wanted)
        places, lacking = self.plan(self.inputs, wanted)
        given |= self.constants(lacking, n)
        return self.run(places, given, n, wanted)


def _merged(a: Operation, b: Operation) -> Operation:
    if a.op is not b.op or a.outputs != b.outputs or (a.module, a.call) != (b.module, b.call):
        raise ValueError(f"does other operations for another number of inputs ({a.op} in one place, then {b.op})")
    if torch.Tag.nondeterministic_seeded in a.op.tags:
        raise ValueError(f"draws by chance in eval mode too ({a.op} in '{a.module}')")
    what = f"an argument of {a.op} in '{a.module}'"
    return Operation(
        a.op,
        _merged_value(a.args, b.args, what),
        _merged_value(a.kwargs, b.kwargs, what),
        a.outputs,
        a.several,
        a.module,
        a.call,
    )


def _merged_value(a: Any, b: Any, what: str) -> Any:
    """An argument at any number of rows, from that for two and for three."""
    if isinstance(a, tuple | list) and isinstance(b, tuple | list) and len(a) == len(b):
        return type(a)([_merged_value(x, y, what) for x, y in zip(a, b, strict=True)])
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return {name: _merged_value(a[name], b[name], what) for name in a}
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a is b or _same_tensor(a, b):
            return a
    elif type(a) is int and type(b) is int:
        return a if a == b else Affine(3 * a - 2 * b, b - a)
    elif a is b or a == b or (a != a and b != b):
        return a
    raise ValueError(f"has {what} that depends on the number of inputs in a way that is not linear")


def _same_tensor(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and (a.data_ptr() == b.data_ptr() or bool(torch.equal(a, b)))


def _filled(arg: Any, values: Values, n: int) -> Any:
    kind = type(arg)
    if kind is Ref:
        return values[arg.number]
    if kind is Affine:
        return arg.at(n)
    if kind is list or kind is tuple:
        return kind([_filled(item, values, n) for item in arg])
    return arg
