"""A run: a configuration, and the network that was trained from it.

Its folder in the store holds ``config.json``, ``weights.safetensors``, ``snapshots/epoch-*.safetensors``,
``history.json`` and ``provenance.json``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ..data import ImageData, load_data
from ..models import ResNet, build_model
from ..training import Checkpoint, History, train, write_weights
from ._config import RunConfig, snapshot_epochs
from ._store import CHECKPOINT, Kept, get_or_make, read_json, write_json


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
        name = path.relative_to(self.folder).as_posix()
        return _load_model(self.config, self.data, Kept(self.folder, self.provenance).file(name))

    @property
    def untrained(self) -> ResNet:
        """The network as it was initialised."""
        return self.snapshot(0)


def load_or_train(
    config: RunConfig,
    *,
    root: str | os.PathLike[str] | None = None,
    data_root: str | os.PathLike[str] | None = None,
    download: bool = False,
    device: str | torch.device = "cpu",
) -> Run:
    """Return the trained network of a configuration; train it if this machine has not done so yet.

    Several processes may ask for one run at a time: the first trains it, the others wait. An interrupted run is
    continued from its last checkpoint. A whole run is only read: its folder may be read-only.

    Args:
        config: the run.
        root: folder of all runs; the environment's ``RESALIGN_CACHE``, else the user's cache folder.
        data_root: where the data lie, see :func:`load_data`.
        download: let torchvision fetch missing data, see :func:`load_data`.
        device: where to train and to return model and data.

    Raises:
        OSError: a file is damaged or foreign, or the run must be trained and its folder cannot be written; the text
            names it.
        ValueError: the data set on this machine is not the one that the run was trained on.
    """
    data = load_data(root=data_root, download=download, device=device, **asdict(config.data))
    kept = get_or_make(config.recipe, lambda folder: _train_into(folder, config, data), data=data, root=root)
    history = History(**read_json(kept.folder / "history.json"))
    model = _load_model(config, data, kept.folder / "weights.safetensors")
    return Run(config, model, data, history, kept.provenance, kept.folder)


def over_seeds(config: RunConfig, seeds: Sequence[int] = (0, 1, 2), **where: Any) -> list[Run]:
    """The runs of one configuration under several seeds, of initialisation and order; ``where`` as in load_or_train."""
    return [load_or_train(config.with_seed(seed), **where) for seed in seeds]


def _train_into(folder: Path, config: RunConfig, data: ImageData) -> None:
    model = build_model(config.model, data, seed=config.train.seed)
    history = train(model, data, config.train, checkpoint=_checkpoint(folder, config))
    write_weights(folder / "weights.safetensors", model)
    write_json(folder / "history.json", asdict(history))


def _checkpoint(folder: Path, config: RunConfig) -> Checkpoint:
    epochs = config.train.epochs
    return Checkpoint(folder / CHECKPOINT, max(1, epochs // 10), tuple(snapshot_epochs(epochs)))


def _load_model(config: RunConfig, data: ImageData, path: Path) -> ResNet:
    model = build_model(config.model, data, seed=config.train.seed)
    model.load_state_dict(load_file(path))
    return model.eval()
