"""Running a model while its blocks are watched, and leaving it as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ._bound import Arguments, Eager
from ._checks import check_state
from ._inputs import Inputs, logits_of
from ._registry import is_residual_block


@dataclass
class Call:
    """One call of a block: its state before (n, *in) and after (n, *out), and what else it was called with."""

    name: str
    block: nn.Module
    input: Tensor
    arguments: Arguments
    output: Tensor

    @property
    def label(self) -> str:
        """The block as errors name it."""
        return f"Block '{self.name}' ({type(self.block).__name__})"


def watched(model: nn.Module, inputs: Inputs) -> tuple[list[Call], Tensor]:
    """The calls of the registered blocks in one forward pass, and the model's output (n, C)."""
    watch = _Watch(len(inputs), [], [])
    handles = []
    try:
        for name, module in model.named_modules():
            if is_residual_block(module):
                handles.append(module.register_forward_pre_hook(watch.enter(name), with_kwargs=True))
                handles.append(module.register_forward_hook(watch.leave))
        logits = inputs.call(model)
    finally:
        for handle in handles:
            handle.remove()
    return watch.calls, logits_of(logits)


def state_of(name: str, output: Any) -> Tensor:
    """The state in what a block returned: a tensor, or the first of a tuple. The replay shows whether it is."""
    state = output[0] if isinstance(output, tuple | list) and output else output
    if not isinstance(state, Tensor):
        raise TypeError(
            f"Block '{name}' must return its state, a tensor or the first of a tuple; it returned "
            f"{type(output).__name__}. Register the module inside of it that does, or wrap it."
        )
    return state


@dataclass
class _Watch:
    n: int
    calls: list[Call]
    opened: list[Call | None]  # None for blocks inside of another one

    def enter(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.opened.append(None if self.opened else self._open(name, block, args, kwargs))

        return hook

    def _open(self, name: str, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        if not args or not isinstance(args[0], Tensor):
            raise TypeError(f"Block '{name}' must be called with its state, a tensor, as first positional argument.")
        # cloned: a block may work in place on what it is given
        args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.detach().clone(), (args, kwargs))
        check_state(name, args[0], self.n)
        return Call(name, block, args[0], Arguments(args[1:], kwargs, self.n), args[0])

    def leave(self, block: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        call = self.opened.pop()
        if call is None:
            return
        state = state_of(call.name, output)
        check_state(call.name, state, self.n)
        call.output = state.detach().clone()
        self.calls.append(call)


def eagerly(model: nn.Module) -> Eager | None:
    """Makes the context in which compiled parts of a model run uncompiled; None if it has none.

    Compiled modules may skip hooks, and have no second derivative.
    """
    compiled = any(
        "_orig_mod" in module._modules or module._compiled_call_impl is not None for module in model.modules()
    )
    return partial(torch.compiler.set_stance, "force_eager") if compiled else None


@contextmanager
def as_it_was(model: nn.Module) -> Iterator[None]:
    """Put the model's buffers back, which some models write in eval mode too.

    Parameters are not put back: a model that writes them may remember elsewhere that it has, and would be wrong then.
    What is written through ``.data`` leaves no trace that could be seen here.

    Raises:
        ValueError: a parameter was written in place.
    """
    before = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    parameters = [(name, parameter, parameter._version) for name, parameter in model.named_parameters()]
    try:
        yield
    finally:
        for module, name, buffer, values in before:
            module._buffers[name] = buffer
            if not torch.equal(buffer, values):
                buffer.copy_(values)
    written = [name for name, parameter, version in parameters if parameter._version != version]
    if written:
        raise ValueError(
            f"The model writes {len(written)} of its parameters in its forward pass, '{written[0]}' first. If it does "
            "so in its first call alone, as RWKV rescales its weights, that is done now: measure again. Else take it "
            "out of the forward pass."
        )
