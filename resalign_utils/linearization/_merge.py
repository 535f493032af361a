"""The algebra of two linear layers: one after the other, or side by side, as one layer.

Every linear layer is a convolution here, ``h ↦ K ∗ h + b``: a fully-connected one has a 1×1 kernel, a batch norm in
eval mode a diagonal 1×1 kernel. Two are merged only where that is exact and takes no more numbers than the two.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ._operations import is_one_of

Pair = tuple[int, int]


@dataclass(frozen=True)
class Affine:
    """``h ↦ K ∗ h + b``.

    Attributes:
        weight: K (out, in, rows, columns).
        bias: b (out,), or None for zero.
        images: whether h is (n, in, height, width); else it is (n, in).
        size: numbers that store it, of a batch norm's statistics too.
        stride: of the rows and of the columns.
        padding: rows and columns of zeros on either side.
    """

    weight: Tensor
    bias: Tensor | None
    images: bool
    size: int
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)

    @property
    def kernel(self) -> Pair:
        """Rows and columns of K."""
        return self.weight.shape[2], self.weight.shape[3]

    def module(self) -> nn.Linear | nn.Conv2d:
        """The layer that computes it, in K's dtype; no random number is drawn."""
        outputs, inputs = self.weight.shape[:2]
        layer: nn.Linear | nn.Conv2d
        if self.images:
            layer = nn.Conv2d(inputs, outputs, self.kernel, self.stride, self.padding, device="meta")
        else:
            layer = nn.Linear(inputs, outputs, device="meta")
        layer.weight = nn.Parameter(self.weight if self.images else self.weight.flatten(1))
        layer.bias = None if self.bias is None else nn.Parameter(self.bias)
        return layer.eval()


def affine(module: nn.Module | None) -> Affine | None:
    """The map of a linear layer, or None if the module is none whose rule is exact.

    Not a convolution in groups, dilated, or padded with anything but zeros; not a batch norm without statistics; not a
    subclass, which may compute something else.
    """
    if type(module) is nn.Linear:
        return Affine(module.weight.detach()[:, :, None, None], _detached(module.bias), False, _stored(module))
    if type(module) is nn.Conv2d:
        plain = module.groups == 1 and module.dilation == (1, 1) and module.padding_mode == "zeros"
        if not plain or isinstance(module.padding, str):
            return None
        stride, padding = (module.stride[0], module.stride[1]), (module.padding[0], module.padding[1])
        return Affine(module.weight.detach(), _detached(module.bias), True, _stored(module), stride, padding)
    if has_statistics(module) and isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        scale, shift = scale_and_shift(module)
        return Affine(scale.diag()[:, :, None, None], shift, isinstance(module, nn.BatchNorm2d), _stored(module))
    return None


def multiple_of_identity(factor: float, like: Affine) -> Affine:
    """``h ↦ factor · h`` on the channels that go into ``like``."""
    weight = factor * torch.eye(like.weight.shape[1], dtype=like.weight.dtype, device=like.weight.device)
    return Affine(weight[:, :, None, None], None, like.images, size=0)


def composed(first: Affine, second: Affine) -> Affine | None:
    """``second ∘ first``; strides multiply, and k₁ + (k₂ − 1) s₁ is the size of the kernel.

    Exact where ``second`` has no padding. With padding, where zeros around the image before ``first`` become the zeros
    around the image after it, which a 1×1 convolution without stride, padding and bias does; None elsewhere.
    """
    commutes = first.kernel == (1, 1) and first.stride == (1, 1) and first.padding == (0, 0) and first.bias is None
    fits = first.images == second.images and first.weight.shape[0] == second.weight.shape[1]
    if not fits or (second.padding != (0, 0) and not commutes):
        return None
    kernel = [a + (b - 1) * s for a, b, s in zip(first.kernel, second.kernel, first.stride, strict=True)]
    biased = first.bias is not None or second.bias is not None
    size = second.weight.shape[0] * (first.weight.shape[1] * math.prod(kernel) + biased)
    if size > first.size + second.size:
        return None
    if first.kernel == first.stride == (1, 1):
        weight = torch.einsum("ocij,cd->odij", second.weight, first.weight[:, :, 0, 0])
    else:  # the adjoint of the first layer carries the rows of the second back to its input
        weight = F.conv_transpose2d(second.weight, first.weight, stride=first.stride)
    bias = second.bias
    if first.bias is not None:
        carried = second.weight.sum((2, 3)) @ first.bias
        bias = carried if bias is None else carried + bias
    stride = (first.stride[0] * second.stride[0], first.stride[1] * second.stride[1])
    padding = second.padding if commutes else first.padding
    return Affine(weight, bias, first.images, size, stride, padding)


def added(one: Affine, other: Affine) -> Affine | None:
    """``h ↦ one(h) + other(h)``: the smaller kernel, in zeros, is added to the larger (Ding et al. 2021, section 3.3).

    Exact where both have the same stride and see the same places, that is, where each larger kernel has half as much
    more padding on either side; None elsewhere.
    """
    sees = [[2 * p - k for p, k in zip(a.padding, a.kernel, strict=True)] for a in (one, other)]
    same = one.images == other.images and one.stride == other.stride
    if not same or sees[0] != sees[1] or one.weight.shape[:2] != other.weight.shape[:2]:
        return None
    rows, columns = (max(pair) for pair in zip(one.padding, other.padding, strict=True))
    weight = sum(_in_zeros(a, rows, columns) for a in (one, other))
    assert isinstance(weight, Tensor)
    biases = [a.bias for a in (one, other) if a.bias is not None]
    bias = torch.stack(biases).sum(0) if biases else None
    size = weight.numel() + (0 if bias is None else bias.numel())
    if size > one.size + other.size:
        return None
    return Affine(weight, bias, one.images, size, one.stride, (rows, columns))


def scaled(layer: nn.Linear | nn.Conv2d, factor: float) -> nn.Linear | nn.Conv2d:
    """A copy of the layer, in groups and dilated as it is, with ``factor`` times its output."""
    layer = copy.deepcopy(layer)
    for parameter in layer.parameters():
        parameter.data *= factor
    return layer


def has_statistics(module: nn.Module | None) -> TypeGuard[_BatchNorm]:
    """Whether the module is a batch norm that keeps statistics, and so is linear in eval mode."""
    known = is_one_of(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm))
    return known and getattr(module, "running_mean", None) is not None


def scale_and_shift(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """What a batch norm multiplies with and adds in eval mode, (channels,) each."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight.detach()
    shift = -scale * norm.running_mean
    return scale, shift + norm.bias.detach() if norm.affine else shift


def _in_zeros(layer: Affine, rows: int, columns: int) -> Tensor:
    """The kernel as one that has padding (rows, columns)."""
    top, left = rows - layer.padding[0], columns - layer.padding[1]
    return F.pad(layer.weight, (left, left, top, top))


def _detached(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach()


def _stored(module: nn.Module) -> int:
    numbers = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() for tensor in numbers if tensor.is_floating_point())
