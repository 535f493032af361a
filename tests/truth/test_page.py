"""The book's table of what is right and what is refused is what the branches give."""

import tomllib

import pytest
import torch
from packaging.version import Version

from tools.notebook_rules import ROOT

from . import __main__ as page
from .branches import GROUPS, ROWS
from .oracle import Outcome

PACKAGES = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
LOCKED = Version(next(package["version"] for package in PACKAGES if package["name"] == "torch"))


def test_every_row_is_in_one_group():
    assert [row for rows in GROUPS.values() for row in rows] == ROWS


@pytest.mark.skipif(
    Version(torch.__version__).release < LOCKED.release[:2],
    reason=f"the table is that of torch {LOCKED}; an older one cannot differentiate as much twice",
)
def test_committed_table_is_what_the_run_gives():
    assert page.PAGE.read_text(encoding="utf-8") == page.table(), "write it anew: python -m tests.truth"


@pytest.mark.parametrize(("kind", "code"), [("right", 0), ("WRONG", 1)])
def test_table_is_written_only_where_each_branch_is_right_or_refused(monkeypatch, tmp_path, capsys, kind, code):
    row = next(row for row in ROWS if row.must == "right")
    monkeypatch.setattr(page, "ROWS", [row])
    monkeypatch.setattr(page, "GROUPS", {"One": [row]})
    monkeypatch.setattr(page, "PAGE", tmp_path / "table.md")
    monkeypatch.setattr(page, "measure", lambda row, n: {"dense": Outcome(kind, "by chance")})
    assert page.main() == code
    assert page.PAGE.exists() == (code == 0)
    assert ("WRONG: by chance" in capsys.readouterr().out) == bool(code)


def test_a_refusal_is_shown_without_what_differs_between_machines():
    told = "The Jacobian of it cannot be trusted (J v is 2.1% off (here). Or there). Something in it hides."
    assert page.short(told) == "The Jacobian of it cannot be trusted (…)."
    told = "Expected a branch (n, *in) → (n, *out); it made (18,) of (3, 6)."
    assert page.short(told) == "Expected a branch (n, \\*in) → (n, \\*out); it made … of …."


def test_branches_that_are_there_in_place_too_are_listed_once():
    names = ["ReLU", "ReLU in place", "ReLU in place on the argument", "GELU", "ELU in place"]
    assert page.listed(names) == "ReLU, also in place; GELU; ELU in place"
