"""Which additions are residual sums, by the graph of what depends on one input of the network."""

from __future__ import annotations

from ._found import Other, ResidualSum, Term
from ._operations import (
    Simplicity,
    addends,
    cuts,
    is_matrix,
    joins,
    keeps_all,
    keeps_entries,
    moving_operands,
    multiplies,
    simplicity,
)
from ._program import Program
from ._tape import Ref


class Search:
    """The sums of what depends on one input of the network; all else is constant.

    Attributes:
        moving: what depends on it.
    """

    def __init__(self, program: Program, root: int) -> None:
        self._program, self.moving = program, program.reached_from([root])
        self._before, self._depth = {root: root}, {root: 0}
        for place, sources in enumerate(program.sources):
            moving = [number for number in sources if number in self.moving]
            if not moving:
                continue
            dominator = moving[0]
            for number in moving[1:]:
                dominator = self._nearest_common(dominator, number)
            for output in self._outputs(place):
                self._before[output], self._depth[output] = dominator, self._depth[dominator] + 1

    def all(self) -> dict[int, ResidualSum | Other]:
        """What was found, by the place of the addition."""
        found = dict[int, ResidualSum | Other]()
        for place, operation in enumerate(self._program.operations):
            operands = moving_operands(operation, self.moving)
            if addends(operation) is not None and len(operands) == 2:
                if not self._is_inner(place) and (what := self._decide(place)) is not None:
                    found[place] = what
            elif joins(operation) and len(set(self._sources(place))) > 1:
                found[place] = Other(place, "concatenation", "It lays tensors side by side and adds nothing.")
        return found

    def _sources(self, place: int) -> list[int]:
        return [number for number in self._program.sources[place] if number in self.moving]

    def _nearest_common(self, a: int, b: int) -> int:
        while a != b:
            if self._depth[a] < self._depth[b]:
                b = self._before[b]
            else:
                a = self._before[a]
        return a

    def _is_inner(self, place: int) -> bool:
        """Whether the sum is only a part of a longer one around the same state."""
        (number,) = self._outputs(place)
        takers = self._program.takers[number]
        if len(takers) != 1 or number in self._program.outputs:
            return False
        (taker,) = takers
        both = addends(self._program.operations[taker]) is not None and len(self._sources(taker)) == 2
        return both and self._before[self._outputs(taker)[0]] == self._before[number]

    def _outputs(self, place: int) -> list[int]:
        return [number for number in self._program.operations[place].outputs if number is not None]

    def _terms(self, place: int, factor: float = 1.0) -> list[Term]:
        operation, terms = self._program.operations[place], list[Term]()
        for position, own in addends(operation) or []:
            argument = operation.args[position]
            assert isinstance(argument, Ref)
            before = self._program.producer[argument.number]
            inner = before is not None and addends(self._program.operations[before]) is not None
            if inner and before is not None and len(self._sources(before)) == 2 and self._is_inner(before):
                terms += self._terms(before, factor * own)
            else:
                terms.append((argument.number, factor * own))
        return terms

    def _decide(self, place: int) -> ResidualSum | Other | None:
        terms, (z,) = self._terms(place), self._outputs(place)
        h = self._before[z]
        if (dtype := self._program.dtypes[h]).is_complex:
            return Other(place, "sum", f"What its terms come from is {dtype}: Residual Jacobians are of real states.")
        if not dtype.is_floating_point:
            return None  # masks and token numbers are no states
        kinds, mixed, gates = self._seen_from(h, z, terms)
        if not any(mixed):
            return None  # the formula of an activation, a rotary angle, ...
        least = min(kinds)
        if least < Simplicity.OTHER and kinds.count(least) == 1:
            skip = kinds.index(least)
            rest = [i for i in range(len(terms)) if i != skip]
            if max(kinds) < Simplicity.OTHER:
                made = self._made(place, h, z, terms, skip, Simplicity(least), held=False)
                return Other(place, "sum", "All of its terms are linear in the state: it is one linear layer.", made)
            if kinds[skip] > Simplicity.IDENTITY and self._enters(terms[skip][0], h, [terms[i][0] for i in rest]):
                return self._around_others(place, z, terms) or Other(
                    place, "sum", "Its skip enters the branch as well, beside what both come from: two streams meet."
                )
            if self._other_parts(terms[skip][0], h, [terms[i][0] for i in rest]):
                return Other(place, "sum", "Its terms come from different parts of the state, as places of a sequence.")
            if any(mixed[i] for i in rest):
                return self._made(place, h, z, terms, skip, Simplicity(least), held=False)
            return None
        return self._around_others(place, z, terms) or self._refused(place, kinds, gates)

    def _enters(self, skip: int, h: int, rest: list[int]) -> bool:
        """Whether a skip that is not h itself is on the way to the other terms."""
        start = self._climbed(skip)
        return start != self._climbed(h) and any(number in self._program.reached_from([start]) for number in rest)

    def _other_parts(self, skip: int, h: int, rest: list[int]) -> bool:
        """Whether the skip is cut out of h, and the other terms come from other cuts alone."""
        own, others = self._parts(h, [skip]), self._parts(h, rest)
        return own is not None and others is not None and not any(part in others for part in own)

    def _parts(self, h: int, terms: list[int]) -> list[object] | None:
        """The cuts out of h from which terms come; None if one of them takes h as a whole."""
        program, (places, _) = self._program, self._program.plan([h], terms)
        same, parts = {h}, list[object]()
        needed = {*terms, *(number for place in places for number in program.sources[place])}
        for place in places:
            operation = program.operations[place]
            if not any(number in same for number in program.sources[place]):
                continue
            if keeps_entries(operation) and not operation.several:
                same.update(self._outputs(place))
            elif cuts(operation):
                used = [i for i, number in enumerate(operation.outputs) if number in needed]
                parts += [(operation.op, operation.args[1:], i) for i in used]
            else:
                return None
        return parts if not same & set(terms) else None

    def _made(
        self, place: int, h: int, z: int, terms: list[Term], skip: int, kind: Simplicity, *, held: bool
    ) -> ResidualSum:
        branch = tuple(term for i, term in enumerate(terms) if i != skip)
        return ResidualSum(place, self._climbed(h, z), z, terms[skip], branch, kind, held)

    def _climbed(self, h: int, z: int | None = None) -> int:
        """The value whose entries h holds before it was cut into windows or laid otherwise; laid as z is, if one is."""
        shapes, laid_as_z = self._program.shapes, h
        while (place := self._program.producer[h]) is not None:
            if z is not None and shapes[h] == shapes[z]:
                laid_as_z = h
            operation = self._program.operations[place]
            if not keeps_entries(operation) or operation.several or len(self._sources(place)) != 1:
                break
            (before,) = self._sources(place)
            if self._program.size(before) != self._program.size(h):
                break  # an expansion
            h = before
        return laid_as_z if z is not None and shapes[laid_as_z] == shapes[z] else h

    def _seen_from(self, h: int, z: int, terms: list[Term]) -> tuple[list[Simplicity], list[bool], bool]:
        """How simply each term depends on h, whether it does by a matrix, and whether all are gated."""
        program = self._program
        places, _ = program.plan([h], [number for number, _ in terms])
        kind, mixed, gated = {h: Simplicity.IDENTITY}, {h: False}, set[int]()
        moving = {h}
        for place in places:
            operation = program.operations[place]
            sources = [number for number in program.sources[place] if number in moving]
            own = self._own(place, moving)
            for number in self._outputs(place):
                moving.add(number)
                kind[number] = max(own, *(kind[source] for source in sources))
                mixed[number] = is_matrix(operation) or any(mixed[source] for source in sources)
                if multiplies(operation, moving):
                    gated.add(number)
        return (
            [kind.get(number, Simplicity.OTHER) for number, _ in terms],
            [mixed.get(number, False) for number, _ in terms],
            all(number in gated for number, _ in terms),
        )

    def _own(self, place: int, moving: set[int]) -> Simplicity:
        operation, shapes = self._program.operations[place], self._program.shapes
        before = [number for number in self._program.sources[place] if number in moving]
        if len(before) == 1 and keeps_all(operation, shapes[before[0]], shapes[self._outputs(place)[0]]):
            return Simplicity.IDENTITY
        return simplicity(operation, moving)

    def _around_others(self, place: int, z: int, terms: list[Term]) -> ResidualSum | None:
        """The sum with an identity skip, whose branch takes other streams of data as well, as cross-attention does."""
        found = []
        for skip, (number, _) in enumerate(terms):
            h = self._climbed(number)
            rest = [i for i in range(len(terms)) if i != skip]
            kinds, mixed, _ = self._seen_from(h, z, terms)
            reached = self._program.reached_from([h])
            depends = all(terms[i][0] in reached for i in rest)
            if depends and any(mixed[i] and kinds[i] == Simplicity.OTHER for i in rest) and self.all_pass(h, z):
                found.append(self._made(place, h, z, terms, skip, Simplicity.IDENTITY, held=True))
        return found[0] if len(found) == 1 else None

    def all_pass(self, h: int, z: int) -> bool:
        """Whether all that depends on h and comes out has come through z."""
        program, reached = self._program, {h}
        for place, sources in enumerate(program.sources):
            if any(number in reached for number in sources):
                reached.update(number for number in self._outputs(place) if number != z)
        main = next((number for number in program.outputs if number is not None), None)
        return main not in reached

    def _refused(self, place: int, kinds: list[Simplicity], gates: bool) -> Other:
        if gates:
            return Other(place, "gate", "Every term is a product with something that depends on the state: a gate.")
        if min(kinds) == Simplicity.OTHER:
            return Other(
                place,
                "sum",
                "No term is the state that all of them come from, carried on unchanged or by a linear map.",
            )
        simple = f"{kinds.count(min(kinds))} of its terms depend on the state equally simply"
        return Other(place, "sum", f"{simple}: none of them is the skip.")
