"""All notebooks compared as on other machines: one thread and two, with wide vector instructions and without.

python -m tools.machines            # all notebooks in the four settings: hours of one core
python -m tools.machines 01 02 05   # only notebooks whose names contain one of these words

A last digit of a sum depends on the order in which it is formed, which differs between processors and numbers of
threads, and training amplifies it. A notebook whose numbers or bands hold here only is found by running it so. Each
setting trains in a cache of its own, ``_build/machines``. Each notebook is written to ``results/machines.json`` when it
is done; rows of notebooks that are not run stay.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tools import recording
from tools.comparing import Row, compare
from tools.notebook_rules import ROOT, toc_notebooks

SETTINGS = [(threads, capability) for capability in ("default", "avx2") for threads in (1, 2)]
FOLDER = ROOT / "_build" / "machines"


def environment(threads: int, capability: str, folder: Path = FOLDER) -> dict[str, str]:
    """The variables of one setting; what it trains stays apart, for it is what may differ."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    cache = folder / f"{capability}-{threads}"
    cache.mkdir(parents=True, exist_ok=True)
    return {name: str(threads) for name in names} | {
        "ATEN_CPU_CAPABILITY": capability,
        "RESALIGN_CACHE": str(cache),
    }


def merged(old: list[Row], new: Row) -> list[Row]:
    """All rows with this one in the place of the older one of the same notebook and setting, in the book's order."""
    key = ("notebook", "threads", "capability")
    kept = [row for row in old if [row[name] for name in key] != [new[name] for name in key]]
    order = [path.stem for path in toc_notebooks()]
    known = [row for row in [*kept, new] if row["notebook"] in order]
    return sorted(known, key=lambda row: (order.index(row["notebook"]), row["capability"], row["threads"]))


def main(words: list[str]) -> int:
    """Compare; 1 if a cell failed anywhere."""
    paths = [path for path in toc_notebooks() if not words or any(word in path.stem for word in words)]
    red = 0
    for threads, capability in SETTINGS:
        for path in paths:
            variables = environment(threads, capability)
            row = compare(path, FOLDER / "report.xml", variables)
            row |= {"threads": threads, "capability": capability, "processors": os.cpu_count()}
            row["provenance"] = recording.made_now()
            recording.record("machines", "python -m tools.machines", merged(recording.read("machines"), row))
            red += bool(row["failed"])
            verdict = f"cells {row['failed']} FAILED" if row["failed"] else "all equal"
            print(f"{threads} threads, {capability}: {path.stem} {verdict}, {row['seconds']:.0f} s", flush=True)
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
