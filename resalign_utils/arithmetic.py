"""Arithmetic that all rooms share.

:func:`exact_arithmetic` is the one in which a model is evaluated and differentiated: full precision, twice
differentiable. The others divide where there may be a zero.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

_ENTERED = threading.local()  # the type of device for which this thread has entered it


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Full precision and the kernels that can be differentiated twice, while it lasts; calls may be nested.

    Autocast is off for the device's type. TF32 and bfloat16 inside of float32 products are off: TF32, which cuDNN has
    on by default, keeps ten bits of the mantissa, and its products are wrong by 1e-3, more than the residuals that are
    asked for. Attention is done by its mathematical kernel, and ``nn.MultiheadAttention`` and
    ``nn.TransformerEncoderLayer`` without their fast path: the fused kernels have no second derivative.

    What the caller had set is set again afterwards, also after an error.

    Args:
        device: where the model is.
    """
    if getattr(_ENTERED, "device", None) == device.type:
        yield  # a call inside another: all is set
        return
    with ExitStack() as stack:
        stack.callback(setattr, _ENTERED, "device", getattr(_ENTERED, "device", None))
        _ENTERED.device = device.type
        stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        _turn_off_tf32(stack)
        yield


def _turn_off_tf32(stack: ExitStack) -> None:
    """Make float32 products use all 24 bits until the stack is closed."""
    backends: Any = torch.backends
    if hasattr(backends.cudnn, "conv"):
        kinds = [backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul]
        kinds += [backends.mkldnn.conv, backends.mkldnn.rnn, backends.mkldnn.matmul]
        for kind in kinds:
            stack.callback(setattr, kind, "fp32_precision", kind.fp32_precision)
            kind.fp32_precision = "ieee"
    else:  # torch before 2.9, where the two interfaces must not be mixed
        stack.callback(setattr, backends.cudnn, "allow_tf32", backends.cudnn.allow_tf32)
        backends.cudnn.allow_tf32 = False
        stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        torch.set_float32_matmul_precision("highest")


def or_one(sizes: Tensor) -> Tensor:
    """Sizes to divide by, none of them negative: 1 where they are 0."""
    return torch.where(sizes > 0, sizes, 1.0)


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator, and 0 where the denominator is 0 (a dead block)."""
    live = denominator != 0
    return torch.where(live, numerator / torch.where(live, denominator, 1.0), 0.0)
