"""What the search for residual sums gives: a sum, or something else that adds or joins."""

from __future__ import annotations

from dataclasses import dataclass

from ._operations import Simplicity

Term = tuple[int, float]  # a value's number, and its factor in the sum


@dataclass(frozen=True)
class ResidualSum:
    """One residual sum ``z = P(h) + F(h)``.

    Attributes:
        place: of the addition among the operations.
        h: number of the state before.
        z: number of the sum.
        shortcut: the term P(h).
        branch: the terms of F(h).
        kind: how simply the shortcut depends on h.
        held: whether other streams of data enter the branch, and are held.
        outer: number of σ(z), None for no outer operation.
    """

    place: int
    h: int
    z: int
    shortcut: Term
    branch: tuple[Term, ...]
    kind: Simplicity
    held: bool
    outer: int | None = None

    @property
    def output(self) -> int:
        """Number of the state after."""
        return self.z if self.outer is None else self.outer


@dataclass(frozen=True)
class Other:
    """Something that adds or joins and is no residual sum.

    Attributes:
        place: among the operations.
        kind: "concatenation", "gate", "long skip", "sum".
        reason: why it is no block, a sentence.
        sum: as what it would count if it were asked for.
    """

    place: int
    kind: str
    reason: str
    sum: ResidualSum | None = None
