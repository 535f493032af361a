"""Run notebooks again under pytest's nbval, which compares what they print with what is stored, and read its report."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nbformat

from tools.notebook_rules import ROOT

Row = dict[str, Any]
IGNORED = {"nbval-ignore-output", "NBVAL_IGNORE_OUTPUT"}


def command(paths: Sequence[Path], report: Path, *options: str) -> list[str]:
    """What compares these notebooks and writes a JUnit report; `make test` calls nbval in the same words."""
    fixed = ["-q", "-p", "no:cacheprovider", "--nbval", "--nbval-cell-timeout", "1800", f"--junitxml={report}"]
    return [sys.executable, "-m", "pytest", *fixed, *options, *map(str, paths)]


def compare(path: Path, report: Path, changes: Mapping[str, str], *options: str, root: Path = ROOT) -> Row:
    """One notebook, run with these environment variables in place; its row of the report.

    Raises:
        RuntimeError: nbval did not come to compare anything; the text ends with what it said.
    """
    report.unlink(missing_ok=True)
    # `-n 0`-like: one process, whose kernel finds the package of `root` before any that is installed
    environment = {**os.environ, "PYTHONPATH": str(root), **changes}
    done = subprocess.run(
        command([path], report, *options), cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1) or not report.is_file():
        raise RuntimeError(f"nbval of {path.name} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr}")
    (row,) = rows_of(report)
    return row


def rows_of(report: Path) -> list[Row]:
    """One row a notebook of a JUnit report: its cells, those that failed (counted from 1 among code), its seconds."""
    rows: dict[str, Row] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        if not case.get("classname", "").endswith(".ipynb"):
            continue
        name = case.get("classname", "").split(".")[-2]
        row = rows.setdefault(name, {"notebook": name, "cells": 0, "failed": [], "seconds": 0.0})
        row["cells"] += 1
        row["seconds"] += float(case.get("time", "0"))
        if case.find("failure") is not None or case.find("error") is not None:
            row["failed"].append(int(case.get("name", "").split()[-1]) + 1)
    return [row | {"seconds": round(row["seconds"], 1)} for _, row in sorted(rows.items())]


def counts(path: Path) -> Row:
    """How the cells of a notebook are checked: what they print is compared, or they are run and assert."""
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    banded = [cell for cell in code if IGNORED & set(cell.metadata.get("tags", []))]
    printing = [cell for cell in code if cell not in banded and any(map(_compared, cell.outputs))]
    asserts = sum(line.strip().startswith("assert ") for cell in code for line in cell.source.splitlines())
    return {"compared": len(printing), "banded": len(banded), "asserts": asserts}


def _compared(output: Any) -> bool:
    """Whether nbval compares this output: what is printed and shown as text, not a figure alone."""
    if output.output_type == "stream":
        return bool(output.name == "stdout")
    return "text/html" in output.get("data", {}) or "text/markdown" in output.get("data", {})
