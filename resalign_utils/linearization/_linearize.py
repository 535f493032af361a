"""From ReLUs to PReLUs whose slopes can be trained towards 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, fx, nn
from torch.nn.modules import batchnorm, instancenorm

from . import _operations as ops
from ._graph import (
    called,
    copied,
    data_nodes,
    evaluated,
    is_activation,
    is_relu,
    largest_difference,
    measured,
    module_of,
    operation,
)
from ._in_place import read_what_was_written

Granularity = Literal["channel", "layer"]
CHANNELS_FIRST = (
    *ops.CONVOLUTIONS, *ops.POOLS, batchnorm._BatchNorm, instancenorm._InstanceNorm, nn.GroupNorm,
    nn.PixelShuffle, nn.PixelUnshuffle,
)  # fmt: skip
CHANNELS_FIRST_NAMES = ops.CONVOLVED | ops.POOLED | {"batch_norm", "instance_norm", "group_norm", "pixel_shuffle"}
KEEP_CHANNELS = (*ops.SAME_MODULES, *ops.ACTIVATIONS, nn.PReLU)
KEEP_CHANNELS_NAMES = (
    ops.SAME | ops.ELEMENTWISE | ops.SUMS | ops.PRODUCTS | {"cat", "concat", "chunk", "split", "getitem"}
)

HIDING = (
    nn.Transformer, nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.TransformerDecoder,
    nn.TransformerDecoderLayer,
)  # fmt: skip


def linearize(model: nn.Module, granularity: Granularity = "channel", *, x: Tensor | None = None) -> nn.Module:
    """Copy a network with every ReLU replaced by a PReLU of slope α = 0: the same function, ready to become linear.

    ``PReLU(z) = max(z, 0) + α min(z, 0)`` is the ReLU at α = 0 and the identity at α = 1. With one slope per channel,
    :func:`post_train` makes *some channels* of a layer linear, and a path may pass the layer with or without a
    nonlinear unit: the depth becomes variable. With one slope per layer it removes *whole layers* of nonlinear units:
    the depth stays fixed, and shrinks (Mehmeti-Göpel & Wand 2025).

    Where every ReLU is a module of its own, as in the networks of this package, the copy has the type of the original
    and only these modules are exchanged. Where one module is called several times, ReLU is called as a function, or it
    works in place on what is read again under its old name, the copy is a ``torch.fx.GraphModule``, traced in eval
    mode, in which each call has slopes of its own; a dropout called as a function stays switched off there, and
    arguments that have a default keep it. In eval mode the copy is always compared with the model.

    Args:
        model: any module that ``torch.fx`` can trace; it is not changed.
        granularity: ``"channel"``, one slope per channel (dimension 1, a unit of a fully-connected layer), or
            ``"layer"``, one slope per layer. Tokens (n, T, D) can have the latter only: a PReLU's slopes belong to
            dimension 1.
        x: an example input (n, ...). Without it random inputs are used whose shape the first layer tells: (n,
            features), or images of 28 to 224 pixels a side. Tokens must be given.

    Returns:
        A copy of the model, in the same mode, on the same device.

    Raises:
        ValueError: unknown granularity; a model that cannot be copied or traced, has no ReLU, may hide one in a module
            that cannot be traced, or writes in place over what is read under another name; slopes per channel where
            dimension 1 is not known to be the channels; an input whose shape is not known.
        RuntimeError: the copy is another function.

    Example:
        >>> import resalign_utils as ra
        >>> from torch import nn
        >>> layers = [nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)]
        >>> model = nn.Sequential(*layers)
        >>> copy = ra.linearize(model, "channel")
        >>> copy[1]
        PReLU(num_parameters=4)
        >>> bool(copy[1].weight.detach().eq(0).all())
        True
    """
    if granularity not in get_args(Granularity):
        raise ValueError(f"granularity must be 'channel' or 'layer'; got {granularity!r}.")
    original, model = model, copied(model)
    graph, x = measured(model, x)
    data = data_nodes(graph)
    _refuse_what_is_hidden(graph)
    rewritten = read_what_was_written(graph)
    nodes = [node for node in graph.graph.nodes if node in data and is_relu(graph, node)]
    if not nodes:
        others = [called(graph, node) for node in graph.graph.nodes if node in data and is_activation(graph, node)]
        raise ValueError(_nothing_to_do(model, others))
    slopes = [_slopes(graph, node, granularity, model) for node in nodes]
    calls = Counter(node.target for node in graph.graph.nodes if node.op == "call_module")
    if all(calls[node.target] == 1 for node in nodes) and not set(nodes) & set(rewritten):
        for node, module in zip(nodes, slopes, strict=True):  # modules that are called once: the network keeps its type
            model.set_submodule(str(node.target), module)
        result = model
    else:
        result = _rewired(graph, nodes, slopes).train(model.training)
    _check_same(original, result, x)
    return result


def _refuse_what_is_hidden(graph: fx.GraphModule) -> None:
    for node in graph.graph.nodes:
        module = module_of(graph, node)
        if module is None:
            continue
        if isinstance(module, HIDING) or getattr(module, "nonlinearity", None) == "relu" or ops.has_own_forward(module):
            raise ValueError(
                f"'{node.name}' ({called(graph, node)}) is one module to torch.fx, which cannot see whether there are "
                "ReLUs in it. Write it with functions and layers of which each does one thing."
            )


def _nothing_to_do(model: nn.Module, found: Sequence[str]) -> str:
    names = ", ".join(dict.fromkeys(found))
    others = f"Its activations are {names}; exchange them for ReLU." if found else "It calls no other activation."
    return f"{type(model).__name__} calls no ReLU: there is nothing to linearise. {others}"


def _slopes(graph: fx.GraphModule, node: fx.Node, granularity: Granularity, model: nn.Module) -> nn.PReLU:
    shape = node.meta["shape"]
    if granularity == "channel" and len(shape) > 2 and not _channels_first(graph, node):
        raise ValueError(
            f"'{node.name}' is a ReLU of a tensor (n, {', '.join(map(str, shape[1:]))}) whose dimension 1 is not known "
            "to be the channels; PReLU has its slopes there. Use granularity='layer'."
        )
    like = next(model.parameters(), torch.empty(0))
    count = shape[1] if granularity == "channel" else 1
    return nn.PReLU(count, init=0.0, device=like.device, dtype=like.dtype).train(model.training)


def _channels_first(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a layer that has the channels in dimension 1 comes before, and nothing that could move them since."""
    seen, left = set[fx.Node](), [node]
    while left:
        node = left.pop()
        if node in seen:
            continue
        seen.add(node)
        module, name = module_of(graph, node), operation(node)
        image = node.op == "placeholder" and len(node.meta.get("shape", ())) > 3
        if image or ops.is_one_of(module, CHANNELS_FIRST) or name in CHANNELS_FIRST_NAMES:
            return True
        whole = isinstance(module, nn.LayerNorm) and len(module.normalized_shape) > 1  # of images, not of features
        if whole or ops.is_one_of(module, KEEP_CHANNELS) or name in KEEP_CHANNELS_NAMES:
            left += [source for source in node.all_input_nodes if _keeps_dimension_1(source, node)]
    return False


