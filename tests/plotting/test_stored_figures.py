"""The figures that the notebooks store: a reader can tell all their entries apart, and reads numbers, not code."""

import json
import re
from pathlib import Path

import pytest
from figures import clashes

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
PLOTLY = "application/vnd.plotly.v1+json"


def stored(notebook):
    """Cell number → figure."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    outputs = [
        (number, output.get("data", {})) for number, cell in enumerate(cells) for output in cell.get("outputs", [])
    ]
    return {number: data[PLOTLY] for number, data in outputs if PLOTLY in data}


def test_the_notebooks_store_figures():
    assert sum(len(stored(notebook)) for notebook in NOTEBOOKS) >= 60


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_panel_has_two_entries_of_one_look(notebook):
    found = {number: clashes(figure) for number, figure in stored(notebook).items()}
    assert {number: pairs for number, pairs in found.items() if pairs} == {}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_names_and_notes_have_numbers_as_a_reader_expects_them(notebook):
    for number, figure in stored(notebook).items():
        layout = figure["layout"]
        texts = [trace.get("name") or "" for trace in figure["data"]]
        texts += [shape.get("name", "") for shape in layout.get("shapes", [])]
        texts += [part.get("text", "") for part in layout.get("annotations", [])]
        texts += [layout.get("title", {}).get("text", ""), layout.get("legend", {}).get("title", {}).get("text", "")]
        for text in texts:
            assert not re.search(r"\d[eE]-?\d|(?<![\w-])-\d|\d\.000\b", text), (number, text)
