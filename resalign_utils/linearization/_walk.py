"""The random walk from a network's output back to its input: which way it goes at every operation.

The state is a node and a channel, dimension 1. Elementwise functions, normalisation, pooling, padding and convolutions
that treat each channel for itself keep the channel; convolutions in groups go on to any channel of the group, full
convolutions to any channel, fully-connected layers to any entry of the last dimension. What only moves entries
(reshape, permute, slices, concatenation) is followed entry by entry; where a walk has a channel only, its place within
is uniform.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn

from . import _operations as ops
from ._graph import BATCH, called, data_nodes, measured, module_of, operation
from ._in_place import read_what_was_written
from ._laws import Laws, added, by_channel, joined, mixed, passed, start, tidy

Value = Laws | tuple[Laws, ...]


def walk(model: nn.Module, x: Tensor | None, *, exact: bool, units: Mapping[str, Tensor] | None = None) -> Tensor:
    """The law of a walk's length from a channel of the output, drawn uniformly, or (1, mean length); float64.

    Args:
        model: any module that ``torch.fx`` can trace.
        x: an example input (n, ...).
        exact: the law, or only its mean.
        units: which channels of PReLUs are nonlinear (1.0) and which linear (0.0), by the module's name; by default
            those are linear whose slope is 1.

    Raises:
        ValueError: as :func:`average_path_length`.
    """
    graph, _ = measured(model, x)
    read_what_was_written(graph)
    walker = _Walker(graph, exact, units or {})
    output = _output(graph, walker.data)
    needed = _behind(output)
    for node in graph.graph.nodes:
        if node in walker.data and node in needed:
            walker.laws[node] = walker.value(node)
    last = by_channel(walker.of(output))
    return mixed(last, range(last.table(0).dim())).rows[0]


def _output(graph: fx.GraphModule, data: set[fx.Node]) -> fx.Node:
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder" and node in data and node.users]
    output = next(node for node in graph.graph.nodes if node.op == "output")
    sources: list[fx.Node] = [source for source in output.all_input_nodes if source in data]
    if len(inputs) != 1 or len(sources) != 1:
        raise ValueError(
            f"Expected a model from one tensor to one tensor; got {len(inputs)} inputs and {len(sources)} outputs. "
            "Wrap it in a module that returns the one that is wanted."
        )
    return sources[0]


def _behind(output: fx.Node) -> set[fx.Node]:
    """The output and whatever it is computed from."""
    found, left = {output}, [output]
    while left:
        new = [source for source in left.pop().all_input_nodes if source not in found]
        found.update(new)
        left += new
    return found


class _Walker:
    """Laws of one node after the other, from the input on."""

    def __init__(self, graph: fx.GraphModule, exact: bool, units: Mapping[str, Tensor]) -> None:
        self.graph, self.exact, self.units = graph, exact, units
        self.data, self.laws = data_nodes(graph), dict[fx.Node, Value]()

    def value(self, node: fx.Node) -> Value:
        """Laws of what a node returns, from those of what it reads."""
        if node.op == "placeholder":
            return start(self.exact)
        module, name = module_of(self.graph, node), operation(node)
        if _has_hooks(module):
            self.refuse(node, "carries a hook, which may change what it computes. Remove the hook")
        for modules, names, rule in _RULES:
            if ops.is_one_of(module, modules) or name in names:
                return rule(self, node)
        self.refuse(
            node,
            "has no rule for path lengths: it is not known to be linear, and no elementwise activation. Give a part "
            "of the model without it, or write it with layers that have a rule",
        )

    def refuse(self, node: fx.Node, why: str) -> NoReturn:
        """Raise the error that names the node."""
        raise ValueError(f"'{node.name}' ({called(self.graph, node)}) {why}.")

    def of(self, node: fx.Node) -> Laws:
        """Laws of a tensor."""
        laws = self.laws[node]
        if not isinstance(laws, Laws):
            self.refuse(node, "returns several tensors, which are read as one")
        return laws

    def source(self, node: fx.Node, *, first: bool = True) -> fx.Node:
        """The one value with data that a node reads, as its first argument unless that does not matter."""
        sources = [n for n in node.all_input_nodes if n in self.data]
        if len(sources) != 1:
            self.refuse(
                node,
                f"merges {len(sources)} tensors. Path lengths are defined for sums and concatenations of branches "
                "alone; give a part of the model without this operation",
            )
        if first and sources[0] is not _argument(node, 0, "input", None):
            self.refuse(node, "takes what comes from the input as a parameter. Give a part of the model without it")
        return sources[0]

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """Shape (2, ...) of a tensor."""
        if "shape" not in node.meta:
            self.refuse(node, "returns no tensor of real numbers")
        return tuple(node.meta["shape"])

    def full(self, node: fx.Node, table: Tensor) -> Tensor:
        """The table of a tensor, for two rows of a batch, in numbers that every operation can move."""
        return table.expand(self.shape(node)).double().contiguous()

    # Rules

    def same(self, node: fx.Node) -> Laws:
        """Each entry for itself; a constant beside it may broadcast it."""
        source = self.source(node, first=False)
        if len(self.shape(node)) != len(self.shape(source)):
            self.refuse(node, "changes the number of dimensions. Reshape its argument first")
        return self.of(source)

    def unit(self, node: fx.Node) -> Laws:
        """An elementwise nonlinearity."""
        return passed(self.same(node), torch.ones(1, dtype=torch.float64), len(self.shape(node)) - 1)

    def slopes(self, node: fx.Node) -> Laws:
        """A PReLU, linear in the channels whose slope is 1."""
        laws, module = self.of(self.source(node)), module_of(self.graph, node)
        given = _argument(node, 1, "weight", None)
        weight = module.weight if isinstance(module, nn.PReLU) else given.meta["value"]
        nonlinear = self.units.get(str(node.target), (weight.detach().flatten().cpu() != 1).double())
        if not nonlinear.requires_grad and bool((nonlinear == nonlinear[0]).all()):
            nonlinear = nonlinear[:1]
        return passed(laws, nonlinear, len(self.shape(node)) - 1)

    def gate(self, node: fx.Node) -> Laws:
        """A GLU: one unit, in which the walk goes on to either half."""
        source, module = self.source(node), module_of(self.graph, node)
        dimension = module.dim if isinstance(module, nn.GLU) else _argument(node, 1, "dim", -1)
        laws = self.of(source)
        if laws.where is not None:
            halves = self.full(source, laws.where).chunk(2, dimension)
            laws = mixed(replace(laws, where=torch.stack(halves, -1)[0].long()), [-1], keep=False)
        return passed(laws, torch.ones(1, dtype=torch.float64), len(self.shape(node)) - 1)

    def summed(self, node: fx.Node) -> Laws:
        """A sum, however it is written: each term has the same probability."""
        terms, dimensions = self.terms(node), len(self.shape(node)) - 1
        if any(len(self.shape(term)) != dimensions + 1 for term in terms):
            self.refuse(node, "adds tensors with different numbers of dimensions. Reshape them first")
        return added([self.of(term) for term in terms], dimensions)

    def terms(self, node: fx.Node) -> list[fx.Node]:
        """What is added: of an inner sum that nothing else reads, its terms."""
        if operation(node) == "stack":
            listed = list(_argument(node, 0, "tensors", ()))
        else:
            listed = [_argument(node, 0, "input", None), _argument(node, 1, "other", None)]
        terms: list[Any] = []
        for term in listed:
            inner = isinstance(term, fx.Node) and operation(term) in ops.SUMS and len(term.users) == 1
            terms += self.terms(term) if inner else [term]
        return [term for term in terms if isinstance(term, fx.Node) and term in self.data]

    def product(self, node: fx.Node) -> Laws:
        """With a constant it is linear; a square, a constant over data, and rounding are nonlinear in each entry."""
        a, b = _argument(node, 0, "input", None), _argument(node, 1, "other", None)
        linear = a is not b and (operation(node) in ops.PRODUCTS or a in self.data)
        linear = linear and not node.kwargs.get("rounding_mode")
        return self.same(node) if linear else self.unit(node)

    def pooled(self, node: fx.Node) -> Laws:
        """Each channel for itself, over its places."""
        source = self.source(node)
        laws, before, after = by_channel(self.of(source)), self.shape(source), self.shape(node)
        if len(before) < 3 or len(before) != len(after) or before[1] != after[1]:
            self.refuse(node, f"turns {before[1:]} into {after[1:]}; only places may change here, behind the channels")
        return laws

    def convolved(self, node: fx.Node) -> Laws:
        """To any channel of the group, at any place."""
        source, module = self.source(node), module_of(self.graph, node)
        laws = by_channel(self.of(source))
        if laws.where is None:
            return laws
        groups = int(module.groups) if isinstance(module, ops.CONVOLUTIONS) else _argument(node, 6, "groups", 1)
        before, after = self.shape(source), self.shape(node)
        table = laws.where.flatten().expand(before[1]).reshape(groups, -1)
        laws = mixed(replace(laws, where=table), [1], keep=False)
        if laws.where is None:
            return laws
        table = laws.where.expand(groups).repeat_interleave(after[1] // groups)
        return tidy(replace(laws, where=table.reshape(-1, *[1] * (len(after) - 2))))

    def connected(self, node: fx.Node) -> Laws:
        """To any entry along the last dimension."""
        laws = self.of(self.source(node))
        other = _argument(node, 1, "other", None) if operation(node) == "matmul" else None
        if laws.where is not None and other is not None and other.meta["value"].dim() != 2:
            self.refuse(node, "has no rule for matrices of more than two dimensions")
        return mixed(laws, [-1])

    def reduced(self, node: fx.Node) -> Laws:
        """To any entry along the dimensions that are reduced."""
        source, dimension = self.source(node), _argument(node, 1, "dim", node.kwargs.get("axis"))
        rank = len(self.shape(source))
        dimensions = {d % rank for d in ([dimension] if isinstance(dimension, int) else dimension or range(rank))}
        if self.laws[source] == ():  # a stack
            if dimensions != {_argument(source, 1, "dim", 0) % rank} or operation(node) not in ("sum", "mean"):
                self.refuse(source, "may only be summed over the dimension that it makes")
            return added([self.of(term) for term in self.terms(source)], rank - 2)
        if 0 in dimensions:
            self.refuse(node, "reduces dimension 0, over the inputs of a batch")
        kept = len(self.shape(node)) == rank
        return mixed(self.of(source), [d - 1 for d in sorted(dimensions)], keep=kept)

    def moved(self, node: fx.Node) -> Value:
        """Entry by entry."""
        if operation(node) == "stack" and all(operation(user) in ops.REDUCTIONS for user in node.users):
            return ()  # a sum in two steps, of which the second has the laws
        if operation(node) in ops.CONCATENATIONS:
            sources = [n for n in node.all_input_nodes if n in self.data]
        else:
            sources = [self.source(node)]
            before = self.laws[sources[0]]
            if not isinstance(before, Laws):
                return before[node.args[1]]  # type: ignore[index]
            if before.where is None and operation(node) != "pad":
                return before
        parts = [self.of(n) for n in sources]
        rank = max(len(self.shape(n)) for n in sources) - 1
        together, tables = joined(parts, rank)
        known = {n: self.full(n, table) for n, table in zip(sources, tables, strict=True)}
        result = self.call(node, known)
        listed = [result] if isinstance(result, Tensor) else result
        laws = tuple(self.from_table(node, together, table) for table in listed)
        return laws[0] if isinstance(result, Tensor) else laws

    def call(self, node: fx.Node, known: Mapping[fx.Node, Tensor]) -> Any:
        """What a node does, done to tables; to constants among them, to tables of constants."""

        def argument(n: fx.Node) -> Any:
            if n in known:
                return known[n]
            value = n.meta["value"]
            if not isinstance(value, Tensor):
                return value
            joins = operation(node) in ops.CONCATENATIONS
            return torch.full(value.shape, -1.0, dtype=torch.float64) if joins else value.cpu()

        args, kwargs = fx.map_arg(node.args, argument), dict(fx.map_arg(node.kwargs, argument))
        if operation(node) == "pad" and _argument(node, 2, "mode", "constant") == "constant":
            kwargs["value"] = -1.0
        module = module_of(self.graph, node)
        if module is not None:
            return module(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def from_table(self, node: fx.Node, laws: Laws, table: Tensor) -> Laws:
        """Laws of a tensor whose table is known for two rows of a batch."""
        if len(table) != BATCH or not torch.equal(table[0], table[1]):
            self.refuse(node, "moves dimension 0, the inputs of a batch, which paths must leave alone")
        return tidy(replace(laws, where=table[0].long()))


def _has_hooks(module: nn.Module | None) -> bool:
    """Whether a hook may change what goes into the module or comes out of it; those of torch compute its weights."""
    if module is None:
        return False
    before = [hook for hook in module._forward_pre_hooks.values() if not _of_torch(hook)]
    return bool(module._forward_hooks or before)


def _of_torch(hook: Any) -> bool:
    return type(hook).__module__.startswith("torch.nn.utils.")


def _argument(node: fx.Node, place: int, name: str, default: Any) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


_RULES: tuple[tuple[tuple[type[nn.Module], ...], frozenset[str], Callable[[_Walker, fx.Node], Value]], ...] = (
    ((*ops.SAME_MODULES, *ops.NORMS), ops.SAME | ops.SCALED, _Walker.same),
    (ops.ACTIVATIONS, ops.ELEMENTWISE, _Walker.unit),
    ((nn.PReLU,), frozenset({"prelu"}), _Walker.slopes),
    ((nn.GLU,), frozenset({"glu"}), _Walker.gate),
    ((), ops.SUMS, _Walker.summed),
    ((), ops.PRODUCTS | ops.QUOTIENTS, _Walker.product),
    (ops.POOLS, ops.POOLED, _Walker.pooled),
    (ops.CONVOLUTIONS, ops.CONVOLVED, _Walker.convolved),
    ((nn.Linear,), frozenset({"linear", "matmul", "mm"}), _Walker.connected),
    ((), ops.REDUCTIONS, _Walker.reduced),
    (ops.MOVED, ops.MOVES, _Walker.moved),
)
