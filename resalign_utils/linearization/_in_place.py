"""Where a graph works in place: who writes over what, and who reads it afterwards."""

from __future__ import annotations

from torch import fx, nn

from ._graph import called, module_of, operation
from ._operations import CONCATENATIONS, MOVES, SAME, SAME_MODULES, is_one_of


def written(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The value that the node may write over."""
    out = node.kwargs.get("out")
    if isinstance(out, fx.Node):
        return out
    module = module_of(graph, node)
    writes = bool(node.kwargs.get("inplace")) or getattr(module, "inplace", False) is True
    if node.op in ("call_function", "call_method"):
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        named = name.endswith("_") and not name.endswith("__")
        writes = writes or (named and getattr(node.target, "__module__", "") != "_operator")  # which has and_, not_
    return node.all_input_nodes[0] if writes and node.all_input_nodes else None


def read_what_was_written(graph: fx.GraphModule) -> list[fx.Node]:
    """Let every node that reads a value after it was written over read the writer instead; return those writers.

    Then the values do not depend on the order of the nodes, and a writer can be replaced by an out-of-place function.

    Raises:
        ValueError: what was written over has another name that is read later.
    """
    order = {node: place for place, node in enumerate(graph.graph.nodes)}
    memory: dict[fx.Node, fx.Node] = {}  # node → the first node that has the same memory
    changed = []
    for node in order:
        value = written(graph, node)
        shared = value if value is not None else _view_of(graph, node)
        memory[node] = memory[shared] if shared is not None else node
        if value is None:
            continue
        names = [other for other, first in memory.items() if first is memory[node] and other not in (node, value)]
        readers = {other: [user for user in other.users if order[user] > order[node]] for other in (value, *names)}
        _refuse_other_names(graph, node, {other: readers[other] for other in names})
        for user in readers[value]:
            user.replace_input_with(value, node)
        changed += [node] if readers[value] else []
    return changed


def _refuse_other_names(graph: fx.GraphModule, node: fx.Node, readers: dict[fx.Node, list[fx.Node]]) -> None:
    for other, later in readers.items():
        if later:
            raise ValueError(
                f"'{node.name}' ({called(graph, node)}) works in place on memory that '{other.name}' shares, which "
                f"'{later[0].name}' reads afterwards. Write it without inplace=True."
            )


def _view_of(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The value whose memory the node's may be: of a view, and of what does nothing."""
    passes = is_one_of(module_of(graph, node), (*SAME_MODULES, nn.Flatten, nn.Unflatten))
    passes = passes or operation(node) in SAME | MOVES - CONCATENATIONS
    return node.all_input_nodes[0] if passes and node.all_input_nodes else None
