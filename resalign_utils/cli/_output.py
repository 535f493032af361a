"""What a verb prints, and where it writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ._refused import Refused, refused


def check_outputs(paths: Sequence[Path]) -> None:
    """Refuse, before minutes are spent, what could not be written.

    Raises:
        Refused: no folder to write into, a folder where a file is to be, or the other way round.
    """
    for path in paths:
        if not path.resolve().parent.is_dir():
            raise Refused(f"Expected a folder for {path.name}; there is no folder {path.parent}.")
        if path.suffix and path.is_dir() and path.suffix.lower() in (".html", ".json", ".csv"):
            raise refused(f"a file to write, {path}", "a folder of that name", "Choose another name.")
        if not path.suffix and path.is_file():
            raise refused(f"a folder to write, {path}", "a file of that name", "Choose another name.")


def as_json(content: Mapping[str, object]) -> str:
    """One JSON object; what JSON has no word for, as NaN, has to be gone."""
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)


def show(text: str, notes: Sequence[str], content: Mapping[str, object], *, machine: bool) -> None:
    """Print the text on stdout, or the JSON there and the notes on stderr."""
    if machine:
        for note in notes:
            print(f"Note: {note}", file=sys.stderr)
    print(as_json(content) if machine else text)
