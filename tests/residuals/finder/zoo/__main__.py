"""``python -m tests.residuals.finder.zoo [WORD …]``: try architectures, and write the book's table of what came.

All of them, or those whose library or name has one of the words; with ``missing``, those that have no row yet. Rows of
others stay. An architecture with another number of blocks than its source gets no row.
"""

import os
import sys
import time
from pathlib import Path

import torch

import resalign_utils as ra

from . import ZOO, Architecture, looked_at, row

PAGE = Path(__file__).parents[4] / "book" / "limits_zoo.md"


def start(architecture: Architecture) -> str:
    """How an architecture's row begins."""
    return f"| {architecture.name} |"


def page(rows: dict[str, str]) -> str:
    """The rows, by how they begin, in one table a library."""
    parts = []
    for library in dict.fromkeys(a.library for a in ZOO):
        head = "| architecture | blocks | skip | outer | beside | seconds |\n|---|---|---|---|---|---|"
        there = [rows[start(a)] for a in ZOO if a.library == library and start(a) in rows]
        parts.append("\n".join([f"### {library}", "", head, *there]))
    return "\n\n".join(parts) + "\n"


def written() -> dict[str, str]:
    """The rows of the page as it is."""
    lines = PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else []
    starts = [start(a) for a in ZOO]
    return {begun: line for line in lines for begun in starts if line.startswith(begun)}


def tried(architecture: Architecture) -> str:
    """The row of an architecture, which is traced as well; a ValueError if the number of blocks is another."""
    architecture.make()  # a library's first model costs its import
    since = time.process_time()
    table, model, x = looked_at(architecture)
    seconds = time.process_time() - since
    if len(table) != architecture.sums:
        raise ValueError(f"{architecture.name}: {len(table)} blocks are found, the source has {architecture.sums}.")
    if len(table):
        ra.trace(model, x)
    return f"{row(architecture, table)} {seconds:.1f} |"


def main(words: list[str]) -> int:
    torch.set_num_threads(1)
    failed = 0
    for architecture in ZOO:
        if "missing" in words:
            wanted = start(architecture) not in written()
        else:
            wanted = not words or any(word in (architecture.library, architecture.name) for word in words)
        if not wanted:
            continue
        try:
            line = tried(architecture)
        except ValueError as error:
            print(error)
            failed += 1
            continue
        print(line, flush=True)
        PAGE.write_text(page({**written(), start(architecture): line}), encoding="utf-8")
    return int(failed > 0)


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    sys.exit(main(sys.argv[1:]))
