"""Local Sphinx extension: a card at the top of each chapter, and how to cite it at its end.

Both are derived when the book is built: prerequisites and time to run from the chapter's own lines, time to read from
its words, where its numbers come from and whether it offers `scale` from its code. Notebooks stay as they are.
"""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

WORDS_A_MINUTE = 200  # of prose with formulas and figures; a usual rate for plain text is 240
LINES = re.compile(r"^\*\*(Prerequisites|Time):\*\*[ \t]*(.+(?:\n(?!\n|\*\*|#|-).+)*)\n?", re.M)
TITLE = re.compile(r"^# (.+)$", re.M)
NOT_PROSE = re.compile(r"```.*?```|<details>.*?</details>|\$\$.*?\$\$|</?[a-z][^<>\n]*>|\]\([^)]*\)", re.S)
SCALE = re.compile(r'^scale = "(\w+)"', re.M)
RECORDED = re.compile(r"\brecorded\(")
TRAINED = re.compile(r"\b(?:load_or_train|over_seeds|train|build_model)\(")


def prose(notebook: dict[str, Any]) -> str:
    """What a reader of the page reads: text cells and texts that cells show, without code, formulas and solutions."""
    texts = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            texts.append("".join(cell["source"]))
        texts.append(cell["metadata"].get("mystnb", {}).get("figure", {}).get("caption", ""))  # from book_captions
        shown = [] if "remove-cell" in cell["metadata"].get("tags", []) else cell.get("outputs", [])
        texts += ["".join(output.get("data", {}).get("text/markdown", "")) for output in shown]
    return NOT_PROSE.sub(" ", "\n\n".join(texts))


def minutes_to_read(notebook: dict[str, Any]) -> int:
    """Whole minutes, at least one."""
    return max(1, math.ceil(len(re.findall(r"\w[\w'’-]*", prose(notebook))) / WORDS_A_MINUTE))


def origin(code: str) -> str:
    """Where a chapter's numbers come from, by what its cells call."""
    live, recorded = bool(TRAINED.search(code)), bool(RECORDED.search(code))
    return {
        (True, True): "networks that are trained when the book is built, and recorded runs",
        (True, False): "networks that are trained when the book is built",
        (False, True): "recorded runs",
        (False, False): "computed when the book is built; nothing is trained",
    }[live, recorded]


def card(notebook: dict[str, Any], said: dict[str, str]) -> str:
    """The card as MyST Markdown."""
    code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    scale = "offered: one line, `scale`, in the first cells" if SCALE.search(code) else "not offered"
    rows = {
        "Before it": said.get("Prerequisites", "").rstrip("."),
        "To read": f"{minutes_to_read(notebook)} min",
        "To run": said.get("Time", "").rstrip("."),
        "Numbers from": origin(code),
        "Larger scale": scale,
    }
    lines = [f"**{name}:** {text}" for name, text in rows.items() if text]
    return "\n".join(["```{div} chapter-card", *(f"- {line}" for line in lines), "```"])


def citation(docname: str, title: str, address: str, cff: str) -> str:
    """How to cite one chapter, as MyST Markdown; `cff` is the text of CITATION.cff."""
    version = re.search(r"^version: (\S+)", cff, re.M)
    if version is None:
        raise ValueError("CITATION.cff names no version.")
    stem = docname.rsplit("/", 1)[-1]
    number = re.match(r"0*(\d+)_", stem)
    place = f"Chapter {number[1]}" if number else "A chapter"
    plain = re.sub(r"[$`*]", "", title)
    link = f" {address}/blob/main/{docname}.ipynb" if address else ""
    text = f"The resalign authors. *{plain}.* {place} of *Inside Residual Networks*, version {version[1]}.{link}"
    key = re.sub(r"\W+", "_", stem)
    fields = {
        "title": f"{{{plain}}}",
        "author": "{{The resalign authors}}",
        "booktitle": "{Inside Residual Networks}",
        "note": f"{{{place}, version {version[1]}}}",
        **({"url": f"{{{link.strip()}}}"} if link else {}),
    }
    entry = "\n".join(f"  {name} = {value}," for name, value in fields.items())
    return f"````{{dropdown}} Cite this chapter\n{text}\n\n```bibtex\n@incollection{{{key},\n{entry}\n}}\n```\n````"


def with_card(notebook: dict[str, Any], docname: str, address: str, cff: str) -> dict[str, Any]:
    """The notebook with its lines of prerequisites and time in a card below its title, and a citation at its end."""
    first = notebook["cells"][0]
    text = "".join(first["source"])
    title = TITLE.search(text)
    if first["cell_type"] != "markdown" or title is None:
        return notebook
    said = {label: " ".join(words.split()) for label, words in LINES.findall(text)}
    top, rest = text[: title.end()], LINES.sub("", text[title.end() :])
    opened = {**first, "source": f"{top}\n\n{card(notebook, said)}\n{rest}"}
    last = {"cell_type": "markdown", "metadata": {}, "source": citation(docname, title[1], address, cff)}
    return {**notebook, "cells": [opened, *notebook["cells"][1:], last]}


def _source_read(app: Any, docname: str, source: list[str]) -> None:
    if app.env.doc2path(docname).endswith(".ipynb"):
        cff = (Path(app.srcdir) / "CITATION.cff").read_text(encoding="utf-8")
        address = os.environ.get("BOOK_REPOSITORY_URL", "").rstrip("/")
        source[0] = json.dumps(with_card(json.loads(source[0]), docname, address, cff), ensure_ascii=False)


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this."""
    app.connect("source-read", _source_read)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
