"""Write the table of the rules by which a diagnosis speaks, ``book/rules_table.md``, from the code."""

from __future__ import annotations

from pathlib import Path

from resalign_utils.diagnosis import RULES

PAGE = Path(__file__).resolve().parent.parent / "book" / "rules_table.md"


def table() -> str:
    """The table as Markdown."""
    rows = ["| about | numbers that decide | rule | see |", "| --- | --- | --- | --- |"]
    for rule in RULES.values():
        numbers = ", ".join(f"{value:g}" for value in rule.thresholds)
        chapter = f"{{doc}}`chapter {int(rule.chapter[:2])} <../notebooks/{rule.chapter}>`"
        rows.append(f"| {rule.name} | {numbers} | {rule.says} | {chapter} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(table(), encoding="utf-8")
