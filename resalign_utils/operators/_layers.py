"""Layers with constant weights, differentiated for their input alone.

torch's second derivative of a convolution computes one for the weights as well, wanted or not, which makes ``J v`` cost
three times ``Jᵀ u``; batch norm's is nearly as wasteful. Here the weights are constants, so a convolution's ``J v`` is
the convolution of v, and batch norm in eval mode is a factor and a shift. Nothing of their inputs is kept. Recurrent
layers are kept from cuDNN, whose kernels cannot be differentiated in eval mode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)
_RECURRENT = ("gru", "lstm", "rnn_relu", "rnn_tanh")


class ConstantLayers(TorchFunctionMode):
    """While it lasts, convolutions, batch norm in eval mode and linear layers take their weights as constants."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call ``func``, or what does the same with constant weights."""
        kwargs = kwargs or {}
        if func in _CONVOLUTIONS:
            return _convolution(func, *args, **kwargs)
        if func is functional.batch_norm:
            return _batch_norm(*args, **kwargs)
        if func is functional.linear:
            return _linear(*args, **kwargs)
        if getattr(func, "__name__", "") in _RECURRENT:
            return _without_cudnn(func, *args, **kwargs)
        return func(*args, **kwargs)


class _Convolution(torch.autograd.Function):
    """h ↦ W ∗ h, by torch's own kernels; ``geometry`` is (stride, padding, dilation, groups)."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, geometry: tuple[Any, ...]) -> Tensor:
        ctx.weight, ctx.geometry, ctx.shape = weight, geometry, h.shape
        return _convolve(h, weight, geometry)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        return _Transposed.apply(gradient, ctx.weight, ctx.geometry, ctx.shape), None, None


class _Transposed(torch.autograd.Function):
    """The transpose of :class:`_Convolution`, whose transpose is the convolution again."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, weight: Tensor, geometry: tuple[Any, ...], shape: torch.Size) -> Tensor:
        ctx.weight, ctx.geometry = weight, geometry
        stride, padding, dilation, groups = geometry
        sides = weight.dim() - 2
        like = u.new_empty(1).expand(shape)  # of the input, only the shape is read
        result: Tensor = torch.ops.aten.convolution_backward(
            u, like, weight, None, stride, padding, dilation, False, (0,) * sides, groups, (True, False, False)
        )[0]
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        return _Convolution.apply(gradient, ctx.weight, ctx.geometry), None, None, None


def _convolve(h: Tensor, weight: Tensor, geometry: tuple[Any, ...]) -> Tensor:
    stride, padding, dilation, groups = geometry
    sides = weight.dim() - 2
    return torch.convolution(h, weight, None, stride, padding, dilation, False, (0,) * sides, groups)


def _convolution(
    function: Callable[..., Tensor],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    sides = weight.dim() - 2
    if isinstance(padding, str) or input.dim() != weight.dim() or not _constant(weight, bias):
        return function(input, weight, bias, stride, padding, dilation, groups)
    geometry = *(_each(number, sides) for number in (stride, padding, dilation)), groups
    result: Tensor = _Convolution.apply(input, weight.detach(), geometry)
    return result if bias is None else result + bias.detach().reshape(-1, *[1] * sides)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if training or running_mean is None or running_var is None or not _constant(weight, bias):
        return functional.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    scale = (running_var.detach() + eps).rsqrt()
    if weight is not None:
        scale = scale * weight.detach()
    shift = -running_mean.detach() * scale
    if bias is not None:
        shift = shift + bias.detach()
    places = [1] * (input.dim() - 2)
    return input * scale.reshape(-1, *places) + shift.reshape(-1, *places)


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if not _constant(weight, bias):
        return functional.linear(input, weight, bias)
    return functional.linear(input, weight.detach(), None if bias is None else bias.detach())


def _without_cudnn(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    enabled = torch.backends.cudnn.enabled
    try:
        torch.backends.cudnn.enabled = False
        return function(*args, **kwargs)
    finally:
        torch.backends.cudnn.enabled = enabled


def _constant(*weights: Tensor | None) -> bool:
    """Whether none of them was computed, perhaps from the layer's input."""
    return all(weight is None or weight.grad_fn is None for weight in weights)


def _each(number: Any, sides: int) -> tuple[int, ...]:
    return (number,) * sides if isinstance(number, int) else tuple(number) * (sides if len(number) == 1 else 1)
