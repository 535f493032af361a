"""A function that computes in float32, evaluated in float64 without being changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils._pytree import tree_map

_SINGLE = torch.float32
_WRITES = (torch.Tensor.copy_, torch.Tensor.__setitem__)


class _Double(TorchFunctionMode):
    """Every function that Python calls gets its float32 tensors and dtypes as float64."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _WRITES:  # of a module's own tensor: it keeps its type
            return func(*args, **kwargs or {})
        if not kwargs:
            return func(*_all_widened(args))
        return func(*_all_widened(args), **{name: _all_widened(value) for name, value in kwargs.items()})


def doubled() -> bool:
    """Whether float32 arithmetic is being done in float64, by :func:`in_double`."""
    return any(isinstance(mode, _Double) for mode in _get_current_function_mode_stack())


def _all_widened(value: Any) -> Any:
    """An argument with its tensors in float64, through lists and tuples; tree_map would take longer than the call."""
    if isinstance(value, Tensor):
        return value.double() if value.dtype == _SINGLE else value
    if type(value) in (tuple, list):
        return type(value)([_all_widened(item) for item in value])
    return torch.float64 if value is _SINGLE else value


def _widened(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.dtype == _SINGLE else value
    return torch.float64 if value is _SINGLE else value


@torch.no_grad()
def in_double(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``function(*args, **kwargs)`` with all of its float32 arithmetic in float64, weights and constants included.

    The weights themselves stay what they are, float32 numbers; what is gone is the rounding of what is done with them.
    No gradients are recorded. What writes on a float32 tensor that it holds, or asks for a dtype in Python, may fail.

    Args:
        function: what evaluates a model or a part of it.
        args: its arguments; float32 tensors among them are widened.
        kwargs: likewise.
    """
    with _Double():
        return function(*tree_map(_widened, args), **tree_map(_widened, kwargs))
