"""The networks of the book: residual ones, and their twins without skips.

A network is ``stem → blocks → head``. Block ``ℓ = 1..L`` maps ``h_{ℓ−1}`` to
``h_ℓ = σ(λ_ℓ h_{ℓ−1} + F_ℓ(h_{ℓ−1}))`` with a two-layer branch ``F_ℓ``, a skip factor ``λ_ℓ`` and an outer activation
``σ`` (ReLU for ``activation="post"``, the identity for ``activation="pre"``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from .data import ImageData

Kind = Literal["fc"]
Activation = Literal["post", "pre"]
Init = Literal["kaiming", "looks_linear"]


@dataclass(frozen=True)
class ResNetConfig:
    """What a network looks like; everything but the image shape, the number of classes and the seed.

    Args:
        kind: ``"fc"``, fully-connected with constant width.
        depth: number of blocks L, each of two layers.
        width: number of units of every state ``h_ℓ``.
        skip: ``True`` or ``False`` for all blocks, one factor λ, or one factor per block. λ scales the skip
            path only, never the branch and so never its Jacobian.
        activation: ``"post"``, ``h ← ReLU(λh + F(h))`` with ``F = [BN] W₂ ReLU [BN] W₁`` (He et al. 2016a, the
            kind that Li & Papyan 2023 study); ``"pre"``, ``h ← λh + F(h)`` with
            ``F = W₂ ReLU [BN] W₁ ReLU [BN]`` (He et al. 2016b).
        norm: batch norm after (post) or before (pre) each linear layer; linear layers have a bias only without it.
        stochastic_depth: probability of dropping the last block's branch in training; it grows linearly
            from ``1/L`` of it at the first block (Huang et al. 2016).
        init: ``"kaiming"``, normal with fan-out (He et al. 2015); ``"looks_linear"``, orthogonal mirrored weights with
            which a ReLU network starts as a linear isometry (Balduzzi et al. 2017); trains without skips and without
            norm at 64 blocks, and needs an even width. With either, a block that has a skip and no norm has its second
            layer × 1/√L, so that the state's size does not grow with depth (Zhang et al. 2019).

    Raises:
        ValueError: for a value outside the ranges above; the text says which and what is allowed.
    """

    depth: int
    width: int
    kind: Kind = "fc"
    skip: bool | float | tuple[float, ...] = True
    activation: Activation = "post"
    norm: bool = True
    stochastic_depth: float = 0.0
    init: Init = "kaiming"

    def __post_init__(self) -> None:
        for field, allowed in (("kind", Kind), ("activation", Activation), ("init", Init)):
            value, names = getattr(self, field), get_args(allowed)
            if value not in names:
                raise ValueError(f"{field} must be one of {', '.join(map(repr, names))}; got {value!r}.")
        for field in ("depth", "width"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{field} must be a whole number of at least 1; got {value!r}.")
        if not 0.0 <= self.stochastic_depth < 1.0:
            raise ValueError(f"stochastic_depth must lie in [0, 1); got {self.stochastic_depth!r}.")
        if self.init == "looks_linear" and self.width % 2:
            raise ValueError(f"init='looks_linear' mirrors its units and needs an even width; got {self.width}.")
        if isinstance(self.skip, Sequence):
            object.__setattr__(self, "skip", tuple(float(factor) for factor in self.skip))
            if len(self.skip_factors) != self.depth:
                raise ValueError(f"skip has {len(self.skip_factors)} factors; depth={self.depth} needs as many.")
        if not all(map(math.isfinite, self.skip_factors)):
            raise ValueError(f"skip must be True, False or finite factors; got {self.skip!r}.")

    @property
    def skip_factors(self) -> tuple[float, ...]:
        """λ_1..λ_L: 1.0 for a full skip, 0.0 for none."""
        return self.skip if isinstance(self.skip, tuple) else (float(self.skip),) * self.depth


class ResidualBlock(nn.Module):
    """``h ↦ σ(λh + F(h))``: ``branch`` is F, ``skip`` is λ, ``post`` says whether σ is ReLU or the identity."""

    def __init__(self, branch: nn.Module, skip: float, post: bool, drop: float = 0.0) -> None:
        super().__init__()
        self.branch, self.skip, self.post, self.drop = branch, skip, post, drop

    def merge(self, h: Tensor, f: Tensor) -> Tensor:
        """``λh + f`` (n, *out), what the outer activation is applied to."""
        return f if self.skip == 0.0 else h + f if self.skip == 1.0 else self.skip * h + f

    def forward(self, h: Tensor) -> Tensor:
        """Map h_{ℓ−1} (n, *in) to h_ℓ (n, *out)."""
        f = self.branch(h)
        if self.drop and self.training:
            from torchvision.ops import stochastic_depth

            f = stochastic_depth(f, self.drop, mode="row")
        z = self.merge(h, f)
        return torch.relu(z) if self.post else z

    def extra_repr(self) -> str:
        """Show the skip factor and the outer activation in ``print(model)``."""
        return f"skip={self.skip:g}, outer={'relu' if self.post else 'identity'}"


class ResNet(nn.Module):
    """``stem → blocks → head``; ``stem(x)`` is h_0, the states never include the classifier."""

    def __init__(self, stem: nn.Module, blocks: Sequence[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = stem, nn.ModuleList(blocks), head

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, c, h, w) to logits (n, C)."""
        h = self.stem(x)
        for block in self.blocks:
            h = block(h)
        return self.head(h)


