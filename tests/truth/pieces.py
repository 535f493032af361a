"""The parts that the table of branches is made of: layers written out, and operations that deceive autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Made(nn.Module):
    """A branch from a function of itself and the input; layers and buffers are given by name."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, Tensor):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, h: Tensor) -> Any:
        return self.function(self, h)


class Residual(nn.Module):
    """``h + f(h)``, or the same in place on the argument."""

    def __init__(self, f: nn.Module, *, inplace: bool = False) -> None:
        super().__init__()
        self.f, self.inplace = f, inplace

    def forward(self, h: Tensor) -> Tensor:
        if not self.inplace:
            return h + self.f(h)
        h += self.f(h.clone())
        return h


def mlp(*between: nn.Module, d: int = 6, hidden: int = 8, m: int = 5) -> nn.Sequential:
    """Two linear layers with something between them."""
    return nn.Sequential(nn.Linear(d, hidden), *between, nn.Linear(hidden, m))


def conv(channels: int = 2, **how: Any) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, **how)


def write(tensor: Tensor, change: Callable[[Tensor], Any]) -> Tensor:
    """The tensor, after a change in place."""
    change(tensor)
    return tensor


class CubeRight(torch.autograd.Function):
    """``h³`` with its derivative, for every transform."""

    generate_vmap_rule = True

    @staticmethod
    def forward(h):
        return h**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        return 3 * ctx.saved_tensors[0] ** 2 * gradient

    @staticmethod
    def jvp(ctx, tangent):
        return 3 * ctx.saved_tensors[0] ** 2 * tangent


class CubeBackwardOnly(torch.autograd.Function):
    """``h³`` without a forward mode and without a rule for ``vmap``."""

    @staticmethod
    def forward(h):
        return h**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        return 3 * ctx.saved_tensors[0] ** 2 * gradient


class CubeWrong(CubeBackwardOnly):
    """``h³`` with the derivative of ``h²``."""

    generate_vmap_rule = True

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


class CubeWrongForward(CubeRight):
    """``h³`` with a right backward mode and a wrong forward mode."""

    @staticmethod
    def jvp(ctx, tangent):
        return 2 * ctx.saved_tensors[0] * tangent


class CubeOldStyle(torch.autograd.Function):
    """``h³`` as functions were written before torch 2."""

    @staticmethod
    def forward(ctx, h):
        ctx.save_for_backward(h)
        return h**3

    @staticmethod
    def backward(ctx, gradient):
        return 3 * ctx.saved_tensors[0] ** 2 * gradient


class CubeOnce(CubeOldStyle):
    """``h³``, to be differentiated once."""

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return 3 * ctx.saved_tensors[0] ** 2 * gradient


class ReversedGradient(torch.autograd.Function):
    """The identity with the gradient turned round, as in domain adaptation."""

    generate_vmap_rule = True

    @staticmethod
    def forward(h):
        return h.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class Highway(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.change, self.gate = nn.Linear(d, d), nn.Linear(d, d)

    def forward(self, h: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(h))
        return gate * torch.relu(self.change(h)) + (1 - gate) * h


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, *, inplace: bool = False) -> None:
        super().__init__()
        self.f = nn.Sequential(nn.Linear(channels, 4), nn.ReLU(inplace=inplace), nn.Linear(4, channels), nn.Sigmoid())

    def forward(self, h: Tensor) -> Tensor:
        return h * self.f(h.mean((2, 3)))[:, :, None, None]


class Attention(nn.Module):
    """Self-attention on (n, T, D): the packed product, heads, ``scaled_dot_product_attention``, and out."""

    def __init__(self, d: int = 6, heads: int = 2, mask: str = "none", **how: Any) -> None:
        super().__init__()
        self.qkv, self.out, self.heads, self.mask, self.how = nn.Linear(d, 3 * d), nn.Linear(d, d), heads, mask, how

    def forward(self, h: Tensor) -> Tensor:
        n, t, d = h.shape
        q, k, v = self.qkv(h).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mask = torch.ones(t, t, dtype=torch.bool, device=h.device).tril() if self.mask == "inside" else None
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.mask == "causal", **self.how)
        return self.out(mixed.transpose(1, 2).reshape(n, t, d))


class Rotary(nn.Module):
    """Rotations by position whose angles are made at the first call, without gradients, and kept."""

    angles: Tensor | None = None

    def forward(self, h: Tensor) -> Tensor:
        if self.angles is None:
            with torch.no_grad():
                self.angles = torch.outer(torch.arange(h.shape[1]), 0.5 ** torch.arange(h.shape[2] // 2)).to(h)
        even, odd = h[..., 0::2], h[..., 1::2]
        cos, sin = self.angles.cos(), self.angles.sin()
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(2)
