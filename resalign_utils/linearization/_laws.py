"""Laws of the rest of a walk, one for every entry of a tensor, and how they mix where the walk has a choice.

A walk goes from the output back to the input. Of most tensors only the channel matters, so that the law is stored once
for each kind of entry, with a table that says which entry is of which kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 2**18  # entries of rows that are summed at a time


@dataclass(frozen=True)
class Laws:
    """What is known of the walks that start at the entries of a tensor (1, *shape).

    Attributes:
        rows: one row per kind of entry (r, k): with ``exact`` the probabilities of the lengths 0..k−1; else the mass,
            1, and the mean length. A row of zeros is of entries without a walk: what is constant.
        where: row of each entry, broadcastable to (*shape); −1 for a constant; None if all entries are of one kind.
        exact: which of the two is stored.
    """

    rows: Tensor
    where: Tensor | None = None
    exact: bool = True

    def table(self, dimensions: int) -> Tensor:
        """``where`` of a tensor with so many dimensions, the batch left out."""
        return torch.zeros([1] * dimensions, dtype=torch.long) if self.where is None else self.where


def start(exact: bool) -> Laws:
    """At the input every walk has length 0."""
    return Laws(torch.tensor([[1.0] if exact else [1.0, 0.0]], dtype=torch.float64), exact=exact)


def tidy(laws: Laws) -> Laws:
    """Without the table if there is one kind of entry only, and with one entry where a dimension tells nothing."""
    where = laws.where
    if where is None:
        return laws
    for dimension, size in enumerate(where.shape):
        first = where.narrow(dimension, 0, 1) if size else where
        if size > 1 and bool((where == first).all()):
            where = first
    if where.numel() == 1 and int(where) >= 0:
        return replace(laws, rows=laws.rows[where.flatten()], where=None)
    return replace(laws, where=where)


def joined(parts: Sequence[Laws], dimensions: int) -> tuple[Laws, list[Tensor]]:
    """The rows of several tensors in one, and the table of each, in the rows of all."""
    longest, tables, offset = max(part.rows.shape[1] for part in parts), [], 0
    for part in parts:
        table = part.table(dimensions)
        tables.append(torch.where(table < 0, -1, table + offset))
        offset += len(part.rows)
    rows = torch.cat([F.pad(part.rows, (0, longest - part.rows.shape[1])) for part in parts])
    return replace(parts[0], rows=rows, where=None), tables


def mixed(laws: Laws, dimensions: Sequence[int], *, keep: bool = True) -> Laws:
    """Laws of entries from which the walk goes on to any entry along the dimensions, constants left out."""
    where = laws.where
    if where is None or not dimensions:
        return laws
    last = where.movedim([*dimensions], [*range(-len(dimensions), 0)])
    left = last.shape[: last.dim() - len(dimensions)]
    patterns, index = torch.unique(last.reshape(left.numel(), -1), dim=0, return_inverse=True)
    rows = F.pad(laws.rows, (0, 0, 0, 1))  # row −1
    chunks = patterns.split(max(1, CHUNK // patterns.shape[1]))
    total = torch.cat([rows[chunk].sum(1) for chunk in chunks])
    mass = total.sum(1, keepdim=True) if laws.exact else total[:, :1]
    where = index.reshape(left)
    for dimension in sorted(d % last.dim() for d in dimensions) if keep else ():
        where = where.unsqueeze(dimension)
    return tidy(replace(laws, rows=total / mass.clamp(min=1.0), where=where))


def by_channel(laws: Laws) -> Laws:
    """One kind of entry per channel: within a channel the walk goes on from any place."""
    return laws if laws.where is None else mixed(laws, range(1, laws.where.dim()))


def added(terms: Sequence[Laws], dimensions: int) -> Laws:
    """Laws of a sum: the walk goes on from any of the terms, constants left out."""
    together, tables = joined(terms, dimensions)
    return mixed(replace(together, where=torch.stack(torch.broadcast_tensors(*tables), -1)), [-1], keep=False)


def passed(laws: Laws, nonlinear: Tensor, dimensions: int) -> Laws:
    """Laws behind units that are nonlinear (1.0) or linear (0.0): one per channel (channels,), or all alike (1,)."""
    if len(nonlinear) > 1:
        laws = by_channel(laws)
        rows, where = F.pad(laws.rows, (0, 0, 0, 1)), laws.table(dimensions).flatten().expand(len(nonlinear))
        index = torch.arange(len(nonlinear)).reshape(-1, *[1] * (dimensions - 1))
        laws = replace(laws, rows=rows[where], where=index)
    share = nonlinear[:, None]  # (channels, 1)
    if laws.exact:
        rows = (1 - share) * F.pad(laws.rows, (0, 1)) + share * F.pad(laws.rows, (1, 0))
    else:
        rows = laws.rows + F.pad(share * laws.rows[:, :1], (1, 0))
    return replace(laws, rows=rows)
