"""Tables: from a pandas frame or a CSV file to numbers that a network can take, or a sentence that says why not."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pandas.api import types

from ..data import ImageData
from ..data._images import value_error
from ._examples import Examples, Index, class_labels

Numbers = NDArray[np.float64]
MOST_LEVELS = 100  # of a column of categories; beyond that it is an identifier or free text
ROW_NUMBERS = 20  # from so many rows on, whole numbers without gap or repeat count the rows


@dataclass(frozen=True)
class Column:
    """One column: numbers (n,) with NaN where missing; or codes of levels, a missing value being a level too."""

    name: str
    values: Numbers
    categories: bool

    def encoded(self, train: Index) -> Numbers:
        """(n, f) numbers, with all that is estimated taken from the training rows.

        A number is filled with the median and standardised; a second column says where it was missing, if it ever was
        in training. A category has a column of 0 and 1 for each level of the training rows; another level has zeros.
        """
        if self.categories:
            levels: Numbers = np.unique(self.values[train])
            return np.equal(self.values[:, None], levels).astype(np.float64)
        missing = np.isnan(self.values)
        known = self.values[train][~missing[train]]
        filled = np.where(missing, np.median(known) if len(known) else 0.0, self.values)
        deviation = filled[train].std()
        parts = [(filled - filled[train].mean()) / (deviation if deviation > 0 else 1.0)]
        if missing[train].any():
            parts.append(missing.astype(np.float64))
        return np.stack(parts, axis=1)


def read_table(data: pd.DataFrame | str | os.PathLike[str], target: str) -> Examples:
    """Check a table and its target.

    Args:
        data: a frame, or the path of a CSV file with the names of the columns in its first line.
        target: name of the column that holds the classes.

    Raises:
        ValueError: what cannot be used, with the column's name and what to do.
        FileNotFoundError: there is no such file.
    """
    frame, name = (data, "table") if isinstance(data, pd.DataFrame) else (_read_csv(Path(data)), Path(data).name)
    names = [str(column) for column in frame.columns]
    if twice := sorted({column for column in names if names.count(column) > 1}):
        raise value_error("columns of different names", f"{', '.join(twice)} more than once", "Rename or drop them.")
    frame = frame.set_axis(names, axis=1).reset_index(drop=True)
    if target not in names:
        got = f"{target!r}; the columns are {', '.join(names)}"
        fix = "Name one of them; a file with another separator is read with pandas.read_csv(path, sep=...)."
        raise value_error("target= as the name of a column", got, fix)
    y, class_names = class_labels(frame[target], f"column {target!r}", table=True)
    constant = [column for column in names if column != target and frame[column].nunique(dropna=False) < 2]
    varying = [column for column in names if column != target and column not in constant]
    columns = [_column(frame[column]) for column in varying]
    if not columns:
        raise value_error("a column that varies beside the target", "none", "Give what the class can be told from.")
    prepare = partial(_prepare, columns, y, class_names, name)
    return Examples(name, "rows", f"{len(columns)} columns", "fc", y, class_names, prepare, notes=tuple(
        [f"Left out, for they have one value only: {', '.join(constant)}."] * bool(constant)
        + _notes(frame[varying], columns, y)
    ))  # fmt: skip


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        fix = "Read it with pandas.read_csv and the options that it needs, and give the frame."
        raise value_error(f"a CSV file in {path.name}", str(error), fix) from error


def _prepare(
    columns: list[Column], y: Index, class_names: tuple[str, ...], name: str, train: Index, test: Index
) -> ImageData:
    """The table as images of one row (1, 1, f), which the fully-connected networks flatten."""
    x = torch.from_numpy(np.concatenate([column.encoded(train) for column in columns], axis=1)).float()[:, None, None]
    parts = (x[train], torch.from_numpy(y[train]), x[test], torch.from_numpy(y[test]))
    return ImageData.from_tensors(*parts, name=name, normalize=False, class_names=class_names, source="a table")


def _column(series: pd.Series) -> Column:
    name = f"column {series.name!r}"
    if isinstance(series.dtype, pd.CategoricalDtype):
        return _levels(series)
    if types.is_numeric_dtype(series) and not types.is_complex_dtype(series):
        return _numbers(series)
    if not (series.dtype == object or types.is_string_dtype(series)):
        fix = "Give numbers that mean something, for instance days since a date, or drop it."
        raise value_error(f"numbers or categories in {name}", f"{series.dtype}", fix)
    known = series.dropna().tolist()
    kinds = {"number" if isinstance(value, bool | int | float) else type(value).__name__ for value in known}
    if kinds == {"number"}:
        return _numbers(series.astype(float))
    if kinds != {"str"}:
        fix = "Make them all numbers or all texts, or drop the column."
        raise value_error(f"values of one kind in {name}", ", ".join(sorted(kinds)), fix)
    parsed = pd.to_numeric(pd.Series(known), errors="coerce").notna()
    if 2 * parsed.sum() > len(known):
        odd = [repr(value) for value, number in zip(known, parsed, strict=True) if not number]
        got = f"{int(parsed.sum())} numbers written as text" + (f" beside {', '.join(odd[:3])}" if odd else "")
        fix = "Use pandas.to_numeric (errors='coerce' for missing values), or astype('category') if they are names."
        raise value_error(f"numbers or categories in {name}", got, fix)
    return _levels(series)


def _numbers(series: pd.Series) -> Column:
    values = series.to_numpy(dtype=np.float64, na_value=np.nan)
    if bad := int(np.isinf(values).sum()):
        fix = "Mend them, or make them missing."
        raise value_error(f"finite numbers in column {series.name!r}", f"{bad} infinite", fix)
    if len(values) >= ROW_NUMBERS and (np.diff(np.sort(values)) == 1).all():
        got = "whole numbers without a gap or a repeat, which count the rows"
        raise value_error(f"a measurement in column {series.name!r}", got, "Drop the column.")
    return Column(str(series.name), values, categories=False)


def _levels(series: pd.Series) -> Column:
    codes, levels = pd.factorize(series)  # missing: −1, a level like others
    most = min(MOST_LEVELS, len(series) // 2)
    if len(levels) > most:
        got = f"{len(levels)} different ones in {len(series)} rows"
        fix = "Drop the column if it is an identifier or free text, or group its values."
        raise value_error(f"at most {most} categories in column {series.name!r}", got, fix)
    return Column(str(series.name), codes.astype(np.float64), categories=True)


def _notes(inputs: pd.DataFrame, columns: list[Column], y: Index) -> list[str]:
    notes = []
    if missing := [column.name for column in columns if inputs[column.name].isna().any()]:
        how = "numbers are filled with the training rows' median and marked, a missing category is one of its own"
        notes.append(f"Missing values in {', '.join(missing)}: {how}.")
    values = pd.DataFrame({column.name: column.values for column in columns})
    if copies := int(values.duplicated().sum()):
        notes.append(f"{copies} rows repeat another one; copies on both sides of a split make all scores too high.")
    told = [
        column.name
        for column in columns
        if values[column.name].nunique(dropna=False) <= len(y) // 2
        and (pd.Series(y).groupby(values[column.name], dropna=False).nunique() == 1).all()
    ]
    if told:
        notes.append(f"The class follows from {', '.join(told)} alone: is that known before the class is?")
    return notes
