"""tools/build_book.py and the local Sphinx extensions, as far as no page has to be built."""

import sys
from pathlib import Path

import pytest

from tools import build_book
from tools.notebook_rules import toc_files

sys.path.append(str(Path(build_book.__file__).resolve().parents[1] / "book" / "_ext"))
import book_assets
import book_captions
import book_docstrings
import book_tables
from docutils import nodes
from docutils.utils import new_document

TOC = """
root: book/intro
parts:
  - caption: One
    chapters:
      - file: notebooks/01_one
        sections: [{file: notebooks/02_two}]
  - chapters: [{file: book/end}]
"""


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A small clone, in place of this one."""
    root = tmp_path / "clone"
    for name in ("_toc.yml", "book/intro.md", "notebooks/01_one.ipynb", "notebooks/02_two.ipynb"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(TOC if name == "_toc.yml" else "x")
    (root / "notebooks" / ".ipynb_checkpoints").mkdir()
    monkeypatch.setattr(build_book, "ROOT", root)
    monkeypatch.setattr(build_book, "BUILD", root / "_build")
    return root


def test_contents_in_reading_order(clone):
    assert toc_files(clone) == ["book/intro", "notebooks/01_one", "notebooks/02_two", "book/end"]


def test_stage_copies_the_sources_and_forgets_older_ones(clone):
    target = clone / "_build" / "source"
    (target / "book").mkdir(parents=True)
    (target / "book" / "old.md").write_text("x")
    build_book.stage(target)
    found = {path.relative_to(target).as_posix() for path in target.rglob("*")}
    pages = {"book/intro.md", "notebooks/01_one.ipynb", "notebooks/02_two.ipynb"}
    assert found == {"_toc.yml", "book", "notebooks"} | pages


def test_a_page_that_nobody_wrote_stops_the_build(clone):
    assert build_book.make(execute=False, jobs=1) == "_toc.yml names pages that do not exist: book/end"


def test_a_failed_notebook_stops_the_build(clone, monkeypatch):
    (clone / "book" / "end.md").write_text("x")
    ran = []
    monkeypatch.setattr(build_book, "run_all", lambda paths, jobs: ran.extend(paths) or ["02_two: cell 3 raised"])
    monkeypatch.setattr(build_book, "build", lambda source: pytest.fail("built all the same"))
    assert build_book.make(execute=True, jobs=1).endswith("02_two: cell 3 raised")
    assert ran == [clone / "_build" / "executed" / "notebooks" / f"{name}.ipynb" for name in ("01_one", "02_two")]


def test_a_build_without_pages_is_a_failure(clone, monkeypatch):
    (clone / "book" / "end.md").write_text("x")
    monkeypatch.setattr(build_book, "build", lambda source: 0)
    assert "pages that were not written" in build_book.make(execute=False, jobs=1)


def test_badges_need_an_address():
    assert book_assets.badges("notebooks/01_one", "", "main") == ""
    links = book_assets.badges("notebooks/01_one", "https://github.com/me/book", "main")
    assert "(https://colab.research.google.com/github/me/book/blob/main/notebooks/01_one.ipynb)" in links
    assert "(https://mybinder.org/v2/gh/me/book/main?urlpath=lab/tree/notebooks/01_one.ipynb)" in links


@pytest.mark.parametrize(
    ("line", "escaped"),
    [
        ("V (k, *in) and x (n, *)", r"V (k, \*in) and x (n, \*)"),
        ("``V (k, *in)`` is (k, *in)", r"``V (k, *in)`` is (k, \*in)"),
        ("**never** 2 * 3", "**never** 2 * 3"),
        ("|cos| ≤ 1", r"\|cos\| ≤ 1"),
    ],
)
def test_docstrings_are_escaped(line, escaped):
    assert book_docstrings.escape(line) == escaped


@pytest.mark.parametrize(
    "text", ["0.5", "78.9 ± 0.5", "−4e-07", "72,458 → 71,370", "12 ms", "–", "", "10⁻³", "[0.1, 0.2]", "116～132"]
)
def test_numbers_are_known_as_such(text):
    assert book_tables.is_number(text)


@pytest.mark.parametrize("text", ["channel-wise", "C = 10", "3 seeds", "σ₁"])
def test_words_are_no_numbers(text):
    assert not book_tables.is_number(text)


def test_search_sees_prose_and_no_code():
    page, indexed = new_document("page"), []
    code = nodes.container("", nodes.literal_block(text="secret_call()"), classes=["cell_input"])
    page += [nodes.paragraph(text="an alignment"), code]
    book_tables.WithoutCode(lambda name, doctree, title: indexed.append(doctree.astext()))("a", page, "A")
    assert indexed == ["an alignment"]
    assert "secret_call" in page.astext(), "the page itself lost its code"


def test_a_list_of_names_says_what_each_is():
    assert book_docstrings.first_sentence("resalign_utils.load_data").startswith("Load a named data set")


def test_what_stands_at_a_deviation_stays_together_glued_in_or_not():
    page, glued = new_document("page"), nodes.paragraph()
    glued.children.append(nodes.Text("0.5 ± 0.1"))  # as myst-nb pastes a value: without a parent
    page += [nodes.paragraph("", "0.5 ± 0.1"), glued]
    book_tables.Tables(page).run()
    assert page.astext() == "0.5\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.1\n\n0.5\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.1"


def figure_and_caption(words="**Figure.** A *line*.", name="fig-line"):
    figure = {"cell_type": "code", "metadata": {"mystnb": {"figure": {"name": name}}}, "source": ["fig.show()"]}
    caption = {"cell_type": "markdown", "metadata": {"tags": ["caption"]}, "source": [words]}
    return {"cells": [figure, caption, {"cell_type": "markdown", "metadata": {}, "source": ["On."]}]}


def test_a_caption_cell_becomes_the_caption_of_the_figure_above():
    figure, on = book_captions.with_captions(figure_and_caption())["cells"]
    assert figure["metadata"]["mystnb"]["figure"] == {"name": "fig-line", "caption": "A *line*."}
    assert on["source"] == ["On."]


def test_a_caption_that_is_none_is_refused():
    with pytest.raises(
        ValueError, match=r"Cell 2 is a caption; expected '\*\*Figure\.\*\* ' and a text, found 'A line"
    ):
        book_captions.with_captions(figure_and_caption("A line."))
    alone = figure_and_caption()
    del alone["cells"][0]
    with pytest.raises(ValueError, match=r"Cell 1 is a caption; expected above it a cell with metadata mystnb\.figure"):
        book_captions.with_captions(alone)
    twice = figure_and_caption()
    twice["cells"].insert(2, figure_and_caption()["cells"][1])
    with pytest.raises(ValueError, match="Cell 3 is a caption"):
        book_captions.with_captions(twice)
