"""tools/run_notebooks.py: whose Python runs, what is stored, and what is said when a cell fails."""

import json
import os
import sys
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools.notebook_rules import PLOTLY
from tools.run_notebooks import METADATA, Painter, add_pngs, check, normalise, run_one


@pytest.fixture
def notebook(tmp_path):
    """`notebook(*sources)` writes one and returns its path; the first cell is Markdown."""

    def notebook(*sources):
        path = tmp_path / "one.ipynb"
        cells = [new_markdown_cell("# One"), *(new_code_cell(source) for source in sources)]
        nbformat.write(new_notebook(cells=cells), path)
        return path

    return notebook


def stored(path):
    return nbformat.read(path, as_version=4)


def test_kernel_is_this_python_whatever_is_installed(notebook, tmp_path, monkeypatch, capfd):
    """A kernelspec `python3` found first would start another Python; this one could not even start."""
    spec = tmp_path / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    argv = {"argv": ["/bin/false"], "display_name": "x", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(argv))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    path = notebook("import os, sys\nprint(sys.executable)", "print(os.getcwd())")
    assert run_one(path, timeout=60) is None
    first, second = (cell.outputs[0].text.strip() for cell in stored(path).cells[1:])
    assert (first, second) == (sys.executable, str(tmp_path))
    assert "one done after" in capfd.readouterr().out


def test_no_kernel_stays(notebook):
    path = notebook("import os\nprint(os.getpid())")
    assert run_one(path, timeout=60) is None
    with pytest.raises(ProcessLookupError):
        os.kill(int(stored(path).cells[1].outputs[0].text), 0)


def test_a_second_run_gives_the_same_bytes(notebook):
    path = notebook("print(1)\nprint(2)", "import plotly.graph_objects as go\ngo.Figure().show()")
    assert run_one(path, timeout=60) is None
    before = path.read_bytes()
    assert run_one(path, timeout=60) is None
    assert path.read_bytes() == before
    assert PLOTLY in stored(path).cells[2].outputs[0].data
    assert not list(path.parent.glob(".*.part"))


def test_a_cell_that_raises_is_named(notebook):
    error = run_one(notebook("x = 1", "raise ValueError('no such layer')", "x = 2"), timeout=60)
    assert "one.ipynb: cell 3 raised ValueError: no such layer" in error
    assert "\x1b" not in error


def test_a_cell_that_takes_too_long_is_named(notebook):
    error = run_one(notebook("x = 1", "import time\ntime.sleep(60)"), timeout=1)
    assert "one.ipynb: cell 3 took more than 1 s" in error


def test_normalise_keeps_no_traces_of_the_machine():
    figure = {"data": [], "layout": {}, "config": {"plotlyServerURL": "https://plot.ly"}}
    output = nbformat.v4.new_output("display_data", data={PLOTLY: figure})
    cell = new_code_cell("x", outputs=[output], metadata={"execution": {"iopub.execute_input": "2026"}, "tags": ["a"]})
    nb = new_notebook(cells=[cell], metadata={"widgets": {}, "kernelspec": {"name": "mine", "display_name": "me"}})
    normalise(nb)
    assert nb.metadata == METADATA
    assert nb.cells[0].metadata == {"tags": ["a"]}
    assert nb.cells[0].outputs[0].data[PLOTLY] == {"data": [], "layout": {}}


def test_check_names_the_notebook(monkeypatch, tmp_path):
    monkeypatch.setattr("tools.run_notebooks.problems", lambda path: ["cell 2: stderr is stored"])
    assert check([tmp_path / "07_x.ipynb"]) == ["07_x.ipynb: cell 2: stderr is stored"]


def picture(figure):
    """In the place of Kaleido; what it does stands in the figure."""
    for deed, values in figure["layout"].items():
        if deed == "hang":
            (folder,) = values
            with open(f"{folder}/tries", "a") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(600)
        elif deed == "refuse":
            raise ValueError(*values)
        elif deed == "die":
            os._exit(1)
    return "png of " + figure["data"][0]["name"]


def drawn_notebook(path, *layouts):
    """A notebook with a figure a layout, named fig-0, fig-1, …"""
    cells = [new_markdown_cell("# One")]
    for number, layout in enumerate(layouts):
        figure = {"data": [{"name": f"trace {number}"}], "layout": layout}
        output = nbformat.v4.new_output("display_data", data={PLOTLY: figure, "image/png": "old"})
        metadata = {"mystnb": {"figure": {"name": f"fig-{number}"}}}
        cells.append(new_code_cell("x", outputs=[output], metadata=metadata))
    nbformat.write(new_notebook(cells=cells), path)
    return path


def pictures(path):
    return [cell.outputs[0].data.get("image/png") for cell in stored(path).cells[1:]]


def test_a_picture_that_hangs_is_tried_twice_and_named_and_the_others_are_drawn(tmp_path):
    path = drawn_notebook(tmp_path / "07_x.ipynb", {}, {"hang": [str(tmp_path)]}, {})
    start = time.monotonic()
    (error,) = add_pngs([path], Painter(limit=15, draw=picture))
    assert time.monotonic() - start < 100
    assert error.startswith(f"{path}: cell 3, figure fig-1 was not drawn in 15 s, in two tries.")
    assert "--png-timeout" in error
    assert pictures(path) == ["png of trace 0", None, "png of trace 2"]  # no picture rather than an old one
    tries = [int(line) for line in (tmp_path / "tries").read_text().split()]
    assert len({*tries}) == 2
    for pid in tries:
        with pytest.raises(ProcessLookupError):  # signal 0 only asks whether there is such a process
            os.kill(pid, 0)


def test_a_picture_that_cannot_be_drawn_is_named(tmp_path):
    path = drawn_notebook(tmp_path / "07_x.ipynb", {"refuse": ["no such trace"]}, {"die": []}, {})
    refused, died = add_pngs([path], Painter(limit=30, draw=picture))
    assert refused == f"{path}: cell 2, figure fig-0 cannot be drawn: ValueError: no such trace"
    assert "cell 3, figure fig-1 ended the process that drew it, in two tries." in died
    assert pictures(path) == [None, None, "png of trace 2"]
