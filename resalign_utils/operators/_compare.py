"""Rows of tensors compared: the arithmetic of the door."""

from __future__ import annotations

import torch
from torch import Tensor


def differ(a: Tensor, b: Tensor) -> bool:
    """Whether more than 1 % of the entries differ by more than rounding.

    A few may: where rounding, which depends on the size of the batch, moves a unit across the kink of a ReLU.
    """
    scale = a.abs().max().clamp(min=torch.finfo(a.dtype).tiny)
    return float(((a - b).abs() > 1e3 * torch.finfo(a.dtype).eps * scale).float().mean()) > 0.01


def near(a: Tensor, b: Tensor) -> bool:
    """Whether results of evaluations of one shape are equal up to rounding."""
    return a.shape == b.shape and bool(((a - b).abs() <= 100 * torch.finfo(b.dtype).eps * b.abs().amax()).all())


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two results are equal; up to rounding on a GPU, where sums may come in any order."""
    return torch.equal(a, b) if a.device.type == "cpu" else a.shape == b.shape and not differ(a, b)


def random_like(like: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)


def norms(rows: Tensor) -> Tensor:
    lengths: Tensor = flat(rows).double().norm(dim=1)
    return lengths


def dot(a: Tensor, b: Tensor) -> Tensor:
    return (flat(a).double() * flat(b).double()).sum(1)


def flat(rows: Tensor) -> Tensor:
    """(r, N), also of rows that are single numbers."""
    return rows.reshape(len(rows), -1)
