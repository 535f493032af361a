"""A network as the graph of its calls, which was compared with the network and knows the shapes."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_leaves

from ..operators import error_text
from ._operations import ACTIVATIONS, ELEMENTWISE, NOT_DATA, has_own_forward, is_one_of

SIDES = (32, 28, 64, 96, 224)  # of the images that are tried where no input is given
BATCH = 2  # inputs with which the graph is run: what moves them about shows


def copied(model: nn.Module) -> nn.Module:
    """A deep copy.

    Raises:
        ValueError: a weight is computed by a hook, as pruning and the old ``weight_norm`` do, and cannot be copied.
    """
    try:
        return copy.deepcopy(model)
    except RuntimeError as error:
        hooks = [(name, hook) for name, m in model.named_modules() for hook in m._forward_pre_hooks.values()]
        found = ", ".join(dict.fromkeys(f"'{name}' ({type(hook).__name__})" for name, hook in hooks))
        raise ValueError(
            f"{type(model).__name__} cannot be copied: {str(error).split('.')[0]}. Weights that a hook computes are at "
            f"{found or 'no module'}; make them plain first, with torch.nn.utils.prune.remove, remove_weight_norm or "
            "remove_spectral_norm."
        ) from error


def traced(model: nn.Module) -> fx.GraphModule:
    """The graph of ``model`` in eval mode, with the arguments that have a default at their default.

    The modules are shared with ``model``, whose mode is left as it was.

    Raises:
        ValueError: torch.fx cannot follow the forward pass.
    """
    arguments = inspect.signature(model.forward).parameters.items()
    constants = {n: p.default for n, p in arguments if isinstance(p.default, bool | int | float | str | None)}
    with evaluated(model):
        try:
            return fx.GraphModule(model, _Tracer().trace(model, constants), type(model).__name__)
        except Exception as error:  # whatever a foreign forward pass raises when it meets a proxy instead of a tensor
            raise ValueError(
                f"torch.fx cannot trace {type(model).__name__} ({error_text(error)}). "
                "Expected a forward pass without control flow that depends on tensors; give a part of the model that "
                "has none, or rewrite the branch."
            ) from error


@torch.no_grad()
def measured(model: nn.Module, x: Tensor | None = None) -> tuple[fx.GraphModule, Tensor]:
    """The graph, compared with the model on x (n, ...), in which every node knows what it returns; and x.

    That is ``meta["shape"]`` (2, ...) of a tensor with data, and ``meta["value"]`` of what else there is. Without x
    random inputs are used whose shape the first layer tells.

    Raises:
        ValueError: as :func:`traced`; torch.fx follows another function than the model is; the model cannot take x, or
            without x the first layer does not tell its shape.
    """
    graph = traced(model)
    with evaluated(model):
        x = example_input(model, graph) if x is None else x
        if x is None:
            raise ValueError(
                f"What {type(model).__name__} takes is not known from its first layer. Give an example input, x=."
            )
        _record(model, graph, x)
    return graph, x


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """Eval mode, and afterwards every module's own mode again."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Keep batch norms whole, derived ones too: they ask for the number of dimensions, which no graph can tell."""
        if super().is_leaf_module(m, module_qualified_name):
            return True
        return isinstance(m, _BatchNorm) and not (has_own_forward(m) and _can_be_traced(m))


def _can_be_traced(module: nn.Module) -> bool:
    try:
        fx.Tracer().trace(module)
    except Exception:  # a foreign forward pass may raise anything
        return False
    return True


def _record(model: nn.Module, graph: fx.GraphModule, x: Tensor) -> None:
    x = torch.cat([x[:1]] * BATCH)
    try:
        expected = model(x.clone())
    except Exception as error:  # a foreign forward pass may raise anything
        raise ValueError(
            f"{type(model).__name__} cannot take inputs of shape {tuple(x.shape)}, {x.dtype} on {x.device} "
            f"({error_text(error)}). Give an example of what it takes, x=."
        ) from error
    difference = largest_difference(expected, _Recorder(graph).run(x.clone()))
    if not difference <= 1e-3:
        raise ValueError(
            f"The graph that torch.fx makes of {type(model).__name__} is another function: its output differs by "
            f"{difference:.1e} of the largest. Look for random numbers, `+=` on a tensor that has a second name, and "
            "isinstance in the forward pass."
        )


