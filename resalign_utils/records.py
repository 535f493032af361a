"""Results that were measured beforehand, and kept with the package."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

# In a clone they lie beside the package, in a wheel inside it.
FOLDERS = (Path(__file__).parents[1] / "results", Path(__file__).parent / "results")


def recorded(name: str) -> pd.DataFrame:
    """Return results that a program of the folder ``results/`` measured and wrote, one row a network.

    Args:
        name: of the file, such as ``"counterfactuals_digits"``.

    Returns:
        A frame; ``frame.attrs["command"]`` makes the results anew, ``frame.attrs["provenances"]`` says when and with
        what they were made, where a column ``provenance`` gives the number.

    Raises:
        FileNotFoundError: there is no such result; the text lists those there are.
        OSError: the file is damaged.
    """
    paths = {path.stem: path for folder in FOLDERS for path in sorted(folder.glob("*.json"))}
    if name not in paths:
        known = ", ".join(sorted(paths)) or "none, for there is no folder results"
        raise FileNotFoundError(f"No result is recorded as {name!r}; expected one of {known}.")
    try:
        content = json.loads(paths[name].read_text(encoding="utf-8"))
        frame = pd.DataFrame(content.pop("rows"))
    except (KeyError, TypeError, ValueError) as error:
        raise OSError(f"{paths[name]} is damaged ({error}). Restore it, or run its program again.") from error
    frame.attrs = content
    return frame
