"""The committed chapters keep the rules, and each rule finds what it is there to find."""

import copy
import os
import re
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools.notebook_rules import PLOTLY, ROOT, WIDGET, problems, toc_files, toc_notebooks

OPENING = """# A title

<!-- badges -->

## In this chapter

- one
- two
- three

**Prerequisites:** none.

**Time:** 1 minute on two CPU cores, seconds on one GPU."""
CLOSING = "## Summary\n\n## Exercises\n\n## References"
FIGURE = {
    "tags": ["hide-input"],
    "mystnb": {
        "figure": {"name": "fig-line"},
        "image": {"alt": "A line that falls from one to zero"},
    },
}


def display(**data):
    return new_output("display_data", data={key.replace("__", "/"): value for key, value in data.items()})


def chapter():
    """A small chapter with which nothing is wrong."""
    plot = new_output("display_data", data={PLOTLY: {"data": [], "layout": {}}, "image/png": "aGk=\n"})
    number = new_output("stream", name="stdout", text="0.98\n")
    cells = [
        new_markdown_cell(OPENING),
        new_code_cell("import resalign_utils as ra", execution_count=1, metadata={"tags": ["hide-input"]}),
        new_code_cell("print(0.98)", execution_count=2, outputs=[number]),
        new_code_cell("fig.show()", execution_count=3, outputs=[plot], metadata=FIGURE),
        new_markdown_cell("**Figure.** A line.", metadata={"tags": ["caption"]}),
        new_markdown_cell(CLOSING),
    ]
    return new_notebook(cells=copy.deepcopy(cells))


@pytest.fixture
def found(tmp_path):
    """`found(notebook)` stores it in a book of one chapter and returns its problems as one text."""
    (tmp_path / "_toc.yml").write_text(
        "root: book/intro\nparts: [{chapters: [{file: notebooks/01_one}]}]\n", encoding="utf-8"
    )
    (tmp_path / "notebooks").mkdir()

    def found(nb, name="01_one"):
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        nbformat.write(nb, path)
        return "\n".join(problems(path, tmp_path))

    return found


@pytest.mark.parametrize("path", toc_notebooks(), ids=lambda path: path.stem)
def test_chapter_keeps_the_rules(path):
    found = problems(path)
    assert not found, "\n".join(found)


