"""What a release and a workflow rest on: one version, typed wheels, workflows that call what exists."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

import resalign_utils as ra

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
GRANTED = {"book.yml": {"pages", "id-token"}, "release.yml": {"id-token"}}  # what may be written, by one job each


def test_the_version_stands_in_one_place():
    assert "version" not in PROJECT["project"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "resalign_utils/__init__.py"
    assert version("resalign-utils") == ra.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == ra.__version__
    assert f"## {ra.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_types_travel_with_the_package():
    assert (ROOT / "resalign_utils" / "py.typed").is_file()
    assert "/resalign_utils" in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["include"]


def jobs_of(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]


def steps_of(path):
    return [step for job in jobs_of(path).values() for step in job["steps"]]


def test_there_are_workflows():
    assert [path.name for path in WORKFLOWS] == ["book.yml", "release.yml", "test.yml", "weekly.yml"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_reads_and_only_one_job_may_write(path):
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["permissions"] == {"contents": "read"}
    given = [job["permissions"] for job in jobs_of(path).values() if "permissions" in job]
    assert {name for rights in given for name in rights} == GRANTED.get(path.name, set())
    assert len(given) <= 1


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_their_major_version(path):
    used = [step["uses"] for step in steps_of(path) if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v\d+)", name) for name in used), used


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_calls_what_exists(path):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    for command in (step["run"] for step in steps_of(path) if "run" in step):
        if command.startswith("make "):
            assert command.split()[-1] in targets
        if command.startswith("."):
            assert command.split()[0] == ".venv/bin/python" or (ROOT / command).is_file()
        for group in re.findall(r"--group (\w+)", command):
            assert group in PROJECT["dependency-groups"]


def test_the_oldest_and_newest_python_are_tested():
    matrix = jobs_of(ROOT / ".github" / "workflows" / "test.yml")["units"]["strategy"]["matrix"]["python"]
    assert PROJECT["project"]["requires-python"] == f">={matrix[0]}"
    assert matrix == ["3.11", "3.12", "3.13"]
