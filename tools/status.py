"""Record the last clean run of all notebooks, and write the tables of the page *Status*.

python -m tools.status           # take up the report of the last `make test`, _build/nbval.xml, and write the tables
python -m tools.status --tables  # write the tables alone, from what is recorded

`make test` runs every notebook again from an empty cache, two at a time, and compares; its report has the seconds of
every cell. ``results/status.json`` keeps the notebooks' sums with date, versions and commit, and ``results/status.md``
shows it beside the records of ``tools.mutants`` and ``tools.machines``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from tools import recording
from tools.comparing import Row, counts, rows_of
from tools.notebook_rules import ROOT, toc_notebooks

REPORT = ROOT / "_build" / "nbval.xml"
PAGE = recording.RESULTS / "status.md"
COMMAND = "python -m tools.status"
Cells = dict[str, Callable[[Row], str]]


def measured(report: Path, notebooks: Iterable[Path]) -> list[Row]:
    """One row a notebook of the book, from a report of nbval.

    Raises:
        FileNotFoundError: there is no report.
        ValueError: the report lacks notebooks, so that it is of another book or was cut off.
    """
    if not report.is_file():
        raise FileNotFoundError(f"There is no report {report.name}: run `make test` first, which writes it.")
    found = {row["notebook"]: row for row in rows_of(report)}
    paths = list(notebooks)
    if lacking := [path.stem for path in paths if path.stem not in found]:
        raise ValueError(f"{report.name} lacks {', '.join(lacking)}: run `make test` to its end.")
    made = recording.made_now()
    made["date"] = datetime.fromtimestamp(report.stat().st_mtime, UTC).isoformat(timespec="minutes")
    return [found[path.stem] | counts(path) | {"provenance": made} for path in paths]


def line(cells: Iterable[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def table(rows: list[Row], cells: Cells) -> str:
    """A Markdown table of rows."""
    return "\n".join([line(cells), line("---" for _ in cells), *(line(f(row) for f in cells.values()) for row in rows)])


def made_with(rows: list[Row]) -> str:
    """When and with what rows were made: a sentence for each day and set of versions, with its commits."""
    known: dict[str, list[str]] = {}
    for made in (row["provenance"] for row in rows):
        versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
        commit = f"{made['git'][:10]}{' with changes' if made['git'].endswith('+changes') else ''}"
        commits = known.setdefault(f"{made['date'][:10]}, {versions}, {made['device']}", [])
        commits += [] if commit in commits else [commit]
    return " ".join(f"{what}, commit {', '.join(commits)}." for what, commits in known.items())


def numbers(cells: list[int]) -> str:
    """Cells that failed, in words."""
    return "none" if not cells else ", ".join(map(str, cells))


def of_chapters(rows: list[Row]) -> str:
    """The table of the last clean run."""
    if not rows:
        return "No clean run is recorded."
    cells: Cells = {
        "notebook": lambda row: row["notebook"],
        "seconds": lambda row: f"{row['seconds']:.0f}",
        "cells": lambda row: str(row["cells"]),
        "compared": lambda row: str(row["compared"]),
        "with bands": lambda row: str(row["banded"]),
        "asserts": lambda row: str(row["asserts"]),
        "failed": lambda row: numbers(row["failed"]),
    }
    total = sum(row["seconds"] for row in rows)
    return f"{table(rows, cells)}\n\nTogether {total / 60:.0f} minutes of two processes. {made_with(rows)}"


def noticed(row: Row) -> str:
    """Who noticed a fault, short enough for a phone; the record has the name of the test."""
    if not row["caught"]:
        return f"**nobody**; asked was {Path(row['by']).stem}"
    place = Path(row["by"])
    return f"{place.stem}, {row['found']}" if place.suffix == ".ipynb" else f"tests of {place.parent.name}"


def of_mutants(rows: list[Row]) -> str:
    """The table of faults."""
    if not rows:
        return "No fault was tried."
    cells: Cells = {
        "fault": lambda row: row["mutant"],
        "noticed by": noticed,
        "seconds": lambda row: f"{row['seconds']:.0f}",
    }
    return f"{table(rows, cells)}\n\n{sum(row['caught'] for row in rows)} of {len(rows)} noticed. {made_with(rows)}"


def of_machines(rows: list[Row]) -> str:
    """The table of settings, a row a notebook."""
    if not rows:
        return "No other setting was tried."
    settings = sorted({(row["capability"], row["threads"]) for row in rows})
    found = {(row["notebook"], row["capability"], row["threads"]): row for row in rows}

    def cell(setting: tuple[str, int]) -> Callable[[Row], str]:
        def told(row: Row) -> str:
            there = found.get((row["notebook"], *setting))
            return "not run" if there is None else numbers(there["failed"])

        return told

    names = {
        (capability, threads): f"{capability}, {threads} thread{'s' * (threads > 1)}"
        for capability, threads in settings
    }
    cells: Cells = {"notebook": lambda row: row["notebook"]} | {names[setting]: cell(setting) for setting in settings}
    once = [row for i, row in enumerate(rows) if row["notebook"] not in {r["notebook"] for r in rows[:i]}]
    return f"{table(once, cells)}\n\nA cell of the table lists the cells of the notebook that failed. {made_with(rows)}"


def page() -> str:
    """The three tables under their headings."""
    parts = {
        "The last clean run": of_chapters(recording.read("status")),
        "Faults put in on purpose": of_mutants(recording.read("mutants")),
        "As on other machines": of_machines(recording.read("machines")),
    }
    return "\n\n".join(f"## {title}\n\n{text}" for title, text in parts.items()) + "\n"


def main() -> int:
    """Record and write; 1 if there is nothing to record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", action="store_true", help="record nothing, write the tables")
    parser.add_argument("--report", type=Path, default=REPORT)
    options = parser.parse_args()
    if not options.tables:
        try:
            recording.record("status", COMMAND, measured(options.report, toc_notebooks()))
        except (FileNotFoundError, ValueError) as error:
            print(error, file=sys.stderr)
            return 1
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
