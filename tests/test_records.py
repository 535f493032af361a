"""Recorded results: every file can be read, says what made it, and a wrong name or a damaged file is refused."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path

import pytest

import resalign_utils.records as module
from benchmarks import recording
from resalign_utils import ResNetConfig, RunConfig, TrainConfig, recorded, recorded_networks

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (ROOT / "results").glob("*.json") if not path.stem.startswith("benchmarks"))


@pytest.mark.parametrize("name", NAMES)
def test_every_result_has_rows_and_the_command_that_makes_it(name):
    frame = recorded(name)
    module_name, *parts = frame.attrs["command"].removeprefix("python -m ").split()
    assert len(frame) > 0
    assert (ROOT / f"{module_name.replace('.', '/')}.py").is_file()
    assert name == "_".join([module_name.partition(".")[2], *parts]).removesuffix("_networks")  # a program's main part


def test_results_folder_holds_data_only():
    assert {path.suffix for path in (ROOT / "results").iterdir()} == {".json", ".md"}


# Where


def test_a_clone_reads_where_experiments_and_benchmarks_write():
    assert module.results_folder() == recording.RESULTS == ROOT / "results"


@pytest.fixture
def installed(tmp_path):
    """What pyproject puts into the wheel, as it lies once installed; beside it a ``results`` that is someone else's."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    site_packages = tmp_path / "site-packages"
    for pattern in wheel["wheel"]["include"]:
        for source in ROOT.glob(pattern.removeprefix("/")):
            relative = source.relative_to(ROOT).as_posix()
            for folder, place in wheel["wheel"]["sources"].items():
                relative = f"{place}{relative.removeprefix(folder)}" if relative.startswith(f"{folder}/") else relative
            target = site_packages / relative
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
    (site_packages / "results").mkdir()
    (site_packages / "results" / "theory.json").write_text('{"rows": []}')
    return site_packages


def test_a_wheel_reads_what_it_brought_along(installed):
    program = "import resalign_utils as ra; print(ra.__file__, *map(len, map(ra.recorded, {})))"
    names = [*NAMES, "benchmarks"]
    done = subprocess.run(
        [sys.executable, "-c", program.format(names)],
        cwd=installed.parent,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    file, *lengths = done.stdout.split()
    assert Path(file).is_relative_to(installed)
    assert [int(length) for length in lengths] == [len(recorded(name)) for name in names]


# What


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "results_folder", lambda: tmp_path)
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


def test_tables_of_benchmarks_are_joined(folder):
    tables = {
        "small": [{"title": "One", "note": "of one", "rows": [{"k": 3, "seconds": [1.0, 2.0]}]}],
        "large": [
            {"title": "Two", "note": "", "rows": [{"N": 5}, {"N": 6}]},
            {"title": "None", "note": "left out", "rows": []},
        ],
    }
    (folder / "benchmarks-gpu.json").write_text(json.dumps({"environment": {"card": "GPU"}, "groups": tables}))
    frame = recorded("benchmarks-gpu")
    assert frame[["group", "table"]].to_numpy().tolist() == [["small", "One"], ["large", "Two"], ["large", "Two"]]
    two = frame[frame.table == "Two"].dropna(axis=1, how="all")
    assert two.to_dict("list") == {"group": ["large"] * 2, "table": ["Two"] * 2, "N": [5, 6]}
    assert frame.seconds[0] == [1.0, 2.0]
    assert frame.attrs == {
        "environment": {"card": "GPU"},
        "command": "make bench",
        "notes": {"One": "of one", "Two": "", "None": "left out"},
    }


def test_the_benchmarks_are_read_whole():
    written = json.loads((ROOT / "results" / "benchmarks.json").read_text())
    frame = recorded("benchmarks")
    for group, tables in written["groups"].items():
        for table in tables:
            rows = frame[(frame.group == group) & (frame.table == table["title"])]
            assert len(rows) == len(table["rows"]) > 0
            for row, known in zip(rows.to_dict("records"), table["rows"], strict=True):
                assert {key: row[key] for key, value in known.items() if value is not None} == {
                    key: value for key, value in known.items() if value is not None
                }
    assert frame.attrs["environment"] == written["environment"]


