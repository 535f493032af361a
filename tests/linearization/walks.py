"""An independent account of walks through a network: plain recursion, in fractions, one channel at a time.

A network is a list of nodes; each says what it computes, where a walk in one of its channels may go on, and how many
nonlinear units that channel passes.
"""

from fractions import Fraction
from functools import cache

import torch
from torch import nn


class Node(nn.Module):
    """``compute(module, *tensors)``; ``step(channel)``: (source, channel), equally likely; ``unit(channel)``: 0, 1."""

    def __init__(self, sources, channels, compute, step, unit=lambda c: 0, module=None):
        super().__init__()
        self.sources, self.channels, self.compute, self.step, self.unit = sources, channels, compute, step, unit
        self.module = module


class Net(nn.Module):
    """The last node is the output."""

    def __init__(self, nodes):
        super().__init__()
        self.nodes = nn.ModuleList(nodes)

    def forward(self, x):
        values = []
        for node in self.nodes:
            values.append(node.compute(node.module, *([values[i] for i in node.sources] or [x])))
        return values[-1]

    def law(self):
        """{length: probability} of a walk from the output."""

        @cache
        def at(number, channel):
            node = self.nodes[number]
            if not node.sources:
                return {0: Fraction(1)}
            law, steps = {}, node.step(channel)
            for source, before in steps:
                for length, probability in at(source, before).items():
                    length += node.unit(channel)
                    law[length] = law.get(length, 0) + probability / len(steps)
            return law

        last, law = len(self.nodes) - 1, {}
        channels = self.nodes[last].channels
        for channel in range(channels):
            for length, probability in at(last, channel).items():
                law[length] = law.get(length, 0) + probability / channels
        return law


def start(channels):
    return Node([], channels, lambda m, x: x, None)


def kept(nodes, i, module):
    """What treats each channel for itself."""
    return Node([i], nodes[i].channels, lambda m, h: m(h), lambda c: [(i, c)], module=module)


def relu(nodes, i):
    return Node([i], nodes[i].channels, lambda m, h: torch.relu(h), lambda c: [(i, c)], lambda c: 1)


def prelu(nodes, i, nonlinear):
    """``nonlinear``: 0 or 1 for each channel."""
    module = nn.PReLU(nodes[i].channels)
    module.weight.data = torch.tensor([0.25 if unit else 1.0 for unit in nonlinear])
    return Node([i], nodes[i].channels, lambda m, h: m(h), lambda c: [(i, c)], lambda c: nonlinear[c], module)


def conv(nodes, i, outputs, groups):
    inputs = nodes[i].channels
    inside, out = inputs // groups, outputs // groups

    def step(c):
        return [(i, c // out * inside + k) for k in range(inside)]

    module = nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups)
    return Node([i], outputs, lambda m, h: m(h), step, module=module)


def added(nodes, *terms):
    return Node([*terms], nodes[terms[0]].channels, lambda m, *h: sum(h), lambda c: [(i, c) for i in terms])


def joined(nodes, *parts):
    places = [(i, c) for i in parts for c in range(nodes[i].channels)]
    return Node([*parts], len(places), lambda m, *h: torch.cat(h, 1), lambda c: [places[c]])


def half(nodes, i, second):
    size = nodes[i].channels // 2
    return Node([i], size, lambda m, h: h.chunk(2, 1)[second], lambda c: [(i, c + size * second)])


def shuffled(nodes, i, groups):
    size = nodes[i].channels // groups

    def compute(m, h):  # ShuffleNet's
        n, c, height, width = h.shape
        return h.view(n, groups, size, height, width).transpose(1, 2).contiguous().view(n, c, height, width)

    return Node([i], nodes[i].channels, compute, lambda c: [(i, c % groups * size + c // groups)])


def flattened(nodes, i, places):
    return Node([i], nodes[i].channels * places, lambda m, h: h.flatten(1), lambda c: [(i, c // places)])


def connected(nodes, i, outputs):
    inputs = nodes[i].channels
    module = nn.Linear(inputs, outputs)
    return Node([i], outputs, lambda m, h: m(h), lambda c: [(i, k) for k in range(inputs)], module=module)
