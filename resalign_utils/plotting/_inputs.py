"""From what callers pass in to checked arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Numbers: TypeAlias = Tensor | ArrayLike
Array: TypeAlias = NDArray[np.float64]
Series: TypeAlias = Mapping[str, tuple[Numbers, Numbers]]


def as_array(values: Any) -> Array:
    """Tensor (any device, with or without gradient), array, or sequence of numbers → float64 array."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().double().numpy()
    elif isinstance(values, list | tuple):
        values = [as_array(value) if isinstance(value, torch.Tensor) else value for value in values]
    array: Array = np.asarray(values, dtype=np.float64)
    return array


def as_panels(
    panels: object, fits: Callable[[tuple[int, ...]], bool], *, what: str, expected: str, fix: str
) -> dict[str, Array]:
    """Check a mapping of tensors, panel by panel; an error says which panel, what was expected, and the fix."""
    if not isinstance(panels, Mapping) or not panels:
        raise ValueError(f"{what}: expected a mapping name → {expected} with at least one entry; got {panels!r:.40}.")
    arrays = {str(name): as_array(values) for name, values in panels.items()}
    for name, array in arrays.items():
        if not fits(array.shape) or 0 in array.shape:
            raise ValueError(f"{what}: panel {name!r} must have shape {expected}; got {array.shape}. {fix}")
    return arrays


def check_series(series: object, *, what: str, log_x: bool = False, log_y: bool = False) -> dict[str, Line]:
    """Check a mapping of series ``name → (x, y)`` and summarise each over its repeats."""
    if not isinstance(series, Mapping) or not series:
        raise ValueError(f"{what}: expected a mapping name → (x, y) with at least one entry; got {series!r:.40}.")
    found = {}
    for name, pair in series.items():
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ValueError(f"{what}: series {name!r} must be a pair (x, y); got {pair!r:.40}.")
        x, y = as_array(pair[0]), np.atleast_2d(as_array(pair[1]))
        if x.ndim != 1 or y.ndim != 2 or y.shape[1] != len(x) or not y.size:
            raise ValueError(
                f"{what}: series {name!r} needs x (t,) and y (t,) or (repeats, t); got {x.shape} and "
                f"{tuple(np.shape(pair[1]))}. Transpose y if its repeats are in the columns."
            )
        if (log_x and (x <= 0).any()) or (log_y and (y <= 0).any()):
            lacking = "has values ≤ 0, which a logarithmic axis cannot show. Leave them out."
            raise ValueError(f"{what}: series {name!r} {lacking}")
        found[str(name)] = Line(x, y, log=log_y)
    return found


class Line:
    """Mean over the repeats (rows of y) that are finite, and one standard deviation (ddof = 0) around it.

    With ``log``, mean and deviation are of the logarithm: a geometric mean, and a factor up and down.
    """

    def __init__(self, x: Array, y: Array, *, log: bool = False) -> None:
        y = np.log(y) if log else y
        known = np.isfinite(y)
        count = known.sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(known, y, 0).sum(0) / count
            sd = np.sqrt(np.where(known, (y - mean) ** 2, 0).sum(0) / count)
        ends = mean - sd, mean, mean + sd
        self.x = x
        self.low, self.mean, self.high = (np.exp(part) if log else part for part in ends)
        self.sd, self.repeats, self.left_out, self.log = sd, len(y), len(y) - count, log


def small(values: ArrayLike) -> NDArray[np.float32]:
    """Float32, C-ordered: Plotly stores it in base64, five bytes a number."""
    return np.ascontiguousarray(values, dtype=np.float32)
