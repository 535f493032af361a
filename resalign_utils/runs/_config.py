"""What decides a trained network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..models import ResNetConfig, TransformerConfig
from ..training import TrainConfig
from ._store import Recipe


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
    model: ResNetConfig | TransformerConfig
    train: TrainConfig

    def __init__(self, data: DataConfig | str, model: ResNetConfig | TransformerConfig, train: TrainConfig) -> None:
        object.__setattr__(self, "data", DataConfig(data) if isinstance(data, str) else data)
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "train", train)

    @classmethod
    def of(cls, data: DataConfig | str, **settings: Any) -> RunConfig:
        """A run of a ResNet from settings by name, ``RunConfig.of("digits", depth=8, width=64, lr=0.4)``.

        Each setting goes to the one of :class:`DataConfig`, :class:`ResNetConfig` and :class:`TrainConfig` that has a
        field of its name. ``seed`` is that of the training: of initialisation and order. The seed with which images
        and label noise are drawn is given as ``RunConfig.of(DataConfig("digits", per_class=20, seed=1), ...)``.

        Raises:
            TypeError: none of the three has such a setting, and the text lists those there are; or ``depth`` or
                ``width`` is missing.
        """
        parts: dict[type, dict[str, Any]] = {DataConfig: {}, ResNetConfig: {}, TrainConfig: {}}
        owner = {field.name: kind for kind in parts for field in fields(kind)}  # of "seed" the last one
        del owner["name"]
        for name, value in settings.items():
            if name not in owner:
                raise TypeError(f"No setting is called {name!r}; expected some of {', '.join(sorted(owner))}.")
            parts[owner[name]][name] = value
        images = replace(DataConfig(data) if isinstance(data, str) else data, **parts[DataConfig])
        return cls(images, ResNetConfig(**parts[ResNetConfig]), TrainConfig(**parts[TrainConfig]))

    @property
    def key(self) -> str:
        """Name of the run: a hash of it, of the recipe versions of its stages, and of torch's minor version."""
        return self.recipe.key

    @property
    def recipe(self) -> Recipe:
        """What names the run's folder, and which files it holds."""
        snapshots = [f"snapshots/epoch-{epoch:06d}.safetensors" for epoch in snapshot_epochs(self.train.epochs)]
        return Recipe(
            name=f"{self.data.name}-{self.model.kind}{self.model.depth}",
            config=asdict(self),
            stages=("data", "models", "training"),
            files=("weights.safetensors", "history.json", *snapshots),
        )

    def with_seed(self, seed: int) -> RunConfig:
        """The same run with another initialisation and another order of the images."""
        return replace(self, train=replace(self.train, seed=seed))


def snapshot_epochs(epochs: int) -> list[int]:
    """0, then 1, 2, 5 times the powers of ten, and the last epoch: training moves on a logarithmic clock."""
    series = (step * 10**power for power in range(len(str(epochs))) for step in (1, 2, 5))
    return sorted({0, epochs, *(epoch for epoch in series if epoch < epochs)})
