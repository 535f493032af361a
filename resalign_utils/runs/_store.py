"""The store: one folder a recipe, filled once and only read from then on.

A folder holds the recipe's files, ``config.json`` and, written last, ``provenance.json`` with the SHA-256 of all of
them. A folder without provenance is unfinished; making it again continues from its checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from platformdirs import user_cache_path

from ..data import ImageData
from ..training import write_atomically
from ._provenance import provenance_of_now

# Raise a stage's number whenever the same configuration gives other results than before, beyond rounding: everything
# that was kept is then made anew. tests/runs/test_recipe_versions.py fails if this is forgotten.
RECIPE_VERSIONS = {"data": 1, "models": 1, "training": 1, "linearization": 1}

CHECKPOINT = "checkpoint.safetensors"  # of an unfinished training; removed when the folder is whole


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what one folder of the store holds.

    Attributes:
        name: how the folder's name begins.
        config: all settings, as JSON can hold them.
        stages: the parts of the package, of ``RECIPE_VERSIONS``, whose code makes the content.
        files: what a whole folder holds besides ``config.json`` and ``provenance.json``; not part of the key.
    """

    name: str
    config: dict[str, Any]
    stages: tuple[str, ...]
    files: tuple[str, ...]

    @property
    def key(self) -> str:
        """A hash of the settings, the versions of the stages, and torch's version up to the minor one ("2.15")."""
        decides = {
            "config": self.config,
            "versions": {stage: RECIPE_VERSIONS[stage] for stage in self.stages},
            "torch": ".".join(torch.__version__.split(".")[:2]),
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Kept:
    """A whole folder of the store.

    Attributes:
        folder: where it lies; it may be read-only.
        provenance: versions, device, seconds, git state, data checksum, files with their checksums.
    """

    folder: Path
    provenance: dict[str, Any]

    def file(self, name: str) -> Path:
        """Path of a file, which is compared with its checksum.

        Raises:
            OSError: it is damaged or gone.
        """
        path, expected = self.folder / name, self.provenance["files"][name]
        actual = _sha256(path) if path.exists() else "no file"
        if actual != expected:
            raise OSError(
                f"{path} is damaged: expected SHA-256 {expected}, found {actual}. Delete its folder to make it again."
            )
        return path


def get_or_make(
    recipe: Recipe,
    make: Callable[[Path], object],
    *,
    data: ImageData,
    root: str | os.PathLike[str] | None = None,
) -> Kept:
    """Return the folder of a recipe; make it if this machine has not done so yet.

    Several processes may ask for one recipe at a time: the first makes it, the others wait. A whole folder is only
    read, and may be read-only.

    Args:
        recipe: what is wanted.
        make: ``make(folder)`` writes the recipe's files. It is called again on the same folder if it was interrupted,
            and finds what it left there, such as the checkpoint of a training under the name ``CHECKPOINT``.
        data: the images that it is made from; their checksum is kept and compared.
        root: folder of the store; the environment's ``RESALIGN_CACHE``, else the user's cache folder.

    Raises:
        OSError: a file is damaged or foreign, or the folder must be made and cannot be written; the text names it.
        ValueError: the data set on this machine is not the one that the folder was made from.
    """
    folder = runs_root(root) / f"{recipe.name}-{recipe.key}"
    if not (folder / "provenance.json").exists():
        _make_once(folder, recipe, make, data)
    # Nothing below writes or locks: a whole folder never changes again, and may lie where nobody can write.
    return _verified(folder, recipe, data)


def runs_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder of all runs: ``root``, else ``RESALIGN_CACHE``, else the user's cache folder."""
    return Path(root or os.environ.get("RESALIGN_CACHE") or user_cache_path("resalign") / "runs").expanduser()


def write_json(path: Path, content: Any) -> None:
    """Write what JSON can hold, atomically."""
    write_atomically(path, lambda file: file.write_text(json.dumps(content, indent=1) + "\n"))


def read_json(path: Path) -> Any:
    """Read a JSON file of the store.

    Raises:
        OSError: it is damaged or missing.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise OSError(f"{path} is damaged or missing ({error}). Delete {path.parent} to make it again.") from error


def _make_once(folder: Path, recipe: Recipe, make: Callable[[Path], object], data: ImageData) -> None:
    """Make the folder in this process, or wait for the one that does."""
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise OSError(
            f"Cannot make {folder}: {error.strerror}. No finished run is there to be loaded; give root= or "
            "RESALIGN_CACHE a writable folder to make it in."
        ) from error
    try:
        if not (folder / "provenance.json").exists():
            _make(folder, recipe, make, data)
    finally:
        lock.release()


def _make(folder: Path, recipe: Recipe, make: Callable[[Path], object], data: ImageData) -> None:
    begin = time.perf_counter()
    make(folder)
    write_json(folder / "config.json", recipe.config)
    provenance = provenance_of_now(data) | {
        "seconds": round(time.perf_counter() - begin, 1),
        "files": {name: _sha256(folder / name) for name in ("config.json", *recipe.files)},
    }
    write_json(folder / "provenance.json", provenance)
    (folder / CHECKPOINT).unlink(missing_ok=True)


def _verified(folder: Path, recipe: Recipe, data: ImageData) -> Kept:
    path = folder / "provenance.json"
    provenance = read_json(path)
    expected = {"config.json", *recipe.files}
    if not isinstance(provenance, dict) or "data" not in provenance or expected - set(provenance.get("files", ())):
        raise OSError(f"{path} is damaged: it lacks entries of a whole run. Delete {folder} to make it again.")
    kept = Kept(folder, provenance)
    for name in provenance["files"]:
        kept.file(name)
    if read_json(folder / "config.json") != json.loads(json.dumps(recipe.config)):
        raise OSError(f"{folder / 'config.json'} belongs to another run. Delete {folder} to make it again.")
    if provenance["data"] != data.checksum():
        raise ValueError(
            f"The data set '{data.name}' here has checksum {data.checksum()}, the run in {folder} was made from "
            f"{provenance['data']}. Restore the data, or delete the folder to make it again."
        )
    return kept


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
