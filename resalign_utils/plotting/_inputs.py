"""From what callers pass in to checked arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch


def as_array(values: Any) -> np.ndarray:
    """Tensor (any device, with or without gradient), array, or sequence of numbers → float64 array."""
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().double().numpy()
    if isinstance(values, list | tuple):
        values = [as_array(value) if isinstance(value, torch.Tensor) else value for value in values]
    return np.asarray(values, dtype=np.float64)


def as_panels(
    panels: Any, fits: Callable[[tuple[int, ...]], bool], *, what: str, expected: str, fix: str
) -> dict[str, np.ndarray]:
    """Check a mapping of tensors, panel by panel.

    Raises:
        ValueError: no panel, or a panel whose shape does not fit; the text says which, what was expected, and the fix.
    """
    if not isinstance(panels, Mapping) or not panels:
        raise ValueError(f"{what}: expected a mapping name → {expected} with at least one entry; got {_say(panels)}.")
    arrays = {str(name): as_array(values) for name, values in panels.items()}
    for name, array in arrays.items():
        if not fits(array.shape) or 0 in array.shape:
            raise ValueError(f"{what}: panel {name!r} must have shape {expected}; got {array.shape}. {fix}")
    return arrays


def as_series(name: str, xy: Any, *, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Check one series ``(x, y)``: x (t,), y (repeats, t) after this.

    Raises:
        ValueError: not a pair, or lengths that disagree.
    """
    if not isinstance(xy, tuple | list) or len(xy) != 2:
        raise ValueError(f"{what}: series {name!r} must be a pair (x, y); got {_say(xy)}.")
    x, y = as_array(xy[0]), np.atleast_2d(as_array(xy[1]))
    if x.ndim != 1 or y.ndim != 2 or y.shape[1] != len(x) or not y.size:
        raise ValueError(
            f"{what}: series {name!r} needs x (t,) and y (t,) or (repeats, t); got {x.shape} and "
            f"{tuple(np.shape(xy[1]))}. Transpose y if its repeats are in the columns."
        )
    return x, y


def check_series(series: Any, *, what: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Check a mapping of series ``name → (x, y)``."""
    if not isinstance(series, Mapping) or not series:
        raise ValueError(f"{what}: expected a mapping name → (x, y) with at least one entry; got {_say(series)}.")
    return {str(name): as_series(str(name), xy, what=what) for name, xy in series.items()}


def small(values: np.ndarray) -> np.ndarray:
    """Float32, C-ordered: Plotly stores it in base64, five bytes a number."""
    return np.ascontiguousarray(values, dtype=np.float32)


def _say(value: Any) -> str:
    return "an empty mapping" if isinstance(value, Mapping) else type(value).__name__
