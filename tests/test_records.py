"""Recorded results: every file can be read, says what made it, and a wrong name or a damaged file is refused."""

import json
from pathlib import Path

import pytest

import resalign_utils.records as module
from resalign_utils import recorded

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (ROOT / "results").glob("*.json") if path.stem != "benchmarks")


@pytest.mark.parametrize("name", NAMES)
def test_every_result_has_rows_and_the_command_that_makes_it(name):
    frame = recorded(name)
    module_name, *parts = frame.attrs["command"].removeprefix("python -m ").split()
    assert len(frame) > 0
    assert (ROOT / f"{module_name.replace('.', '/')}.py").is_file()
    assert name == "_".join([module_name.removeprefix("results."), *parts])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FOLDERS", (tmp_path,))
    return tmp_path


def test_rows_become_a_frame_and_the_rest_its_attributes(folder):
    rows = [{"seed": 0, "curve": [1, 2]}, {"seed": 1, "curve": [3, 4]}]
    (folder / "a.json").write_text(json.dumps({"command": "make a", "rows": rows}))
    frame = recorded("a")
    assert frame.to_dict("records") == rows
    assert frame.attrs == {"command": "make a"}


def test_unknown_name_is_refused_with_those_there_are(folder):
    (folder / "a.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"No result is recorded as 'b'; expected one of a\."):
        recorded("b")


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"rows": 3}'])
def test_damaged_file_is_refused_with_its_name(folder, text):
    (folder / "a.json").write_text(text)
    with pytest.raises(OSError, match=r"a\.json is damaged .*Restore it, or run its program again"):
        recorded("a")
