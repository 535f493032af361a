"""The PDF of the book: order, bookmarks, links, numbers, and that nothing is cut, on a small book made here."""

import io
import shutil
from pathlib import Path

import pytest
from browsers import lacking
from pypdf import PdfReader, PdfWriter

from tools import pdf
from tools.shots import browser_program

ROOT = Path(pdf.__file__).resolve().parents[1]
TOC = """
root: book/intro
parts:
  - caption: One
    chapters:
      - file: notebooks/01_first
        sections: [{file: notebooks/02_second}]
  - caption: Two
    chapters: [{file: book/end}]
"""
PAGE = """<!doctype html><meta charset="utf-8"><title>x</title>
<style>pre {{overflow: auto; white-space: pre}}</style><link rel="stylesheet" href="../_static/custom.css">
<div class="bd-sidebar-primary">never printed</div><article class="bd-article"><h1>{title}#</h1>{body}</article>"""
LONG = "<h2>A part</h2><pre>{}</pre>".format("word_" * 80)
BODIES = {
    "book/intro": ("Begin", '<p>first words</p><a href="../notebooks/02_second.html#there">on</a>'),
    "notebooks/01_first": ("First", LONG + "<details><summary>Solution</summary><p>an answer</p></details>"),
    "notebooks/02_second": ("Second", "<p>nothing more</p><a href='../_static/data.csv'>data</a>"),
    "book/end": ("End", "<p>last words</p><a href='https://example.org/x'>out</a>"),
}


@pytest.fixture
def book(tmp_path):
    """A book of four pages with the real style sheet, as it lies when it is built."""
    (tmp_path / "_toc.yml").write_text(TOC)
    html = tmp_path / "html"
    (html / "_static").mkdir(parents=True)
    shutil.copy2(ROOT / "_static" / "custom.css", html / "_static")
    for name, (title, body) in BODIES.items():
        (html / name).parent.mkdir(exist_ok=True)
        (html / f"{name}.html").write_text(PAGE.format(title=title, body=body), encoding="utf-8")
    return tmp_path


def test_contents_by_part(book):
    parts = [("", ["book/intro"]), ("One", ["notebooks/01_first", "notebooks/02_second"]), ("Two", ["book/end"])]
    assert pdf.contents(book) == parts


def browser_is_there():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        return browser_program(playwright) is not None


def test_a_book_is_printed_in_order_and_whole(book):
    if not browser_is_there():
        lacking("no browser was found: no PDF made")
    target = book / "book.pdf"
    count, clipped = pdf.make([*BODIES], book / "html", target, book)
    reader = PdfReader(target)
    texts = [page.extract_text() for page in reader.pages]
    assert (count, len(reader.pages), clipped) == (4, 4, [])
    for text, (title, _), number in zip(texts, BODIES.values(), "1234", strict=True):
        assert title in text
        assert text.split()[-1] == number
    assert "first words" in texts[0]
    assert "an answer" in texts[1], "a folded solution was not printed"
    assert texts[1].replace("\n", "").count("word_") == 80, "code was cut"
    assert not any("never printed" in text for text in texts)
    outline = reader.outline
    assert [item.title for item in outline if not isinstance(item, list)] == ["Begin", "One", "Two"]
    first, _, second = outline[2]
    assert (first.title, second.title) == ("First", "Second")
    assert reader.get_destination_page_number(second) == 2
    assert links(reader) == [[2], [], [], ["https://example.org/x"]]


def links(reader):
    """Where the links of each page lead: a page's number, or an address."""
    notes = [[note.get_object()["/A"] for note in page.get("/Annots", [])] for page in reader.pages]
    number = {page.indirect_reference.idnum: n for n, page in enumerate(reader.pages)}
    return [[note.get("/URI") or number[note["/D"][0].idnum] for note in page] for page in notes]


def test_what_is_cut_is_said(book, browser):
    path = book / "html" / "book" / "end.html"
    path.write_text(path.read_text().replace("<p>last", "<pre style='white-space:pre!important'>" + "x" * 400 + "<p>"))
    page = pdf.ready(browser, path.as_uri())
    (found,) = page.evaluate(pdf.CLIPPED)
    page.close()
    assert found.startswith("PRE ")
    assert "> " in found


def test_a_page_that_is_not_built_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(pdf, "HTML", tmp_path)
    assert pdf.main(["intro"]) == 1
    assert "Not built: ['book/intro']. Run `make html` first." in capsys.readouterr().err


def test_pages_that_are_printed_before_stand_before():
    blank = io.BytesIO()
    sheet = PdfWriter()
    sheet.add_blank_page(100, 100)
    sheet.write(blank)
    parts = [("", [("a", "A", blank.getvalue())]), ("Part", [("b", "B", blank.getvalue())])]
    writer = pdf.joined(parts, "http://x/")
    assert len(writer.pages) == 2
    assert [item.title for item in writer.outline if not isinstance(item, list)] == ["A", "Part"]
