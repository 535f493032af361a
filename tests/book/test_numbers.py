"""Numbers of cell outputs in the built pages: written as in print."""

import importlib.util
import os
import re
from pathlib import Path

import pytest

from tools.notebook_rules import ROOT, toc_files

HTML = Path(os.environ.get("BOOK_HTML", ROOT / "_build" / "html"))
CELL = re.compile(r"<t[dh][^>]*>([^<]*)</t[dh]>")
RAW = re.compile(r"\de[+-]\d|(?<![\w–−.,/)-])-\d|\d ± ")


@pytest.fixture(scope="module")
def numbers():
    spec = importlib.util.spec_from_file_location("book_numbers", ROOT / "book" / "_ext" / "book_numbers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("4e-07", "4×10⁻⁷"),
        ("off by **2.5e-02 σ₁**", "off by **0.025 σ₁**"),
        ("1.3e+02 and 2e+11", "130 and 2×10¹¹"),
        ("-0.3 ± 0.1", "−0.3\u00a0±\u00a00.1"),
        ("(-2)", "(−2)"),
        ("1e-06", "10⁻⁶"),
        ("2026-11-26, 3-4, torch-2.15, σ-1, x1e-3, 0x1e-3", "2026-11-26, 3-4, torch-2.15, σ-1, x1e-3, 0x1e-3"),
        ("1.000", "1.000"),
    ],
)
def test_numbers_are_written_as_in_print(numbers, written, printed):
    assert numbers.typeset(written) == printed


@pytest.mark.parametrize("page", [name for name in toc_files() if name.startswith("notebooks/")])
def test_no_table_of_a_page_holds_what_python_writes(page):
    path = HTML / f"{page}.html"
    if not path.is_file():
        pytest.skip(f"there is no built book in {HTML}: run `make html`")
    assert [cell for cell in CELL.findall(path.read_text(encoding="utf-8")) if RAW.search(cell)] == []
