"""From a configuration to a network with its initial weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ._blocks import ResidualBlock, ResNet
from ._config import ResNetConfig
from ._repvgg import RepVGGBlock

if TYPE_CHECKING:
    from ..data import ImageData

LARGE_IMAGE = 16  # pixels of the shorter side from which on the convolutional stem has stride 2


def build_model(config: ResNetConfig, data: ImageData, *, seed: int = 0) -> ResNet:
    """Build the network for ``data``'s image shape and classes, on ``data``'s device.

    Args:
        config: the architecture.
        data: gives the image shape (c, h, w), the number of classes C, the device and the dtype.
        seed: of the initial weights. They are drawn on the CPU, so they are the same for every device, and
            torch's global generator is left as it was.

    Returns:
        A module with ``.stem``, ``.blocks`` (L of them) and ``.head``, in train mode.

    Example:
        >>> import resalign_utils as ra
        >>> data = ra.load_data("digits")
        >>> model = ra.build_model(ra.ResNetConfig(depth=2, width=16), data)
        >>> model(data.train_x[:5]).shape
        torch.Size([5, 10])
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed every GPU as well
        model = _BUILDERS[config.kind](config, data.shape, data.num_classes)
    return model.to(device=data.train_x.device, dtype=data.train_x.dtype)


def _fully_connected(config: ResNetConfig, shape: tuple[int, int, int], classes: int) -> ResNet:
    stem = [nn.Flatten(), _layer(config, math.prod(shape), config.width, mirror="out")]
    return _assemble(config, stem, [], classes)


def _convolutional(config: ResNetConfig, shape: tuple[int, int, int], classes: int) -> ResNet:
    channels, *sides = shape
    kernel, stride = (3, 1) if config.kind == "cifar" else (5, 2 if min(sides) >= LARGE_IMAGE else 1)
    stem = [_layer(config, channels, config.width, mirror="out", kernel=kernel, stride=stride)]
    return _assemble(config, stem, [nn.AdaptiveAvgPool2d(1), nn.Flatten()], classes)


_BUILDERS: dict[str, Callable[[ResNetConfig, tuple[int, int, int], int], ResNet]] = {
    "fc": _fully_connected,
    "conv": _convolutional,
    "conv_down": _convolutional,
    "cifar": _convolutional,
    "repvgg": _convolutional,
}


def _assemble(config: ResNetConfig, first: Sequence[nn.Module], pool: Sequence[nn.Module], classes: int) -> ResNet:
    stem, head = [*first], [*pool]
    if config.activation == "post":
        stem += [*_norm(config, config.width), nn.ReLU()]
    else:
        head = [*_norm(config, config.widths[-1]), nn.ReLU(), *head]
    block = _repvgg_block if config.kind == "repvgg" else _block
    blocks = [block(config, index) for index in range(config.depth)]
    return ResNet(nn.Sequential(*stem), blocks, nn.Sequential(*head, _classifier(config, classes)))


def _block(config: ResNetConfig, index: int) -> ResidualBlock:
    skip = config.skip_factors[index]
    # linear rule of Huang et al. 2016, equation 4: p_ℓ = ℓ/L · p_L
    drop = config.stochastic_depth * (index + 1) / config.depth
    inputs, outputs = config.widths[index : index + 2]
    branch = _branch(config, inputs, outputs, skip)
    project = _projection(config, inputs, outputs) if skip and inputs != outputs else None
    return ResidualBlock(branch, skip, config.activation == "post", drop, project)


def _repvgg_block(config: ResNetConfig, index: int) -> RepVGGBlock:
    width = config.width
    three, one = (
        nn.Sequential(_layer(config, width, width, mirror="both", kernel=kernel), *_norm(config, width))
        for kernel in (3, 1)
    )
    return RepVGGBlock(three, one, nn.BatchNorm2d(width) if config.skip_factors[index] else None)


