"""What a network looks like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["fc", "conv", "conv_down", "cifar", "repvgg"]
Activation = Literal["post", "pre"]
Init = Literal["kaiming", "looks_linear"]


@dataclass(frozen=True)
class ResNetConfig:
    """What a network looks like; everything but the image shape, the number of classes and the seed.

    Args:
        kind: ``"fc"``, fully-connected with states of constant width; ``"conv"``, 3×3 convolutions with states of
            constant shape; ``"conv_down"``, the same, but block ``depth // 2``, counted from 0, halves the resolution
            (rounded up) and doubles the channels, and so do the states after it; its skip is a 1×1 convolution P of
            stride 2, with batch norm in post-activation (He et al. 2016a, option B); ``"cifar"``, three stages of
            ``depth / 3`` blocks, of which the second and the third begin with such a block: ResNet-20 is ``depth=9,
            width=16``, ResNet-56 ``depth=27`` (He et al. 2016a, section 4.2, there with option A); ``"repvgg"``, one
            3×3 convolution per block with states of constant shape, ``h ← ReLU(BN(3×3 h) + BN(1×1 h) + BN(h))``, which
            is a plain stack of ``depth + 1`` ReLU layers once its branches are merged (Ding et al. 2021;
            ``resalign_utils.fold``). The convolutional stem is 5×5, of stride 2 if the image's shorter side has at
            least 16 pixels, else 1, and 3×3 of stride 1 in ``"cifar"``; their head averages over the image.
        depth: number of blocks L, each of two layers, or of one in ``"repvgg"``; ``"conv_down"`` needs two of them,
            ``"cifar"`` a multiple of three.
        width: number of units, or of channels, of the state ``h_0``, and of every ``h_ℓ`` before the first block that
            doubles it.
        skip: ``True`` or ``False`` for all blocks, one factor λ, or one factor per block. λ scales the skip
            path only, never the branch and so never its Jacobian; where it is 0 there is no P. ``"repvgg"`` has the
            branch BN(h) where it is 1, and not where it is 0; it knows no other factor, and no other value than the
            default of what follows.
        activation: ``"post"``, ``h ← ReLU(λPh + F(h))`` with ``F = [BN] W₂ ReLU [BN] W₁`` (He et al. 2016a, the
            kind that Li & Papyan 2023 study); ``"pre"``, ``h ← λPh + F(h)`` with
            ``F = W₂ ReLU [BN] W₁ ReLU [BN]`` (He et al. 2016b).
        norm: batch norm after (post) or before (pre) each linear layer or convolution of stem and branches; these have
            a bias only without it, P never: the branch has one.
        stochastic_depth: probability of dropping the last block's branch in training; it grows linearly
            from ``1/L`` of it at the first block (Huang et al. 2016).
        init: ``"kaiming"``, normal with fan-out (He et al. 2015); ``"looks_linear"``, orthogonal mirrored weights with
            which a ReLU network starts as a linear map, an isometry where the width allows it (Balduzzi et al. 2017);
            trains without skips and without norm at 64 fully-connected blocks, and needs an even width. A convolution
            has these weights at the centre of its kernel and zeros elsewhere (Xiao et al. 2018); one of stride 2 sees
            only every second row and column to begin with. With either, a block that has a skip and no norm has its
            second layer × 1/√L, so that the state's size does not grow with depth (Zhang et al. 2019).

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
        if self.kind == "conv_down" and self.depth < 2:
            raise ValueError(f"kind='conv_down' downsamples in a later block: depth must be ≥ 2; got {self.depth}.")
        if self.kind == "cifar" and self.depth % 3:
            raise ValueError(f"kind='cifar' has three stages of one size: depth must be 3, 6, 9, …; got {self.depth}.")
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
        if self.kind == "repvgg":
            self._check_repvgg()

    def _check_repvgg(self) -> None:
        for field, needed in (("activation", "post"), ("norm", True), ("stochastic_depth", 0.0), ("init", "kaiming")):
            value = getattr(self, field)
            if value != needed:
                raise ValueError(f"kind='repvgg' needs {field}={needed!r}; got {value!r}. Take kind='conv' for it.")
        if not set(self.skip_factors) <= {0.0, 1.0}:
            raise ValueError(
                f"kind='repvgg' has a branch BN(h) or has none: skip must be True, False or factors 0 and 1; got "
                f"{self.skip!r}."
            )

    @property
    def skip_factors(self) -> tuple[float, ...]:
        """λ_1..λ_L: 1.0 for a full skip, 0.0 for none."""
        return self.skip if isinstance(self.skip, tuple) else (float(self.skip),) * self.depth

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of units, or of channels, of h_0..h_L."""
        if self.kind == "cifar":
            stage = self.depth // 3
            return (self.width,) * (stage + 1) + (2 * self.width,) * stage + (4 * self.width,) * stage
        wide = self.depth - self.depth // 2 if self.kind == "conv_down" else 0
        return (self.width,) * (self.depth + 1 - wide) + (2 * self.width,) * wide
