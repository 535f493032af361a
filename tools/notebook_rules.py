"""What a stored chapter must look like; `problems` names every way in which one does not.

A notebook is committed with its outputs, so these rules are what keeps the outputs honest (nbval silently
skips a cell that was never run) and the chapters alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import yaml

ROOT = Path(__file__).resolve().parents[1]
PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
IMAGES = ("image/png", "image/jpeg", "image/svg+xml")
MAX_BYTES = 2_000_000
MAX_LINES = 25
BADGES = "<!-- badges -->"  # book/_ext/book_assets.py puts the launch links here once an address is known
CAPTION = "**Figure.** "  # book/_ext/book_captions.py gives the words behind it to the figure
SIDES = re.compile(
    r"\b(?:Left|Middle|Right)(?: and \w+)?[:,]|\((?:left|middle|right)\)|[,;] (?:left|right)[,:]"
    r"|\b[Oo]n the (?:left|right)\b|\b[Bb]elow (?:left|right)\b|\b(?:left|middle|right)(?:-hand)? (?:panel|map|chart)\b"
)
HEADINGS = ("In this chapter", "Summary", "Exercises", "References")
PLOTLY_HTML = re.compile(r"Plotly\.newPlot|plotly-graph-div|cdn\.plot\.ly")
MACHINE_PATH = re.compile(r"(?<![\w.])/(home|root|Users|tmp|content|private)/|[A-Z]:\\+Users\\|site-packages")


def toc_files(root: Path = ROOT) -> list[str]:
    """Every page of `_toc.yml`, in reading order, without suffix: the one list of chapters that there is."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    return list(files_in(toc))


def files_in(entry: Any) -> Iterator[str]:
    """The pages of a part of `_toc.yml`, in reading order."""
    if isinstance(entry, list):
        for item in entry:
            yield from files_in(item)
    elif isinstance(entry, dict):
        for key in ("root", "file"):
            if key in entry:
                yield str(entry[key])
        for key in ("parts", "chapters", "sections"):
            yield from files_in(entry.get(key, []))


def toc_notebooks(root: Path = ROOT) -> list[Path]:
    """The notebooks of `_toc.yml` that exist, in reading order."""
    paths = (root / f"{name}.ipynb" for name in toc_files(root))
    return [path for path in paths if path.is_file()]


def problems(path: Path, root: Path = ROOT) -> list[str]:
    """Everything that is wrong with one stored notebook, in words; an empty list is a pass."""
    nb = nbformat.read(path, as_version=4)
    code = [(i, cell) for i, cell in enumerate(nb.cells, 1) if cell.cell_type == "code"]
    found = [*_file_problems(path, root), *_state_problems(nb, code), *_template_problems(nb)]
    for i, cell in code:
        below = nb.cells[i] if i < len(nb.cells) else None
        found += [f"cell {i}: {text}" for text in (*_cell_problems(cell, root), *_figure_problems(cell, below))]
    return found


def _file_problems(path: Path, root: Path) -> Iterator[str]:
    if (size := path.stat().st_size) > MAX_BYTES:
        yield f"{size / 1e6:.1f} MB, allowed are {MAX_BYTES / 1e6:.0f} MB: draw fewer points or frames"
    name = path.resolve().relative_to(root.resolve()).with_suffix("").as_posix()
    if name not in toc_files(root):
        yield f"{name} is not listed in _toc.yml"


def _state_problems(nb: Any, code: list[tuple[int, Any]]) -> Iterator[str]:
    counts = [cell.execution_count for _, cell in code if cell.source.strip()]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts are {counts}, expected 1..{len(counts)}: run it again with `make notebooks`"
    if "widgets" in nb.metadata:
        yield "widget state is stored in the notebook's metadata; a page cannot show it without a server"
    names = [name for _, cell in code if (name := _figure(cell).get("name"))]
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield f"the figure name {name} is used twice"


def _cell_problems(cell: Any, root: Path) -> Iterator[str]:
    tags = cell.metadata.get("tags", [])
    if (lines := len(cell.source.splitlines())) > MAX_LINES:
        yield f"{lines} lines of code, allowed are {MAX_LINES}: move the rest into the package"
    if "nbval-skip" in tags or "NBVAL_SKIP" in cell.source:
        yield "nbval-skip leaves the cell unchecked; use nbval-ignore-output and an assert"
    for out in cell.outputs:
        data = out.get("data", {})
        if out.output_type == "error" and "raises-exception" not in tags:
            yield f"a stored error: {out.ename}: {out.evalue}"
        if out.output_type == "stream" and out.name == "stderr":
            yield f"stderr is stored ({out.text.strip()[:80]!r}): mend the warning at its source"
        if WIDGET in data:
            yield "a widget is shown; a page cannot show it without a server"
        if PLOTLY_HTML.search("".join(data.get("text/html", ""))):
            yield "a Plotly figure is stored as HTML; do not set a renderer in the notebook"
        if PLOTLY in data and "image/png" not in data:
            yield "a Plotly figure has no PNG fallback: run `make notebooks`"
        yield from _path_problems(out, root)