def _keeps_dimension_1(source: fx.Node, node: fx.Node) -> bool:
    """Whether dimension 1 of a tensor is that of the one it is made of, as far as dimensions come, go or are indexed.

    By an index it is where that begins with two slices, ``h[:, 2:, 0]``, and counts no list or tensor.
    """
    before, after = (len(n.meta.get("shape", ())) for n in (source, node))
    if not before or not after:  # a tuple of tensors, and its parts
        return True
    if operation(node) != "getitem":
        return before == after
    index = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
    if Ellipsis in index:
        place = index.index(Ellipsis)
        rest = before - sum(entry is not None for entry in index) + 1
        index = (*index[:place], *[slice(None)] * rest, *index[place + 1 :])
    plain = all(isinstance(entry, slice | None) or type(entry) is int for entry in index)
    return plain and all(isinstance(entry, slice) for entry in index[:2])


def _rewired(graph: fx.GraphModule, nodes: Sequence[fx.Node], slopes: Sequence[nn.PReLU]) -> fx.GraphModule:
    for number, (node, module) in enumerate(zip(nodes, slopes, strict=True), start=1):
        name = f"slopes_{number}"
        graph.add_submodule(name, module)
        with graph.graph.inserting_after(node):
            new = graph.graph.call_module(name, (node.all_input_nodes[0],))
        node.replace_all_uses_with(new)
        graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph


@torch.no_grad()
def _check_same(model: nn.Module, copy: nn.Module, x: Tensor) -> None:
    with evaluated(model), evaluated(copy):
        difference = largest_difference(model(x.clone()), copy(x.clone()))
    if not difference <= 1e-5:
        raise RuntimeError(
            f"The copy's outputs differ from the model's by {difference:.1e} of the largest, though all its slopes are "
            "0. Look for what the graph of torch.fx does not see: hooks, and names of tensors that are written over."
        )
