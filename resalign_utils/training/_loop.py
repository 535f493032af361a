"""The loop."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from tqdm import tqdm

from ._checkpoints import keep_snapshot, restore_checkpoint, save_checkpoint
from ._config import Checkpoint, History, Objective, Observer, Regularizer, TrainConfig
from ._threads import threads_for

if TYPE_CHECKING:
    from ..data import ImageData

WARM_UP = 0.1  # share of the steps in which "one_cycle" raises the learning rate from zero to its maximum


def train(
    model: nn.Module,
    data: ImageData,
    config: TrainConfig,
    *,
    monitors: Sequence[Observer] = (),
    checkpoint: Checkpoint | None = None,
    regularizer: Regularizer | None = None,
    objective: Objective | None = None,
) -> History:
    """Train ``model`` in place on ``data.train_x``; it is left in eval mode.

    Before the first epoch, the running statistics of a batch norm that has seen no batch are set from the training
    images. The training does not see them, but without them the untrained network of epoch 0 could not be measured:
    in eval mode it would not be normalised at all.

    The order of the images, and whatever a layer draws at random, depend on ``(config.seed, epoch)`` alone: a
    training that was killed and started again with the same ``checkpoint`` ends, on the same CPU, with the same
    weights bit for bit. torch's global generators are left as they were, and so is its number of threads: on a CPU,
    a network whose steps are small trains on one thread, which is faster wherever something else runs.

    Args:
        model: any classifier (n, c, h, w) → (n, C) on ``data``'s device.
        data: images and labels in memory.
        config: the recipe.
        monitors: measurements on the way, each a :class:`Monitor` or an :class:`AlignmentMonitor` of this model; their
            values are kept in ``History.monitors``.
        checkpoint: where to keep the state; an existing file of the same recipe and data is continued.
        regularizer: adds to the loss and acts after each step. What it must remember belongs into buffers of
            ``model``, and what it was configured with into its ``recipe``: both are kept with the checkpoint.
        objective: the loss of a batch, in place of the cross-entropy of the model's logits; ``History.loss`` is then
            its mean. What it draws from torch's generators depends on ``(config.seed, epoch)`` alone, as everything
            else; its ``recipe`` is kept with the checkpoint.

    Returns:
        The history of all epochs, those before an interruption included.

    Raises:
        ValueError: model and data on different devices, logits that are not (n, C) or have no place for a label, a
            checkpoint of another recipe, data set or network, two monitors of one name.
        TypeError: a monitor returned what JSON cannot hold.
        FloatingPointError: the loss became NaN or infinite, or the logits NaN; the text says in which epoch.
        OSError: the checkpoint cannot be written or is damaged; the text names the file.

    Example:
        >>> import resalign_utils as ra
        >>> data = ra.load_data("digits")
        >>> model = ra.build_model(ra.ResNetConfig(depth=2, width=32), data)
        >>> history = ra.train(model, data, ra.TrainConfig(epochs=10, batch_size=32))
        >>> history.test_accuracy[-1] > 0.8
        True
    """
    _check_devices(model, data)
    if len({monitor.name for monitor in monitors}) < len(monitors):
        names = ", ".join(monitor.name for monitor in monitors)
        raise ValueError(f"Expected monitors of different names, for their values are kept by name; got {names}.")
    _check_model(model, data)
    optimizer = _optimizer(model, config)
    history = History()
    recipe = asdict(config) | {"data": data.checksum()} if checkpoint is not None else {}
    if regularizer is not None:
        recipe |= {"regularizer": regularizer.recipe}
    if objective is not None:
        recipe |= {"objective": objective.recipe}
    with threads_for(model, data, config.batch_size):
        if checkpoint is not None and Path(checkpoint.path).exists():
            history = restore_checkpoint(Path(checkpoint.path), model, optimizer, recipe)
        else:
            _set_norm_statistics(model, data, config)
            _observe(model, data, monitors, history, 0, config.epochs)
            keep_snapshot(model, checkpoint, 0)
        first = history.epochs + 1
        for epoch in tqdm(range(first, config.epochs + 1), desc="train", unit="epoch", leave=False, delay=1):
            _train_epoch(model, data, optimizer, config, epoch, history, regularizer, objective)
            _evaluate(model, data, config, epoch, history)
            _observe(model, data, monitors, history, epoch, config.epochs)
            keep_snapshot(model, checkpoint, epoch)
            if checkpoint is not None and (epoch % checkpoint.every == 0 or epoch == config.epochs):
                save_checkpoint(Path(checkpoint.path), model, optimizer, recipe, history)
    model.eval()
    return history


def _optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    common: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": True}
    weights, slopes = _weights_and_slopes(model)
    groups: list[dict[str, Any]] = [{"params": weights}]
    if slopes:  # decay would pull every slope towards the ReLU (He et al. 2015, section 2.1)
        groups.append({"params": slopes, "weight_decay": 0.0})
    match config.optimizer:
        case "adam":
            return torch.optim.Adam(groups, **common)
        case "adamw":
            return torch.optim.AdamW(groups, **common)
        case _:
            return torch.optim.SGD(groups, momentum=config.momentum, **common)


def _weights_and_slopes(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    known = {id(module.weight) for module in model.modules() if isinstance(module, nn.PReLU)}
    every = [*model.parameters()]  # each once, also one that several modules share
    return [p for p in every if id(p) not in known], [p for p in every if id(p) in known]


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor, *, chunk: int = 512) -> float:
    """Share of the images whose largest logit is that of their label, with the model in eval mode.

    Args:
        model: any classifier (n, ...) → (n, C); each of its modules is left in the mode it was in.
        x: inputs (n, ...), on the model's device.
        y: labels (n,), integers in 0..C−1, on the same device.
        chunk: number of inputs that pass at a time.

    Raises:
        ValueError: not as many labels as inputs, none, of another type or outside 0..C−1; logits that are not
            (n, C); a chunk below 1.
        FloatingPointError: the logits hold NaN.
    """
    _check_labels(x, y, chunk)
    hits = torch.zeros((), dtype=torch.int64, device=x.device)
    with _in_eval_mode(model):
        for part, want in zip(x.split(chunk), y.split(chunk), strict=True):
            logits = model(part)
            _check_logits(logits, len(want), want)
            if logits.isnan().any():
                raise FloatingPointError(
                    "The logits hold NaN, so none is the largest. Look for NaN in the images and the weights."
                )
            hits += (logits.argmax(1) == want).sum()
    return float(hits) / len(y)


def _check_labels(x: Tensor, y: Tensor, chunk: int) -> None:
    for name, value in (("x", x), ("y", y)):
        if not isinstance(value, Tensor):
            raise ValueError(f"Expected {name} as a torch tensor; got {type(value).__name__}. Use torch.as_tensor.")
    if y.shape != x.shape[:1] or len(y) == 0 or y.dtype.is_floating_point or y.dtype == torch.bool:
        raise ValueError(
            f"Expected labels ({len(x)},) of integers, one an input and at least one; got {tuple(y.shape)} of "
            f"{y.dtype}."
        )
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1; got {chunk}.")


def _check_logits(logits: Tensor, n: int, y: Tensor) -> None:
    """Refuse what is not (n, C), with a place for every label of ``y``."""
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != n:
        came = str(tuple(logits.shape)) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"Expected a model that gives one tensor of logits ({n}, C) for {n} inputs; got {came}.")
    classes = logits.shape[1]
    if y.min() < 0 or y.max() >= classes:
        came = f"{int(y.min())}..{int(y.max())}"
        raise ValueError(f"Labels must lie in 0..{classes - 1}, for the model has {classes} logits; got {came}.")


@contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


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
    regularizer: Regularizer | None = None,
    objective: Objective | None = None,
) -> None:
    model.train()
    x, y, loss_of = data.train_x, data.train_y, objective or _cross_entropy
    parameters = [p for p in _weights_and_slopes(model)[0] if p.requires_grad]
    # Knuth's multiplier keeps the streams of (seed 0, epoch 1) and (seed 1, epoch 0) apart.
    with _drawing_from(config.seed * 2654435761 + epoch, x):
        order = torch.randperm(len(y)).to(x.device)  # drawn on the CPU: the same order on every device
        batches = order.tensor_split(math.ceil(len(y) / config.batch_size))
        total = torch.zeros((), device=x.device)
        for step, batch in enumerate(batches):
            progress = (epoch - 1 + (step + 0.5) / len(batches)) / config.epochs
            rate = learning_rate(config, progress)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = loss_of(model, x[batch], y[batch])
            optimizer.zero_grad(set_to_none=True)
            (loss if regularizer is None else loss + regularizer.penalty(progress)).backward()
            if config.clip is not None:
                nn.utils.clip_grad_norm_(parameters, config.clip, foreach=True)
            optimizer.step()
            if regularizer is not None:
                regularizer.after_step(progress)
            total += loss.detach() * len(batch)
    mean = float(total) / len(y)
    if not math.isfinite(mean):
        raise _diverged(f"The loss became {mean}", epoch, rate, config)
    history.loss.append(mean)
    history.lr.append(rate)


def _cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x), y)


def _diverged(what: str, epoch: int, rate: float, config: TrainConfig) -> FloatingPointError:
    return FloatingPointError(
        f"{what} in epoch {epoch} at learning rate {rate:.3g}. Expected finite numbers: lower lr (now {config.lr:g}), "
        f"set clip (now {config.clip}), or check the images for NaN."
    )


@contextmanager
def _drawing_from(seed: int, x: Tensor) -> Iterator[None]:
    """Seed torch's generators of the CPU and of x's device, and leave them all as they were."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if x.is_cuda else ()):
        # torch.manual_seed reseeds all GPUs, which fork_rng only gives back if it was told of them
        (torch.manual_seed if x.is_cuda else torch.default_generator.manual_seed)(seed % 2**63)
        yield


