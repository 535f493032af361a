"""How many of torch's threads a training takes on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from ..data import ImageData

SMALL = 1e9  # floating-point operations of a step's forward pass: a few hundredths of a second on one core


@contextmanager
def threads_for(model: nn.Module, data: ImageData, batch_size: int) -> Iterator[None]:
    """One thread for steps of fewer than SMALL operations on a CPU; afterwards as many as the caller had.

    Threads that share a small product wait for each other at each of a step's hundreds of operations. On two cores
    they gain a fifth at best, and take seven times as long as one thread where another process keeps a core busy.
    """
    before = torch.get_num_threads()
    if before == 1 or data.train_x.is_cuda or _operations(model, data) * batch_size >= SMALL:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _operations(model: nn.Module, data: ImageData) -> int:
    """About how many one image takes: a matrix is used once, a convolution's kernel at every pixel."""
    _, height, width = data.shape
    return sum(2 * p.numel() * (height * width if p.dim() > 2 else 1) for p in model.parameters())
