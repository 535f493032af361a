"""Run all benchmarks, print the table, and record it in ``results/benchmarks.json`` and ``results/benchmarks.md``.

Every row compares alternatives in one run on one machine: read the ratios, not the seconds.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch

import resalign_utils as ra

from .measuring import measuring
from .training import training

RESULTS = Path(__file__).resolve().parents[1] / "results"
REPEATS = 3


def seconds(work: Callable[[], object]) -> list[float]:
    """Wall-clock seconds of each of REPEATS calls."""
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return times


def environment() -> dict[str, object]:
    """What the seconds depend on; no name of a machine."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "resalign_utils": ra.__version__,
        "repeats": REPEATS,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def table(rows: list[dict]) -> str:
    """Rows as a Markdown table, with the ratio to the first way of each task."""
    lines = ["| task | way | seconds (median) | spread | ratio |", "|---|---|---|---|---|"]
    first: dict[str, float] = {}
    for row in rows:
        median = statistics.median(row["seconds"])
        ratio = median / first.setdefault(row["task"], median)
        spread = f"{min(row['seconds']):.2f} … {max(row['seconds']):.2f}"
        lines.append(f"| {row['task']} | {row['way']} | {median:.2f} | {spread} | {ratio:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Time every way of every task in turn."""
    rows = []
    for task, ways in {**training(), **measuring()}.items():
        for way, work in ways.items():
            print(f"{task}: {way} …", flush=True)
            rows.append({"task": task, "way": way, "seconds": [round(value, 4) for value in seconds(work)]})
    about = environment()
    text = table(rows)
    note = ", ".join(f"{key} {value}" for key, value in about.items())
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "benchmarks.json").write_text(json.dumps({"environment": about, "rows": rows}, indent=1) + "\n")
    (RESULTS / "benchmarks.md").write_text(f"{text}\n\nMeasured with {note}.\n")
    print(f"\n{text}\n\n{note}")


if __name__ == "__main__":
    main()
