"""What files repeat stands in one place, and is written from there."""

import json

import pytest

from tools import stamp

ADDRESS = "https://github.com/me/book"
PROJECT = '[project]\nname = "x"\n[project.urls]\n'
CELL = 'try:\n    import x\nexcept ModuleNotFoundError:\n    repository = ""  # e.g. "https://github.com/OWNER/NAME"\n'


def notebook(*sources):
    cells = [{"cell_type": "code", "metadata": {}, "outputs": [], "source": s.splitlines(True)} for s in sources]
    return json.dumps({"cells": cells}, indent=1, ensure_ascii=False) + "\n"


@pytest.fixture
def clone(tmp_path):
    """A small clone without an address."""
    files = {
        "pyproject.toml": PROJECT,
        "_toc.yml": "root: book/intro\nchapters: [{file: notebooks/02_two}, {file: notebooks/A1_one}]\n",
        "README.md": "Before.\n<!-- stamp: pip -->\n<!-- /stamp -->\n<!-- stamp: scale -->\nold\n<!-- /stamp -->\n",
        "CITATION.cff": "version: 1\nlicense: MIT\nkeywords: []\n",
        "book/cite.md": "@software{x,\n  license = {MIT},\n}\n",
        "book/install.md": "<!-- stamp: clone -->\n<!-- /stamp -->\n",
        "notebooks/02_two.ipynb": notebook(CELL, 'scale = "small"  # @param\n'),
        "notebooks/A1_one.ipynb": notebook(CELL, "x = 1\n"),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def texts(root):
    return {path.name: path.read_text(encoding="utf-8") for path in stamp.carriers(root)}


def give(root, address):
    (root / "pyproject.toml").write_text(f'{PROJECT}Repository = "{address}"\n', encoding="utf-8")


def test_the_files_of_this_repository_are_in_step():
    assert [path.name for path in stamp.stamp(write=False)] == [], "run `python -m tools.stamp`"


def test_without_an_address_no_link_leads_nowhere(clone):
    stamp.stamp(clone)
    found = texts(clone)
    assert not any("github.com/me" in text or "git+" in text for text in found.values())
    assert "no public address yet" in found["README.md"]
    assert 'repository = \\"\\"' in found["02_two.ipynb"]


def test_an_address_comes_everywhere_and_goes_again_without_a_trace(clone):
    stamp.stamp(clone)
    without = texts(clone)
    give(clone, ADDRESS + "/")
    assert len(stamp.stamp(clone)) == 6
    found = texts(clone)
    assert f"pip install git+{ADDRESS}\n" in found["README.md"]
    assert f"git clone {ADDRESS}\ncd book\n" in found["install.md"]
    assert f'license: MIT\nrepository-code: "{ADDRESS}"\n' in found["CITATION.cff"]
    assert f"url     = {{{ADDRESS}}},\n}}" in found["cite.md"]
    for name in ("02_two.ipynb", "A1_one.ipynb"):
        cell = "".join(json.loads(found[name])["cells"][0]["source"])
        assert cell == CELL.replace('repository = ""', f'repository = "{ADDRESS}"')
    assert stamp.stamp(clone) == [], "a second time changes nothing"
    (clone / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    stamp.stamp(clone)
    assert texts(clone) == without


def test_a_check_writes_nothing(clone):
    before = texts(clone)
    assert [path.name for path in stamp.stamp(clone, write=False)] == ["README.md", "install.md"]
    assert texts(clone) == before


@pytest.mark.parametrize("address", ["github.com/me/book", "http://github.com/me/book", 'https://x.org/"', "https://x"])
def test_what_is_no_address_is_refused(clone, address):
    (clone / "pyproject.toml").write_text(f"{PROJECT}Repository = '{address}'\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"\[project.urls\] Repository must be an address such as https://github.com"):
        stamp.repository(clone)


def test_chapters_with_a_scale_are_those_whose_code_sets_it(clone):
    stamp.stamp(clone)
    assert "`scale` is offered by chapter 2; by no other." in texts(clone)["README.md"]
