"""Slopes of linearised networks, and networks that are wired in a test."""

import torch
from torch import nn


class Wired(nn.Module):
    """Modules and the function of them and of x that is the forward pass."""

    def __init__(self, wire, **parts):
        super().__init__()
        self.wire = wire
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.wire(self, x)


def slopes_of(model):
    return [module for module in model.modules() if isinstance(module, nn.PReLU)]


def with_slopes(model, seed=0, linear=0.5):
    """Slopes drawn at random, about a share ``linear`` of them exactly 1."""
    generator = torch.Generator().manual_seed(seed)
    for module in slopes_of(model):
        draw = torch.rand(2, len(module.weight), generator=generator)
        module.weight.data = torch.where(draw[0] < linear, torch.ones(()), draw[1] * 0.9).to(module.weight.dtype)
    return model


def superposition_error(model, x):
    """Largest deviation from f(a x + (1 − a) y) = a f(x) + (1 − a) f(y), which only affine functions satisfy."""
    y, a = x.flip(0), 0.3
    return float((model(a * x + (1 - a) * y) - a * model(x) - (1 - a) * model(y)).abs().max().detach())
