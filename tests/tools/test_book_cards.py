"""Cards of chapters, citations, marks of strength, and figures of notebooks on other pages."""

import re
import sys
from pathlib import Path

import nbformat
import pytest

from tools import build_book
from tools.notebook_rules import ROOT

sys.path.append(str(Path(build_book.__file__).resolve().parents[1] / "book" / "_ext"))
import book_assets
import book_cards
import book_figures
import book_strength

OPENING = """# A *title* of $x$
<!-- badges -->

Words.

**Prerequisites:** chapters 1
and 2.
**Time:** a minute.

## More
"""
CFF = "title: x\nversion: 1.2.3\n"


def text(source, **metadata):
    return {"cell_type": "markdown", "metadata": metadata, "source": source.splitlines(True)}


def code(source, *outputs, **metadata):
    return {"cell_type": "code", "metadata": metadata, "outputs": list(outputs), "source": source.splitlines(True)}


def chapter(*cells):
    return {"cells": [text(OPENING), *cells]}


def test_a_card_holds_what_the_chapter_says_and_the_chapter_says_it_once():
    made = book_cards.with_card(chapter(), "notebooks/03_x", "", CFF)
    top = made["cells"][0]["source"]
    assert top.startswith("# A *title* of $x$\n\n```{div} chapter-card\n- **Before it:** chapters 1 and 2\n")
    assert top.count("chapters 1") == 1
    assert "- **To run:** a minute\n" in top
    assert "- **To read:** 1 min\n" in top
    assert "Prerequisites" not in top
    assert "<!-- badges -->" in top
    assert "Words." in top
    assert "## More" in top


def test_reading_counts_prose_and_what_cells_tell_and_no_code():
    shown = {"data": {"text/markdown": "word " * 300}}
    hidden = {"data": {"text/markdown": "word " * 900}}
    cells = [text("word " * 200), code("word " * 999, shown), code("x", hidden, tags=["remove-cell"])]
    folded = text("<details><summary>Solution</summary>\n" + "word " * 900 + "</details>")
    assert book_cards.minutes_to_read({"cells": cells}) == 3
    assert book_cards.minutes_to_read({"cells": [*cells, folded]}) == 3
    caption = code("fig.show()", mystnb={"figure": {"name": "fig-a", "caption": "word " * 200}})
    smaller = text("where 2 < 3 " + "word " * 195 + "and 3 > 2")
    assert book_cards.minutes_to_read({"cells": [*cells, caption]}) == 4
    assert book_cards.minutes_to_read({"cells": [*cells, smaller]}) == 4


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("run = ra.load_or_train(c)", "networks that are trained when the book is built"),
        ('rows = ra.recorded("x")', "recorded runs"),
        ('rows = ra.recorded("x")\nra.over_seeds(c)', "networks that are trained when the book is built, and recorded"),
        ("x = 1", "nothing is trained"),
    ],
)
def test_a_card_says_where_numbers_come_from(source, said):
    assert said in book_cards.card(chapter(code(source)), {})


def test_a_card_says_whether_there_is_a_larger_scale():
    assert "not offered" in book_cards.card(chapter(code("x = 1")), {})
    assert "**Larger scale:** offered" in book_cards.card(chapter(code('scale = "small"  # @param')), {})


def test_a_chapter_ends_with_its_citation():
    last = book_cards.with_card(chapter(), "notebooks/03_x", "https://github.com/me/book", CFF)["cells"][-1]["source"]
    assert "*A title of x.* Chapter 3 of *Inside Residual Networks*, version 1.2.3." in last
    assert "https://github.com/me/book/blob/main/notebooks/03_x.ipynb" in last
    without = book_cards.with_card(chapter(), "notebooks/A1_x", "", CFF)["cells"][-1]["source"]
    assert "http" not in without
    assert "url" not in without


def test_a_strength_is_made_of_known_words():
    assert book_strength.parts_of("recorded, 3 seeds, digits") == ["recorded", "3 seeds", "digits"]
    assert book_strength.parts_of("recorded, 1 to 5 seeds") == ["recorded", "1 to 5 seeds"]
    assert book_strength.parts_of("proved") == ["proved"]
    for wrong, said in {
        "sure": "begins with one of live, recorded, proved",
        "live, digits": "says how many seeds",
        "live, 3 seeds, ImageNet": "got 'ImageNet'",
    }.items():
        with pytest.raises(ValueError, match=said):
            book_strength.parts_of(wrong)


def test_a_figure_is_found_by_its_name():
    figure = {"data": [], "layout": {}}
    mystnb = {"figure": {"name": "fig-a"}, "image": {"alt": "A <line>"}}
    nb = {"cells": [text("x"), code("fig", {"data": {book_assets.MIME: figure}}, mystnb=mystnb)]}
    assert book_figures.stored_figure(nb, "fig-a") == (figure, "A <line>")
    assert "A &lt;line&gt;" in book_assets.figure_html(figure, "A <line>")
    with pytest.raises(ValueError, match="No cell has the figure name fig-b; there are fig-a"):
        book_figures.stored_figure(nb, "fig-b")
    nb["cells"][1]["outputs"] = []
    with pytest.raises(ValueError, match="fig-a holds no Plotly figure"):
        book_figures.stored_figure(nb, "fig-a")


def test_badges_of_another_page():
    found = book_assets.BADGES.search("x <!-- badges: book/first_figure --> y")
    assert found[1] == "book/first_figure"
    assert book_assets.BADGES.search("<!-- badges -->")[1] is None


MARKED = re.compile(r"notebooks/(\w+)>`[^{]*\{strength\}`(\w+), (?:\d to )?\d seeds?")
TRAINS = re.compile(r"ra\.(load_or_train|over_seeds|train|fit_unconstrained_jacobians)\(")


def test_a_finding_is_called_recorded_or_live_as_its_chapter_has_it():
    marks = MARKED.findall((ROOT / "book" / "intro.md").read_text(encoding="utf-8"))
    assert len(marks) > 10
    wrong = []
    for name, mark in marks:
        cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
        code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        found = {"recorded": "ra.recorded(" in code, "live": bool(TRAINS.search(code))}
        wrong += [] if found[mark] else [f"{name}: {mark}"]
    assert not wrong
