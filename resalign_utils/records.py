"""Results that were measured beforehand, and kept with the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

# In a clone they lie beside the package, in a wheel inside it.
FOLDERS = (Path(__file__).parents[1] / "results", Path(__file__).parent / "results")


def recorded(name: str) -> pd.DataFrame:
    """Return results that a program of the folder ``results/`` measured and wrote, one row a network.

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
    paths = {path.stem: path for folder in FOLDERS for path in sorted(folder.glob("*.json"))}
    if name not in paths:
        known = ", ".join(sorted(paths)) or "none, for there is no folder results"
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