def largest_difference(expected: Any, found: Any) -> float:
    """Largest difference of the tensors in two outputs, relative to each one's largest entry; absolute where that is 0.

    NaN where either is not a number.
    """
    pairs = zip(tree_leaves(expected), tree_leaves(found), strict=True)
    differences = [0.0]
    for a, b in pairs:
        if isinstance(a, Tensor) and a.numel() and not torch.equal(a, b):
            scale = float(a.abs().max())
            differences.append(float((b - a).abs().max()) / (scale if scale else 1.0))
    return float(torch.tensor(differences, dtype=torch.float64).max())  # which is NaN if one is


class _Recorder(fx.Interpreter):
    """Runs the graph and keeps shapes of data, if that is real numbers, and values of what else there is."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.data = data_nodes(graph)

    def run_node(self, n: fx.Node) -> Any:
        """Run one node."""
        value = super().run_node(n)
        if n not in self.data:
            n.meta["value"] = value
        elif isinstance(value, Tensor) and value.is_floating_point():
            n.meta["shape"] = tuple(value.shape)
        return value


def example_input(model: nn.Module, graph: fx.GraphModule) -> Tensor | None:
    """Random inputs (2, ...) of the shape that the first layer tells, or None if the model takes no such input.

    Of images, the first size that the model takes. torch's generator is not moved.
    """
    modules = [model, *(module_of(graph, node) for node in graph.graph.nodes)]
    first = next((m for m in modules if isinstance(m, nn.Linear | _ConvNd | _BatchNorm)), None)
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    for shape in _shapes(first):
        x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).to(like)
        with suppress(RuntimeError, ValueError, TypeError, IndexError):  # it wants another size
            model(x.clone())
            return x
    return None


def _shapes(first: nn.Module | None) -> Iterator[tuple[int, ...]]:
    if isinstance(first, nn.Linear):
        yield (first.in_features,)
    elif isinstance(first, nn.BatchNorm1d):
        yield (first.num_features,)
    elif isinstance(first, _ConvNd | nn.BatchNorm2d):
        channels, dimensions = (
            (first.in_channels, len(first.kernel_size)) if isinstance(first, _ConvNd) else (first.num_features, 2)
        )
        yield from ((channels, *[side] * dimensions) for side in SIDES)


def module_of(graph: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The module that a node calls, if it calls one."""
    return graph.get_submodule(str(node.target)) if node.op == "call_module" else None


def operation(node: fx.Node) -> str:
    """What a node calls that is no module: the name of torch's function or method, without underscores; else ''."""
    if node.op == "call_method":
        return str(node.target).strip("_")
    if node.op != "call_function":
        return ""
    module, name = getattr(node.target, "__module__", None), getattr(node.target, "__name__", "")
    if node.target is getattr:
        return f"getattr {node.args[1]}"
    if name == "stochastic_depth" and str(module).startswith("torchvision.ops."):
        return name
    own = module in (None, "_operator", "torch", "torch._tensor", "torch.functional", "torch.nn.functional")
    return name.strip("_").removeprefix("special_") if own or str(module).startswith("torch._C.") else ""


def called(graph: fx.GraphModule, node: fx.Node) -> str:
    """What a node calls, in words, for error messages."""
    module = module_of(graph, node)
    if module is not None:
        return type(module).__name__
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))


def is_relu(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the node is a ReLU: a module, a function or a method."""
    return type(module_of(graph, node)) is nn.ReLU or operation(node) == "relu"


def is_activation(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the node is an elementwise function that is not linear."""
    return is_one_of(module_of(graph, node), (*ACTIVATIONS, nn.PReLU)) or operation(node) in ELEMENTWISE | {"prelu"}


def data_nodes(graph: fx.GraphModule) -> set[fx.Node]:
    """Nodes that carry what comes from the input: no sizes, no parameters."""
    known: set[fx.Node] = set()
    for node in graph.graph.nodes:
        argument = node.op == "placeholder" and not node.args  # those with a default are at it
        if argument or (operation(node) not in NOT_DATA and any(source in known for source in node.all_input_nodes)):
            known.add(node)
    return known
