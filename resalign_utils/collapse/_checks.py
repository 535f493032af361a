"""What comes in through the public doors: classes, features and the classifier's weights, as tensors that fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..svd import whole_number

Vectors = Tensor | np.ndarray | Sequence[Any]


def tensor(name: str, values: Vectors, device: torch.device | None = None) -> Tensor:
    """A tensor as it is, on ``device`` if given; arrays and lists as copies, for NumPy's may be read-only."""
    if isinstance(values, Tensor):
        return values.to(device)
    try:
        return torch.as_tensor(np.array(values), device=device)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected {name} as a tensor or an array of numbers; got {type(values).__name__}: {error}."
        ) from error


def checked_classes(name: str, given: Vectors, of: Tensor) -> Tensor:
    """One class a sample ``of`` these, (n,) int64 on their device."""
    values = tensor(name, given, of.device)
    integer = not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)
    if values.shape != (len(of),) or len(of) == 0 or not integer:
        raise ValueError(
            f"Expected {name} ({len(of)},) of integers, one a sample and at least one; got {tuple(values.shape)} of "
            f"{values.dtype}."
        )
    return values.long()


def number_of_classes(labels: Tensor, head_weight: Tensor | None, given: int | None) -> int:
    """C: as given, else the head's, else one more than the largest label."""
    if given is not None:
        classes = whole_number(given)
        if classes is None:
            raise ValueError(f"num_classes must be a whole number; got {given!r}.")
        return classes
    return len(head_weight) if head_weight is not None else int(labels.max()) + 1


def samples_of(labels: Tensor, classes: int) -> Tensor:
    """Samples of each class (C,)."""
    if classes < 2:
        raise ValueError(f"Neural Collapse is of two classes or more; got {classes}.")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"Labels must lie in 0..{classes - 1}; got {int(labels.min())}..{int(labels.max())}.")
    counts = labels.bincount(minlength=classes)
    if (empty := (counts == 0).nonzero().flatten().tolist()) != []:
        raise ValueError(
            f"Class {', '.join(map(str, empty))} of {classes} has no samples, so no mean. Give samples of every class, "
            "or relabel those there are to 0, 1, …"
        )
    return counts.double()


def check_head(weight: Tensor | None, bias: Tensor | None, shape: tuple[int, int]) -> None:
    """Refuse a classifier that is not of this shape (C, d), or not finite."""
    if weight is None and bias is not None:
        raise ValueError("A head_bias needs its head_weight; got the bias alone.")
    if weight is not None and weight.shape != shape:
        raise ValueError(f"Expected head_weight (C, d) = {shape}; got {tuple(weight.shape)}.")
    if bias is not None and bias.shape != shape[:1]:
        raise ValueError(f"Expected head_bias (C,) = ({shape[0]},); got {tuple(bias.shape)}.")
    for name, value in (("head_weight", weight), ("head_bias", bias)):
        if value is not None and not value.isfinite().all():
            raise ValueError(f"{name} holds NaN or infinite values. The training diverged, or the file is damaged.")
