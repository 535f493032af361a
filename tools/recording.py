"""Records of the tools: rows in ``results/NAME.json`` with the command that made them and with what they were made."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tools.notebook_rules import ROOT

Row = dict[str, Any]
RESULTS = ROOT / "results"
PACKAGES = ("torch", "numpy", "scikit-learn", "plotly", "resalign-utils")


def made_now(root: Path = ROOT) -> Row:
    """Date, versions, processor and commit; no path, no host name."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "device": f"cpu ({platform.machine()})",
        "git": _git(root, "rev-parse", "HEAD") + ("+changes" if _git(root, "status", "--porcelain", "-uno") else ""),
    }


def _git(root: Path, *arguments: str) -> str:
    """What git says; nothing outside of a repository."""
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def read(name: str, folder: Path = RESULTS) -> list[Row]:
    """The rows of a record; each with its provenance in words. None if there is no such record."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))
    return [row | {"provenance": content["provenances"][row["provenance"]]} for row in content["rows"]]


def record(name: str, command: str, rows: Sequence[Row], folder: Path = RESULTS) -> Path:
    """Write ``results/NAME.json``; each row brings its provenance, which is written once."""
    provenances: list[Row] = []
    lines = []
    for row in rows:
        if row["provenance"] not in provenances:
            provenances.append(row["provenance"])
        lines.append(json.dumps(row | {"provenance": provenances.index(row["provenance"])}, ensure_ascii=False))
    head = json.dumps({"command": command, "provenances": provenances})
    path = folder / f"{name}.json"
    path.write_text(f'{head[:-1]}, "rows": [\n' + ",\n".join(lines) + "\n]}\n", encoding="utf-8")
    return path
