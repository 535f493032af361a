"""A network as the graph of its calls: where the activations are, how many channels they have, and who merges what."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

RELU_FUNCTIONS = (torch.relu, torch.relu_, F.relu, F.relu_)
RELU_METHODS = ("relu", "relu_")
# Elementwise and nonlinear, but not to be linearised: they count as one nonlinear unit on every path.
OTHER_ACTIVATIONS = (
    nn.CELU, nn.ELU, nn.GELU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.LogSigmoid,
    nn.Mish, nn.RReLU, nn.SELU, nn.Sigmoid, nn.SiLU, nn.Softplus, nn.Softshrink, nn.Softsign, nn.Tanh, nn.Tanhshrink,
    nn.Threshold,
)  # fmt: skip
OTHER_FUNCTIONS = (
    torch.tanh, torch.sigmoid, F.celu, F.elu, F.gelu, F.hardsigmoid, F.hardswish, F.hardtanh, F.leaky_relu,
    F.logsigmoid, F.mish, F.relu6, F.selu, F.sigmoid, F.silu, F.softplus, F.softsign, F.tanh,
)  # fmt: skip
OTHER_METHODS = ("tanh", "sigmoid", "tanh_", "sigmoid_")
SUMS = (operator.add, operator.iadd, operator.sub, operator.isub, torch.add, torch.sub)
CONCATENATIONS = (torch.cat, torch.concat)
# What leaves the channels as they are, so that their number may be looked up further back.
KEEP_CHANNELS = (
    nn.Identity, nn.ReLU, nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Upsample, nn.modules.dropout._DropoutNd, *OTHER_ACTIVATIONS,
)  # fmt: skip
NOT_DATA = ("size", "dim", "numel", "ndimension")


def traced(model: nn.Module, x: Tensor | None = None) -> fx.GraphModule:
    """The graph of ``model`` in eval mode; with x (n, ...), every node knows its shape.

    The modules are shared with ``model``, whose mode is left as it was.

    Raises:
        ValueError: torch.fx cannot follow the forward pass.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        graph = fx.symbolic_trace(model)
        if x is not None:
            with torch.no_grad():
                ShapeProp(graph).propagate(x)
    except Exception as error:  # whatever a foreign forward pass raises when it meets a proxy instead of a tensor
        reason = (str(error).splitlines() or ["no message"])[0]
        raise ValueError(
            f"torch.fx cannot trace {type(model).__name__} ({type(error).__name__}: {reason}). "
            "Expected a forward pass without control flow that depends on tensors; give a part of the model that has "
            "none, or rewrite the branch."
        ) from error
    finally:
        for module, mode in modes.items():
            module.training = mode
    return graph


def module_of(graph: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The module that a node calls, if it calls one."""
    return graph.get_submodule(str(node.target)) if node.op == "call_module" else None


def is_relu(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the node is a ReLU: a module, a function or a method."""
    return (
        isinstance(module_of(graph, node), nn.ReLU)
        or (node.op == "call_function" and node.target in RELU_FUNCTIONS)
        or (node.op == "call_method" and node.target in RELU_METHODS)
    )


def nonlinear_share(graph: fx.GraphModule, node: fx.Node) -> float:
    """Share of the node's channels that pass an elementwise nonlinearity; a PReLU's at slope 1 do not."""
    module = module_of(graph, node)
    if isinstance(module, nn.PReLU):
        return float((module.weight != 1).double().mean())
    other = (
        isinstance(module, OTHER_ACTIVATIONS)
        or (node.op == "call_function" and node.target in OTHER_FUNCTIONS)
        or (node.op == "call_method" and node.target in OTHER_METHODS)
    )
    return float(other or is_relu(graph, node))


def channels(graph: fx.GraphModule, node: fx.Node) -> int:
    """Number of channels, the size of dimension 1, of what a node returns.

    Raises:
        ValueError: not known without shapes.
    """
    if "tensor_meta" in node.meta:
        return int(node.meta["tensor_meta"].shape[1])
    module = module_of(graph, node)
    for attribute in ("out_channels", "out_features", "num_features", "num_channels"):
        if isinstance(getattr(module, attribute, None), int):
            return int(getattr(module, attribute))
    if isinstance(module, nn.PReLU) and module.num_parameters > 1:
        return module.num_parameters
    keeps = isinstance(module, (*KEEP_CHANNELS, nn.PReLU)) or is_relu(graph, node) or is_sum(node)
    scaled = node.op == "call_function" and node.target is operator.mul and len(node.all_input_nodes) == 1
    if keeps or scaled:
        return channels(graph, node.all_input_nodes[0])
    raise ValueError(
        f"The number of channels at '{node.name}' ({node.op} {node.target}) is not known from the layers before it. "
        "Give an example input, x=."
    )


def is_sum(node: fx.Node) -> bool:
    """Whether the node adds or subtracts."""
    function = node.op == "call_function" and node.target in SUMS
    return function or (node.op == "call_method" and node.target in ("add", "add_", "sub", "sub_"))


def branches(node: fx.Node, is_data: Callable[[fx.Node], bool]) -> list[tuple[fx.Node, float]]:
    """The nodes that a node's value comes from, each with the probability that a random walk goes back to it.

    A sum is left by each of its terms with equal probability, a concatenation in proportion to the channels.

    Raises:
        ValueError: several tensors are merged in another way, or a concatenation's sizes are not known.
    """
    if node.op == "call_function" and node.target in CONCATENATIONS:
        return _concatenated(node)
    sources = [source for source in node.all_input_nodes if is_data(source)]
    if is_sum(node):
        terms = [term for term in node.args[:2] if isinstance(term, fx.Node) and is_data(term)]
        return [(term, 1 / len(terms)) for term in terms]
    if len(sources) > 1:
        raise ValueError(
            f"Node '{node.name}' ({node.op} {node.target}) merges {len(sources)} tensors. Path lengths are defined for "
            "sums and concatenations of branches alone; give a part of the model without this operation."
        )
    return [(source, 1.0) for source in sources]


def _concatenated(node: fx.Node) -> list[tuple[fx.Node, float]]:
    parts: Any = node.args[0]
    if not all("tensor_meta" in part.meta for part in parts):
        raise ValueError(
            f"Node '{node.name}' concatenates tensors of unknown size, and a path is drawn uniformly over their "
            "channels. Give an example input, x=."
        )
    sizes = [part.meta["tensor_meta"].shape[1] for part in parts]
    return [(part, size / sum(sizes)) for part, size in zip(parts, sizes, strict=True)]


def data_nodes(graph: fx.GraphModule) -> set[fx.Node]:
    """Nodes that carry what comes from the input: no sizes, no parameters."""
    known: set[fx.Node] = set()
    for node in graph.graph.nodes:
        shape = node.op == "call_method" and node.target in NOT_DATA
        shape = shape or (node.op == "call_function" and node.target is getattr)
        if node.op == "placeholder" or (not shape and any(source in known for source in node.all_input_nodes)):
            known.add(node)
    return known
