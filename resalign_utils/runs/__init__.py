"""Trained networks that are kept: a configuration, and the folder with what was made from it."""

from ._config import DataConfig, RunConfig, snapshot_epochs
from ._provenance import provenance_of_now
from ._run import Run, load_or_train, over_seeds
from ._store import CHECKPOINT, RECIPE_VERSIONS, Kept, Recipe, get_or_make, read_json, runs_root, write_json

__all__ = [
    "CHECKPOINT",
    "RECIPE_VERSIONS",
    "DataConfig",
    "Kept",
    "Recipe",
    "Run",
    "RunConfig",
    "get_or_make",
    "load_or_train",
    "over_seeds",
    "provenance_of_now",
    "read_json",
    "runs_root",
    "snapshot_epochs",
    "write_json",
]
