"""What files repeat is written into them from its one place.

python -m tools.stamp          # write it
python -m tools.stamp --check  # change nothing; say which files differ

* The address of the repository, from `[project.urls]` in pyproject.toml: into the import cells of the notebooks, the
  citation, and the ways to install. While it names no `Repository`, the files say so and hold no link that leads
  nowhere.
* From the notebooks: which chapters offer `scale`, and how many cells `make test` compares.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.notebook_rules import PLOTLY, ROOT, toc_notebooks

BRANCH = "main"
# The import cell of a notebook, as it stands in the file: JSON, in which a quotation mark has a backslash.
IMPORT_CELL = re.compile(r'(repository = \\")[^"\\]*(\\")')
REGION = re.compile(r"(<!-- stamp: ([a-z]+) -->\n).*?(<!-- /stamp -->)", re.S)
SCALE = re.compile(r'^scale = "small"', re.M)
CFF = re.compile(r'^(license: \w+\n)(?:repository-code: "[^"\n]*"\n)?', re.M)
BIBTEX = re.compile(r"^(  license = \{MIT\},\n)(?:  url     = \{[^}\n]*\},\n)?", re.M)


def repository(root: Path = ROOT) -> str:
    """The address without a slash at its end, or "" while there is none.

    Raises:
        ValueError: what stands there is no https address.
    """
    path = root / "pyproject.toml"
    if not path.is_file():
        return ""
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    address = str(project.get("urls", {}).get("Repository", "")).rstrip("/")
    if address and not re.fullmatch(r"https://[\w.-]+(/[\w.~-]+)+", address):
        raise ValueError(
            f"pyproject.toml: [project.urls] Repository must be an address such as https://github.com/OWNER/NAME; "
            f"got {address!r}."
        )
    return address


def _pip(root: Path) -> str:
    address = repository(root)
    if not address:
        return "The repository has no public address yet, so nothing can be fetched from it: use a clone or a wheel.\n"
    return f"```bash\npip install git+{address}\n```\n"


def _clone(root: Path) -> str:
    address = repository(root)
    if not address:
        return "In the folder that holds your copy of the repository:\n"
    return f"```bash\ngit clone {address}\ncd {address.rsplit('/', 1)[-1]}\n```\n"


def _cells(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def _scale(root: Path) -> str:
    """The chapters by number; appendices by letter."""
    chapters, appendices = [], []
    for path in toc_notebooks(root):
        head = path.stem.split("_")[0]
        if not any(SCALE.search("".join(cell["source"])) for cell in _cells(path)):
            continue
        if head.isdigit():
            chapters.append(str(int(head)))
        elif re.fullmatch(r"A\d", head):
            appendices.append("ABCDEFGHI"[int(head[1]) - 1])
    names = [f"chapter{'s' * (len(chapters) > 1)} {_listed(chapters)}"] if chapters else []
    names += [f"{'appendix' if len(appendices) == 1 else 'appendices'} {_listed(appendices)}"] if appendices else []
    return f"`scale` is offered by {'; '.join(names)}; by no other.\n" if names else "No chapter offers `scale`.\n"


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _compared(root: Path) -> str:
    """How many cells `make test` runs again, and what it compares of them."""
    code = [cell for path in toc_notebooks(root) for cell in _cells(path)]
    ignored = [cell for cell in code if "nbval-ignore-output" in cell["metadata"].get("tags", [])]
    texts = [
        cell
        for cell in code
        if any(not {PLOTLY, "image/png"} & output.get("data", {}).keys() for output in cell["outputs"])
    ]
    same = len([cell for cell in texts if cell not in ignored])
    return (
        f"`make test` runs all {len(code)} code cells of the chapters, from an empty cache: an error or an `assert` "
        f"that does not hold fails it. {same} cells print what must be the same to the letter; {len(ignored)} show "
        "numbers that a training made, which differ from machine to machine; figures are not compared.\n"
    )


REGIONS: dict[str, Callable[[Path], str]] = {"pip": _pip, "clone": _clone, "scale": _scale, "compared": _compared}


def stamped(name: str, text: str, root: Path = ROOT) -> str:
    """A file's text with what it repeats; `name` is its path in the repository."""
    address = repository(root)
    if name.endswith(".ipynb"):
        return IMPORT_CELL.sub(lambda found: found[1] + address + found[2], text)
    if name == "CITATION.cff":
        return CFF.sub(lambda found: found[1] + (f'repository-code: "{address}"\n' if address else ""), text)
    if name == "book/cite.md":
        return BIBTEX.sub(lambda found: found[1] + (f"  url     = {{{address}}},\n" if address else ""), text)
    return REGION.sub(lambda found: found[1] + REGIONS[found[2]](root) + found[3], text)


def carriers(root: Path = ROOT) -> list[Path]:
    """All files that may repeat something."""
    pages = [root / name for name in ("README.md", "CONTRIBUTING.md", "CITATION.cff")]
    return [path for path in (*pages, *sorted((root / "book").glob("*.md")), *toc_notebooks(root)) if path.is_file()]


def stamp(root: Path = ROOT, *, write: bool = True) -> list[Path]:
    """Write into every file what it repeats; returns the files that differed."""
    changed = []
    for path in carriers(root):
        old = path.read_text(encoding="utf-8")
        new = stamped(path.relative_to(root).as_posix(), old, root)
        if new != old:
            changed.append(path)
            if write:
                path.write_text(new, encoding="utf-8", newline="\n")
    return changed


def main() -> int:
    """Stamp or check; 1 if a check found a file that differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args().check
    changed = stamp(write=not check)
    print("\n".join(f"{path.relative_to(ROOT)} {'differs' if check else 'written'}" for path in changed) or "in step")
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
