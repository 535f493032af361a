"""Labelled examples before they are split: checked labels, stratified splits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..data import ImageData
from ..data._images import value_error

Index: TypeAlias = NDArray[np.int64]
LEAST = 5  # examples of a class: one to test, one to choose by, three to learn from
MANY_NUMBERS = 20  # different numbers in a table's target, beyond which they are taken for measurements


@dataclass(frozen=True)
class Examples:
    """A data set that can be split in many ways.

    Attributes:
        name: of the data.
        what: what one example is called, in the plural.
        shape: of one example, in words.
        kind: of network: ``"fc"`` for a table, ``"conv"`` for images.
        y: (n,) labels in 0..C−1.
        class_names: C names.
        prepare: from the indices of training and test examples to both as tensors; whatever is estimated for it
            (means, deviations, medians, levels) comes from the training examples alone.
        split: the training and test examples, where the data come split.
        notes: what a reader should know of the data, one sentence each.
    """

    name: str
    what: Literal["rows", "images"]
    shape: str
    kind: Literal["fc", "conv"]
    y: Index
    class_names: tuple[str, ...]
    prepare: Callable[[Index, Index], ImageData]
    split: tuple[Index, Index] | None = None
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Number of examples of each class."""
        return dict(zip(self.class_names, np.bincount(self.y, minlength=len(self.class_names)).tolist(), strict=True))


def stratified(y: Index, index: Index, share: float, seed: tuple[int, ...]) -> tuple[Index, Index]:
    """Part ``index`` in two, class by class; of each class the second part has ``share``, and at least one example."""
    generator = np.random.default_rng(seed)
    first: list[Index] = []
    second: list[Index] = []
    for label in np.unique(y[index]):
        members = generator.permutation(index[y[index] == label])
        count = min(max(1, round(share * len(members))), len(members) - 1)
        first.append(members[count:])
        second.append(members[:count])
    return np.sort(np.concatenate(first)), np.sort(np.concatenate(second))


def class_labels(values: Any, name: str, *, table: bool) -> tuple[Index, tuple[str, ...]]:
    """From numbers, texts or booleans (n,) to labels in 0..C−1 and the C names, in order.

    Raises:
        ValueError: missing values, values of several kinds, numbers that are measurements and no classes, names that
            differ in case or blanks only, a single class.
    """
    series = pd.Series(values).reset_index(drop=True)
    if missing := int(series.isna().sum()):
        raise value_error(f"a class in every row of {name}", f"{missing} missing", "Drop those rows, or name a class.")
    kinds = {type(value).__name__ for value in series.tolist()}
    if len(kinds) > 1 or not kinds <= {"int", "float", "str", "bool"}:
        got = f"values of type {', '.join(sorted(kinds))}" if kinds else "none"
        raise value_error(f"whole numbers, texts or booleans in {name}", got, "Convert them, for instance to str.")
    distinct = sorted(set(series.tolist()))
    numbers = kinds <= {"int", "float"}
    whole = numbers and all(float(value).is_integer() for value in distinct)
    if numbers and (not whole or (table and len(distinct) > MANY_NUMBERS)):
        fix = "A measured quantity is not predicted here: cut it into classes. If these are classes, make them str."
        raise value_error(f"classes in {name}", f"{len(distinct)} different numbers", fix)
    if len(distinct) < 2:
        raise value_error(f"at least two classes in {name}", f"{len(distinct)}", "Add examples of another class.")
    names = tuple(str(int(value)) if whole else str(value) for value in distinct)
    if len({text.strip().casefold() for text in names}) < len(names):
        got = f"names that differ in case or blanks only: {', '.join(map(repr, names[:8]))}"
        raise value_error(f"one name a class in {name}", got, "Write each class in one way.")
    place = {value: label for label, value in enumerate(distinct)}
    return np.array([place[value] for value in series.tolist()], dtype=np.int64), names


def check_counts(examples: Examples) -> None:
    """Refuse a class with too few examples to learn from, choose by and test."""
    if examples.split is None:
        few = {name: count for name, count in examples.counts.items() if count < LEAST}
        if few:
            got = ", ".join(f"{count} of {name!r}" for name, count in few.items())
            fix = "Add some, merge the class with another, or leave it out."
            raise value_error(f"at least {LEAST} {examples.what} of each class", got, fix)
        return
    for part, index, least in zip(("training", "test"), examples.split, (LEAST - 1, 1), strict=True):
        counts = np.bincount(examples.y[index], minlength=len(examples.class_names))
        if (counts < least).any():
            got = ", ".join(f"{counts[i]} of {examples.class_names[i]!r}" for i in np.flatnonzero(counts < least))
            fix = "Add some, or leave the class out."
            raise value_error(f"at least {least} {part} {examples.what} of each class", got, fix)
