"""Faults put into the package on purpose, each of which the stored notebooks or the tests must notice.

python -m tools.mutants            # all ten, in a copy of the repository; 1 if one goes unnoticed
python -m tools.mutants svd path   # only those whose names contain one of these words

A fault is caught by a notebook if nbval, which runs it again, finds a cell that raises or prints something else, and
that cell and all above it pass with the package as it is; by tests, likewise, if one fails that passes without the
fault. Runs that notebooks need are copied from ``_build/test-cache``, which `make test` leaves, or from
$RESALIGN_CACHE: a kept run hides a fault in training, which therefore tests must catch. What comes out is written to
``results/mutants.json``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import nbformat

from tools import recording
from tools.comparing import Row, compare
from tools.notebook_rules import ROOT

TREE = ("resalign_utils", "results", "notebooks", "tests", "tools", "experiments", "benchmarks", "examples", "book",
        "conftest.py", "pyproject.toml", "_toc.yml", ".nbval-sanitize.cfg")  # fmt: skip
COMMAND = "python -m tools.mutants"


@dataclass(frozen=True)
class Mutant:
    """One fault: ``old`` stands once in ``file`` of the package and becomes ``new``; ``by`` should notice it."""

    name: str
    file: str
    old: str
    new: str
    by: str


# The one place where it stands what is broken and who must notice.
MUTANTS = (
    Mutant(
        "alignment: trace without its last vector",
        "alignment/_scores.py",
        "return matrices.diagonal(dim1=-2, dim2=-1).sum(-1)",
        "return matrices.diagonal(dim1=-2, dim2=-1)[..., :-1].sum(-1)",
        "tests/alignment/test_alignment.py",  # the bands of chapter 5 are too wide: a tenth vector weighs little
    ),
    Mutant(
        "line shape: steps that are not made unit",
        "alignment/_scores.py",
        "units = steps / or_one(lengths)[..., None]",
        "units = steps",
        "notebooks/03_trajectories.ipynb",
    ),
    Mutant(
        "svd: left and right singular vectors of wide matrices exchanged",
        "svd/_solve.py",
        "u, v = fix_signs(turned.V, turned.U)",
        "u, v = fix_signs(turned.U, turned.V)",
        "tests/svd/test_svd.py",
    ),
    Mutant(
        "residuals: the outer ReLU differentiated at the branch, not at the sum",
        "residuals/_replay.py",
        "_held(call, parts.outer, replay.z)",
        "_held(call, parts.outer, replay.f)",
        "notebooks/04_residual_jacobians.ipynb",
    ),
    Mutant(
        "path lengths: linear channels counted too",
        "linearization/_laws.py",
        "rows = (1 - share) * F.pad(laws.rows, (0, 1)) + share * F.pad(laws.rows, (1, 0))",
        "rows = share * F.pad(laws.rows, (0, 1)) + (1 - share) * F.pad(laws.rows, (1, 0))",
        "notebooks/14_paths.ipynb",
    ),
    Mutant(
        "linearisation: one slope for each layer whatever is asked",
        "linearization/_linearize.py",
        'count = shape[1] if granularity == "channel" else 1',
        "count = 1",
        "notebooks/16_linearization.ipynb",
    ),
    Mutant(
        "collapse: singular values of the means not squared",
        "collapse/_features.py",
        "nc1 = float((within / self.values.square()).sum())",
        "nc1 = float((within / self.values).sum())",
        "notebooks/11_neural_collapse.ipynb",
    ),
    Mutant(
        "theory: the penalty on the blocks doubled",
        "theory.py",
        "weight / 2 * cost",
        "weight * cost",
        "notebooks/12_theory.ipynb",
    ),
    Mutant(
        "training: the learning rate rises where it should fall",
        "training/_loop.py",
        "factor = (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2",
        "factor = (1 - math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2",
        "tests/training/test_training.py",
    ),
    Mutant(
        "diagnosis: intervals of 90 in place of 95 %",
        "diagnosis/_verdicts.py",
        "half = float(student.ppf(0.975, len(known) - 1)",
        "half = float(student.ppf(0.95, len(known) - 1)",
        "tests/diagnosis/test_verdicts.py",
    ),
)


def copy_tree(target: Path, root: Path = ROOT) -> None:
    """The files that package, notebooks and tests need, where they can be broken."""
    ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", ".*.part")
    for name in TREE:
        if (root / name).is_dir():
            shutil.copytree(root / name, target / name, ignore=ignore)
        else:
            shutil.copy2(root / name, target / name)


def broken(mutant: Mutant, text: str) -> str:
    """The file with the fault.

    Raises:
        ValueError: the line that is to be broken is not there, or more than once: the table of faults is out of date.
    """
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: {mutant.file} holds {text.count(mutant.old)} times, not once: {mutant.old}")
    return text.replace(mutant.old, mutant.new)


def tried(mutant: Mutant, root: Path, cache: Path) -> Row:
    """Break the copy, ask who should notice, mend it, and ask again up to where it was noticed."""
    file = root / "resalign_utils" / mutant.file
    whole, start = file.read_text(encoding="utf-8"), time.perf_counter()
    file.write_text(broken(mutant, whole), encoding="utf-8")
    spoiled = root / "spoiled-cache"  # whatever a broken package keeps; kept runs are read, or replaced by new files
    shutil.copytree(cache, spoiled, copy_function=os.link)
    asked = _by_notebook if mutant.by.endswith(".ipynb") else _by_tests
    try:
        found = asked(root, mutant.by, spoiled, None)
    finally:
        file.write_text(whole, encoding="utf-8")
        shutil.rmtree(spoiled)
    seconds = time.perf_counter() - start
    sound = None if found is None else asked(root, mutant.by, cache, found) is None
    row: Row = {"mutant": mutant.name, "file": mutant.file, "by": mutant.by, "found": found, "control": sound}
    return row | {"caught": found is not None and sound, "seconds": round(seconds, 1)}


def _by_notebook(root: Path, name: str, cache: Path, until: str | None) -> str | None:
    """The first cell that fails, None if none does; ``until`` cuts the notebook behind that cell."""
    path, stored = root / name, None
    if until is not None:
        stored = path.read_bytes()
        _cut(path, int(until.removeprefix("cell ")))
    try:
        row = compare(path, root / "report.xml", {"RESALIGN_CACHE": str(cache)}, "-x", root=root)
    finally:
        if stored is not None:
            path.write_bytes(stored)
    return f"cell {row['failed'][0]}" if row["failed"] else None


def _cut(path: Path, cells: int) -> None:
    """Leave the first so many cells with code of a notebook."""
    nb = nbformat.read(path, as_version=4)
    code = [i for i, cell in enumerate(nb.cells) if cell.cell_type == "code"]
    nb.cells = nb.cells[: code[cells - 1] + 1]
    nbformat.write(nb, path)


def _by_tests(root: Path, name: str, cache: Path, until: str | None) -> str | None:
    """The first test that fails, None if none does; ``until`` is the one to run."""
    report = root / "report.xml"
    report.unlink(missing_ok=True)
    where = [name] if until is None else [name, "-k", until.partition("[")[0]]
    fixed = ["-q", "-x", "-p", "no:cacheprovider", f"--junitxml={report}"]
    environment = {**os.environ, "PYTHONPATH": str(root), "RESALIGN_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *fixed, *where],
        cwd=root, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{name} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    cases = ElementTree.parse(report).iter("testcase")
    failed = [case.get("name", "") for case in cases if case.find("failure") is not None]
    return failed[0] if failed else None


def verdict(row: Row) -> str:
    """What is said of one mutant."""
    if row["caught"]:
        return f"caught by {row['by']}, {row['found']}"
    if row["found"] is None:
        return f"SURVIVED {row['by']}"
    return f"NOT PROVED: {row['by']}, {row['found']} fails without the fault too"


def kept_runs() -> Path | None:
    """Where trained networks lie already; without them a notebook trains its own."""
    places = (ROOT / "_build" / "test-cache", Path(os.environ.get("RESALIGN_CACHE", "")))
    return next((place for place in places if place.name and place.is_dir()), None)


def results(mutants: Sequence[Mutant]) -> Iterator[Row]:
    """One row a mutant, in a copy that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        root, cache, kept = Path(folder) / "copy", Path(folder) / "runs", kept_runs()
        root.mkdir()
        copy_tree(root)
        cache.mkdir()
        if kept is not None and any(mutant.by.endswith(".ipynb") for mutant in mutants):
            shutil.copytree(kept, cache, dirs_exist_ok=True)
        for mutant in mutants:
            yield tried(mutant, root, cache) | {"provenance": recording.made_now()}


def main(words: list[str]) -> int:
    """Try them; 1 if one is not caught."""
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    names = [mutant.name for mutant in MUTANTS]
    missed = 0
    for row in results(chosen):
        old = [other for other in recording.read("mutants") if other["mutant"] in set(names) - {row["mutant"]}]
        rows = sorted([*old, row], key=lambda other: names.index(other["mutant"]))
        recording.record("mutants", COMMAND, rows)
        missed += not row["caught"]
        print(f"{row['mutant']} | {verdict(row)} | {row['seconds']:.0f} s", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} caught")
    return 1 if missed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
