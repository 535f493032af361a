"""Which tests `make check` chooses."""

import subprocess
from pathlib import Path, PurePath

import pytest

from tools import check


def chosen(*files):
    return {str(test) for test in check.belonging(map(PurePath, files))}


@pytest.mark.parametrize(
    ("file", "among"),
    [
        ("resalign_utils/svd/_krylov.py", {"tests/svd/test_svd.py", "tests/svd/test_krylov.py"}),
        ("resalign_utils/residuals/_trace.py", {"tests/residuals/test_branches.py", "tests/residuals/test_rows.py"}),
        ("resalign_utils/operators/_door.py", {"tests/operators/test_door.py", "tests/truth/test_truth.py"}),
        ("resalign_utils/theory.py", {"tests/test_theory.py"}),
        ("tools/bootstrap.py", {"tests/tools/test_bootstrap.py"}),
        ("experiments/collapse.py", {"tests/test_experiments.py"}),  # and not tests/collapse/
        ("examples/alignment_from_scratch.py", {"tests/test_examples.py"}),
        ("book/_ext/book_numbers.py", {"tests/book/test_numbers.py"}),
        ("tests/data/test_data.py", {"tests/data/test_data.py"}),
    ],
)
def test_a_module_has_its_tests(file, among):
    found = chosen(file)
    assert among <= found
    assert "tests/collapse/test_collapse.py" not in found


@pytest.mark.parametrize("file", ["README.md", "uv.lock", "notebooks/02_training.ipynb", "tests/book/test_pages.py"])
def test_what_no_unit_test_looks_at_has_none(file):
    assert chosen(file) == set()


@pytest.fixture
def clone(tmp_path):
    def git(*arguments):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=tmp_path, check=True)

    git("init", "-q", "-b", "main")
    for name in ("kept.py", "edited.py"):
        Path(tmp_path, name).write_text("1\n")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    git("checkout", "-q", "-b", "branch")
    Path(tmp_path, "committed.py").write_text("1\n")
    git("add", ".")
    git("commit", "-q", "-m", "second")
    Path(tmp_path, "edited.py").write_text("2\n")
    Path(tmp_path, "new.py").write_text("3\n")
    return tmp_path


def test_all_that_left_main_counts_committed_or_not(clone):
    assert {str(file) for file in check.changed(root=clone)} == {"committed.py", "edited.py", "new.py"}
    assert {str(file) for file in check.changed("HEAD", root=clone)} == {"edited.py", "new.py"}


def test_an_unknown_commit_is_said(clone):
    with pytest.raises(SystemExit, match=r"git diff --name-only nonsense ended with 128: .*nonsense"):
        check.changed("nonsense", root=clone)
