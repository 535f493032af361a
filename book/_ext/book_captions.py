"""Local Sphinx extension: a caption is a text cell below its figure, so that every reader of a notebook sees it.

GitHub and Jupyter show that cell as it is. The book gives its words to the figure, which numbers it.
"""

from __future__ import annotations

import json
from typing import Any

TAG = "caption"
OPENING = "**Figure.** "


def with_captions(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the words of each caption cell in the metadata of the figure cell above it.

    Raises:
        ValueError: if a caption cell has no figure above it, or does not begin as captions do.
    """
    kept: list[dict[str, Any]] = []
    for number, cell in enumerate(notebook["cells"], 1):
        if TAG not in cell["metadata"].get("tags", []):
            kept.append(cell)
            continue
        figure = kept[-1]["metadata"].get("mystnb", {}).get("figure") if kept else None
        words = "".join(cell["source"]).strip()
        if figure is None or "caption" in figure:
            raise ValueError(f"Cell {number} is a caption; expected above it a cell with metadata mystnb.figure.")
        if not words.startswith(OPENING):
            raise ValueError(f"Cell {number} is a caption; expected '{OPENING}' and a text, found {words[:40]!r}.")
        figure["caption"] = words.removeprefix(OPENING)
    return {**notebook, "cells": kept}


def _source_read(app: Any, docname: str, source: list[str]) -> None:
    if app.env.doc2path(docname).endswith(".ipynb"):
        try:
            source[0] = json.dumps(with_captions(json.loads(source[0])), ensure_ascii=False)
        except ValueError as error:
            raise ValueError(f"{docname}: {error}") from error


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this."""
    app.connect("source-read", _source_read)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
