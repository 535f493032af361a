"""What all experiments share: a measured row, rounding, and the file that is written."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

import resalign_utils as ra
from resalign_utils.records import results_folder

PROCESSES = int(os.environ.get("RESALIGN_PROCESSES", "2"))

MADE_WITH = ("versions", "device", "git", "data")

Row = dict[str, Any]


def swept(
    settings: Sequence[tuple[Row, ra.RunConfig]],
    measure: Callable[[ra.Run], Row],
    *,
    processes: int = PROCESSES,
    device: str = "cpu",
) -> list[Row]:
    """One row a setting: its labels, its configuration, what was measured, and where that comes from."""
    start, rows = time.perf_counter(), []
    results = ra.sweep([config for _, config in settings], partial(_row, measure), processes=processes, device=device)
    for number, ((labels, _), row) in enumerate(zip(settings, results, strict=True), start=1):
        rows.append(labels | row)
        told = ", ".join(f"{key} {value}" for key, value in labels.items())
        accuracies = f"{row['train_accuracy']:.3f} {row['test_accuracy']:.3f}"
        alignment = f"{row['alignment']:.3f}" if "alignment" in row else ""
        passed = time.perf_counter() - start
        print(f"{number}/{len(settings)} {passed:.0f} s | {told} | {accuracies} {alignment}", flush=True)
    return rows


def _row(measure: Callable[[ra.Run], Row], run: ra.Run) -> Row:
    history = run.history
    perfect = next((epoch for epoch, done in enumerate(history.terminal, start=1) if done), None)
    row: Row = {"config": asdict(run.config), "seed": run.config.train.seed}
    row |= {
        "train_accuracy": round(history.train_accuracy[-1], 5),
        "test_accuracy": round(history.test_accuracy[-1], 5),
    }
    row |= {"terminal_from": perfect, "seconds": run.provenance["seconds"]}
    return row | measure(run) | {"provenance": made_with(run.provenance)}


def made_with(provenance: Row) -> Row:
    """What a row says of where its network comes from: versions, device, commit, data, date."""
    return {key: provenance[key] for key in MADE_WITH} | {"to": provenance["date"]}


def rounded(values: torch.Tensor, digits: int = 5) -> Any:
    """Nested lists with so many significant digits, None for NaN."""
    if values.dim():
        return [rounded(part, digits) for part in values]
    return None if values.isnan() else float(f"{float(values):.{digits}g}")


def seeded(labels: Row, config: ra.RunConfig, seeds: Iterable[int] = (0, 1, 2)) -> list[tuple[Row, ra.RunConfig]]:
    """The same setting under several seeds, of initialisation and order."""
    return [(labels, config.with_seed(seed)) for seed in seeds]


def record(name: str, command: str, rows: list[Row]) -> None:
    """Write ``results/<name>.json``: the command, the provenances, and the rows, each with its provenance's number."""
    provenances: list[Row] = []
    for row in rows:
        made, date = row["provenance"], row["provenance"].pop("to")
        known = next((p for p in provenances if {key: p[key] for key in MADE_WITH} == made), None)
        if known is None:
            provenances.append(known := made | {"from": date, "to": date})
        known |= {"from": min(known["from"], date), "to": max(known["to"], date)}
        row["provenance"] = provenances.index(known)
    path = results_folder() / f"{name}.json"
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    head = json.dumps({"command": command, "provenances": provenances})
    path.write_text(f'{head[:-1]}, "rows": [\n{lines}\n]}}\n')
    print(f"wrote {path.name}, {path.stat().st_size / 1e3:.0f} kB", flush=True)
