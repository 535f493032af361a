"""The notes of one release, cut from the changelog: ``python -m tools.release_notes 1.2.3`` prints them.

Needs nothing but Python: the workflow that publishes a tag calls it (.github/workflows/release.yml).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).resolve().parents[1] / "CHANGELOG.md"
HEADING = re.compile(r"^## (?P<version>\d+\.\d+\.\d+\S*)(?: \((?P<date>[^)]*)\))?\s*$", re.M)


def notes(changelog: str, version: str) -> str:
    """The text under ``## VERSION (DATE)``, without the heading.

    Raises:
        ValueError: the changelog has no such section, or two; it has no date yet; or it says nothing.
    """
    found = list(HEADING.finditer(changelog))
    sections = [(heading, following) for heading, following in zip(found, [*found[1:], None], strict=True)]
    fitting = [(heading, after) for heading, after in sections if heading["version"] == version]
    if len(fitting) != 1:
        known = ", ".join(heading["version"] for heading in found) or "none"
        raise ValueError(f"Expected one section '## {version} (DATE)' in the changelog; it has {known}.")
    ((heading, after),) = fitting
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", heading["date"] or ""):
        raise ValueError(
            f"Version {version} is dated {heading['date']!r} in the changelog; write the day of its release, as in "
            f"'## {version} (2026-01-31)'."
        )
    text = changelog[heading.end() : after.start() if after else None].strip()
    if not text:
        raise ValueError(f"The changelog says nothing of version {version}.")
    return text + "\n"


def main(arguments: list[str]) -> int:
    """Print; 1 if there are no notes that could be published."""
    if len(arguments) != 1:
        print("usage: python -m tools.release_notes VERSION", file=sys.stderr)
        return 2
    try:
        print(notes(CHANGELOG.read_text(encoding="utf-8"), arguments[0].removeprefix("v")), end="")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
