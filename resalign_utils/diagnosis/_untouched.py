"""Measuring a network in the middle of its training, without a trace in the training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients while it lasts; afterwards all is as it was, also after an error.

    Modes of all modules, values of all buffers, and torch's random generators, of the CPU and of every other device
    that is in use. Modes are set module by module: ``train`` and ``eval`` may be overridden, and do more.
    """
    with ExitStack() as stack:
        for restore in _random_states():
            stack.callback(restore)
        for module in model.modules():
            stack.callback(setattr, module, "training", module.training)
            module.training = False
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    stack.callback(_put_back, module, name, buffer, buffer.detach().clone())
        stack.enter_context(torch.no_grad())
        yield


def _put_back(module: nn.Module, name: str, buffer: Tensor, values: Tensor) -> None:
    module._buffers[name] = buffer
    if not torch.equal(buffer, values):  # a copy into what is in use for a backward pass would spoil that
        buffer.copy_(values)


def _random_states() -> Iterator[Callable[[], None]]:
    """What puts back each generator as it is now."""
    yield partial(torch.set_rng_state, torch.get_rng_state())
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            yield partial(torch.cuda.set_rng_state, torch.cuda.get_rng_state(device), device)
    if torch.backends.mps.is_available():
        yield partial(torch.mps.set_rng_state, torch.mps.get_rng_state())
    if torch.xpu.is_available() and torch.xpu.is_initialized():
        for device in range(torch.xpu.device_count()):
            yield partial(torch.xpu.set_rng_state, torch.xpu.get_rng_state(device), device)
