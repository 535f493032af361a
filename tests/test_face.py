"""What `resalign_utils` shows is what its rooms hold, and nothing is imported before it is asked for."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import resalign_utils as ra

SOURCE = ast.parse(Path(ra.__file__).read_text(encoding="utf-8"))
IMPORTED = {
    alias.name: node.module
    for node in ast.walk(SOURCE)
    if isinstance(node, ast.ImportFrom) and node.level == 1
    for alias in node.names
}


def test_all_names_are_imported_for_the_type_checker():
    assert sorted(IMPORTED) == sorted(ra.__all__)


@pytest.mark.parametrize("name", ra.__all__)
def test_a_name_is_the_object_of_the_room_that_it_is_said_to_come_from(name):
    room = IMPORTED[name]
    expected = import_module(f"resalign_utils.{name}") if room is None else getattr(ra, room).__dict__[name]
    assert getattr(ra, name) is expected


def test_all_rooms_are_in_the_list():
    folder = Path(ra.__file__).parent
    rooms = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert {room for room in rooms if not room.startswith("_")} - {"cli"} == set(ra._ROOMS)


def test_no_other_name_is_there():
    assert set(ra.__all__) <= set(dir(ra))
    with pytest.raises(AttributeError, match="module 'resalign_utils' has no attribute 'diagnoze'"):
        _ = ra.diagnoze


def test_the_package_alone_imports_no_library():
    code = "import sys, resalign_utils; print([m for m in ('torch', 'numpy', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
