"""The table of what pages cost: what is counted, and what is said above a limit."""

import gzip

import pytest

from tools import pages
from tools.shots import served


@pytest.fixture
def html(tmp_path):
    pages.sent.cache_clear()
    (tmp_path / "_static").mkdir()
    (tmp_path / "_static" / "shared.js").write_text("x" * 10_000)
    (tmp_path / "picture.png").write_bytes(b"x" * 5000)
    (tmp_path / "page.html").write_text(
        "<!doctype html><html lang='en'><title>t</title><script src='_static/shared.js'></script>"
        "<article class='bd-article'><h1>First</h1><img src='picture.png'><p>text</p></article>"
    )
    return tmp_path


def test_bytes_are_counted_once_as_they_are_sent(html):
    base = "http://127.0.0.1:1/"
    asked = [base + name for name in ("page.html", "picture.png", "picture.png", "_static/shared.js?v=1", "gone.css")]
    page = len(gzip.compress((html / "page.html").read_bytes()))
    script = len(gzip.compress(b"x" * 10_000))
    assert script < 100
    assert pages.weight([*asked, "https://elsewhere.org/x.png"], base, html) == (page + 5000, page + 5000 + script)


def test_what_is_too_much_is_said():
    row = {"page": "a", "first_text_ms": 5, "first_figure_ms": None, "own_bytes": 10, "bytes": 20, "violations": 0}
    assert pages.over(row) == []
    assert pages.over(row | {"violations": 1, "own_bytes": 2_000_000}) == [
        "own_bytes 2,000,000 > 600,000",
        "violations 1 > 0",
    ]
    assert pages.over(row | {"first_figure_ms": 40_000}) == ["first_figure_ms 40,000 > 30,000"]


def test_a_page_is_measured(html, browser):
    with served(html) as base:
        row = pages.measured(browser, base, "page", html)
    assert row["first_text_ms"] > 0
    assert row["first_figure_ms"] is None
    assert row["bytes"] > row["own_bytes"] > 5000
    assert row["rules"] == ["image-alt"]