def build_model(config: ResNetConfig, data: ImageData, *, seed: int = 0) -> ResNet:
    """Build the network for ``data``'s image shape and classes, on ``data``'s device.

    Args:
        config: the architecture.
        data: gives the image shape (c, h, w), the number of classes C, the device and the dtype.
        seed: of the initial weights. They are drawn on the CPU, so they are the same for every device, and
            torch's global generator is left as it was.

    Returns:
        A module with ``.stem``, ``.blocks`` (L of them) and ``.head``, in train mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed every GPU as well
        model = _BUILDERS[config.kind](config, data.train_x[0].numel(), data.num_classes)
    return model.to(device=data.train_x.device, dtype=data.train_x.dtype)


def _fully_connected(config: ResNetConfig, inputs: int, classes: int) -> ResNet:
    width, post = config.width, config.activation == "post"
    make = _layer_maker(config)
    stem = [nn.Flatten(), make(inputs, width, mirror="out")]
    if post:
        stem += [*_norm(config), nn.ReLU()]
    blocks = [
        ResidualBlock(_branch(config, make, skip), skip, post, drop)
        for skip, drop in zip(config.skip_factors, _drop_rates(config), strict=True)
    ]
    head = [] if post else [*_norm(config), nn.ReLU()]
    return ResNet(nn.Sequential(*stem), blocks, nn.Sequential(*head, _head(config, make, classes)))


_BUILDERS: dict[str, Callable[[ResNetConfig, int, int], ResNet]] = {"fc": _fully_connected}


def _branch(config: ResNetConfig, make: Callable[..., nn.Linear], skip: float) -> nn.Sequential:
    """Two layers; the order of norm and ReLU is what tells post- from pre-activation."""
    first, second = (make(config.width, config.width, mirror="both") for _ in range(2))
    if skip and not config.norm:
        with torch.no_grad():
            second.weight.mul_(config.depth**-0.5)
    if config.activation == "post":
        return nn.Sequential(first, *_norm(config), nn.ReLU(), second, *_norm(config))
    return nn.Sequential(*_norm(config), nn.ReLU(), first, *_norm(config), nn.ReLU(), second)


def _norm(config: ResNetConfig) -> list[nn.Module]:
    return [nn.BatchNorm1d(config.width)] if config.norm else []


def _drop_rates(config: ResNetConfig) -> list[float]:
    """Linear rule of Huang et al. 2016, equation 4: p_ℓ = ℓ/L · p_L."""
    return [config.stochastic_depth * (block + 1) / config.depth for block in range(config.depth)]


def _head(config: ResNetConfig, make: Callable[..., nn.Linear], classes: int) -> nn.Linear:
    head = make(config.width, classes, mirror="in")
    if head.bias is None:
        head.bias = nn.Parameter(torch.zeros(classes))  # the classifier has no norm after it, so it keeps its bias
    return head


def _layer_maker(config: ResNetConfig) -> Callable[..., nn.Linear]:
    def make(inputs: int, outputs: int, mirror: str) -> nn.Linear:
        layer = nn.Linear(inputs, outputs, bias=not config.norm)
        if config.init == "looks_linear":
            _looks_linear_(layer.weight, mirror)
        else:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        return layer

    return make


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
