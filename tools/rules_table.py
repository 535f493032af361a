"""Write the table of the rules by which a diagnosis speaks, ``book/rules_table.md``, from the code."""

from __future__ import annotations

from pathlib import Path

from resalign_utils.diagnosis import RULES

NUMBERED = 16  # chapters that have a number on their page; those behind are called by their titles
PAGE = Path(__file__).resolve().parent.parent / "book" / "rules_table.md"


def table() -> str:
    """The table as Markdown."""
    rows = ["| about | numbers that decide | rule | see |", "| --- | --- | --- | --- |"]
    for rule in RULES.values():
        numbers = ", ".join(f"{value:g}" for value in rule.thresholds)
        number, page = int(rule.chapter[:2]), f"../notebooks/{rule.chapter}"
        chapter = f"{{doc}}`chapter {number} <{page}>`" if number <= NUMBERED else f"{{doc}}`{page}`"
        rows.append(f"| {rule.name} | {numbers} | {rule.says} | {chapter} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(table(), encoding="utf-8")
