"""A run: a configuration, and the folder with the network that was trained from it.

A run's folder holds ``config.json``, ``weights.safetensors``, ``snapshots/epoch-*.safetensors``, ``history.json`` and,
written last, ``provenance.json`` with the SHA-256 of all of them. A folder without provenance is an unfinished run; it
is continued from its checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from filelock import FileLock
from platformdirs import user_cache_path
from safetensors.torch import load_file

from . import data as data_module
from . import models as models_module
from . import training as training_module
from .data import ImageData, load_data
from .models import ResNet, ResNetConfig, build_model
from .training import Checkpoint, History, TrainConfig, train, write_atomically, write_weights


def _plain(value: Any) -> Any:
    """Arrays, tensors and sequences as tuples, NumPy's numbers as Python's: what JSON can hold and hashes alike."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(map(_plain, value)) if isinstance(value, Iterable) and not isinstance(value, str) else value


@dataclass(frozen=True)
class DataConfig:
    """Which images: the arguments of :func:`load_data` that change the data."""

    name: str
    classes: tuple[int, ...] | None = None
    per_class: int | tuple[int, ...] | None = None
    normalize: bool = True
    seed: int = 0
    label_noise: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _plain(getattr(self, field.name)))


@dataclass(frozen=True, init=False)
class RunConfig:
    """Everything that decides a trained network; ``data`` may be given by its name alone."""

    data: DataConfig
    model: ResNetConfig
    train: TrainConfig

    def __init__(self, data: DataConfig | str, model: ResNetConfig, train: TrainConfig) -> None:
        object.__setattr__(self, "data", DataConfig(data) if isinstance(data, str) else data)
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "train", train)

    @property
    def key(self) -> str:
        """Name of the run: a hash of this configuration, of the code that acts on it, and of torch's version."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode())
        for module in (data_module, models_module, training_module):
            for source in _sources(module):
                digest.update(source.read_bytes())
        digest.update(torch.__version__.encode())
        return digest.hexdigest()[:16]

    def with_seed(self, seed: int) -> RunConfig:
        """The same run with another initialisation and another order of the images."""
        return replace(self, train=replace(self.train, seed=seed))


@dataclass(frozen=True)
class Run:
    """A trained network with its data, its history and where it comes from.

    Attributes:
        config: what it was made from.
        model: the trained network, in eval mode.
        data: the images, on the same device.
        history: loss and accuracies per epoch.
        provenance: versions, device, seconds, git state, data checksum, files with their checksums.
        folder: where it is kept.
    """

    config: RunConfig
    model: ResNet
    data: ImageData
    history: History
    provenance: dict[str, Any]
    folder: Path

    @property
    def snapshot_epochs(self) -> list[int]:
        """Epochs of which the weights are kept: 0 (untrained), 1, 2, 5, 10, 20, 50, … and the last."""
        return snapshot_epochs(self.config.train.epochs)

    def snapshot(self, epoch: int) -> ResNet:
        """The network as it was after an epoch; 0 is the untrained twin. In eval mode, on the data's device.

        Raises:
            ValueError: no snapshot of this epoch is kept; the text lists those that are.
            OSError: its file was damaged or removed since the run was loaded.
        """
        if epoch not in self.snapshot_epochs:
            raise ValueError(f"No snapshot of epoch {epoch} is kept; choose one of {self.snapshot_epochs}.")
        path = _checkpoint(self.folder, self.config).snapshot_path(epoch)
        _check_file(path, self.provenance["files"][path.relative_to(self.folder).as_posix()])
        return _load_model(self.config, self.data, path)

    @property
    def untrained(self) -> ResNet:
        """The network as it was initialised."""
        return self.snapshot(0)


def snapshot_epochs(epochs: int) -> list[int]:
    """0, then 1, 2, 5 times the powers of ten, and the last epoch: training moves on a logarithmic clock."""
    series = (step * 10**power for power in range(len(str(epochs))) for step in (1, 2, 5))
    return sorted({0, epochs, *(epoch for epoch in series if epoch < epochs)})


def load_or_train(
    config: RunConfig,
    *,
    root: str | os.PathLike[str] | None = None,
    data_root: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
) -> Run:
    """Return the trained network of a configuration; train it if this machine has not done so yet.

    Several processes may ask for one run at a time: the first trains it, the others wait. An interrupted run is
    continued from its last checkpoint. A whole run is only read: its folder may be read-only.

    Args:
        config: the run.
        root: folder of all runs; the environment's ``RESALIGN_CACHE``, else the user's cache folder.
        data_root: where the data lie, see :func:`load_data`.
        device: where to train and to return model and data.

    Raises:
        OSError: a file is damaged or foreign, or the run must be trained and its folder cannot be written; the text
            names it.
        ValueError: the data set on this machine is not the one that the run was trained on.
    """
    data = load_data(root=data_root, device=device, **asdict(config.data))
    folder = runs_root(root) / f"{config.data.name}-{config.model.kind}{config.model.depth}-{config.key}"
    if not (folder / "provenance.json").exists():
        _train_once(folder, config, data)
    # Nothing below writes or locks: a whole run never changes again, and may lie where nobody can write.
    provenance = _verify(folder, config, data)
    history = History(**_read_json(folder / "history.json"))
    model = _load_model(config, data, folder / "weights.safetensors")
    return Run(config, model, data, history, provenance, folder)


def over_seeds(config: RunConfig, seeds: Sequence[int] = (0, 1, 2), **where: Any) -> list[Run]:
    """The runs of one configuration under several seeds, of initialisation and order; ``where`` as in load_or_train."""
    return [load_or_train(config.with_seed(seed), **where) for seed in seeds]


def runs_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder of all runs: ``root``, else ``RESALIGN_CACHE``, else the user's cache folder."""
    return Path(root or os.environ.get("RESALIGN_CACHE") or user_cache_path("resalign") / "runs").expanduser()


