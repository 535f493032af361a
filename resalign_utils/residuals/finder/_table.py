"""The blocks of a network as a table that a reader can check and correct."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import pandas as pd


@dataclass(frozen=True)
class Block:
    """One residual block ``h ↦ σ(P(h) + F(h))``.

    Attributes:
        index: ℓ = 1..L, its place in the forward pass.
        name: the module that adds; with ``#2`` for the second sum in it, and ``@2`` for its second call.
        shortcut: P: "identity", "scaled" (scaled, pooled, cut, padded, or normalised by fixed statistics), "linear",
            "none", or "as registered".
        outer: σ: the name of its last operation, "" for none.
        in_shape: shape (*in) of the state before.
        out_shape: shape (*out) of the state after.
        how: "registered" by its type; "found" as a sum; "found, other inputs held" where other data enters the branch.
    """

    index: int
    name: str
    shortcut: str
    outer: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    how: str


@dataclass(frozen=True)
class NotABlock:
    """Something that adds or joins and is no residual block.

    Attributes:
        name: the module that does it, as in :class:`Block`.
        kind: "concatenation", "gate", "long skip", "sum".
        reason: why it is no block, a sentence.
    """

    name: str
    kind: str
    reason: str


class BlockTable(Sequence[Block]):
    """The residual blocks of a network, in the order of the forward pass.

    Length and iteration are of the blocks alone; printing shows both.

    Attributes:
        others: what else adds or joins, each with a reason why it is no block.
        note: a sentence about the whole, "" for none.
    """

    def __init__(self, blocks: Sequence[Block], others: Sequence[NotABlock] = (), note: str = "") -> None:
        self._blocks, self.others, self.note = tuple(blocks), tuple(others), note

    def __len__(self) -> int:
        return len(self._blocks)

    @overload
    def __getitem__(self, index: int) -> Block: ...
    @overload
    def __getitem__(self, index: slice) -> BlockTable: ...
    def __getitem__(self, index: int | slice) -> Block | BlockTable:
        """One block, or the table of some of them."""
        if isinstance(index, slice):
            return BlockTable(self._blocks[index], self.others, self.note)
        return self._blocks[index]

    def __iter__(self) -> Iterator[Block]:
        return iter(self._blocks)

    @property
    def names(self) -> list[str]:
        """The names of the blocks, as ``blocks=`` takes them."""
        return [block.name for block in self]

    def to_frame(self) -> pd.DataFrame:
        """One row a block."""
        columns = ["block", "name", "shortcut", "outer", "in", "out", "how"]
        rows = [
            (b.index, b.name, b.shortcut, b.outer, _shape(b.in_shape), _shape(b.out_shape), b.how) for b in self._blocks
        ]
        return pd.DataFrame(rows, columns=columns).set_index("block")

    def __str__(self) -> str:
        parts = [self.to_frame().to_string()] if self._blocks else []
        if self.note:
            parts.append(self.note)
        if self.others:
            parts.append("Not blocks:")
            parts += [f"  {other.name} ({other.kind}): {other.reason}" for other in self._grouped()]
        return "\n".join(parts)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from html import escape

        return (
            f"<pre>{escape(str(self))}</pre>"
            if not self._blocks
            else self.to_frame().to_html()
            + ("<pre>" + escape("\n".join(str(self).splitlines()[len(self._blocks) + 2 :])) + "</pre>")
        )

    def _grouped(self) -> list[NotABlock]:
        """Others of one kind and reason in one line."""
        groups: dict[tuple[str, str], list[str]] = {}
        for other in self.others:
            groups.setdefault((other.kind, other.reason), []).append(other.name)
        return [
            NotABlock(names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more", kind, reason)
            for (kind, reason), names in groups.items()
        ]


def _shape(sides: tuple[int, ...]) -> str:
    return "×".join(map(str, sides))