def test_every_notebook_is_in_the_contents_and_the_other_way_round():
    written = {f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert written == {name for name in toc_files() if name.startswith("notebooks/")}


def numbering(names):
    """The numbers of the chapters among these pages, and those of the appendices (A1, A2, …), in their order."""
    stems = [name.removeprefix("notebooks/").split("_")[0] for name in names if name.startswith("notebooks/")]
    return [stem for stem in stems if stem.isdigit()], [stem for stem in stems if not stem.isdigit()]


def test_chapters_count_up_in_their_order_without_a_gap():
    chapters, appendices = numbering(toc_files())
    assert chapters == [f"{number:02}" for number in range(1, len(chapters) + 1)]
    assert appendices == [f"A{number}" for number in range(1, len(appendices) + 1)]
    assert numbering(["book/intro", "notebooks/03_a", "notebooks/01_b", "notebooks/A1_c"]) == (["03", "01"], ["A1"])


NUMBERED_LINK = re.compile(
    r"(?:\[(?:\w+ )?|\{doc\}`(?:\w+ )?)(\d+|[A-Z])(?:\]\(| <)(?:\.\./)?(?:notebooks/)?(\d\d|[A-Z]\d)_\w+"
)


def test_links_name_the_number_of_the_chapter_they_lead_to():
    wrong, links = [], 0
    for path in [*ROOT.glob("*.md"), *ROOT.glob("book/**/*.md"), *ROOT.glob("notebooks/*.ipynb")]:
        for said, stem in NUMBERED_LINK.findall(path.read_text(encoding="utf-8")):
            number = str(int(stem)) if stem.isdigit() else "ABC"[int(stem[1]) - 1]
            links += 1
            if said != number:
                wrong.append(f"{path.name}: {said} leads to {stem}")
    assert links > 50
    assert not wrong


def test_figure_names_are_used_once():
    names = []
    for path in toc_notebooks():
        cells = nbformat.read(path, as_version=4).cells
        names += [name for cell in cells if (name := cell.metadata.get("mystnb", {}).get("figure", {}).get("name"))]
    assert sorted(names) == sorted(set(names))


def test_a_good_chapter_has_no_problem(found):
    assert found(chapter()) == ""


def test_notebook_outside_the_contents(found):
    assert "notebooks/02_two is not listed in _toc.yml" in found(chapter(), name="02_two")


def edit_code(number, **changes):
    def edit(nb):
        nb.cells[number].update(changes)

    return edit


def edit_output(number, output):
    def edit(nb):
        nb.cells[number].outputs = [output]

    return edit


def edit_text(number, old, new):
    def edit(nb):
        assert old in nb.cells[number].source
        nb.cells[number].source = nb.cells[number].source.replace(old, new)

    return edit


def edit_metadata(path):
    """Leave out one entry of the figure cell's metadata."""

    def edit(nb):
        place = nb.cells[3].metadata
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return edit


def two_figures(nb):
    nb.cells[3].outputs *= 2


def two_panels(caption, alt="Two lines that fall"):
    def edit(nb):
        nb.cells[3].outputs[0].data[PLOTLY]["layout"] = {"xaxis": {}, "xaxis2": {}}
        nb.cells[3].metadata["mystnb"]["image"]["alt"] = alt
        nb.cells[4].source = caption

    return edit


def same_name(nb):
    nb.cells[2].metadata.update(copy.deepcopy(FIGURE))


def no_png(nb):
    del nb.cells[3].outputs[0].data["image/png"]


def widget_state(nb):
    nb.metadata["widgets"] = {}


ERROR = new_output("error", ename="ValueError", evalue="no", traceback=[])
STDERR = new_output("stream", name="stderr", text="UserWarning: x\n")
FAULTS = {
    "never run": (edit_code(2, execution_count=None), "execution counts are [1, None, 3]"),
    "run out of order": (edit_code(2, execution_count=7), "execution counts are [1, 7, 3]"),
    "error": (edit_output(2, ERROR), "cell 3: a stored error: ValueError: no"),
    "stderr": (edit_output(2, STDERR), "cell 3: stderr is stored"),
    "widget state": (widget_state, "widget state is stored"),
    "widget": (edit_output(2, new_output("display_data", data={WIDGET: {}})), "cell 3: a widget is shown"),
    "no png": (no_png, "cell 4: a Plotly figure has no PNG fallback"),
    "plotly html": (edit_output(2, display(text__html="<div class='plotly-graph-div'>")), "stored as HTML"),
    "too big": (edit_output(2, display(text__plain="x" * 2_000_001)), "2.0 MB, allowed are 2 MB"),
    "too long": (edit_code(2, source="\n".join(["x = 1"] * 26)), "cell 3: 26 lines of code, allowed are 25"),
    "path": (edit_output(2, display(text__plain="/home/me/x.py")), "cell 3: an output names a path"),
    "skipped": (edit_code(2, metadata={"tags": ["nbval-skip"]}), "cell 3: nbval-skip leaves"),
    "no caption": (
        lambda nb: nb.cells.pop(4),
        "cell 4: a figure without a caption: a text cell below it with the tag caption",
    ),
    "empty caption": (edit_text(4, "A line.", ""), "cell 4: a figure without a caption"),
    "left panel": (two_panels("**Figure.** Left: a line."), "name them by their titles, not by 'Left:'"),
    "right alt": (two_panels("**Figure.** A line.", "Two lines, on the right a flat one"), "not by 'on the right'"),
    "no name": (edit_metadata(["mystnb", "figure", "name"]), "mystnb.figure.name of the form"),
    "no alt": (edit_metadata(["mystnb", "image"]), "cell 4: a figure without metadata mystnb.image.alt"),
    "not folded": (edit_metadata(["tags"]), "cell 4: a figure's code is not folded"),
    "two figures": (two_figures, "cell 4: 2 figures in one cell"),
    "same name": (same_name, "the figure name fig-line is used twice"),
    "picture": (
        edit_output(2, display(image__png="aGk=\n")),
        "cell 3: a figure without a caption",
    ),
    "no title": (edit_text(0, "# A title", "A title"), "the first cell must be Markdown"),
    "two titles": (edit_text(5, "## Summary", "# Summary"), "more than one heading of the first level"),
    "no badges": (edit_text(0, "<!-- badges -->", ""), "needs a line '<!-- badges -->'"),
    "no summary": (edit_text(5, "## Summary", ""), "missing headings of the second level: Summary"),
    "order": (edit_text(5, CLOSING, "## Exercises\n\n## Summary\n\n## References"), "in this order"),
    "bullets": (edit_text(0, "- three\n", ""), "'In this chapter' has 2 bullets, expected 3 to 5"),
    "no prerequisites": (edit_text(0, "**Prerequisites:**", "Before:"), "no line beginning with **Prereq"),
    "no time": (edit_text(0, "**Time:**", "Takes"), "no line beginning with **Time:**"),
    "no import": (edit_code(1, source="x = 1"), "the first code cell must be the import cell"),
    "open import": (edit_code(1, metadata={}), "the import cell is not folded: give it the tag hide-input"),
}


@pytest.mark.parametrize(("edit", "text"), FAULTS.values(), ids=FAULTS)
def test_fault_is_found(found, edit, text):
    nb = chapter()
    edit(nb)
    assert text in found(nb)


@pytest.mark.parametrize("words", ["**Figure.** The frame left by V.", "**Figure.** From right to left: a law."])
def test_left_and_right_of_other_things_are_allowed(found, words):
    nb = chapter()
    two_panels(words)(nb)
    assert found(nb) == ""


def test_a_heading_in_code_is_none(found):
    nb = chapter()
    nb.cells[5].source += "\n\n```python\n# not a title\n```"
    assert found(nb) == ""


def nbval(folder):
    """Run nbval in a process of its own, with the repository's conftest and settings."""
    command = [sys.executable, "-m", "pytest", "--nbval", "-c", ROOT / "pyproject.toml", "-p", "conftest"]
    command += ["-p", "no:cacheprovider", "--rootdir", folder, folder]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_nbval_passes_a_right_number_and_turns_red_on_a_changed_one(tmp_path):
    figure = new_output(
        "display_data",
        data={PLOTLY: {"data": [{"y": [1]}], "layout": {}}, "image/png": "aGk=\n"},
        metadata={},
    )
    number = new_output("stream", name="stdout", text="0.125\n")
    plot = "import sys, plotly.graph_objects as go\nprint('note', file=sys.stderr)\ngo.Figure().show()"
    cells = [
        new_code_cell("print(1 / 8)", execution_count=1, outputs=[number]),
        new_code_cell(plot, execution_count=2, outputs=[figure]),
    ]
    nb = new_notebook(cells=cells, metadata={"kernelspec": {"name": "nowhere", "display_name": "?"}})
    nbformat.write(nb, tmp_path / "one.ipynb")
    passed = nbval(tmp_path)
    assert passed.returncode == 0, passed.stdout
    assert "2 passed" in passed.stdout
    cells[0].outputs[0].text = "0.126\n"
    nbformat.write(nb, tmp_path / "one.ipynb")
    red = nbval(tmp_path)
    assert red.returncode == 1
    assert "mismatch 'stdout'" in red.stdout
    assert "1 failed, 1 passed" in red.stdout
