"""A residual sum as a block that can be evaluated and replayed as a registered one is."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .._registry import Parts, residual_branch
from ._found import ResidualSum, Term
from ._program import Affine, Program


class FoundBlock(nn.Module):
    """``h (n, *in) → σ(P(h) + F(h)) (n, *out)`` by the operations of a program.

    Called as ``block(h, streams)``: the values (n, ...) of other data that enter it, in the order of :attr:`streams`.

    Attributes:
        sum: the residual sum.
        streams: numbers of the values that depend on the inputs, not on h, and enter the block.

    Raises:
        ValueError: a value has no side that belongs to the inputs; the text begins with a verb.
    """

    def __init__(self, program: Program, found: ResidualSum) -> None:
        super().__init__()
        self._program, self.sum = program, found
        self._plans: dict[tuple[int, ...], tuple[list[int], list[int]]] = {}
        self.streams = [number for number in self._plan((found.output,))[1] if number in program.live]
        for number in (found.h, found.output, *self.streams):
            rows_of(program, number)

    def forward(self, h: Tensor, streams: Sequence[Tensor] = ()) -> Tensor:
        """The block's output (n, *out)."""
        return self._outside(self._value(h, streams, ((self.sum.z, 1.0),)))

    def weights(self) -> set[int]:
        """Where the constant matrices of the branch lie in memory."""
        program = self._program
        places, lacking = self._plan(tuple(number for number, _ in self.sum.branch))
        places = [*places, *program.before(number for number in lacking if number not in program.live)]
        leaves = tree_leaves([program.operations[place].args for place in places])
        return {leaf.data_ptr() for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim() > 1}

    def branch(self, h: Tensor, streams: Sequence[Tensor] = ()) -> Tensor:
        """F(h) (n, *out)."""
        return self._value(h, streams, self.sum.branch)

    def shortcut(self, h: Tensor, streams: Sequence[Tensor] = ()) -> Tensor:
        """P(h) (n, *out)."""
        return self._value(h, streams, (self.sum.shortcut,))

    def _outside(self, z: Tensor) -> Tensor:
        if self.sum.outer is None:
            return z
        program, n = self._program, len(z)
        places, lacking = program.plan([self.sum.z], [self.sum.outer])
        given = {self.sum.z: from_rows(program, self.sum.z, z), **program.constants(lacking, n)}
        return to_rows(program, self.sum.outer, program.run(places, given, n, [self.sum.outer])[self.sum.outer])

    def _value(self, h: Tensor, streams: Sequence[Tensor], terms: tuple[Term, ...]) -> Tensor:
        """A sum of terms, laid out as z is."""
        program, n, numbers = self._program, len(h), tuple(number for number, _ in terms)
        places, lacking = self._plan(numbers)
        given = {self.sum.h: from_rows(program, self.sum.h, h), **program.constants(lacking, n)}
        for number, stream in zip(self.streams, streams, strict=True):
            given[number] = from_rows(program, number, stream)
        values = program.run(places, given, n, numbers)
        total: Tensor | None = None
        for number, factor in terms:
            term = values[number] if factor == 1 else factor * values[number]
            total = term if total is None else total + term
        assert total is not None  # a sum has terms
        shape = [side.at(n) if isinstance(side, Affine) else side for side in program.shapes[self.sum.z]]
        return to_rows(program, self.sum.z, total.expand(shape))

    def _plan(self, numbers: tuple[int, ...]) -> tuple[list[int], list[int]]:
        if numbers not in self._plans:
            self._plans[numbers] = self._program.plan([self.sum.h], numbers)
        return self._plans[numbers]


@residual_branch.register
def _(block: FoundBlock) -> Parts:
    return Parts(block.branch, block.shortcut, None if block.sum.outer is None else block._outside)


def rows_of(program: Program, number: int) -> tuple[int, int]:
    """Which side of a value counts the inputs, and how many entries of it each input has.

    Raises:
        ValueError: there is none; the text begins with a verb.
    """
    sides = [(i, side) for i, side in enumerate(program.shapes[number]) if isinstance(side, Affine)]
    if len(sides) != 1 or sides[0][1].constant != 0 or sides[0][1].slope < 1:
        shape = "×".join("n" if isinstance(s, Affine) else str(s) for s in program.shapes[number])
        raise ValueError(f"has a value of shape {shape}, in which no side counts the inputs alone")
    return sides[0][0], sides[0][1].slope


def to_rows(program: Program, number: int, value: Tensor) -> Tensor:
    """A value as the program has it, laid out (n, ...)."""
    side, each = rows_of(program, number)
    if each > 1:
        value = value.unflatten(side, (-1, each))
    return value.movedim(side, 0) if side else value


def from_rows(program: Program, number: int, rows: Tensor) -> Tensor:
    """The reverse of :func:`to_rows`."""
    side, each = rows_of(program, number)
    value = rows.movedim(0, side) if side else rows
    return value.flatten(side, side + 1) if each > 1 else value
