"""From ReLUs to PReLUs whose slopes can be trained towards 1."""

from __future__ import annotations

import copy
from typing import Literal, get_args

from torch import Tensor, fx, nn

from ._graph import channels, is_relu, module_of, traced

Granularity = Literal["channel", "layer"]


def linearize(model: nn.Module, granularity: Granularity = "channel", *, x: Tensor | None = None) -> nn.Module:
    """Copy a network with every ReLU replaced by a PReLU of slope α = 0: the same function, ready to become linear.

    ``PReLU(z) = max(z, 0) + α min(z, 0)`` is the ReLU at α = 0 and the identity at α = 1. With one slope per channel,
    :func:`post_train` makes *some channels* of a layer linear, and a path may pass the layer with or without a
    nonlinear unit: the depth becomes variable. With one slope per layer it removes *whole layers* of nonlinear units:
    the depth stays fixed, and shrinks (Mehmeti-Göpel & Wand 2025).

    Where every ReLU is a module of its own, as in the networks of this package, the copy has the type of the original
    and only these modules are exchanged. Where one module is called several times or ReLU is called as a function (as
    in torchvision's ResNets), it is a ``torch.fx.GraphModule``, traced in eval mode, in which each call has slopes
    of its own; a dropout called as a function stays switched off there.

    Args:
        model: any module that ``torch.fx`` can trace; it is not changed.
        granularity: ``"channel"``, one slope per channel (dimension 1, a unit of a fully-connected layer), or
            ``"layer"``, one slope per layer.
        x: an example input (n, ...), needed only for channels whose number the layers before do not tell.

    Returns:
        A copy of the model, in the same mode, on the same device.

    Raises:
        ValueError: unknown granularity, a model that cannot be traced or has no ReLU, or an unknown number of channels.
    """
    if granularity not in get_args(Granularity):
        raise ValueError(f"granularity must be 'channel' or 'layer'; got {granularity!r}.")
    model = copy.deepcopy(model)
    graph = traced(model, x)
    nodes = [node for node in graph.graph.nodes if is_relu(graph, node)]
    if not nodes:
        raise ValueError(f"{type(model).__name__} calls no ReLU: there is nothing to linearise.")
    slopes = [_slopes(graph, node, granularity, model) for node in nodes]
    targets = [node.target for node in nodes if module_of(graph, node) is not None]
    if len(set(targets)) == len(nodes):  # each is a module that is called once: the network keeps its type
        for node, module in zip(nodes, slopes, strict=True):
            parent, _, name = str(node.target).rpartition(".")
            setattr(model.get_submodule(parent), name, module)
        return model
    return _rewired(graph, nodes, slopes).train(model.training)


def _slopes(graph: fx.GraphModule, node: fx.Node, granularity: Granularity, model: nn.Module) -> nn.PReLU:
    count = channels(graph, node.all_input_nodes[0]) if granularity == "channel" else 1
    like = next(model.parameters())
    slopes = nn.PReLU(count, init=0.0, device=like.device, dtype=like.dtype)
    return slopes.train(model.training)


def _rewired(graph: fx.GraphModule, nodes: list[fx.Node], slopes: list[nn.PReLU]) -> fx.GraphModule:
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
