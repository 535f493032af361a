"""Tables: rows of plain values for the JSON file, columns that show them in Markdown."""

from __future__ import annotations

import json
import platform
import re
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import resalign_utils as ra
from resalign_utils.records import results_folder

RESULTS = results_folder()
PEERS = ("numpy", "scipy", "skerch", "primme", "xitorch")

Row = dict[str, Any]
Show = Callable[[Row], str]


@dataclass
class Table:
    """Rows that were measured, and how to show them.

    Attributes:
        title: heading.
        columns: heading of each column → what it shows of a row.
        rows: plain values.
        note: sentence below the table.
    """

    title: str
    columns: dict[str, Show]
    rows: list[Row] = field(default_factory=list)
    note: str = ""

    def markdown(self) -> str:
        """The table under its heading."""
        lines = [f"## {self.title}", "", _line(self.columns), _line("---" for _ in self.columns)]
        lines += [_line(show(row) for show in self.columns.values()) for row in self.rows]
        return "\n".join([*lines, *(["", self.note] if self.note else [])])


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def key(name: str) -> Show:
    """The value itself."""
    return lambda row: str(row[name])


def integer(name: str) -> Show:
    """A whole number with commas; nothing where there is none."""
    return lambda row: "" if row.get(name) is None else f"{row[name]:,}"


def number(name: str, form: str) -> Show:
    """A number in this format; nothing where there is none."""
    return lambda row: "" if row.get(name) is None else format(row[name], form)


def megabytes(name: str) -> Show:
    """Bytes as MB."""
    return lambda row: "" if row.get(name) is None else f"{row[name] / 1e6:,.0f}"


def median_of(name: str = "seconds") -> Show:
    """The median of the seconds; nothing where nothing was timed."""
    return lambda row: _digits(statistics.median(row[name])) if row.get(name) else ""


def seconds(name: str) -> Show:
    """A number of seconds; nothing where there is none."""
    return lambda row: "" if row.get(name) is None else _digits(row[name])


def spread_of(name: str = "seconds") -> Show:
    """The least and the most of the seconds."""

    def show(row: Row) -> str:
        taken = row.get(name) or []
        return f"{_digits(min(taken))} … {_digits(max(taken))}" if len(taken) > 1 else ""

    return show


def _digits(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds >= 1 else f"{seconds:.3f}" if seconds >= 0.1 else f"{seconds:.4f}"


def add_ratios(rows: list[Row], group: Callable[[Row], Any]) -> None:
    """Give every row its ``ratio`` of medians to the first row of its group."""
    first: dict[Any, float] = {}
    for row in rows:
        if row.get("seconds"):
            median = statistics.median(row["seconds"])
            row["ratio"] = median / first.setdefault(group(row), median)


def environment(device: torch.device, threads: int) -> dict[str, object]:
    """What the seconds depend on; no name of a machine."""
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "card": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "threads of the training": torch.get_num_threads(),
        "threads of the decompositions": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "resalign_utils": ra.__version__,
    }
    for name in PEERS:
        try:
            about[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            about[name] = "not installed"
    return {name: value for name, value in about.items() if value is not None}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def file_stem(device: torch.device) -> str:
    """``benchmarks``, or ``benchmarks-`` and the card's name, so that one device does not overwrite another's."""
    if device.type == "cpu":
        return "benchmarks"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return "benchmarks-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def record(tables: dict[str, list[Table]], about: dict[str, object], stem: str, folder: Path = RESULTS) -> None:
    """Write all tables as JSON and as Markdown."""
    groups = {
        name: [{"title": table.title, "note": table.note, "rows": table.rows} for table in group]
        for name, group in tables.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"environment": about, "groups": groups}, indent=1, ensure_ascii=False)
    (folder / f"{stem}.json").write_text(text + "\n", encoding="utf-8")
    pages = [table.markdown() for group in tables.values() for table in group]
    (folder / f"{stem}.md").write_text("\n\n".join([*pages, note_of(about)]) + "\n", encoding="utf-8")


def note_of(about: dict[str, object]) -> str:
    """One sentence on where it was measured."""
    return "Measured with " + ", ".join(f"{name} {value}" for name, value in about.items()) + "."
