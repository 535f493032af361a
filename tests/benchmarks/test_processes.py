"""Measurements in fresh processes: they run the package they were told to, and their parts add up."""

import re

import pytest
import torch

from benchmarks.plan import Plan
from benchmarks.processes import ROOT, run_worker, worktree

QUICK = Plan(torch.device("cpu"), quick=True)


def test_first_call_and_account():
    row = run_worker("measure_alignment", QUICK, 2, account=True)
    assert len(row["seconds"]) == len(row["cpu_seconds"]) == 2
    assert row["modules"] < 100
    assert 1e8 < row["start_bytes"] <= row["peak_bytes"] < 4e9
    account = row["account"]
    assert 0 < account["opening"] + account["products"] + account["couplings"] < account["whole"]
    assert min(account[name] for name in ("opening", "products", "couplings")) > 0
    assert len(account["blocks"]) == 3
    assert min(account["blocks"].values()) >= 256  # N = 256: each matrix is formed


def test_a_single_call_is_the_one_that_is_accounted_for():
    row = run_worker("measure_alignment", QUICK, 0, account=True)
    assert row["seconds"] == [row["account"]["whole"]]


def test_another_package_than_the_one_asked_for_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match=rf"was to take the package in {re.escape(str(tmp_path))}; it took"):
        run_worker("truncated_svd, dense", QUICK, 1, root=tmp_path)


def test_a_process_that_fails_says_why(tmp_path):
    (tmp_path / "resalign_utils.py").write_text("raise ArithmeticError('on purpose')")
    with pytest.raises(RuntimeError, match=r"(?s)The task 'jacobian_svd' failed .*on purpose"):
        run_worker("jacobian_svd", QUICK, 1, root=tmp_path)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a git clone")
def test_worktree_of_another_commit():
    with worktree("HEAD") as place:
        assert (place / "resalign_utils" / "__init__.py").exists()
    assert not place.exists()
    with pytest.raises(RuntimeError, match="Cannot take out commit 'nothing'"), worktree("nothing"):
        pass
