"""environment.yml (conda, Binder) and pyproject.toml name the same packages with the same bounds, and all we import."""

import ast
import copy
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PYPI_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}  # what conda-forge calls otherwise
NOT_OURS = {"pip"}


def bounds(lines):
    """{name: version bounds}, whichever way they are written."""
    found = (Requirement(line) for line in lines)
    return {canonicalize_name(PYPI_NAMES.get(r.name, r.name)): str(r.specifier) for r in found}


def drift(project, environment):
    """Every difference between the two, in words."""
    groups = project["dependency-groups"]
    wanted = bounds([*project["project"]["dependencies"], *groups["book"], *groups["test"]])
    wanted["python"] = project["project"]["requires-python"]
    conda = [line for line in environment["dependencies"] if isinstance(line, str)]
    pip = [line for entry in environment["dependencies"] if isinstance(entry, dict) for line in entry["pip"]]
    found = bounds(line for line in conda + pip if line not in NOT_OURS and not line.startswith("-e"))
    names = sorted(wanted.keys() | found.keys())
    differ = [
        f"{name}: pyproject.toml {wanted.get(name)!r}, environment.yml {found.get(name)!r}"
        for name in names
        if wanted.get(name) != found.get(name)
    ]
    return differ + ([] if "-e ." in pip else ["environment.yml does not install the package itself (-e .)"])


@pytest.fixture
def files():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    return copy.deepcopy(project), copy.deepcopy(environment)


def test_the_two_are_in_step(files):
    assert drift(*files) == []


def pip_of(environment):
    return next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda p, e: p["project"]["dependencies"].append("einops>=0.8"), "einops: pyproject.toml '>=0.8', envir"),
        (lambda p, e: e["dependencies"].remove("numpy>=1.26"), "numpy: pyproject.toml '>=1.26', environment.yml None"),
        (lambda p, e: pip_of(e).append("ipywidgets"), "ipywidgets: pyproject.toml None, environment.yml ''"),
        (lambda p, e: p["dependency-groups"]["test"].remove("nbval>=0.11"), "nbval: pyproject.toml None"),
        (lambda p, e: e["dependencies"].__setitem__(0, "python>=3.12"), "python: pyproject.toml '>=3.11', env"),
        (lambda p, e: pip_of(e).remove("-e ."), "does not install the package itself"),
        (lambda p, e: pip_of(e).__setitem__(0, "jupyter-book==2.0"), "jupyter-book: pyproject.toml '==1.0.4.post1'"),
    ],
)
def test_a_drift_is_found(files, change, text):
    change(*files)
    found = drift(*files)
    assert len(found) == 1
    assert text in found[0]


def imported(*folders):
    """The packages that the files of these folders import, by the names under which they are installed."""
    modules = set()
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    for node in (node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            modules |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules.add(node.module.split(".")[0])
    installed = packages_distributions()  # what is in none of them is Python's own, or a file of this repository
    return {canonicalize_name(installed[name][0]) for name in modules & installed.keys()} - {"resalign-utils"}


def test_what_is_imported_is_declared(files):
    project, _ = files
    ours = set(bounds(project["project"]["dependencies"]))
    extras = set(bounds(line for lines in project["project"]["optional-dependencies"].values() for line in lines))
    assert imported("resalign_utils", "experiments") <= ours | extras
    assert extras.isdisjoint(ours)
    assert extras <= set(bounds(project["dependency-groups"]["test"]))
    assert imported("tests") <= ours | set(
        bounds([*project["dependency-groups"]["test"], *project["dependency-groups"]["book"]])
    )
    assert {"torch", "pillow", "scikit-learn"} <= imported("resalign_utils")
