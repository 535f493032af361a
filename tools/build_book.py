"""Build the book into _build/html, warnings as errors, without touching a committed file.

python -m tools.build_book             # from the outputs that are committed
python -m tools.build_book --execute   # run copies of all notebooks first
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tools.notebook_rules import ROOT, toc_files, toc_notebooks
from tools.run_notebooks import run_all
from tools.stamp import BRANCH, repository, stamp

# All that a page may be made from, include, or link to.
STAGED = ("_config.yml", "_toc.yml", "_static", "book", "notebooks", "examples", "results", "benchmarks",
          "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE", "pyproject.toml")  # fmt: skip
BUILD = ROOT / "_build"


def stage(target: Path) -> None:
    """Copy the book's sources to `target`, an empty folder under _build."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", ".*.part")
    for name in STAGED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=ignore)
        elif source.is_file():
            shutil.copy2(source, target / name)
    stamp(target)  # so that the pages follow pyproject.toml even where a file was not stamped


def missing_pages(root: Path) -> list[str]:
    """Pages that _toc.yml names and nobody wrote."""
    written = {path.with_suffix("") for suffix in (".md", ".ipynb") for path in root.glob(f"*/**/*{suffix}")}
    return [name for name in toc_files(root) if root / name not in written]


def build(source: Path) -> int:
    """Run Jupyter Book on the staged sources; every warning is an error, all are shown."""
    for old in (BUILD / "html", BUILD / ".doctrees"):
        shutil.rmtree(old, ignore_errors=True)  # Sphinx gives no warnings for pages it need not read again
    program = str(Path(sys.executable).with_name("jupyter-book"))
    command = [program, "build", str(source), "--path-output", str(ROOT), "-q"]
    links = {"BOOK_REPOSITORY_URL": repository(source), "BOOK_REPOSITORY_BRANCH": BRANCH}
    # Its warnings come on stderr; its last words, which name another folder, are of use only when it failed.
    done = subprocess.run(
        [*command, "-W", "-n", "--keep-going"],
        cwd=source,
        env={**os.environ, **links},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout, flush=True)
    return done.returncode


def empty_pages(root: Path) -> list[str]:
    """Pages that are missing or empty in the result: Jupyter Book 2 would exit 0 with no HTML at all."""
    pages = [BUILD / "html" / f"{name}.html" for name in toc_files(root)]
    return [str(page) for page in pages if not page.is_file() or not page.stat().st_size]


def make(execute: bool, jobs: int) -> str | None:
    """Stage, run, build, look. Returns what went wrong, or None."""
    target = BUILD / ("executed" if execute else "source")
    stage(target)
    if missing := missing_pages(target):
        return f"_toc.yml names pages that do not exist: {', '.join(missing)}"
    if execute and (failed := run_all(toc_notebooks(target), jobs=jobs)):
        return "\n".join(["Notebooks that did not run to their end:", *failed])
    print("Building the pages", flush=True)
    if code := build(target):
        return f"Jupyter Book ended with {code}; its warnings, which are errors here, are above"
    if empty := empty_pages(target):
        return f"pages that were not written: {', '.join(empty)}"
    return None


def main() -> int:
    """Build; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--execute", action="store_true", help="run copies of the notebooks first")
    parser.add_argument("--jobs", type=int, default=2, help="notebooks at a time")
    options = parser.parse_args()
    start = time.perf_counter()
    if error := make(options.execute, options.jobs):
        print(f"The book was not built. {error}", file=sys.stderr)
        return 1
    page = BUILD / "html" / f"{toc_files()[0]}.html"
    print(f"The book is ready after {time.perf_counter() - start:.0f} s. Open {page.as_uri()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
