"""Path lengths: how many nonlinear units lie between the input and the output.

A path is a random walk from the output back to the input, which at every sum picks one of the terms with equal
probability, and at every layer one of its channels (Mehmeti-Göpel & Wand 2025). Its length is the number of nonlinear
units that it passes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._walk import walk


def average_path_length(model: nn.Module, x: Tensor | None = None) -> float:
    """Normalised average path length, NAPL: the mean of :func:`path_length_distribution`.

    Where the choice of a channel is uniform, as in networks without slices, it is Σ_layers Pr(path passes the layer) ·
    (share of nonlinear channels). A residual branch beside its skip is passed with probability ½. A plain network of
    depth L has NAPL L.

    Args:
        model: any module that ``torch.fx`` can trace, from one tensor to one tensor; its mode does not matter.
        x: an example input (n, ...). Without it random inputs are used whose shape the first layer tells: (n,
            features), or images of 28 to 224 pixels a side. Tokens (n, T, D) must be given.

    Returns:
        Number of nonlinear units, between 0 and the number of activations.

    Raises:
        ValueError: the model cannot be traced, its input's shape is not known, it has several inputs or outputs, or an
            operation without a rule; the text names it.

    Example:
        >>> import resalign_utils as ra
        >>> from torch import nn
        >>> layers = [nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)]
        >>> model = nn.Sequential(*layers)
        >>> ra.average_path_length(model)
        2.0
    """
    return float(walk(model, x, exact=False)[1])


def path_length_distribution(model: nn.Module, x: Tensor | None = None) -> Tensor:
    """Exact law of the length of a random path, by a recursion over nodes, channels and lengths.

    For a plain network it is Poisson-binomial, the law of a sum of Bernoulli variables with the layers' shares of
    nonlinear channels; for a residual one a mixture over its branches, and the binomial law if each of L blocks is
    one unit beside a skip (Veit et al. 2016).

    **The walk.** It starts in a channel of the output, dimension 1, drawn uniformly. A full convolution sends it to
    any channel, one in groups to any of the group, a fully-connected layer to any entry of the last dimension. All
    that treats each channel for itself keeps the channel, skips and depthwise convolutions among them: which channel
    it is, is remembered until the next layer that mixes. At a sum each term has the same probability, however the sum
    is written (``a + b + c``, ``sum([...])``, ``torch.stack(...).sum(0)``); an inner sum that is read elsewhere too is
    one term. Concatenations, slices, reshaping and permuting are followed entry by entry; (n, c, h, w) flattened has
    each channel h · w times. Constants have no paths: no walk goes there.

    **What counts.** Every elementwise activation is one nonlinear unit, whatever its parameters, as modules, functions
    and methods; so are a square, a power, ``exp``, ``abs`` and ``clamp``. Of a ``PReLU``, channels whose slope is
    exactly 1 are linear. A ``GLU`` is one unit, which either half leads to. Pooling (the maximum too), normalisation
    and the softmax count as linear. Products of two tensors with data (gates, attention), recurrent layers and
    whatever else has no rule are refused.

    Args:
        model: as for :func:`average_path_length`.
        x: as for :func:`average_path_length`.

    Returns:
        (max_length+1,) float64, probabilities of the lengths 0, 1, ...; the last one is positive.

    Raises:
        ValueError: as for :func:`average_path_length`.
    """
    law = walk(model, x, exact=True)
    return law[: int(law.nonzero().max()) + 1]


def slope_weights(model: nn.Module, x: Tensor | None = None) -> dict[str, Tensor]:
    """What each unit of every PReLU adds to NAPL while it is nonlinear (units,), by the PReLU's name.

    NAPL is linear in them: it is their sum over the nonlinear units, and what other activations add. Their sum over a
    layer is the probability that a path passes it.

    Raises:
        ValueError: as for :func:`average_path_length`.
    """
    prelus = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.PReLU)]
    units = {name: torch.ones(len(m.weight), dtype=torch.float64, requires_grad=True) for name, m in prelus}
    length = walk(model, x, exact=False, units=units)[1]
    if not length.requires_grad:
        return {}
    found = torch.autograd.grad(length, [*units.values()], allow_unused=True)
    return {name: weight for (name, _), weight in zip(prelus, found, strict=True) if weight is not None}
