"""Small transformers on images: patches as tokens, each block two residual sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._blocks import ResidualBlock, ResNet
from ._config import Skip, check_counts, checked_skip, factors_of

Norm = Literal["pre", "post"]


@dataclass(frozen=True)
class TransformerConfig:
    """What a transformer on images looks like; everything but the image shape, the number of classes and the seed.

    An image is cut into square patches, each a token: a linear map and a learned position make ``h_0`` (n, T, width).
    Then come L blocks of two residual sums, attention (Vaswani et al. 2017) and a small network applied to each token
    (MLP), the last layer norm (in ``norm="pre"``), the mean over tokens, and the classifier (Dosovitskiy et al. 2021,
    who take a token of its own in place of the mean).

    Args:
        depth: number of blocks L; there are 2L residual sums.
        width: number of features of a token; a multiple of ``heads``.
        patch: side of a patch in pixels; it divides both sides of the image.
        heads: number of attention heads.
        mlp_ratio: units of the MLP's hidden layer (GELU), in widths.
        norm: ``"pre"``, ``h ← λh + F(LN(h))`` (Xiong et al. 2020); ``"post"``, ``h ← LN(λh + F(h))``, as in Vaswani
            et al. (2017). LN is layer norm over the features of a token.
        skip: ``True`` or ``False`` for all blocks, one factor λ, or one factor per block, for both of its sums; λ
            scales the skip path only.
        kind: says in kept runs that this is a transformer.

    Raises:
        ValueError: for a value outside the ranges above; the text says which and what is allowed.
    """

    depth: int
    width: int
    patch: int
    heads: int = 4
    mlp_ratio: int = 2
    norm: Norm = "pre"
    skip: Skip = True
    kind: Literal["transformer"] = "transformer"

    def __post_init__(self) -> None:
        for field, allowed in (("norm", get_args(Norm)), ("kind", ("transformer",))):
            if getattr(self, field) not in allowed:
                names = ", ".join(map(repr, allowed))
                raise ValueError(f"{field} must be one of {names}; got {getattr(self, field)!r}.")
        check_counts(self, ("depth", "width", "patch", "heads", "mlp_ratio"))
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads={self.heads}; got {self.width}.")
        object.__setattr__(self, "skip", checked_skip(self.skip, self.depth))

    @property
    def skip_factors(self) -> tuple[float, ...]:
        """λ_1..λ_L: 1.0 for a full skip, 0.0 for none."""
        return factors_of(self.skip, self.depth)


class Tokens(nn.Module):
    """Images (n, c, h, w) to tokens (n, T, width), T = h/patch · w/patch, row by row."""

    def __init__(self, patch: int, shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        channels, *sides = shape
        if any(side % patch for side in sides):
            raise ValueError(f"patch must divide both sides of the image, {sides[0]} and {sides[1]}; got {patch}.")
        self.patch, count = patch, (sides[0] // patch) * (sides[1] // patch)
        self.embed = nn.Linear(channels * patch * patch, width)
        self.position = nn.Parameter(torch.empty(count, width).normal_(std=width**-0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, c, h, w) to h_0 (n, T, width)."""
        patches = F.unfold(x, self.patch, stride=self.patch).transpose(1, 2)  # (n, T, c·patch²)
        h: Tensor = self.embed(patches) + self.position
        return h


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2), without mask."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.enter, self.leave = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        """Map tokens (n, T, width) to tokens of the same shape."""
        q, k, v = self.enter(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (n, heads, T, ·)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (n, T, width)
        out: Tensor = self.leave(mixed)
        return out


class TransformerBlock(nn.Sequential):
    """Two residual sums, ``attention`` and ``mlp``, each a :class:`ResidualBlock`."""

    def __init__(self, config: TransformerConfig, skip: float) -> None:
        width, hidden = config.width, config.mlp_ratio * config.width
        super().__init__()
        self.attention = _sum(config, skip, Attention(width, config.heads))
        self.mlp = _sum(config, skip, nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


def _sum(config: TransformerConfig, skip: float, *branch: nn.Module) -> ResidualBlock:
    norm = nn.LayerNorm(config.width)
    if config.norm == "pre":
        return ResidualBlock(nn.Sequential(norm, *branch), skip, post=False)
    return ResidualBlock(nn.Sequential(*branch), skip, post=norm)


def transformer(config: TransformerConfig, shape: tuple[int, int, int], classes: int) -> ResNet:
    """A network with initial weights: Xavier's uniform ones (Glorot & Bengio 2010), zero biases."""
    blocks = [TransformerBlock(config, skip) for skip in config.skip_factors]
    last = [nn.LayerNorm(config.width)] if config.norm == "pre" else []
    head = nn.Sequential(*last, TokenMean(), nn.Linear(config.width, classes))
    model = ResNet(Tokens(config.patch, shape, config.width), blocks, head)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    return model


class TokenMean(nn.Module):
    """The mean over tokens, (n, T, width) → (n, width)."""

    def forward(self, h: Tensor) -> Tensor:
        """Average over the second dimension."""
        return h.mean(1)


class _Whole(nn.Module):
    """``h ↦ λF₁(h) + F₂(λh + F₁(h))``: what a block of two sums does beside its skips, without subtracting them."""

    def __init__(self, block: TransformerBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, h: Tensor) -> Tensor:
        first: Tensor = self.block.attention.branch(h)
        second: Tensor = self.block.mlp.branch(self.block.attention.merge(h, first))
        return self.block.mlp.merge(first, second)


def whole_blocks(model: ResNet) -> ResNet:
    """The same transformer, sharing its weights, whose blocks of two sums each count as one residual block.

    A block gives ``λ²h + F(h)``, ``λF₁(h) + F₂(λh + F₁(h))`` being F; papers on transformers compare this one, less
    the identity (Aubry et al. 2025). It is for ``norm="pre"``: with a norm after each sum there is no one skip.

    Raises:
        ValueError: a block is no pre-norm block of a transformer.
    """
    wholes = []
    for block in model.blocks:
        if not isinstance(block, TransformerBlock) or not isinstance(block.mlp.outer, nn.Identity):
            raise ValueError(f"Expected blocks of a transformer with norm='pre'; got {type(block).__name__}.")
        wholes.append(ResidualBlock(_Whole(block), block.attention.skip * block.mlp.skip, post=False))
    return ResNet(model.stem, wholes, model.head).train(model.training)
