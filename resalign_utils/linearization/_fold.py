"""What is linear in a trained network, merged where the algebra is exact."""

from __future__ import annotations

import operator
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.nn.modules import batchnorm, conv, dropout, pooling
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from ..arithmetic import exact_arithmetic
from ._graph import called, copied, largest_difference, module_of, operation, traced
from ._in_place import written
from ._merge import Affine, added, affine, composed, has_statistics, multiple_of_identity, scaled

_SUMS = (operator.add, torch.add)  # as which torch.fx records += too
_PRODUCTS = (operator.mul, torch.mul)
# What returns memory of its own, unless it is told to work in place.
_FRESH = (
    nn.Linear, conv._ConvNd, batchnorm._BatchNorm, nn.ReLU, nn.PReLU, pooling._MaxPoolNd, pooling._AvgPoolNd,
    pooling._AdaptiveAvgPoolNd, pooling._AdaptiveMaxPoolNd,
)  # fmt: skip


@torch.no_grad()
def fold(model: nn.Module, x: Tensor | None = None, *, tolerance: float = 1e-9) -> fx.GraphModule:
    """Copy a network with everything merged that is linear, as far as that is exact.

    Until nothing changes,

    * PReLUs whose slopes are all 1, identities and dropout are dropped;
    * a batch norm, and a factor λ, goes into the fully-connected layer or convolution before it;
    * of two fully-connected layers or convolutions in a row one is made, and so is of a batch norm before such a layer.
      Where the second convolution pads, this is exact only after a 1×1 convolution without bias, since what comes out
      of the first is not zero around the image; elsewhere the two are left;
    * of two linear layers, or one and an identity, that are added and have the same input, one is made: the identity
      and the 1×1 convolution beside a 3×3 one (Ding et al. 2021, section 3.3), the skip around a linear branch
      (W + λI).

    Two layers are merged only if the one takes no more numbers (weights, biases, batch norm's statistics): two 3×3
    convolutions as one of 5×5, or two sides of a bottleneck as one wide matrix, would cost more memory and time. A
    value that is used twice, a module that is called twice or carries hooks, a subclass of a layer (of a batch norm,
    if it has a forward pass of its own), and what is called as a function, are left alone. Where the model writes in
    place over a value that something else may read, no PReLU is dropped and no sum is merged. (``torch.fx`` itself
    takes ``h += f`` for ``h = h + f``: another name of the old ``h`` does not see the sum. The check on x would tell.)

    The algebra is done in float64 on the CPU, and so is the check: rounding to the model's own dtype, once at the end,
    is no error. A batch norm beside or after a fully-connected layer is taken to see (n, units), not sequences.

    Args:
        model: any module that ``torch.fx`` can trace, whose floating-point tensors have one dtype and device; it is
            not changed. Arguments that have a default keep it.
        x: inputs (n, ...) on which copies in float64 of the model in eval mode and of the folded one are compared.
            Without them no check is made.
        tolerance: largest difference allowed, relative to the largest output; absolute if all outputs are 0.

    Returns:
        A ``torch.fx.GraphModule`` in eval mode, on the model's device, of its dtype, and in ``channels_last`` if the
        model is. It was traced in eval mode: ``.train()`` does not bring dropout or batch norm back. Its
        ``meta["left"]`` lists the batch norms that are left, such as ``"blocks.0.norm (BatchNorm2d)"``: nothing linear
        comes before them, or it is used elsewhere, or one of the two is of a kind without a rule.

    Raises:
        ValueError: the model cannot be copied or traced, or has several dtypes or devices; with x, it cannot take x in
            float64.
        TypeError: with x, the model does not return one tensor.
        RuntimeError: the outputs on x differ by more than ``tolerance``; the text says by how much.

    Example:
        A PReLU whose slope is 1 is the identity, so the layers around it become one:

        >>> import resalign_utils as ra
        >>> import torch
        >>> from torch import nn
        >>> layers = [nn.Linear(4, 4), nn.PReLU(init=1.0), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)]
        >>> model = nn.Sequential(*layers)
        >>> [type(layer).__name__ for layer in ra.fold(model, torch.randn(5, 4)).children()]
        ['Linear', 'ReLU', 'Linear']
    """
    device, dtype = _place(model)
    original = copied(model).eval().to(torch.device("cpu"), torch.float64)
    folded = traced(copied(original))
    while sum(any(rule(folded, node) for rule in _RULES) for node in folded.graph.nodes):
        pass  # something was merged on the way through the graph: once more
    folded.delete_all_unused_submodules()
    folded.recompile()
    if x is not None:
        _check_same(original, folded, x, tolerance)
    folded.meta["left"] = [name for node in folded.graph.nodes if (name := _batch_norm(folded, node))]
    if any(p.dim() == 4 and _is_channels_last(p) for p in model.parameters()):
        folded = folded.to(memory_format=torch.channels_last)
    return folded.to(device, dtype).eval()


