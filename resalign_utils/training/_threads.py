"""How many of torch's threads a training takes on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL = 1e9  # floating-point operations of a step's forward pass: a few hundredths of a second on one core


@contextmanager
def threads_for(operations: float, device: torch.device) -> Iterator[None]:
    """One thread for steps of fewer than SMALL operations on a CPU; afterwards as many as the caller had.

    Threads that share a small product wait for each other at each of a step's hundreds of operations. That gains a
    fifth at best, and takes seven to nine times as long where another process keeps one of two cores busy.
    """
    before = torch.get_num_threads()
    if before == 1 or device.type != "cpu" or operations >= SMALL:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