BROKEN = [
    "{",
    "{}",
    "[]",
    "3",
    "null",
    '{"rows": 3}',
    '{"rows": [1]}',
    '{"groups": 3}',
    '{"groups": {"a": [{}]}}',
    "\xff",
]


@pytest.mark.parametrize("text", BROKEN)
def test_damaged_file_is_refused_with_its_name(folder, text):
    (folder / "a.json").write_text(text, encoding="latin-1")
    with pytest.raises(OSError, match=r"a\.json is damaged .*Restore it, or run its program again"):
        recorded("a")


# Networks of several files in one table


def test_networks_are_those_of_their_files_with_the_scores_of_their_rows():
    rows, networks = recorded("theory"), recorded_networks("theory")
    assert networks["alignment"].tolist() == rows["alignment"].tolist()
    assert networks["seed"].tolist() == rows["seed"].tolist()
    assert networks["setting"].nunique() == rows["name"].nunique() == 4
    assert set(networks["depth"]) == {16}
    assert networks["last"].all()


def test_one_network_has_one_setting_whatever_the_file():
    """A skip is given as 1.0 and as True, images by their counts, and fields have been added since."""
    base = recorded("counterfactuals_digits").query("factor == 'skip factor' and level == 1.0")
    among = recorded_networks("counterfactuals_digits")["setting"][base.index]
    assert among.nunique() == 1
    for name, wanted in (("collapse", 3), ("small_and_unbalanced", 5)):
        others = recorded_networks(name)
        assert (others[others["last"]]["setting"] == among.iloc[0]).sum() >= wanted
    old, new = recorded_networks("convolutional_digits"), recorded_networks("counterfactuals_convolutional")
    assert set(old["setting"]) & set(new["setting"])


def test_images_are_one_setting_as_a_number_and_as_a_list_of_equal_ones(folder):
    config = recorded_config(5), recorded_config([5] * 10), recorded_config([5] * 9 + [4])
    rows = [{"config": c, "seed": 0, "alignment": 0.5, "line_shape_score": 1.1} for c in config]
    (folder / "a.json").write_text(json.dumps({"rows": rows}))
    one, same, other = recorded_networks("a")["setting"]
    assert one == same != other


def recorded_config(per_class):
    config = RunConfig("digits", ResNetConfig(8, 64), TrainConfig())
    return json.loads(json.dumps(asdict(config))) | {"data": {**asdict(config)["data"], "per_class": per_class}}


def test_draws_of_images_by_the_seed_are_one_setting():
    rows, networks = recorded("small_and_unbalanced"), recorded_networks("small_and_unbalanced")
    for _, part in rows.query("study == 'unbalanced'").groupby(["ratio", "skip"]):
        assert len(part) == 5
        assert networks["setting"][part.index].nunique() == 1


def test_a_network_followed_has_a_row_each_time_and_one_last():
    row, networks = recorded("collapse").iloc[0], recorded_networks("collapse")
    mine = networks[(networks["setting"] == networks["setting"].iloc[0]) & (networks["seed"] == 0)]
    assert mine["epoch"].tolist() == row["course"]["epochs"]
    assert mine["line_shape_score"].tolist() == row["course"]["line_shape_score"]
    assert mine["last"].tolist() == [False] * (len(mine) - 1) + [True]
    assert mine["train_accuracy"].notna().tolist() == mine["last"].tolist()
    course = recorded_networks("counterfactuals_course")
    assert course["last"].sum() == len(recorded("counterfactuals_course"))


def test_published_networks_have_the_means_over_their_inputs():
    rows, networks = recorded("wild"), recorded_networks("wild")
    assert networks["alignment"].iloc[0] == pytest.approx(sum(rows["alignment"].iloc[0]) / rows["inputs"].iloc[0])
    assert networks["depth"].tolist() == [len(blocks) for blocks in rows["blocks"]]
    assert networks["config"].isna().all()


def test_rows_without_scores_are_refused():
    with pytest.raises(ValueError, match="alignment and line_shape_score in each row of 'linearization_plain'"):
        recorded_networks("linearization_plain")
