"""``python -m tests.truth``: measure every branch of the table, and write the book's table of what comes of each.

Beside the names of branches stands the way that was taken, or the sentence of the refusal, at the largest number of
rows that a branch is tried at. Nothing is written while a product is neither right nor refused.
"""

import re
import sys

import torch

import resalign_utils as ra
from resalign_utils.operators._derivatives import AsItIs, BackwardOnce, DoubleBackward, ForwardMode
from tools.notebook_rules import ROOT

from .branches import GROUPS, ROWS, Row
from .oracle import faults, measure

PAGE = ROOT / "book" / "limits_table.md"
WAYS = {
    DoubleBackward: "backward twice",
    AsItIs: "backward twice, layers as they are",
    ForwardMode: "forward mode",
    BackwardOnce: "backward once",
}


def outcome(row: Row) -> str:
    """How products with a row's Jacobians are made, or with which sentence they are refused."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        try:
            way = ra.JacobianBatch(row.fresh(), row.points(max(row.sizes)))._way
        except ValueError as error:
            return f"refused: “{short(str(error))}”"
    return f"right, {WAYS[way.derivative]}{'' if way.repeats else ', one vector at a time'}"


def short(text: str) -> str:
    """A refusal's first sentence, without what differs from row to row: numbers, shapes, types."""
    text = re.sub(r"trusted \(.*\)\.", "trusted (…).", text)
    text = re.sub(r"made .* of \(.*\)\.", "made … of ….", text)
    text = re.sub(r"torch\.(\w*\d+|bool)", "…", text)
    return f"{text.split('. ')[0].rstrip('.')}.".replace("*", "\\*")


def listed(names: list[str]) -> str:
    """The names in one cell; where a branch is there in place as well, once."""
    shown = []
    for name in names:
        base = name.partition(" in place")[0]
        if base == name or base not in names:
            shown.append(f"{name}, also in place" if f"{name} in place" in names else name)
    return "; ".join(shown)


def table() -> str:
    """All rows in Markdown, in one small table a group, those that are right first."""
    parts = []
    for title, rows in GROUPS.items():
        names: dict[str, list[str]] = {}
        for row in rows:
            names.setdefault(outcome(row), []).append(row.name)
        lines = [f"| {ended} | {len(names[ended])} | {listed(names[ended])} |" for ended in names]
        lines.sort(key=lambda line: line.startswith("| refused"))  # stable: else in the order of the rows
        parts.append("\n".join([f"### {title}", "", "| what comes | number | branches |", "|---|---|---|", *lines]))
    return "\n\n".join(parts) + "\n"


def main() -> int:
    torch.set_num_threads(1)
    found = [f"{row.name}, n = {n}: {f}" for row in ROWS for n in row.sizes for f in faults(row, n, measure(row, n))]
    print("\n".join(found) or f"{len(ROWS)} branches, each right or refused")
    if not found:
        PAGE.write_text(table(), encoding="utf-8")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
