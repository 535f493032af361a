"""Results that were measured beforehand, and kept with the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd


def results_folder() -> Path:
    """Where results are written and read: ``results`` inside the package (in a wheel), else beside it (in a clone).

    Only one of the two is looked at, so that nobody else's ``results`` beside an installed package is read.
    """
    package = Path(__file__).resolve().parent
    inside = package / "results"
    return inside if inside.is_dir() else package.parent / "results"


def recorded(name: str) -> pd.DataFrame:
    """Return results that a program of ``experiments/`` or the benchmarks measured and wrote, one row a network.

    Args:
        name: of the file, such as ``"counterfactuals_digits"``.

    Returns:
        A frame; ``frame.attrs["command"]`` makes the results anew, ``frame.attrs["provenances"]`` says when and with
        what they were made, where a column ``provenance`` gives the number. Of ``"benchmarks"``, which are several
        tables, columns ``group`` and ``table`` say of which a row is, and what a table lacks is NaN: one of them is
        ``frame[frame.table == title].dropna(axis=1, how="all")``, its note ``frame.attrs["notes"][title]``, and
        ``frame.attrs["environment"]`` says with what it was timed.

    Raises:
        FileNotFoundError: there is no such result; the text lists those there are.
        OSError: the file is damaged.
    """
    paths = {path.stem: path for path in results_folder().glob("*.json")}
    if name not in paths:
        known = ", ".join(sorted(paths)) or f"none, for {results_folder()} holds no JSON file"
        raise FileNotFoundError(f"No result is recorded as {name!r}; expected one of {known}.")
    try:
        content: Any = json.loads(paths[name].read_text(encoding="utf-8"))
        if "groups" in content:
            content = _of_tables(content)
        frame = pd.DataFrame([dict(row) for row in content.pop("rows")])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise OSError(f"{paths[name]} is damaged ({error}). Restore it, or run its program again.") from error
    frame.attrs = content
    return frame


def _of_tables(content: dict[str, Any]) -> dict[str, Any]:
    """The rows of all tables of the benchmarks in one list, with the names of their group and table."""
    tables = [(group, table) for group, tables in content.pop("groups").items() for table in tables]
    rows = [{"group": group, "table": table["title"], **row} for group, table in tables for row in table["rows"]]
    notes = {table["title"]: table["note"] for _, table in tables}
    return content | {"command": "make bench", "notes": notes, "rows": rows}
