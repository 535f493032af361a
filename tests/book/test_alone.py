"""A stranger's way: one notebook in an empty folder, and the package as a wheel installs it."""

import os
import subprocess
import sys

import nbformat
import pytest

from tools import alone
from tools.notebook_rules import ROOT, toc_notebooks

TIED = ("from tools", "import tools", "from experiments", "from benchmarks", 'open("../', "Path('..", 'Path("..')


def run(*arguments):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-m", "tools.alone", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_the_shortest_notebook_runs_alone():
    done = run("--unpacked", "book/first_figure.ipynb")
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "first_figure.ipynb ran alone" in done.stdout


def test_a_package_of_the_clone_is_not_taken_for_an_installed_one(tmp_path, monkeypatch):
    """The check that the run above relies on: an empty folder in place of the package leaves the clone's own."""
    monkeypatch.setenv("PYTHONPATH", "")  # put back afterwards
    with pytest.raises(Exception, match="AssertionError"):
        alone.run_alone(ROOT / "book" / "first_figure.ipynb", tmp_path)


def test_a_wheel_holds_the_package_and_its_results(tmp_path):
    package = alone.unpack(tmp_path)
    assert {path.name for path in package.iterdir()} == {"resalign_utils"}
    assert (package / "resalign_utils" / "py.typed").is_file()
    results = {path.name for path in (package / "resalign_utils" / "results").iterdir()}
    assert results == {path.name for path in (ROOT / "results").glob("*.json")}


@pytest.mark.parametrize("path", toc_notebooks(), ids=lambda path: path.stem)
def test_no_notebook_needs_a_file_of_the_clone(path):
    code = "\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code")
    assert [words for words in TIED if words in code] == []
