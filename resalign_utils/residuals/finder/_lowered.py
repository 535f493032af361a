"""The functions by which an operation of a tape is done again.

Most are done by the operator itself. Convolutions and batch norm are done by torch's own functions, of which
``operators`` knows a cheaper derivative; and a view by a reshape, since the rows may lie otherwise in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

aten = torch.ops.aten

_CONVOLUTIONS = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}
_TRANSPOSED = {1: torch.conv_transpose1d, 2: torch.conv_transpose2d, 3: torch.conv_transpose3d}


def lowered(op: Any) -> Callable[..., Any]:
    """The function that does what an operator does."""
    function: Callable[..., Any] = _FUNCTIONS.get(op, op)
    return function


def _reshape(x: Tensor, shape: Any) -> Tensor:
    return x.reshape(shape)


def _copy(x: Tensor, source: Tensor, *_: Any) -> Tensor:
    """What lies in x after a copy onto it; the operator has no forward mode."""
    return source.to(x.dtype).expand(x.shape)


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Tensor:
    sides = weight.dim() - 2
    if x.dim() != sides + 2 or sides not in _CONVOLUTIONS:
        result: Tensor = aten.convolution.default(
            x, weight, bias, stride, padding, dilation, transposed, output_padding, groups
        )
        return result
    if transposed:
        return _TRANSPOSED[sides](x, weight, bias, stride, padding, output_padding, groups, dilation)
    return _CONVOLUTIONS[sides](x, weight, bias, stride, padding, dilation, groups)


def _batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    *_: Any,
) -> tuple[Any, ...]:
    return functional.batch_norm(x, mean, variance, weight, bias, training, momentum, eps), None, None


def _cudnn_batch_norm(*args: Any) -> tuple[Any, ...]:
    return *_batch_norm(*args), None


def _batch_norm_no_training(
    x: Tensor, weight: Any, bias: Any, mean: Tensor, variance: Tensor, momentum: float, eps: float
) -> tuple[Any, ...]:
    return _batch_norm(x, weight, bias, mean, variance, False, momentum, eps)


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    aten.view.default: _reshape,
    aten._unsafe_view.default: _reshape,
    aten.copy.default: _copy,
    aten.convolution.default: _convolution,
    aten.native_batch_norm.default: _batch_norm,
    aten.cudnn_batch_norm.default: _cudnn_batch_norm,
    aten._native_batch_norm_legit_no_training.default: _batch_norm_no_training,
}