def _batch_norm(net: fx.GraphModule, node: fx.Node) -> str:
    """Name and type of a batch norm; '' of another node. As a function it has the name of its mean's module."""
    if isinstance(module_of(net, node), batchnorm._BatchNorm):
        return f"{node.target} ({called(net, node)})"
    if operation(node) != "batch_norm":
        return ""
    tensors = [source for source in node.all_input_nodes if source.op == "get_attr"]
    name = str(tensors[0].target).rpartition(".")[0] if tensors else node.name
    return f"{name} (batch_norm)"


def _is_channels_last(weight: Tensor) -> bool:
    return weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


def _drop(net: fx.GraphModule, node: fx.Node) -> bool:
    """Rule 1: what returns its input."""
    module, source = module_of(net, node), _source(node)
    if source is None or _has_hooks(module):
        return False
    nothing = type(module) is nn.Identity or isinstance(module, dropout._DropoutNd)
    if isinstance(module, nn.PReLU) and bool((module.weight == 1).all()):
        # it returned a copy: nobody may write into the original now
        nothing = _writes_are_private(net) and (
            _is_private(net, source) or not any(written(net, u) is node for u in node.users)
        )
    if nothing:
        node.replace_all_uses_with(source)
        net.graph.erase_node(node)
    return nothing


def _absorb(net: fx.GraphModule, node: fx.Node) -> bool:
    """Rule 2: a batch norm, or a factor, into the layer before it."""
    source, factor = _product(node)
    norm = _own_module(net, node)
    source = source if norm is None else _source(node)
    layer = None if source is None or len(source.users) > 1 else _own_module(net, source)
    if source is None or layer is None:
        return False
    merged: nn.Module | None = None
    if factor is not None and isinstance(layer, nn.Linear | nn.Conv2d) and type(layer) in (nn.Linear, nn.Conv2d):
        merged = scaled(layer, factor)
    elif has_statistics(norm):
        merged = _normalised(layer, norm)
    if merged is None:
        return False
    _replace(net, source, merged, node)
    return True


def _normalised(layer: nn.Module, norm: batchnorm._BatchNorm) -> nn.Module | None:
    """The layer with the batch norm that comes after it; None if there is no rule."""
    if isinstance(layer, nn.Linear) and type(layer) is nn.Linear:
        over_units = isinstance(norm, nn.BatchNorm1d) and layer.out_features == norm.num_features  # not over places
        return fuse_linear_bn_eval(layer, norm) if over_units else None
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) and type(layer) in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
        return fuse_conv_bn_eval(layer, norm)
    return None


def _compose(net: fx.GraphModule, node: fx.Node) -> bool:
    """Rule 3: a linear layer after a linear layer."""
    source = _source(node)
    if source is None or len(source.users) > 1:
        return False
    first, second = affine(_own_module(net, source)), affine(_own_module(net, node))
    merged = composed(first, second) if first and second else None
    if merged is None:
        return False
    _replace(net, source, merged.module(), node)
    return True


def _add(net: fx.GraphModule, node: fx.Node) -> bool:
    """Rule 4: the sum of two linear layers, or of one and an identity, with one input."""
    terms = [term for term in node.args if isinstance(term, fx.Node)]
    is_sum = node.op == "call_function" and node.target in _SUMS and not node.kwargs
    if not is_sum or len(terms) != 2 or terms[0] is terms[1]:
        return False
    (source, one), (other_source, other) = (_branch(net, term) for term in terms)
    if source is not other_source or not _writes_are_private(net):
        return False
    if not isinstance(one, Affine):
        terms, one, other = terms[::-1], other, one
    if not isinstance(one, Affine):  # two identities
        return False
    twin = other if isinstance(other, Affine) else multiple_of_identity(other, one)
    merged = added(one, twin)
    if merged is None:
        return False
    net.add_submodule(str(terms[0].target), merged.module())
    with net.graph.inserting_before(node):
        new = net.graph.call_module(str(terms[0].target), (source,))
    node.replace_all_uses_with(new)
    for spent in (node, *(term for term in terms if term is not source)):
        net.graph.erase_node(spent)
    return True


_RULES: tuple[Callable[[fx.GraphModule, fx.Node], bool], ...] = (_drop, _absorb, _compose, _add)