def _path_problems(out: Any, root: Path) -> Iterator[str]:
    shown = {key: value for key, value in out.get("data", {}).items() if key not in IMAGES}
    text = json.dumps([out.get("text", ""), shown, out.get("traceback", "")], ensure_ascii=False)
    match = MACHINE_PATH.search(text) or re.search(re.escape(str(root)), text)
    if match:
        around = text[max(0, match.start() - 20) : match.end() + 30]
        yield f"an output names a path of this machine: …{around}…"


def _figure(cell: Any) -> dict[str, Any]:
    return dict(cell.metadata.get("mystnb", {}).get("figure", {}))


def _figure_problems(cell: Any, below: Any) -> Iterator[str]:
    shown = [out for out in cell.outputs if {PLOTLY, *IMAGES} & out.get("data", {}).keys()]
    if not shown:
        return
    figure, mystnb = _figure(cell), cell.metadata.get("mystnb", {})
    if len(shown) > 1:
        yield f"{len(shown)} figures in one cell, but a caption and a number belong to one"
    caption = below.source if below is not None and "caption" in below.metadata.get("tags", []) else ""
    if not re.match(re.escape(CAPTION) + r"\S", caption):
        yield f"a figure without a caption: a text cell below it with the tag caption that begins with '{CAPTION}'"
    if not re.fullmatch(r"fig-[a-z0-9-]+", str(figure.get("name", ""))):
        yield "a figure without a metadata mystnb.figure.name of the form fig-words-like-this"
    if len(str(mystnb.get("image", {}).get("alt", "")).strip()) < 10:
        yield "a figure without metadata mystnb.image.alt that says in words what it shows"
    layout = shown[0].data.get(PLOTLY, {}).get("layout", {})
    sides = SIDES.search(f"{caption}\n{mystnb.get('image', {}).get('alt', '')}")
    if sides and {"xaxis2", "scene2"} & layout.keys():
        yield f"a phone stacks panels, so name them by their titles, not by {sides[0]!r}"
    if "hide-input" not in cell.metadata.get("tags", []):
        yield "a figure's code is not folded: give the cell the tag hide-input"


def _template_problems(nb: Any) -> Iterator[str]:
    first = nb.cells[0] if nb.cells else None
    if first is None or first.cell_type != "markdown" or not re.match(r"# \S", first.source):
        yield "the first cell must be Markdown that begins with '# Title'"
    elif BADGES not in first.source.splitlines():
        yield f"the first cell needs a line '{BADGES}' (the place of the launch links)"
    text = _prose(nb)
    if len(re.findall(r"^# \S", text, re.M)) > 1:
        yield "more than one heading of the first level: a page has one title"
    titles = re.findall(r"^## (.+?)\s*$", text, re.M)
    if missing := [h for h in HEADINGS if h not in titles]:
        yield f"missing headings of the second level: {', '.join(missing)}"
    elif [t for t in titles if t in HEADINGS] != list(HEADINGS):
        yield f"the headings must come once each and in this order: {', '.join(HEADINGS)}"
    yield from _opening_problems(text, nb)


def _opening_problems(text: str, nb: Any) -> Iterator[str]:
    opening = re.search(r"^## In this chapter\s*$(.*?)(?=^## |\Z)", text, re.M | re.S)
    bullets = re.findall(r"^[-*] ", opening.group(1), re.M) if opening else []
    if opening and not 3 <= len(bullets) <= 5:
        yield f"'In this chapter' has {len(bullets)} bullets, expected 3 to 5"
    for label in ("**Prerequisites:**", "**Time:**"):
        if label not in text:
            yield f"no line beginning with {label}"
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    if not code or "import resalign_utils as ra" not in code[0].source:
        yield "the first code cell must be the import cell, with `import resalign_utils as ra`"
    elif "hide-input" not in code[0].metadata.get("tags", []):
        yield "the import cell is not folded: give it the tag hide-input"


def _prose(nb: Any) -> str:
    """The notebook's Markdown without its code fences, in which a line `# x` is no heading."""
    text = "\n\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    return re.sub(r"^(```|~~~).*?^\1\s*$", "", text, flags=re.M | re.S)
