"""One training loop for every network of the book: SGD on data that lies in memory."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args
from uuid import uuid4

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from tqdm import tqdm

if TYPE_CHECKING:
    from .data import ImageData

Schedule = Literal["one_cycle", "cosine", "step", "constant"]
WARM_UP = 0.1  # share of the steps in which "one_cycle" raises the learning rate from zero to its maximum


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained: cross-entropy, SGD, weight decay on all parameters.

    The defaults are those with which the book's fully-connected networks show Residual Alignment on the digits:
    no momentum and strong weight decay, as in Li & Papyan's public notebook.

    Args:
        epochs: passes over the training images; 0 leaves the network as it was initialised.
        lr: highest learning rate.
        weight_decay: coefficient of the L2 penalty, on every parameter.
        momentum: of SGD.
        batch_size: at most so many images in a step; an epoch is cut into batches of nearly equal size, so that no
            image is left out and, from ``batch_size=3`` on, none comes alone, which batch norm would refuse.
        schedule: ``"one_cycle"``, linear warm-up over 10 % of the steps, then cosine decay to zero (Smith & Topin
            2019; Loshchilov & Hutter 2017); ``"cosine"``, the decay alone; ``"step"``, × 0.1 after one third and
            two thirds; ``"constant"``.
        clip: the gradient's norm is cut to this; ``None`` for no cutting.
        seed: of the initial weights (through :func:`load_or_train`) and of the order of the images.

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

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "seed"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError(f"{name} must be a whole number; got {value!r}.")
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
        if self.schedule not in get_args(Schedule):
            raise ValueError(f"schedule must be one of {', '.join(get_args(Schedule))}; got {self.schedule!r}.")


@dataclass
class History:
    """What happened, one entry an epoch, after it; all plain numbers, so it goes into JSON as it is.

    ``loss`` is the mean over the epoch's batches; the accuracies are of the network in eval mode after the epoch.
    ``terminal`` says whether the epoch belongs to the terminal phase of training, which begins when the training
    error first vanishes (Papyan, Han & Donoho 2020). ``monitors`` holds, per monitor, ``[epoch, value]`` pairs.
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


def train(
    model: nn.Module,
    data: ImageData,
    config: TrainConfig,
    *,
    monitors: Sequence[Monitor] = (),
    checkpoint: Checkpoint | None = None,
) -> History:
    """Train ``model`` in place on ``data.train_x``; it is left in eval mode.

    Before the first epoch, batch norm's running statistics are set from the training images. The training does not
    see them, but without them the untrained network of epoch 0 could not be measured: in eval mode it would not be
    normalised at all.

    The order of the images, and whatever a layer draws at random, depend on ``(config.seed, epoch)`` alone: a
    training that was killed and started again with the same ``checkpoint`` ends, on the same CPU, with the same
    weights bit for bit. torch's global generators are left as they were.

    Args:
        model: any classifier (n, c, h, w) → (n, C) on ``data``'s device.
        data: images and labels in memory.
        config: the recipe.
        monitors: measurements on the way; their values are kept in ``History.monitors``.
        checkpoint: where to keep the state; an existing file of the same recipe and data is continued.

    Returns:
        The history of all epochs, those before an interruption included.

    Raises:
        ValueError: model and data on different devices, or a checkpoint of another recipe, data set or network.
        FloatingPointError: the loss became NaN or infinite; the text says in which epoch.
        OSError: the checkpoint cannot be written or is damaged; the text names the file.
    """
    _check_devices(model, data)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=True,
    )
    history = History()
    recipe = asdict(config) | {"data": data.checksum()} if checkpoint is not None else {}
    if checkpoint is not None and Path(checkpoint.path).exists():
        history = _restore(Path(checkpoint.path), model, optimizer, recipe)
    else:
        _set_norm_statistics(model, data, config)
        _observe(model, data, monitors, history, 0, config.epochs)
        _keep(model, checkpoint, 0)
    first = history.epochs + 1
    for epoch in tqdm(range(first, config.epochs + 1), desc="train", unit="epoch", leave=False, delay=1):
        _train_epoch(model, data, optimizer, config, epoch, history)
        _evaluate(model, data, history)
        _observe(model, data, monitors, history, epoch, config.epochs)
        _keep(model, checkpoint, epoch)
        if checkpoint is not None and (epoch % checkpoint.every == 0 or epoch == config.epochs):
            _save(Path(checkpoint.path), model, optimizer, recipe, history)
    model.eval()
    return history


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor, *, chunk: int = 4096) -> float:
    """Share of the images (n, c, h, w) whose largest logit is that of their label (n,)."""
    hits = [(model(part).argmax(1) == want).sum() for part, want in zip(x.split(chunk), y.split(chunk), strict=True)]
    return float(torch.stack(hits).sum()) / len(y)


