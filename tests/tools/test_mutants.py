"""The table of faults fits the package, and a fault that nobody notices is said."""

import ast

import pytest

from tools import machines, mutants
from tools.comparing import Row
from tools.mutants import MUTANTS, Mutant
from tools.notebook_rules import ROOT, toc_notebooks


def test_there_are_ten_and_half_are_for_notebooks():
    assert len(MUTANTS) == len({mutant.name for mutant in MUTANTS}) == 10
    assert sum(mutant.by.endswith(".ipynb") for mutant in MUTANTS) >= 5


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_fault_fits_the_package_as_it_is(mutant):
    text = (ROOT / "resalign_utils" / mutant.file).read_text(encoding="utf-8")
    changed = mutants.broken(mutant, text)
    assert changed != text
    ast.parse(changed)
    assert (ROOT / mutant.by).is_file()
    assert mutant.by.startswith("tests/") or ROOT / mutant.by in toc_notebooks()


def test_a_table_that_is_out_of_date_is_said():
    mutant = Mutant("m", "f.py", "a + b", "a - b", "tests/test_f.py")
    assert mutants.broken(mutant, "c = a + b") == "c = a - b"
    for text in ("c = b + a", "a + b; a + b"):
        with pytest.raises(ValueError, match=r"m: f\.py holds \d times, not once: a \+ b"):
            mutants.broken(mutant, text)


TESTS = """
import resalign_utils
def test_nothing(): pass
def test_sum(): assert resalign_utils.total(2, 3) == 5
"""


@pytest.fixture
def copy(tmp_path):
    """A small copy with one function and its tests."""
    root = tmp_path / "copy"
    for name, text in {
        "resalign_utils/__init__.py": "def total(a, b):\n    c = a + b\n    d = b - a\n    return c\n",
        "tests/test_total.py": TESTS,
        "tests/test_broken.py": TESTS.replace("== 5", "== 6"),
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (tmp_path / "runs").mkdir()
    return root


@pytest.mark.parametrize(
    ("old", "by", "found", "caught", "said"),
    [
        ("a + b", "total", "test_sum", True, "caught by tests/test_total.py, test_sum"),
        ("b - a", "total", None, False, "SURVIVED tests/test_total.py"),
        ("b - a", "broken", "test_sum", False, "NOT PROVED: tests/test_broken.py, test_sum fails without the fault"),
    ],
)
def test_a_fault_is_caught_only_by_what_passes_without_it(copy, tmp_path, old, by, found, caught, said):
    mutant = Mutant("m", "__init__.py", old, old.replace("+", "*").replace("-", "+"), f"tests/test_{by}.py")
    before = (copy / "resalign_utils" / "__init__.py").read_text()
    row = mutants.tried(mutant, copy, tmp_path / "runs")
    assert (row["found"], row["caught"]) == (found, caught)
    assert mutants.verdict(row).startswith(said)
    assert (copy / "resalign_utils" / "__init__.py").read_text() == before, "the copy was left broken"


def test_a_fault_that_survives_ends_with_1(monkeypatch, capsys):
    row: Row = {"mutant": MUTANTS[0].name, "by": "t", "found": None, "caught": False, "seconds": 1.0}
    recorded: list[Row] = []
    monkeypatch.setattr(mutants, "results", lambda chosen: iter([row]))
    monkeypatch.setattr(mutants.recording, "read", lambda name: [])
    monkeypatch.setattr(mutants.recording, "record", lambda name, command, rows: recorded.extend(rows))
    assert mutants.main([MUTANTS[0].name]) == 1
    assert "0 of 1 caught" in capsys.readouterr().out
    assert recorded == [row]


def test_the_four_settings_train_apart(tmp_path):
    found = [machines.environment(*setting, tmp_path) for setting in machines.SETTINGS]
    assert {(one["OMP_NUM_THREADS"], one["ATEN_CPU_CAPABILITY"]) for one in found} == {
        (threads, capability) for threads in "12" for capability in ("default", "avx2")
    }
    assert len({one["RESALIGN_CACHE"] for one in found}) == 4


def test_a_new_row_takes_the_place_of_the_older_one():
    names = [path.stem for path in toc_notebooks()][:2]
    old = [{"notebook": name, "threads": 1, "capability": "avx2", "failed": [1]} for name in (*names, "99_gone")]
    new = old[1] | {"failed": []}
    assert machines.merged(old, new) == [old[0], new]
    other = old[0] | {"threads": 2}
    assert machines.merged(old[:2], other) == [old[0], other, old[1]]
