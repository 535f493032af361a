"""What a release and a workflow rest on: one version, typed wheels, workflows that call what exists."""

import json
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
# What may be written, each by one job alone.
GRANTED = {"book.yml": ["id-token", "pages"], "release.yml": ["contents", "id-token"]}


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
def test_a_workflow_reads_and_each_right_to_write_has_one_job(path):
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["permissions"] == {"contents": "read"}
    given = [job["permissions"] for job in jobs_of(path).values() if "permissions" in job]
    assert sorted(name for rights in given for name in rights) == GRANTED.get(path.name, [])


def test_a_tag_publishes_package_book_and_notes():
    for name in ("book.yml", "release.yml"):
        workflow = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))
        assert workflow[True]["push"]["tags"] == ["v*"], "`on` is a truth value in YAML 1.1"
    assert "refs/tags/v" in jobs_of(ROOT / ".github" / "workflows" / "book.yml")["publish"]["if"]
    jobs = jobs_of(ROOT / ".github" / "workflows" / "release.yml")
    assert [jobs[name].get("needs") for name in ("build", "publish", "announce")] == [None, "build", "publish"]
    assert any("tools.release_notes" in step.get("run", "") for step in jobs["build"]["steps"])


def test_zenodo_is_told_what_the_citation_says():
    zenodo = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = PROJECT["project"]
    assert zenodo["version"] == ra.__version__
    assert [zenodo[key] for key in ("title", "license")] == [citation["title"], citation["license"]]
    assert zenodo["license"] == project["license"]
    names = [author["name"] for author in citation["authors"]]
    assert [creator["name"] for creator in zenodo["creators"]] == names == [one["name"] for one in project["authors"]]
    assert zenodo["keywords"] == project["keywords"]
    assert set(citation["keywords"]) <= set(zenodo["keywords"])
    assert zenodo["description"].startswith(project["description"])
    assert {one["identifier"] for one in zenodo["related_identifiers"]} == {
        one["url"] for one in citation["references"]
    }


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
        for module in re.findall(r"python3? -m (tools\.\w+)", command):
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
        if command.startswith("."):
            assert command.split()[0] == ".venv/bin/python" or (ROOT / command).is_file()
        for group in re.findall(r"--group (\w+)", command):
            assert group in PROJECT["dependency-groups"]


def test_the_oldest_and_newest_python_are_tested():
    matrix = jobs_of(ROOT / ".github" / "workflows" / "test.yml")["units"]["strategy"]["matrix"]["python"]
    assert PROJECT["project"]["requires-python"] == f">={matrix[0]}"
    assert matrix == ["3.11", "3.12", "3.13"]