def provenance_of_now(data: ImageData) -> dict[str, Any]:
    """Where and with what a result is made: date, versions, device, git state, data checksum; no path, no host name."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "numpy", "scikit-learn", "resalign-utils")},
        "device": _device_name(data.train_x.device),
        "threads": torch.get_num_threads(),
        "git": _git_state(),
        "data": data.checksum(),
    }


def _train_once(folder: Path, config: RunConfig, data: ImageData) -> None:
    """Train in this process, or wait for the one that does."""
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise OSError(
            f"Cannot make {folder}: {error.strerror}. No whole run is there to be loaded; give root= or "
            "RESALIGN_CACHE a writable folder to train it."
        ) from error
    try:
        if not (folder / "provenance.json").exists():
            _train_into(folder, config, data)
    finally:
        lock.release()


def _train_into(folder: Path, config: RunConfig, data: ImageData) -> None:
    model = build_model(config.model, data, seed=config.train.seed)
    checkpoint = _checkpoint(folder, config)
    begin = time.perf_counter()
    history = train(model, data, config.train, checkpoint=checkpoint)
    write_weights(folder / "weights.safetensors", model)
    _write_json(folder / "config.json", asdict(config))
    _write_json(folder / "history.json", asdict(history))
    provenance = provenance_of_now(data) | {
        "seconds": round(time.perf_counter() - begin, 1),
        "files": {path.relative_to(folder).as_posix(): _sha256(path) for path in _files(folder, config)},
    }
    _write_json(folder / "provenance.json", provenance)
    Path(checkpoint.path).unlink(missing_ok=True)


def _checkpoint(folder: Path, config: RunConfig) -> Checkpoint:
    epochs = config.train.epochs
    return Checkpoint(folder / "checkpoint.safetensors", max(1, epochs // 10), tuple(snapshot_epochs(epochs)))


def _files(folder: Path, config: RunConfig) -> list[Path]:
    """What a whole run holds besides its provenance."""
    checkpoint = _checkpoint(folder, config)
    files = [folder / name for name in ("weights.safetensors", "config.json", "history.json")]
    return files + [checkpoint.snapshot_path(epoch) for epoch in checkpoint.snapshots]


def _check_file(path: Path, expected: str) -> None:
    actual = _sha256(path) if path.exists() else "no file"
    if actual != expected:
        raise OSError(
            f"{path} is damaged: expected SHA-256 {expected}, found {actual}. Delete the run's folder to train again."
        )


def _verify(folder: Path, config: RunConfig, data: ImageData) -> dict[str, Any]:
    path = folder / "provenance.json"
    provenance = _read_json(path)
    names = {file.relative_to(folder).as_posix() for file in _files(folder, config)}
    if not isinstance(provenance, dict) or "data" not in provenance or names - set(provenance.get("files", ())):
        raise OSError(f"{path} is damaged: it lacks entries of a whole run. Delete {folder} to train again.")
    for name, expected in provenance["files"].items():
        _check_file(folder / name, expected)
    if _read_json(folder / "config.json") != json.loads(json.dumps(asdict(config))):
        raise OSError(f"{folder / 'config.json'} belongs to another run. Delete {folder} to train again.")
    if provenance["data"] != data.checksum():
        raise ValueError(
            f"The data set '{data.name}' here has checksum {data.checksum()}, the run in {folder} was trained on "
            f"{provenance['data']}. Restore the data, or delete the folder to train again."
        )
    return provenance


def _load_model(config: RunConfig, data: ImageData, path: Path) -> ResNet:
    model = build_model(config.model, data, seed=config.train.seed)
    model.load_state_dict(load_file(path))
    return model.eval()


def _write_json(path: Path, content: Any) -> None:
    write_atomically(path, lambda file: file.write_text(json.dumps(content, indent=1) + "\n"))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise OSError(f"{path} is damaged or missing ({error}). Delete {path.parent} to train again.") from error


def _sources(module: ModuleType) -> list[Path]:
    """The files of a module, or of a package in the order of their names."""
    file = Path(str(module.__file__))
    return sorted(file.parent.glob("*.py")) if file.name == "__init__.py" else [file]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"


def _git_state() -> str | None:
    """Commit of the package's source, with "+changes" if it is not committed as it is; None outside a repository."""
    here = Path(__file__).parent
    try:
        _git(here, "ls-files", "--error-unmatch", Path(__file__).name)  # not a repository around an installed copy
        commit = _git(here, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(here, "status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()