def learning_rate(config: TrainConfig, progress: float) -> float:
    """Learning rate when the share ``progress`` ∈ [0, 1) of all steps is done."""
    match config.schedule:
        case "one_cycle" if progress < WARM_UP:
            factor = progress / WARM_UP
        case "one_cycle":
            factor = (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2
        case "cosine":
            factor = (1 + math.cos(math.pi * progress)) / 2
        case "step":
            factor = 0.1 ** int(3 * progress)
        case _:
            factor = 1.0
    return config.lr * factor


def _train_epoch(
    model: nn.Module,
    data: ImageData,
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    epoch: int,
    history: History,
) -> None:
    model.train()
    x, y = data.train_x, data.train_y
    parameters = [p for p in model.parameters() if p.requires_grad]
    # Knuth's multiplier keeps the streams of (seed 0, epoch 1) and (seed 1, epoch 0) apart.
    with _drawing_from(config.seed * 2654435761 + epoch, x):
        order = torch.randperm(len(y)).to(x.device)  # drawn on the CPU: the same order on every device
        batches = order.tensor_split(math.ceil(len(y) / config.batch_size))
        total = torch.zeros((), device=x.device)
        for step, batch in enumerate(batches):
            rate = learning_rate(config, (epoch - 1 + (step + 0.5) / len(batches)) / config.epochs)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = F.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if config.clip is not None:
                nn.utils.clip_grad_norm_(parameters, config.clip, foreach=True)
            optimizer.step()
            total += loss.detach() * len(batch)
    mean = float(total) / len(y)
    if not math.isfinite(mean):
        raise FloatingPointError(
            f"The loss became {mean} in epoch {epoch} at learning rate {rate:.3g}. Expected a finite loss: lower lr "
            f"(now {config.lr:g}), set clip (now {config.clip}), or check the images for NaN."
        )
    history.loss.append(mean)
    history.lr.append(rate)


@contextmanager
def _drawing_from(seed: int, x: Tensor) -> Iterator[None]:
    """Seed torch's generators of the CPU and of x's device, and leave them all as they were."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if x.is_cuda else ()):
        # torch.manual_seed reseeds all GPUs, which fork_rng only gives back if it was told of them
        (torch.manual_seed if x.is_cuda else torch.default_generator.manual_seed)(seed % 2**63)
        yield


def _set_norm_statistics(model: nn.Module, data: ImageData, config: TrainConfig) -> None:
    with _drawing_from(config.seed, data.train_x):  # stochastic depth draws here too
        update_bn(data.train_x.tensor_split(math.ceil(len(data.train_x) / config.batch_size)), model)


def _evaluate(model: nn.Module, data: ImageData, history: History) -> None:
    model.eval()
    history.train_accuracy.append(accuracy(model, data.train_x, data.train_y))
    history.test_accuracy.append(accuracy(model, data.test_x, data.test_y))
    history.terminal.append(max(history.train_accuracy) == 1.0)


def _observe(
    model: nn.Module, data: ImageData, monitors: Sequence[Monitor], history: History, epoch: int, last: int
) -> None:
    model.eval()
    with torch.no_grad():
        for monitor in monitors:
            if monitor.due(epoch, last):
                history.monitors.setdefault(monitor.name, []).append([epoch, monitor.measure(model, data)])


def _check_devices(model: nn.Module, data: ImageData) -> None:
    devices = {parameter.device for parameter in model.parameters()}
    if devices - {data.train_x.device}:
        raise ValueError(
            f"Model and data must be on one device; the model is on {', '.join(map(str, devices))}, the data on "
            f"{data.train_x.device}. Call data.to(device) or model.to(device)."
        )


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a file beside ``path``, then rename it: a kill leaves the old file or the new, never half."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name}.{uuid4().hex}"  # not tempfile: its files are for one user alone
        try:
            write(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
        reason = getattr(error, "strerror", None) or error
        raise OSError(
            f"Cannot write {path}: {reason}. Give a folder that exists or can be made, and has room."
        ) from error


def write_weights(path: Path, model: nn.Module) -> None:
    """Write a model's state as safetensors, atomically."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_atomically(path, lambda file: save_file(tensors, file))


def _keep(model: nn.Module, checkpoint: Checkpoint | None, epoch: int) -> None:
    if checkpoint is not None and epoch in checkpoint.snapshots:
        write_weights(checkpoint.snapshot_path(epoch), model)


def _save(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, recipe: dict[str, Any], history: History
) -> None:
    tensors = {f"model.{name}": value.contiguous() for name, value in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        if state.get("momentum_buffer") is not None:
            tensors[f"momentum.{index}"] = state["momentum_buffer"].contiguous()
    metadata = {"recipe": json.dumps(recipe), "history": json.dumps(asdict(history))}
    metadata["sha256"] = _sha256(tensors, metadata)
    write_atomically(path, lambda file: save_file(tensors, file, metadata=metadata))


def _sha256(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    digest = hashlib.sha256((metadata["recipe"] + metadata["history"]).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, recipe: dict[str, Any]) -> History:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if metadata["sha256"] != _sha256(tensors, metadata):
            raise ValueError("its SHA-256 is not the one noted in it")
        saved, history = json.loads(metadata["recipe"]), History(**json.loads(metadata["history"]))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise OSError(
            f"Checkpoint {path} is damaged or not a checkpoint of this package ({error}). Delete it to start again."
        ) from error
    if saved != recipe:
        different = sorted(key for key, value in recipe.items() if saved.get(key) != value)
        raise ValueError(
            f"Checkpoint {path} was written by a training with other {', '.join(different)}. Give the recipe it was "
            "started with, another path, or delete it to start again."
        )
    weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"Checkpoint {path} belongs to another network: {error}") from error
    _restore_momentum(optimizer, tensors)
    return history


def _restore_momentum(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state = optimizer.state_dict()
    state["state"] = {
        int(name.removeprefix("momentum.")): {"momentum_buffer": value}
        for name, value in tensors.items()
        if name.startswith("momentum.")
    }
    optimizer.load_state_dict(state)
