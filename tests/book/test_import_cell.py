"""The first code cell of every chapter is the same: it imports the package, or says how to get it."""

import builtins

import nbformat
import pytest

from tools.notebook_rules import toc_notebooks


def import_cell(path):
    return next(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code")


def test_all_chapters_share_it():
    cells = {import_cell(path) for path in toc_notebooks()}
    assert len(cells) == 1


def test_it_installs_from_the_repository_and_pins_nothing():
    cell = import_cell(toc_notebooks()[0])
    assert "%pip install -q git+{repository}" in cell
    assert "torch" not in cell
    assert "==" not in cell


def test_without_an_address_it_says_what_to_do(monkeypatch):
    true_import = builtins.__import__

    def without_the_package(name, *args, **kwargs):
        if name == "resalign_utils":
            raise ModuleNotFoundError(name)
        return true_import(name, *args, **kwargs)

    source = import_cell(toc_notebooks()[0]).replace("%pip", "raise AssertionError  #")
    monkeypatch.setattr(builtins, "__import__", without_the_package)
    with pytest.raises(
        ModuleNotFoundError, match=r"`pip install .`, or run `make book` .* set `repository` above to the address"
    ):
        exec(source, {})
