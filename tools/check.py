"""The unit tests of what changed, for daily work: ``python -m tools.check [COMMIT]`` (`make check` lints first).

What differs from COMMIT, by default from where this branch left ``main``, committed or not, chooses the tests: a test
file that changed, and the tests of a module that changed. A test belongs to a module if it is called after it
(``tests/residuals/``, ``tests/test_theory.py``), imports it (``resalign_utils.svd`` in
``tests/alignment/test_alignment.py``), or names its file. ``tests/truth/`` belongs to what makes products.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path, PurePath

from tools.notebook_rules import ROOT

SOURCES = ("resalign_utils", "experiments", "tools", "benchmarks", "examples", "book")
GUARDED = ("operators", "arithmetic", "precision")  # whose products tests/truth must find right or refused
APART = ("test_pages.py",)  # needs a book that is built; `make pages`


def changed(commit: str | None = None, root: Path = ROOT) -> list[PurePath]:
    """Files that differ from the commit, those that git does not know yet included."""
    base = commit or _git(root, "merge-base", "HEAD", "main")[0]
    names = _git(root, "diff", "--name-only", base) + _git(root, "ls-files", "--others", "--exclude-standard")
    return [PurePath(name) for name in dict.fromkeys(names)]


def _git(root: Path, *arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"git {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout.splitlines()


def belonging(files: Iterable[PurePath], root: Path = ROOT) -> list[Path]:
    """The test files that changed, and those of the modules that did."""
    files = list(files)
    rooms = {room for file in files if (room := _room(file))}
    found = []
    for test in sorted((root / "tests").rglob("test_*.py")):
        place = test.relative_to(root)
        if place in files or any(_belongs(place, test.read_text(encoding="utf-8"), *room) for room in rooms):
            found.append(place)
    return [place for place in found if place.name not in APART]


def _room(file: PurePath) -> tuple[str, str] | None:
    """Folder and module of a source file: ("resalign_utils", "svd") for resalign_utils/svd/_krylov.py."""
    if file.suffix != ".py" or file.parts[0] not in SOURCES or len(file.parts) < 2:
        return None
    inside = file.parts[1] if file.parts[0] == "resalign_utils" else file.name
    return file.parts[0], PurePath(inside).stem


def _belongs(test: PurePath, text: str, folder: str, module: str) -> bool:
    rooms = test.parts[1:-1]
    # in the package alone: experiments/collapse.py is not of tests/collapse/
    of_room = folder == "resalign_utils" and (module in rooms or (module in GUARDED and "truth" in rooms))
    called = of_room or (rooms in ((), (folder,)) and re.fullmatch(rf"test_{module}(_\w+)?\.py", test.name))
    imports = rf"\b{folder}\.{module}\b|from {folder} import (?:[^\n(]*|\([^)]*)\b{module}\b"
    return bool(called or re.search(rf'{imports}|"{module}\.py"', text))


def main(arguments: list[str]) -> int:
    """Run them; pytest's exit code, or 0 if there is nothing to run."""
    tests = belonging(changed(arguments[0] if arguments else None))
    if not tests:
        print("No test belongs to what changed")
        return 0
    print("Tests of what changed:", *tests, sep="\n  ", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadscope", *map(str, tests)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
