"""The page Status: rows from a report of nbval, and tables that say what is recorded and no more."""

import os
from datetime import UTC, datetime

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import recording, status
from tools.comparing import compare, counts, rows_of
from tools.notebook_rules import toc_notebooks

REPORT = """<testsuites><testsuite>
<testcase classname="notebooks.02_two.ipynb" name="Cell 0" time="1.25"/>
<testcase classname="notebooks.02_two.ipynb" name="Cell 1" time="2.5"><failure message="x"/></testcase>
<testcase classname="notebooks.01_one.ipynb" name="Cell 0" time="0.5"/>
<testcase classname="tests.test_x" name="test_y" time="9"/>
</testsuite></testsuites>"""
MADE = {"date": "2026-11-27T10:00+00:00", "versions": {"python": "3.12"}, "device": "cpu", "git": "a" * 40}


@pytest.fixture
def report(tmp_path):
    path = tmp_path / "nbval.xml"
    path.write_text(REPORT)
    return path


@pytest.fixture
def notebook(tmp_path):
    """A notebook whose cells print 1, a number from training, and 1 where a figure is stored."""
    cells = [
        new_markdown_cell("# One"),
        new_code_cell("print(1)\nassert True", outputs=[new_output("stream", name="stdout", text="1\n")]),
        new_code_cell("print(0.3)", outputs=[new_output("stream", name="stdout", text="0.2\n")]),
        new_code_cell("1", outputs=[new_output("display_data", data={"image/png": "x", "text/plain": "<Figure>"})]),
    ]
    cells[2].metadata["tags"] = ["nbval-ignore-output"]
    for number, cell in enumerate(cells[1:], 1):
        cell.execution_count = number
    path = tmp_path / "01_one.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_a_report_gives_a_row_for_each_notebook(report):
    assert rows_of(report) == [
        {"notebook": "01_one", "cells": 1, "failed": [], "seconds": 0.5},
        {"notebook": "02_two", "cells": 2, "failed": [2], "seconds": 3.8},
    ]


def test_cells_are_counted_by_how_they_are_checked(notebook):
    assert counts(notebook) == {"compared": 1, "banded": 1, "asserts": 1}


def test_a_clean_run_becomes_rows_with_the_date_of_its_report(report, notebook):
    then = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    os.utime(report, (then.timestamp(), then.timestamp()))
    (row,) = status.measured(report, [notebook])
    assert (row["seconds"], row["compared"], row["provenance"]["date"]) == (0.5, 1, "2026-01-02T03:04+00:00")


def test_a_run_that_is_not_there_or_not_whole_is_refused(tmp_path, report, notebook):
    with pytest.raises(FileNotFoundError, match=r"no report none\.xml: run `make test` first"):
        status.measured(tmp_path / "none.xml", [notebook])
    with pytest.raises(ValueError, match=r"nbval\.xml lacks 03_three: run `make test` to its end"):
        status.measured(report, [notebook, tmp_path / "03_three.ipynb"])


def test_a_record_comes_back_as_it_was(tmp_path):
    rows = [{"a": 1, "provenance": MADE}, {"a": 2, "provenance": MADE}, {"a": 3, "provenance": MADE | {"git": "b"}}]
    path = recording.record("x", "python -m tools.x", rows, tmp_path)
    assert recording.read("x", tmp_path) == rows
    assert path.read_text().count("2026-11-27") == 2, "a provenance that several rows share is written once"
    assert recording.read("y", tmp_path) == []


def test_tables_say_what_failed():
    row = {"notebook": "02_two", "cells": 2, "failed": [2], "seconds": 90.4, "compared": 1, "banded": 0, "asserts": 3}
    text = status.of_chapters([row | {"provenance": MADE}])
    assert "| 02_two | 90 | 2 | 1 | 0 | 3 | 2 |" in text
    assert text.endswith("Together 2 minutes of two processes. 2026-11-27, python 3.12, cpu, commit aaaaaaaaaa.")
    fault = {"mutant": "m", "file": "f.py", "by": "tests/svd/test_svd.py", "found": None, "caught": False, "seconds": 3}
    rows = [
        fault | {"provenance": MADE},
        fault | {"found": "test_x", "caught": True, "provenance": MADE | {"git": "b"}},
    ]
    text = status.of_mutants(rows)
    assert "| m | **nobody**; asked was test_svd | 3 |\n| m | tests of svd | 3 |\n\n1 of 2 noticed." in text
    assert text.endswith("cpu, commit aaaaaaaaaa, b.")
    cell = fault | {"by": "notebooks/03_x.ipynb", "found": "cell 9", "caught": True}
    assert status.noticed(cell) == "03_x, cell 9"


def test_the_table_of_machines_says_what_was_not_run():
    rows = [
        {"notebook": name, "capability": "avx2", "threads": threads, "failed": failed, "provenance": MADE}
        for name, threads, failed in (("01_one", 1, []), ("01_one", 2, [4, 5]), ("02_two", 2, []))
    ]
    text = status.of_machines(rows)
    assert "| notebook | avx2, 1 thread | avx2, 2 threads |" in text
    assert "| 01_one | none | 4, 5 |" in text
    assert "| 02_two | not run | none |" in text


def test_without_records_the_page_says_so():
    assert [f([]) for f in (status.of_chapters, status.of_mutants, status.of_machines)] == [
        "No clean run is recorded.",
        "No fault was tried.",
        "No other setting was tried.",
    ]


def test_the_page_shows_the_records():
    assert status.PAGE.read_text(encoding="utf-8") == status.page(), "run `python -m tools.status --tables`"


def test_what_is_recorded_is_of_notebooks_that_there_are():
    names = {path.stem for path in toc_notebooks()}
    rows = [row for name in ("status", "machines") for row in recording.read(name)]
    assert {row["notebook"] for row in rows} <= names, "chapters were renamed: `make test`, then `make status`"


def test_nbval_finds_a_number_that_changed(notebook, tmp_path):
    nb = nbformat.read(notebook, as_version=4)
    nb.cells[1].source = "print(2)"  # where 1 is stored
    nbformat.write(nb, notebook)
    assert compare(notebook, tmp_path / "report.xml", {}, root=tmp_path)["failed"] == [1, 3]


def test_what_cannot_be_compared_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match=r"nbval of none\.ipynb ended with 4"):
        compare(tmp_path / "none.ipynb", tmp_path / "report.xml", {}, root=tmp_path)
