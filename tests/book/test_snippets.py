"""The code that README and book show outside of notebooks runs as it stands there."""

import re
from pathlib import Path

import pytest

from resalign_utils import residual_branch

ROOT = Path(__file__).resolve().parents[2]


def snippets(page):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize(
    ("page", "least"),
    [
        ("README.md", 3),
        ("book/install.md", 1),
        ("book/your_model.md", 4),
        ("book/by_hand.md", 5),
        ("book/limits.md", 1),
    ],
)
def test_snippets_run_in_order(page, least, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where they may write
    blocks = snippets(page)
    assert len(blocks) >= least
    names = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    assert capsys.readouterr().out, "the snippets print their results"


def test_a_block_of_ones_own_takes_ten_lines():
    for page in ("README.md", "book/by_hand.md"):
        for block in snippets(page):
            for function in re.findall(r"^@ra\.residual_branch\.register\n(?:.+\n?)+", block, re.M):
                assert len(function.splitlines()) <= 10


def test_snippets_register_what_they_measure():
    names = {}
    for block in snippets("book/by_hand.md"):
        exec(compile(block, "by_hand", "exec"), names)
    assert {names["MLPBlock"], names["PostBlock"]} <= set(residual_branch.registry)
