"""The Residual Jacobians whose singular values are computed: blocks of convolutional networks on enlarged digits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import resalign_utils as ra

STRIDE_FROM = 16  # pixels from which on the stem halves the image
TRAINING_IMAGES = 512
SHORT_TRAINING = ra.TrainConfig(epochs=40, lr=0.1, momentum=0.9, weight_decay=1e-2)
NO_TRAINING = ra.TrainConfig(epochs=0)


@dataclass(frozen=True)
class State:
    """Shape of a network's state: its Residual Jacobians have side N = channels · side²."""

    channels: int
    side: int

    @property
    def size(self) -> int:
        """N."""
        return self.channels * self.side**2

    @property
    def pixels(self) -> int:
        """Side of the images that have states of this side after the stem."""
        return 2 * self.side if 2 * self.side >= STRIDE_FROM else self.side


STATES = {
    state.size: state
    for state in (
        State(4, 4),
        State(8, 4),
        State(4, 8),
        State(8, 8),
        State(16, 8),
        State(16, 14),
        State(16, 16),
        State(64, 16),
        State(64, 32),
        State(64, 64),
    )
}


@dataclass(frozen=True)
class Case:
    """One block's branch at one input, with what is compared against it.

    Attributes:
        label: what the tables call it.
        block: the residual block, float32, in eval mode.
        branch: the function whose Jacobian it is, (n, *in) → (n, *in).
        point: its input (1, *in).
    """

    label: str
    block: nn.Module
    branch: Callable[[Tensor], Tensor]
    point: Tensor

    @property
    def side(self) -> int:
        """N."""
        return self.point.numel()

    def open(self) -> ra.JacobianOperator:
        """J by its products, which are proved anew each time: part of every timing."""
        return ra.JacobianOperator(self.branch, self.point)

    def exact(self) -> Tensor:
        """J in float64 (m, d), of a copy of the block in float64."""
        alone = nn.Sequential(copy.deepcopy(self.block)).double()
        residual = ra.trace(alone, self.point.double()).residuals[0]
        return ra.dense_jacobians(residual.branch, residual.input)[0]


def digits(pixels: int, device: torch.device | str = "cpu") -> ra.ImageData:
    """The digits, enlarged to so many pixels; few enough for a training of seconds."""
    data = ra.load_data("digits")

    def enlarged(x: Tensor) -> Tensor:
        return F.interpolate(x, size=(pixels, pixels), mode="bilinear", align_corners=False)

    train_x, train_y = data.train_x[:TRAINING_IMAGES], data.train_y[:TRAINING_IMAGES]
    test_x, test_y = data.sample(per_class=7)
    name = f"digits, {pixels}×{pixels} pixels"
    large = ra.ImageData.from_tensors(enlarged(train_x), train_y, enlarged(test_x), test_y, name=name, num_classes=10)
    return large.to(device)


@cache
def network(
    size: int, depth: int, trained: bool = False, device: torch.device | str = "cpu"
) -> tuple[ra.ResNet, ra.ImageData]:
    """A network of blocks with N = size in eval mode, with batch norm's statistics set, and its data."""
    state = STATES[size]
    data = digits(state.pixels, device)
    model = ra.build_model(ra.ResNetConfig(kind="conv", depth=depth, width=state.channels), data, seed=0)
    ra.train(model, data, SHORT_TRAINING if trained else NO_TRAINING)
    return model.eval(), data


def case(size: int, *, trained: bool = False, device: torch.device | str = "cpu", depth: int = 4) -> Case:
    """The last of ``depth`` blocks at the first test image."""
    model, data = network(size, depth, trained, device)
    residual = ra.trace(model, data.test_x[:1]).residuals[-1]
    label = f"N = {size:,}, {'trained' if trained else 'untrained'}"
    return Case(label, model.blocks[-1], residual.branch, residual.input)


def warm_up(device: torch.device | str = "cpu") -> None:
    """Let torch load its differentiation rules and its linear algebra, on a tiny operator."""
    tiny = case(64, device=device, depth=1)
    for method in ("krylov", "dense"):
        ra.truncated_svd(tiny.open(), 2, method=method)
