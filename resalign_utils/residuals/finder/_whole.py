"""The sums of one module composed to one block, as papers on transformers take a layer of attention and MLP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise

from ._found import ResidualSum
from ._operations import Simplicity
from ._program import Program


def composed(program: Program, sums: Sequence[ResidualSum]) -> list[ResidualSum]:
    """The sums, those of one call of a module as one block ``h ↦ h + F₁(h) + F₂(h + F₁(h)) + …``.

    Only sums whose skips carry the state unchanged, without an outer operation between them, are composed: for others
    there is no one skip that all of it could be compared with. The others stay as they are, and so do sums in the
    forward of the model itself.
    """
    whole = list[ResidualSum]()
    for (module, _), group in groupby(sums, lambda s: _call(program, s)):
        members = list(group)
        whole += [_one(program, members)] if module and _chain(program, members) else members
    return whole


def _call(program: Program, s: ResidualSum) -> tuple[str, int]:
    operation = program.operations[s.place]
    return operation.module, operation.call


def _chain(program: Program, members: Sequence[ResidualSum]) -> bool:
    plain = all(s.kind == Simplicity.IDENTITY and s.shortcut[1] == 1.0 for s in members)
    linked = all(a.outer is None and a.z == b.h for a, b in pairwise(members))
    return len(members) > 1 and plain and linked and len({program.shapes[s.z] for s in members}) == 1


def _one(program: Program, members: Sequence[ResidualSum]) -> ResidualSum:
    first, last = members[0], members[-1]
    number, factor = first.shortcut
    held = any(s.held for s in members)
    return replace(last, h=first.h, shortcut=first.shortcut, branch=((last.z, 1.0), (number, -factor)), held=held)
