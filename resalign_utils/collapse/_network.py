"""Neural Collapse of every layer of a network: its states, and the features that its classifier reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..residuals import Trace, trace_states
from ..svd import whole_number
from ._channels import Call, Layout, equal, layouts_of, watched
from ._checks import Vectors, checked_classes, samples_of
from ._features import NeuralCollapse, Sums

Maps = Literal["pool", "channels_first", "channels_last", "flatten"]


@torch.no_grad()
def collapse_by_layer(
    model: nn.Module, x: Tensor, y: Vectors, *, maps: Maps = "pool", chunk: int = 256
) -> dict[str, NeuralCollapse]:
    """Measure Neural Collapse of every state of a network, and of the features that its classifier reads.

    The inputs pass twice, in chunks: once for the class means, once for the spread around them. So the memory does
    not grow with n.

    Args:
        model: a network that :func:`trace` knows, in eval mode, that ends in an ``nn.Linear``.
        x: inputs (n, ...), as a rule the training images.
        y: (n,) their true classes, integers in 0..C−1, each at least once.
        maps: what becomes of states of three dimensions or more. ``"channels_first"``: (n, c, *space), as of
            convolutions, become their mean over space (n, c); ``"channels_last"``: (n, T, D) of tokens and
            (n, *space, c) become their mean over tokens or space (n, D); ``"flatten"``: all entries, (n, -1).
            ``"pool"`` chooses between the first two by the layers that read or write the state itself, or another one
            of the run of blocks of equal shape in which it stands: a convolution, a batch or a group norm has its
            channels in dimension 1, a fully-connected layer, layer norm, attention or recurrent layer in the last one.
            States of four dimensions or more have their channels first where no such layer tells otherwise.
        chunk: number of inputs that pass at a time; all states of a chunk are held at once.

    Returns:
        For "h_0" (the first block's input), "h_1" .. "h_L" (the blocks' outputs) and "features" (the classifier's
        input), in this order, a :class:`NeuralCollapse`. nc3 is of "features" only; nc4 compares each layer's nearest
        class mean with the network's decision.

    Raises:
        ValueError: what :func:`trace` refuses, such as a model in train mode; no final ``nn.Linear``; what
            :func:`neural_collapse` refuses of labels; an unknown ``maps``; a state that ``"pool"`` could take either
            way, since layers of both kinds read or write it, or none does and it has three dimensions; a state whose
            first dimension is not that of the inputs; a chunk that is no whole number of at least 1.
    """
    if maps not in get_args(Maps):
        raise ValueError(f"maps must be one of {', '.join(get_args(Maps))}; got {maps!r}.")
    rows = whole_number(chunk)
    if rows is None or rows < 1:
        raise ValueError(f"chunk must be a whole number of at least 1; got {chunk!r}.")
    if not isinstance(x, Tensor):
        raise ValueError(f"Expected inputs x as a torch tensor; got {type(x).__name__}. Use torch.as_tensor.")
    y = checked_classes("labels", y, x)
    path, calls = watched(model, x[:1])
    head = _classifier(model, path, calls)
    layouts = layouts_of(path, calls) if maps == "pool" else {}
    counts = samples_of(y, head.out_features)
    layers: dict[str, Sums] = {}
    for states, labels, _ in _features(model, head, x, y, maps, layouts, rows):
        for name, state in states.items():
            layers.setdefault(name, Sums(counts)).add_to_means(state, labels)
    for layer in layers.values():
        layer.fix_means()
    for states, labels, decisions in _features(model, head, x, y, maps, layouts, rows):
        for name, state in states.items():
            layers[name].add_to_spread(state, labels, decisions)
    return {name: layer.result(head.weight if name == "features" else None) for name, layer in layers.items()}


def _features(
    model: nn.Module,
    head: nn.Linear,
    x: Tensor,
    y: Tensor,
    maps: Maps,
    layouts: Mapping[str, Layout],
    chunk: int,
) -> Iterator[tuple[dict[str, Tensor], Tensor, Tensor]]:
    """For each chunk: the features (rows, d) of every layer by its name, the labels and the decisions (rows,)."""
    read: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, args: read.append(args[0].detach()))
    try:
        for inputs, labels in zip(x.split(chunk), y.split(chunk), strict=True):
            states, logits = trace_states(model, inputs)
            layers = {f"h_{depth}": state for depth, state in enumerate(states)} | {"features": read[-1]}
            vectors = {
                name: _vectors(name, state, len(inputs), layouts.get(name, maps)) for name, state in layers.items()
            }
            yield vectors, labels, logits.argmax(1)
            read.clear()
    finally:
        handle.remove()


def _vectors(name: str, state: Tensor, n: int, maps: Maps) -> Tensor:
    """State (n, d) as it is; of more dimensions as ``maps`` says, (n, c) or (n, -1)."""
    if len(state) != n:
        raise ValueError(f"Expected states whose rows are the {n} inputs; {name} is {tuple(state.shape)}.")
    if maps == "flatten" or state.dim() == 2:
        return state.flatten(1)
    return state.flatten(2).mean(2) if maps == "channels_first" else state.flatten(1, -2).mean(1)


def _classifier(model: nn.Module, path: Trace, calls: Sequence[Call]) -> nn.Linear:
    """The last ``nn.Linear`` whose output is the model's."""
    logits = path.logits
    read_and_written = reversed(calls) if isinstance(logits, Tensor) and logits.dim() == 2 else ()
    for layer, tensors in read_and_written:
        if isinstance(layer, nn.Linear) and equal(tensors[-1], logits):
            return layer
    linears = sum(isinstance(layer, nn.Linear) for layer in model.modules())
    raise ValueError(
        f"Expected a model whose output is that of an nn.Linear, its classifier, (n, C); {type(model).__name__} has "
        f"{linears} such layers and none gives its output. Take off what follows it, or call neural_collapse with "
        "features and head of your own."
    )
