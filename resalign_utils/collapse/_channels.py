"""Where a state of three dimensions or more has its channels, judged by the layers that read or write it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..residuals import Trace, trace

Layout = Literal["channels_first", "channels_last"]
Call = tuple[nn.Module, list[Tensor]]  # a layer, and the tensors that it read and wrote

# Layers that have their channels in dimension 1, and in the last one.
FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)
LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.MultiheadAttention, nn.RNNBase, nn.Embedding)


def watched(model: nn.Module, x: Tensor) -> tuple[Trace, list[Call]]:
    """The trace of one input, and what every layer whose channels have a place read and wrote on the way."""
    calls: list[Call] = []

    def note(layer: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        calls.append((layer, [t.clone() for t in tree_leaves((args, kwargs, output)) if isinstance(t, Tensor)]))

    layers = [layer for layer in model.modules() if isinstance(layer, FIRST + LAST)]
    handles = [layer.register_forward_hook(note, with_kwargs=True) for layer in layers]
    try:
        return trace(model, x), calls
    finally:
        for handle in handles:
            handle.remove()


def layouts_of(path: Trace, calls: Sequence[Call]) -> dict[str, Layout]:
    """Where each state of three dimensions or more has its channels; states of a run of blocks have them alike."""
    runs = [[0]]
    for depth, (residual, (before, state)) in enumerate(zip(path.residuals, pairwise(path.states), strict=True), 1):
        if residual.follows and state.shape == before.shape:
            runs[-1].append(depth)
        else:
            runs.append([depth])
    found: dict[str, Layout] = {}
    for run in runs:
        states = [path.states[depth] for depth in run]
        if states[0].dim() > 2:
            layers = [layer for layer, tensors in calls if any(equal(t, state) for t in tensors for state in states)]
            found |= dict.fromkeys((f"h_{depth}" for depth in run), _layout(f"h_{run[0]}", states[0], layers))
    return found


def _layout(name: str, state: Tensor, layers: Sequence[nn.Module]) -> Layout:
    """Where a state's channels are, judged by the layers that read or write it."""
    first = {type(layer).__name__ for layer in layers if isinstance(layer, FIRST)}
    last = {type(layer).__name__ for layer in layers if isinstance(layer, LAST) and not _of_whole_images(layer)}
    if bool(first) == bool(last) and (first or state.dim() == 3):
        found = (
            f"{', '.join(sorted(first))} has its channels in dimension 1 and {', '.join(sorted(last))} in the last one"
            if first
            else "no layer that reads or writes it tells which dimension holds its channels"
        )
        raise ValueError(
            f"State {name} is {('n', *state.shape[1:])}, and {found}. Say where they are: maps='channels_first' pools "
            "(n, c, *space), maps='channels_last' tokens (n, T, D)."
        )
    return "channels_last" if last else "channels_first"


def _of_whole_images(layer: nn.Module) -> bool:
    """Whether a layer norm is over (c, h, w), and so says nothing of where the channels are."""
    return isinstance(layer, nn.LayerNorm | nn.RMSNorm) and len(layer.normalized_shape) > 1


def equal(a: Tensor, b: Tensor) -> bool:
    """Whether they are of one dtype and shape, and equal entry by entry."""
    return a.dtype == b.dtype and torch.equal(a, b)
