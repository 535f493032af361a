"""Run notebooks as a stranger does: each alone in an empty folder, with the package as a wheel installs it.

python -m tools.alone book/first_figure.ipynb             # the package that this Python has installed
python -m tools.alone --wheel dist/NAME.whl PATH…         # the package out of this wheel
python -m tools.alone --unpacked PATH…                    # what a wheel of this clone would hold, without building one
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
import tomllib
import zipfile
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell

from tools.notebook_rules import ROOT
from tools.run_notebooks import execute, set_environment

CHECK = """from pathlib import Path
home = Path(ra.__file__).resolve()
assert home.is_relative_to({inside!r}) and not home.is_relative_to({outside!r}), home
assert (home.parent / "results").is_dir() and len(ra.recorded("theory")) > 0
assert not [path for path in Path(".").iterdir() if path.suffix != ".ipynb"], "the folder was not empty"
"""


def unpack(target: Path, root: Path = ROOT) -> Path:
    """Copy to `target` what pyproject.toml puts into a wheel, at the places where a wheel has it."""
    wheel = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    moved: dict[str, str] = wheel["wheel"]["sources"]
    for pattern in wheel["wheel"]["include"]:
        for path in sorted(root.glob(pattern.strip("/"))):
            place = path.relative_to(root)
            head, *rest = place.parts
            there = target.joinpath(moved.get(head, head), *rest)
            there.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, there, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(path, there)
    return target


def run_alone(path: Path, package: Path | None, timeout: int = 1800) -> None:
    """Run one notebook in a folder that holds nothing else; raises on the first cell that raises.

    Args:
        path: the notebook; the file itself stays as it is.
        package: a folder with the package in it, or None: the one that this Python has installed.
        timeout: seconds for one cell.
    """
    nb = nbformat.read(path, as_version=4)
    inside = package.resolve() if package else Path(sys.prefix).resolve()
    outside = ROOT / "resalign_utils"
    nb.cells.insert(_import_at(nb) + 1, new_code_cell(CHECK.format(inside=str(inside), outside=str(outside))))
    if package is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = str(inside)  # before an editable install of this clone
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy2(path, folder)
        execute(nb, Path(folder), timeout)


def _import_at(nb: nbformat.NotebookNode) -> int:
    return next(i for i, cell in enumerate(nb.cells) if cell.cell_type == "code")


def main() -> int:
    """Run all that are named; the first that fails ends it with its error."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--wheel", type=Path, help="take the package out of this wheel")
    source.add_argument("--unpacked", action="store_true", help="take what a wheel of this clone would hold")
    parser.add_argument("paths", nargs="+", type=Path)
    options = parser.parse_args()
    set_environment()
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) if options.wheel or options.unpacked else None
        if options.wheel:
            zipfile.ZipFile(options.wheel).extractall(folder)  # all that pip does with a wheel of Python alone
        elif options.unpacked:
            unpack(Path(folder))
        for path in options.paths:
            start = time.perf_counter()
            run_alone(path, package)
            print(f"{path.name} ran alone in {time.perf_counter() - start:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