def _set_norm_statistics(model: nn.Module, data: ImageData, config: TrainConfig) -> None:
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if any(norm.num_batches_tracked for norm in norms):  # of a network that was trained before
        return
    with _drawing_from(config.seed, data.train_x):  # stochastic depth draws here too
        update_bn(data.train_x.tensor_split(math.ceil(len(data.train_x) / config.batch_size)), model)


def _evaluate(model: nn.Module, data: ImageData, config: TrainConfig, epoch: int, history: History) -> None:
    try:
        history.train_accuracy.append(accuracy(model, data.train_x, data.train_y))
        history.test_accuracy.append(accuracy(model, data.test_x, data.test_y))
    except FloatingPointError as error:
        raise _diverged("The logits became NaN", epoch, history.lr[-1], config) from error
    history.terminal.append(max(history.train_accuracy) == 1.0)


def _observe(
    model: nn.Module, data: ImageData, monitors: Sequence[Observer], history: History, epoch: int, last: int
) -> None:
    model.eval()
    with torch.no_grad():
        for monitor in monitors:
            if monitor.due(epoch, last):
                value = monitor.measure(model, data)
                _check_plain(monitor.name, value)
                history.monitors.setdefault(monitor.name, []).append([epoch, value])


def _check_plain(name: str, value: Any) -> None:
    """Refuse now what no checkpoint could hold later."""
    try:
        json.dumps(value)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"Monitor '{name}' returned a {type(value).__name__} that JSON cannot hold ({error}). Return numbers, "
            "text, lists or dictionaries of them, as float(value) or value.tolist() are."
        ) from error


def _check_model(model: nn.Module, data: ImageData) -> None:
    """Let one image pass, in eval mode and so without a trace, before hours of training."""
    with torch.no_grad(), _in_eval_mode(model):
        _check_logits(model(data.train_x[:1]), 1, data.train_y)


def _check_devices(model: nn.Module, data: ImageData) -> None:
    devices = {parameter.device for parameter in model.parameters()}
    if devices - {data.train_x.device}:
        raise ValueError(
            f"Model and data must be on one device; the model is on {', '.join(map(str, devices))}, the data on "
            f"{data.train_x.device}. Call data.to(device) or model.to(device)."
        )
