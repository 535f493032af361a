"""Post-training: let a penalty make the units of a trained network linear, and train on."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..training import Checkpoint, History, Monitor, TrainConfig, accuracy, train
from ._paths import average_path_length, slope_weights
from ._walk import walk

if TYPE_CHECKING:
    from ..data import ImageData

Ramp = Literal["constant", "linear", "steered"]
DOUBLING = 0.03  # share of all steps in which steering doubles ω, or halves it
ROUNDING = 1e-9  # of sums of path lengths


@dataclass(frozen=True)
class LinearizationConfig:
    """How a network is post-trained: cross-entropy + ω · mean over all units of |1 − α|^½.

    A unit is a slope: a channel, or with layer-wise slopes a layer. The mean lets ω be compared across networks and
    granularities; Mehmeti-Göpel & Wand (2025) write the sum, so their ω is this one divided by the number of units.
    The penalty is infinitely steep at α = 1. A slope that comes within ``tolerance`` of 1, or passes 1 in a step, is
    frozen there: its unit is linear for good. Weights and batch norm keep training.

    Args:
        omega: ω; with ``"steered"`` the value it starts from.
        ramp: ``"constant"``; ``"linear"``, growing from 0 to ω over the training; ``"steered"``: the permitted
            path length falls in equal steps to ``target``, only the units that are nearest to 1 and may become linear
            now are penalised, and ω is raised while there are such units and lowered while there are none.
        target: the average path length (NAPL) at which linearising stops, also with the other ramps: no slope is
            frozen that would bring it below, and where every further one would, ω is 0 from then on. ``"steered"``
            needs it.
        steer: share of the training in which ``"steered"`` goes down to the target; the rest trains what remains.
        tolerance: slopes closer to 1 than this are frozen.
        train: recipe of the post-training. Slopes have neither weight decay nor clipping.

    Raises:
        ValueError: for a value outside its range; the text says which and what is allowed.
    """

    omega: float = 1.0
    ramp: Ramp = "constant"
    target: float | None = None
    steer: float = 0.5
    tolerance: float = 0.01
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=10, lr=0.02, momentum=0.9, weight_decay=5e-4))

    def __post_init__(self) -> None:
        if self.ramp not in get_args(Ramp):
            raise ValueError(f"ramp must be one of {', '.join(map(repr, get_args(Ramp)))}; got {self.ramp!r}.")
        if not (self.omega >= 0 and math.isfinite(self.omega)):
            raise ValueError(f"omega must be at least 0 and finite; got {self.omega!r}.")
        if self.ramp == "steered" and (self.target is None or self.omega == 0):
            raise ValueError(
                f"ramp='steered' needs a target NAPL and a positive omega to start from; got target={self.target!r}, "
                f"omega={self.omega!r}."
            )
        if self.target is not None and not self.target >= 0:
            raise ValueError(f"target must be at least 0, or None; got {self.target!r}.")
        for name in ("steer", "tolerance"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in (0, 1]; got {getattr(self, name)!r}.")


@dataclass
class LinearizationHistory:
    """What happened, one entry an epoch, from epoch 0, before the post-training.

    Attributes:
        napl: average path length (epochs+1,).
        accuracy: test accuracy (epochs+1,).
        omega: ω as it was after the epoch (epochs+1,).
        slopes: for every PReLU, by name, its slopes (epochs+1 lists).
        history: loss and accuracies, as of any training.
    """

    napl: list[float]
    accuracy: list[float]
    omega: list[float]
    slopes: list[dict[str, list[float]]]
    history: History

    @property
    def linear_share(self) -> list[dict[str, float]]:
        """Share of linear units in every PReLU, by name (epochs+1 entries)."""
        return [
            {name: sum(slope == 1.0 for slope in layer) / len(layer) for name, layer in epoch.items()}
            for epoch in self.slopes
        ]


def post_train(
    model: nn.Module,
    data: ImageData,
    config: LinearizationConfig,
    *,
    keep: Collection[str] = (),
    checkpoint: Checkpoint | None = None,
) -> LinearizationHistory:
    """Train a linearised copy in place, with the penalty that makes its units linear; it is left in eval mode.

    Args:
        model: what :func:`linearize` returned, (n, c, h, w) → (n, C), on ``data``'s device. Its slopes that are
            exactly 1 stay linear.
        data: images and labels in memory.
        config: penalty and recipe.
        keep: names of PReLUs, as ``model.named_modules()`` has them, that stay nonlinear: their slopes are trained by
            the loss alone. To keep one chosen layer, linearise layer-wise to the NAPL that it adds.
        checkpoint: where to keep the state; an interrupted post-training of the same recipe is continued, and ends
            on the same CPU with the same weights.

    Returns:
        NAPL, accuracy, ω and slopes per epoch.

    Raises:
        ValueError: the model has no PReLU on the way to its output, or none of a name in ``keep``; or as
            :func:`train` does.
        FloatingPointError: the loss became NaN or infinite.
        OSError: the checkpoint cannot be written or is damaged.
    """
    wrapped = _Penalised(model, data, config, keep)

    def monitor(name: str, measure: Callable[[], Any], epochs: tuple[int, ...] | None = None) -> Monitor:
        return Monitor(name, lambda *_: measure(), epochs=epochs)

    monitors = [
        monitor("napl", lambda: wrapped.napl),
        monitor("omega", lambda: float(wrapped.omega)),
        monitor("slopes", wrapped.slopes_by_name),
        monitor("accuracy", lambda: accuracy(model, data.test_x, data.test_y), epochs=(0,)),
    ]
    history = train(wrapped, data, config.train, monitors=monitors, checkpoint=checkpoint, regularizer=wrapped)
    kept = {name: [value for _, value in history.monitors.pop(name)] for name in [m.name for m in monitors]}
    return LinearizationHistory(
        napl=kept["napl"],
        accuracy=kept["accuracy"] + history.test_accuracy,
        omega=kept["omega"],
        slopes=kept["slopes"],
        history=history,
    )


class _Penalised(nn.Module):
    """The model, with what steers its slopes; ω is a buffer, so that a checkpoint keeps it."""

    omega: Tensor

    def __init__(
        self, model: nn.Module, data: ImageData, config: LinearizationConfig, keep: Collection[str] = ()
    ) -> None:
        super().__init__()
        weights = slope_weights(model, data.train_x[:1])
        if not weights:
            raise ValueError(
                f"{type(model).__name__} has no PReLU between input and output. Call linearize(model) first and "
                "post-train what it returns."
            )
        self.model, self.config = model, config
        steps = config.train.epochs * math.ceil(len(data.train_y) / config.train.batch_size)
        self.pace = 2 ** (1 / max(1.0, DOUBLING * steps))
        prelus = {name: module for name, module in model.named_modules() if isinstance(module, nn.PReLU)}
        self.layers: dict[str, Tensor] = {name: prelus[name].weight for name in weights}
        self.quanta = torch.cat([*weights.values()])  # (units,), what each adds to NAPL, on the CPU
        self.keep = _known(keep, weights)
        self.kept = torch.cat([torch.full((len(part),), name in self.keep) for name, part in weights.items()])
        self.linear = self._linear()
        self.start = average_path_length(model, data.train_x[:1])
        linear = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        self.others = float(walk(model, data.train_x[:1], exact=False, units=linear)[1])  # what is no PReLU
        self.register_buffer("omega", torch.tensor(config.omega, dtype=torch.float64, device=data.train_x.device))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits

    @property
    def recipe(self) -> dict[str, Any]:
        penalty = {key: value for key, value in asdict(self.config).items() if key != "train"}
        return penalty | ({"keep": self.keep} if self.keep else {})

    @property
    def napl(self) -> float:
        return self._napl(self._linear())

    def slopes_by_name(self) -> dict[str, list[float]]:
        return {name: [float(f"{value:.6g}") for value in layer.tolist()] for name, layer in self.layers.items()}

    def penalty(self, progress: float) -> Tensor:
        """ω · mean |1 − α|^½; linear units add nothing, and have no gradient there."""
        slopes = torch.cat([*self.layers.values()])
        self.linear = self._linear()  # these are put back after the step, whatever momentum does to them
        pushed = ~self.linear & ~self.kept
        if self.config.ramp == "steered":
            pushed = self._allowed(pushed, slopes.detach().cpu(), progress)
        omega = float(self.omega) * (progress if self.config.ramp == "linear" else 1.0)
        return omega * (1 - slopes[pushed.to(slopes.device)]).abs().sqrt().sum() / len(slopes)

    def _floor(self, progress: float) -> float:
        """The lowest NAPL that is allowed now; when steering, it falls in equal steps to the target."""
        if self.config.target is None:
            return 0.0
        left = max(0.0, 1 - progress / self.config.steer) if self.config.ramp == "steered" else 0.0
        return self.config.target + (self.start - self.config.target) * left

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        slopes = torch.cat([layer.detach().cpu() for layer in self.layers.values()])
        near = ~self.linear & ~self.kept & (((slopes - 1).abs() < self.config.tolerance) | (slopes > 1))
        linear = self.linear | self._allowed(near, slopes, progress)
        sizes = [len(layer) for layer in self.layers.values()]
        for layer, part in zip(self.layers.values(), linear.split(sizes), strict=True):
            layer[part.to(layer.device)] = 1.0
        if self.config.target is not None and not self._has_room(linear, self.config.target):
            self.omega.zero_()
        elif self.config.ramp == "steered":
            self.omega.mul_(self.pace if self._has_room(linear, self._floor(progress)) else 1 / self.pace)

    def _allowed(self, units: Tensor, slopes: Tensor, progress: float) -> Tensor:
        """Which of some units may become linear now: those nearest to it first, none that leads below the floor.

        On the way to the target the nearest is waited for, also where one inside a branch, which counts half, would
        fit already: else the branches would be emptied first, whatever the loss says.
        """
        floor = self._floor(progress)
        room = self._napl(self.linear) - floor + ROUNDING
        allowed = torch.zeros_like(units)
        distance = (slopes - 1).abs().masked_fill(~units, math.inf)
        for unit in distance.argsort(stable=True)[: int(units.sum())].tolist():
            if self.quanta[unit] <= room:
                allowed[unit] = True
                room -= float(self.quanta[unit])
            elif floor > (self.config.target or 0.0):
                break
        return allowed

    def _has_room(self, linear: Tensor, floor: float) -> bool:
        """Whether one more unit may become linear without leading NAPL below the floor."""
        left = self.quanta[~linear & ~self.kept]
        return len(left) > 0 and float(left.min()) <= self._napl(linear) - floor + ROUNDING

    def _napl(self, linear: Tensor) -> float:
        return self.others + float(self.quanta[~linear].sum())

    def _linear(self) -> Tensor:
        return torch.cat([layer.detach().cpu() for layer in self.layers.values()]) == 1


def _known(keep: Collection[str], weights: Mapping[str, Tensor]) -> list[str]:
    """The names of PReLUs to be kept, in order."""
    names = [keep] if isinstance(keep, str) else sorted(set(keep))
    if unknown := [name for name in names if name not in weights]:
        raise ValueError(
            f"keep must name PReLUs between input and output; got {', '.join(map(repr, unknown))}. There are "
            f"{', '.join(map(repr, weights))}."
        )
    return names
