"""The benchmark's own arithmetic: its peers are right, its fits and its peaks of memory mean what they say."""

import time
from dataclasses import replace

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import comparison, recording
from benchmarks.door import door
from benchmarks.fits import exponent
from benchmarks.memory import in_child, measured
from benchmarks.monitoring import monitoring
from benchmarks.operators import STATES, case, network
from benchmarks.peers import Counted, Textbook, products, replay, ways
from benchmarks.plan import Plan


@pytest.fixture(scope="module")
def judge():
    return comparison.Judge(case(64, depth=2))


def test_case_is_what_its_name_says():
    for size, state in STATES.items():
        assert size == state.size == state.channels * state.side**2
    model, data = network(256, 2)
    assert model.stem(data.test_x[:1]).shape == (1, 4, 8, 8)
    assert not model.training


@pytest.mark.filterwarnings("ignore")  # other libraries warn as they like
@pytest.mark.parametrize("way", ways(3, 64), ids=lambda way: way.name)
def test_peers_agree_with_float64(judge, way):
    if not way.installed:
        pytest.skip(f"{way.package} is optional")
    found, problem = comparison.search(judge, way, 3)
    assert found is not None, problem
    u, s, v = found.run.triplets
    assert u.shape == v.shape == (3, 64)
    assert s.shape == (3,)
    assert found.error <= 1e-5
    assert found.residual <= 1e-4
    least = 64 if "matrix" in way.name or "row by row" in way.name else 6
    assert sum(number for _, number in found.run.calls) >= least
    assert 0 < found.run.set_up < found.run.seconds


def test_set_up_is_counted(judge):
    ours = ways(3, 64)[0]

    def slow(case):
        time.sleep(0.2)
        return products(case)

    run = comparison.run_once(judge.case, replace(ours, set_up=slow), 3, {})
    assert 0.2 <= run.set_up < run.seconds


def test_a_case_is_opened_anew_each_time(judge):
    first, second = judge.case.open(), judge.case.open()
    assert first.batch is not second.batch
    assert first.matvecs == second.matvecs == 0
    assert judge.case.side == 64


def test_textbook_products_are_the_operators(judge):
    textbook, operator = Textbook(judge.case), judge.case.open()
    v = torch.randn(2, *operator.in_shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(textbook.matmat(v), operator.matmat(v))
    torch.testing.assert_close(textbook.rmatmat(v), operator.rmatmat(v))


def test_replay_makes_the_same_products(judge):
    calls = [("matmat", 3), ("rmatmat", 2), ("matmat", 1)]
    opened = []

    def opening():
        opened.append(Counted(judge.case.open()))
        return opened[-1]

    bare = replay(opening, calls)
    for _ in range(2):
        bare()
        assert opened[-1].calls == calls
        assert opened[-1].matvecs == 6
    assert len(opened) == 3  # once for the shapes, once for each replay


def test_evidence_finds_a_wrong_vector(judge):
    u, s, vh = torch.linalg.svd(judge.matrix)
    assert max(judge.evidence((u.T[:3], s[:3], vh[:3]))) < 1e-12
    error, residual = judge.evidence((u.T[1:4], s[:3], vh[:3]))
    assert error < 1e-12
    assert residual > 0.5


def test_exponent():
    sizes = [64, 256, 1024, 4096]
    assert exponent(sizes, [3e-7 * size**1.5 for size in sizes]) == pytest.approx(1.5)
    assert exponent(sizes, [2.0] * 4) == pytest.approx(0, abs=1e-12)
    for wrong in (([64], [1.0]), ([64, 64], [1.0, 2.0]), ([64, 256], [0.0, 1.0])):
        with pytest.raises(ValueError, match="two positive sizes"):
            exponent(*wrong)


def allocate(megabytes):
    """Hold two blocks one after the other: the peak is one block, and nothing is left."""
    return sum(int(torch.ones(megabytes * 125_000, dtype=torch.float64).sum()) for _ in range(2))


def measured_allocation(megabytes):
    return measured(lambda: allocate(megabytes), "cpu")


def test_peak_memory_of_a_child():
    found = in_child(measured_allocation, 200)
    assert found["result"] == 2 * 200 * 125_000
    assert 190e6 < found["peak_bytes"] < 260e6


def fail():
    raise ArithmeticError("on purpose")


@pytest.mark.filterwarnings("ignore")
def test_child_that_fails_is_not_silent():
    with pytest.raises(RuntimeError, match="fail"):
        in_child(fail)


def test_tables_and_files(tmp_path):
    rows = [{"task": "t", "way": way, "seconds": seconds} for way, seconds in (("a", [2.0, 1.0, 3.0]), ("b", [5.0]))]
    recording.add_ratios(rows, lambda row: row["task"])
    assert [row["ratio"] for row in rows] == [1.0, 2.5]
    columns = {"way": recording.key("way"), "seconds": recording.median_of(), "spread": recording.spread_of()}
    table = recording.Table("Title", columns, rows, "A note.")
    assert "| a | 2.00 | 1.00 … 3.00 |" in table.markdown()
    recording.record({"group": [table]}, {"torch": "2"}, "stem", tmp_path)
    assert (tmp_path / "stem.md").read_text(encoding="utf-8").endswith("Measured with torch 2.\n")
    assert recording.file_stem(torch.device("cpu")) == "benchmarks"


def test_price_of_the_proof():
    (table,) = door(Plan(torch.device("cpu"), quick=True))
    assert [row["n"] for row in table.rows] == [1, 10]
    for row in table.rows:
        assert 0 < row["product"] < row["opening"] < row["whole"]


def test_cost_of_a_monitor():
    (table,) = monitoring(Plan(torch.device("cpu"), quick=True))
    (row,) = table.rows
    assert len(row["without"]) == len(row["with"]) == 1
    assert row["measurements"] >= 2  # the untrained network, and the last epoch
    assert row["first"] > 0
    assert 0 < row["each"] < row["with"][0]
    assert row["drift"] is None
    assert "% |" in table.markdown()


def test_no_row_is_begun_when_time_is_up(capsys):
    late = Plan(torch.device("cpu"), quick=True, until=time.monotonic() - 1)
    assert [table for name in ("peers", "first", "door") for table in command.measured(name, late)] == []
    assert "left out, the time is up" in capsys.readouterr().out
    assert Plan(torch.device("cpu")).goes_on("a row")


def test_groups_and_options(capsys):
    assert list(command.groups("HEAD"))[:4] == ["peers", "first", "against", "networks"]
    assert set(command.groups("HEAD")) - {"against"} == set(command.groups(None))
    assert command.options(["--device=cpu", "--against=HEAD", "--only=against"]).against == "HEAD"
    with pytest.raises(SystemExit):
        command.options(["--only=against"])
    assert "--only against needs --against REV" in capsys.readouterr().err
