"""How to train, what to keep on the way, and what happened."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from torch import Tensor, nn

if TYPE_CHECKING:
    from ..data import ImageData

Schedule = Literal["one_cycle", "cosine", "step", "constant"]
Optimizer = Literal["sgd", "adam", "adamw"]


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained: cross-entropy, SGD or Adam, weight decay on all parameters but slopes of PReLUs.

    The defaults are those with which the book's fully-connected networks show Residual Alignment on the digits:
    no momentum and strong weight decay, as in Li & Papyan's public notebook.

    Args:
        epochs: passes over the training images; 0 leaves the network as it was initialised.
        lr: highest learning rate.
        weight_decay: coefficient of the L2 penalty, on every parameter but the slopes of PReLUs.
        momentum: of SGD; Adam has its own and takes none here.
        batch_size: at most so many images in a step; an epoch is cut into batches of nearly equal size, so that no
            image is left out and, from ``batch_size=3`` on, none comes alone, which batch norm would refuse.
        schedule: ``"one_cycle"``, linear warm-up over 10 % of the steps, then cosine decay to zero (Smith & Topin
            2019; Loshchilov & Hutter 2017); ``"cosine"``, the decay alone; ``"step"``, × 0.1 after one third and
            two thirds; ``"constant"``.
        clip: the gradient's norm, without slopes of PReLUs, is cut to this; ``None`` for no cutting.
        seed: of the initial weights (through :func:`load_or_train`) and of the order of the images.
        optimizer: ``"sgd"``; ``"adam"`` (Kingma & Ba 2015), in which the penalty's gradient is rescaled with the
            loss's; ``"adamw"``, in which the decay is applied to the weights directly (Loshchilov & Hutter 2019).

    Raises:
        ValueError: for a value outside its range; the text says which and what is allowed.
    """

    epochs: int = 200
    lr: float = 0.1
    weight_decay: float = 1e-2
    momentum: float = 0.0
    batch_size: int = 128
    schedule: Schedule = "one_cycle"
    clip: float | None = 1.0
    seed: int = 0
    optimizer: Optimizer = "sgd"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "seed"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError(f"{name} must be a whole number; got {value!r}.")
        for name in ("lr", "weight_decay", "momentum", "clip"):
            value = getattr(self, name)
            if not isinstance(value, int | float) and not (name == "clip" and value is None):  # JSON holds no others
                raise ValueError(f"{name} must be a number of Python; got {value!r}. Use float({name}).")
        for name, least in (
            ("epochs", 0),
            ("batch_size", 1),
            ("lr", 0),
            ("weight_decay", 0),
            ("momentum", 0),
        ):
            value = getattr(self, name)
            if not (value >= least and math.isfinite(value)):
                raise ValueError(f"{name} must be at least {least} and finite; got {value!r}.")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be positive, or None for no clipping; got {self.clip!r}.")
        for name, allowed in (("schedule", Schedule), ("optimizer", Optimizer)):
            value, names = getattr(self, name), get_args(allowed)
            if value not in names:
                raise ValueError(f"{name} must be one of {', '.join(names)}; got {value!r}.")
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f"momentum belongs to SGD; got {self.momentum!r} with {self.optimizer!r}: leave it at 0.")


@dataclass
class History:
    """What happened, one entry an epoch, after it; all plain numbers, so it goes into JSON as it is.

    ``loss`` is the mean over the epoch's batches; the accuracies are of the network in eval mode after the epoch.
    ``terminal`` says whether the epoch belongs to the terminal phase of training, which begins when the training
    error first vanishes (Papyan, Han & Donoho 2020). ``monitors`` holds, per monitor, ``[epoch, value]`` pairs.
    Only they have an epoch 0, the untrained network: a :class:`Monitor` measures there whatever is asked for.
    """

    loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    terminal: list[bool] = field(default_factory=list)
    monitors: dict[str, list[list[Any]]] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Number of epochs done."""
        return len(self.loss)


def _check_every(every: int) -> None:
    if every < 1:
        raise ValueError(f"every must be at least 1 epoch; got {every!r}.")


@dataclass(frozen=True)
class Monitor:
    """A measurement taken before training (epoch 0), after every ``every`` epochs and after the last one.

    ``measure(model, data)`` is called in eval mode without gradients and returns something that JSON can hold. With
    ``epochs`` it is taken after those alone.
    """

    name: str
    measure: Callable[[nn.Module, ImageData], Any]
    every: int = 1
    epochs: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _check_every(self.every)

    def due(self, epoch: int, last: int) -> bool:
        """Whether the measurement is taken after this epoch."""
        if self.epochs is not None:
            return epoch in self.epochs
        return epoch % self.every == 0 or epoch == last


class Observer(Protocol):
    """What :func:`train` asks of a measurement on the way: a :class:`Monitor`, or an ``AlignmentMonitor``."""

    @property
    def name(self) -> str:
        """Under which ``History.monitors`` keeps its values."""

    @property
    def measure(self) -> Callable[[nn.Module, ImageData], Any]:
        """Takes the measurement of model and data, in eval mode; returns something that JSON can hold."""

    def due(self, epoch: int, last: int) -> bool:
        """Whether it is taken after this epoch."""


class Regularizer(Protocol):
    """What a training adds to its loss, and does to the parameters after each step."""

    @property
    def recipe(self) -> Any:
        """What it was configured with, as JSON can hold it; a checkpoint of another one is refused."""

    def penalty(self, progress: float) -> Tensor:
        """The term (scalar) added to the loss when the share ``progress`` ∈ [0, 1) of all steps is done."""

    def after_step(self, progress: float) -> None:
        """Called when the optimiser has changed the parameters."""


class Objective(Protocol):
    """The loss of a batch that a training makes small, and in which batches it sees its images."""

    @property
    def recipe(self) -> Any:
        """What it was configured with, as JSON can hold it; a checkpoint of another one is refused."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The loss (scalar) of ``model``, in train mode, on images (b, c, h, w) with labels (b,)."""


@dataclass(frozen=True)
class Checkpoint:
    """Where the state of an unfinished training is kept, and how often (in epochs) it is written.

    The weights after each epoch of ``snapshots`` (0: untrained) are kept for good, beside it, as
    ``snapshots/epoch-000020.safetensors`` for epoch 20.
    """

    path: str | os.PathLike[str]
    every: int = 10
    snapshots: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check_every(self.every)

    def snapshot_path(self, epoch: int) -> Path:
        """File of the weights after an epoch."""
        return Path(self.path).parent / "snapshots" / f"epoch-{epoch:06d}.safetensors"