def _branch(config: ResNetConfig, inputs: int, outputs: int, skip: float) -> nn.Sequential:
    """Two layers; the order of norm and ReLU is what tells post- from pre-activation."""
    first = _layer(config, inputs, outputs, mirror="both", stride=1 if inputs == outputs else 2)
    second = _layer(config, outputs, outputs, mirror="both")
    if skip and not config.norm:
        with torch.no_grad():
            second.weight.mul_(config.depth**-0.5)
    if config.activation == "post":
        return nn.Sequential(first, *_norm(config, outputs), nn.ReLU(), second, *_norm(config, outputs))
    return nn.Sequential(*_norm(config, inputs), nn.ReLU(), first, *_norm(config, outputs), nn.ReLU(), second)


def _projection(config: ResNetConfig, inputs: int, outputs: int) -> nn.Sequential:
    """P of the block that downsamples: 1×1 and strided (He et al. 2016a, section 3.3, option B)."""
    convolution = nn.Conv2d(inputs, outputs, 1, 2, bias=False)
    _initialise(config, convolution, mirror="both")
    if config.activation == "post":
        return nn.Sequential(convolution, *_norm(config, outputs))
    if config.init == "looks_linear":
        with torch.no_grad():
            convolution.weight.mul_(0.5)  # the state is [z; −z] here, not [z⁺; z⁻]: [A, −A] would double it
    return nn.Sequential(convolution)


def _norm(config: ResNetConfig, width: int) -> list[nn.Module]:
    if not config.norm:
        return []
    return [nn.BatchNorm1d(width) if config.kind == "fc" else nn.BatchNorm2d(width)]


def _classifier(config: ResNetConfig, classes: int) -> nn.Linear:
    classifier = nn.Linear(config.widths[-1], classes, bias=not config.norm)
    _initialise(config, classifier, mirror="in")
    if classifier.bias is None:
        classifier.bias = nn.Parameter(torch.zeros(classes))  # no norm comes after it, so it keeps its bias
    return classifier


def _layer(
    config: ResNetConfig, inputs: int, outputs: int, *, mirror: str, kernel: int = 3, stride: int = 1
) -> nn.Linear | nn.Conv2d:
    """A linear layer, or a convolution that keeps the image's size up to its stride."""
    layer: nn.Linear | nn.Conv2d
    if config.kind == "fc":
        layer = nn.Linear(inputs, outputs, bias=not config.norm)
    else:
        layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=not config.norm)
    _initialise(config, layer, mirror)
    return layer


@torch.no_grad()
def _initialise(config: ResNetConfig, layer: nn.Linear | nn.Conv2d, mirror: str) -> None:
    if config.init == "kaiming":
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(layer, nn.Linear):
        _looks_linear_(layer.weight, mirror)
    else:  # delta-orthogonal: Xiao et al. 2018, section 3
        nn.init.zeros_(layer.weight)
        _looks_linear_(layer.weight[:, :, layer.kernel_size[0] // 2, layer.kernel_size[1] // 2], mirror)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


@torch.no_grad()
def _looks_linear_(weight: Tensor, mirror: str) -> None:
    """Fill ``weight`` (out, in) with A mirrored in its rows ("out"), its columns ("in") or "both".

    With A orthogonal and [A, −A; −A, A] in every layer, [z; −z] → ReLU → [z⁺; z⁻] → [Az; −Az]: the ReLU network
    starts as the linear map z ↦ Az (Balduzzi et al. 2017, section 4).
    """
    rows = weight.shape[0] // (2 if mirror in ("out", "both") else 1)
    columns = weight.shape[1] // (2 if mirror in ("in", "both") else 1)
    a = nn.init.orthogonal_(weight.new_empty(rows, columns))
    if mirror in ("in", "both"):
        a = torch.cat([a, -a], dim=1)
    if mirror in ("out", "both"):
        a = torch.cat([a, -a], dim=0)
    weight.copy_(a)