def _branch(net: fx.GraphModule, term: fx.Node) -> tuple[fx.Node, Affine | float]:
    """The input of a term of a sum, and what is done to it: a linear map, a factor, or nothing, which is factor 1."""
    if len(term.users) == 1:
        source, factor = _product(term)
        if source is not None and factor is not None:
            return source, factor
        source, linear = _source(term), affine(_own_module(net, term))
        if source is not None and linear is not None:
            return source, linear
    return term, 1.0


def _product(node: fx.Node) -> tuple[fx.Node | None, float | None]:
    """``(h, λ)`` of a node λ·h with a number λ; ``(None, None)`` of another."""
    if node.op == "call_function" and node.target in _PRODUCTS and len(node.args) == 2 and not node.kwargs:
        for h, factor in (node.args, node.args[::-1]):
            if isinstance(h, fx.Node) and isinstance(factor, int | float):
                return h, float(factor)
    return None, None


def _source(node: fx.Node) -> fx.Node | None:
    """The value that a module is called with, if it is called with one."""
    alone = node.op == "call_module" and len(node.args) == 1 and not node.kwargs
    return node.args[0] if alone and isinstance(node.args[0], fx.Node) else None


def _own_module(net: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The module of a call, if nothing else in the graph calls it or reads its tensors, and it carries no hooks."""
    module = module_of(net, node)
    if module is None or _has_hooks(module):
        return None
    name = str(node.target)
    readers = [
        n for n in net.graph.nodes if n.op in ("call_module", "get_attr") and f"{n.target}.".startswith(f"{name}.")
    ]
    return module if readers == [node] else None


def _has_hooks(module: nn.Module | None) -> bool:
    return module is not None and bool(module._forward_hooks or module._forward_pre_hooks)


def _replace(net: fx.GraphModule, source: fx.Node, layer: nn.Module, spent: fx.Node) -> None:
    """``layer`` in place of the module that ``source`` calls and of what ``spent`` did to its output."""
    net.add_submodule(str(source.target), layer)
    spent.replace_all_uses_with(source)
    net.graph.erase_node(spent)


# Writing in place


def _is_private(net: fx.GraphModule, value: fx.Node) -> bool:
    """Whether the value is read once, and nothing else shares its memory."""
    if len(value.users) > 1:
        return False
    before = written(net, value)
    if before is not None:
        return _is_private(net, before)
    fresh = value.op == "call_function" and value.target in _SUMS + _PRODUCTS
    return fresh or isinstance(module_of(net, value), _FRESH)


def _writes_are_private(net: fx.GraphModule) -> bool:
    """Whether every value that is written over is read by its writer alone, so that the order of reading is free."""
    values = [written(net, node) for node in net.graph.nodes]
    return all(_is_private(net, value) for value in values if value is not None)


# Before and after


def _place(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    tensors = [tensor for tensor in [*model.parameters(), *model.buffers()] if tensor.is_floating_point()]
    places = sorted({(str(tensor.device), str(tensor.dtype)) for tensor in tensors})
    if len(places) > 1:
        found = ", ".join(f"{dtype} on {device}" for device, dtype in places)
        raise ValueError(
            f"Expected a model of one dtype on one device; got {found}. Convert it: model.to(device, dtype)."
        )
    return (tensors[0].device, tensors[0].dtype) if tensors else (torch.device("cpu"), torch.get_default_dtype())


def _check_same(model: nn.Module, folded: nn.Module, x: Tensor, tolerance: float) -> None:
    """Compare both, in float64 on the CPU."""
    x = x.detach().cpu()
    x = x.double() if x.is_floating_point() else x
    with exact_arithmetic(x.device):
        try:
            expected = model(x.clone())
        except RuntimeError as error:
            raise ValueError(
                f"{type(model).__name__} cannot take inputs of shape {tuple(x.shape)} in float64, in which the check "
                f"is made ({str(error).splitlines()[0]}). Give inputs that it takes, or fold without x and compare."
            ) from error
        found = folded(x.clone())
    if not isinstance(expected, Tensor):
        raise TypeError(
            f"The check on x compares one tensor; the model returned {type(expected).__name__}. Fold without x and "
            "compare the parts."
        )
    difference = largest_difference(expected, found)
    if not difference <= tolerance:  # NaN is no agreement
        raise RuntimeError(
            f"The folded model's outputs differ from the original's by {difference:.1e} of the largest, more than "
            f"tolerance={tolerance:g}, though both were computed in float64. The graph of torch.fx is another function "
            "than the model, or the model enlarges rounding; with a larger tolerance it is folded nevertheless."
        )
