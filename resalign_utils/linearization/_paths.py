"""Path lengths: how many nonlinear units lie between the input and the output.

A path is a random walk from the output back to the input, which at every sum picks one of the terms with equal
probability, and at every layer one of its channels (Mehmeti-Göpel & Wand 2025). Its length is the number of nonlinear
units that it passes.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from ._graph import branches, data_nodes, module_of, nonlinear_share, traced


def average_path_length(model: nn.Module, x: Tensor | None = None) -> float:
    """Normalised average path length, NAPL = Σ_layers Pr(path passes the layer) · (share of nonlinear channels).

    The sum goes over all elementwise activations; the channels of a ``PReLU`` whose slope is exactly 1 are linear.
    A residual branch beside its skip is passed with probability ½. Pooling, normalisation and the softmax count
    as linear. A plain network of depth L has NAPL L.

    Args:
        model: any module that ``torch.fx`` can trace; its mode does not matter.
        x: an example input (n, ...), needed for concatenations, which are left in proportion to their channels.

    Returns:
        Number of nonlinear units, between 0 and the number of activations.

    Raises:
        ValueError: the model cannot be traced, merges tensors by anything but sums and concatenations, or has several
            inputs or outputs.
    """
    graph = traced(model, x)
    return sum(probability * nonlinear_share(graph, node) for node, probability in passing_probabilities(graph).items())


def path_length_distribution(model: nn.Module, x: Tensor | None = None) -> Tensor:
    """Exact law of the length of a random path, by convolution along the graph.

    For a plain network it is Poisson-binomial, the law of a sum of Bernoulli variables with the layers' shares of
    nonlinear channels; for a residual one a mixture over its branches, and the binomial law if each of L blocks is
    one unit beside a skip (Veit et al. 2016).

    Args:
        model: as for :func:`average_path_length`.
        x: as for :func:`average_path_length`.

    Returns:
        (max_length+1,) float64, probabilities of the lengths 0, 1, ...; the last one is positive.

    Raises:
        ValueError: as for :func:`average_path_length`.
    """
    graph = traced(model, x)
    data, laws = data_nodes(graph), dict[fx.Node, Tensor]()
    for node in graph.graph.nodes:
        if node not in data:
            continue
        law = torch.ones(1, dtype=torch.float64) if node.op == "placeholder" else torch.zeros(1, dtype=torch.float64)
        for source, probability in branches(node, data.__contains__):
            law = _sum(law, probability * laws[source])
        share = nonlinear_share(graph, node)
        laws[node] = _sum((1 - share) * law, torch.cat([law.new_zeros(1), share * law])) if share else law
    law = laws[_output(graph, data)]
    return law[: int(law.nonzero().max()) + 1]


def passing_probabilities(graph: fx.GraphModule) -> dict[fx.Node, float]:
    """Probability that a path passes a node, for all nodes that carry data, from the output back."""
    data = data_nodes(graph)
    probabilities = dict.fromkeys(data, 0.0)
    probabilities[_output(graph, data)] = 1.0
    for node in reversed(graph.graph.nodes):
        if node in data:
            for source, probability in branches(node, data.__contains__):
                probabilities[source] += probability * probabilities[node]
    return probabilities


def slope_weights(model: nn.Module, x: Tensor | None = None) -> dict[str, float]:
    """Pr(path passes the layer) of every PReLU, by its name; their sum with the shares of nonlinear channels is NAPL.

    Raises:
        ValueError: as for :func:`average_path_length`.
    """
    graph, weights = traced(model, x), dict[str, float]()
    for node, probability in passing_probabilities(graph).items():
        if isinstance(module_of(graph, node), nn.PReLU):
            weights[str(node.target)] = weights.get(str(node.target), 0.0) + probability
    names = [name for name, module in model.named_modules() if isinstance(module, nn.PReLU)]
    return {name: weights[name] for name in names if name in weights}


def _sum(a: Tensor, b: Tensor) -> Tensor:
    """Sum of two laws of different support."""
    size = max(len(a), len(b))
    return torch.nn.functional.pad(a, (0, size - len(a))) + torch.nn.functional.pad(b, (0, size - len(b)))


def _output(graph: fx.GraphModule, data: set[fx.Node]) -> fx.Node:
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder" and node.users]
    output = next(node for node in graph.graph.nodes if node.op == "output")
    sources = [source for source in output.all_input_nodes if source in data]
    if len(inputs) != 1 or len(sources) != 1:
        raise ValueError(
            f"Expected a model from one tensor to one tensor; got {len(inputs)} inputs and {len(sources)} outputs. "
            "Wrap it in a module that returns the one that is wanted."
        )
    return sources[0]
