"""Projected states as lines: one set a class, with the box that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._inputs import as_array, as_panels
from ._palette import class_colour, mix

_FIX = "Trace.project(2) or Trace.project(3) returns it."
UNIT = " (arbitrary units)"
KEY = "one line per input: small and dark at h₀, large and bright at the end"


@dataclass(frozen=True)
class Paths:
    """The paths of one class in one panel, one after the other with a gap (NaN) before each.

    A gap has the last depth: Plotly's legend takes its colour from the first entry, and a class is known by its
    brightest shade.
    """

    label: int
    name: str
    points: np.ndarray  # (members · (T+1), p)
    depths: np.ndarray  # (members · (T+1),)
    inputs: np.ndarray  # (members · (T+1),)

    @property
    def colour(self) -> str:
        return class_colour(self.label)

    @property
    def shades(self) -> list[str]:
        return [mix("#000000", self.colour, 0.35), self.colour]

    @property
    def growth(self) -> np.ndarray:
        """From 0 at the first state to 1 at the last."""
        return self.depths / max(1, self.depths.max())


def check_paths(panels: Any, labels: Any, what: str, dims: tuple[int, ...]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    expected = f"(n, L+1, {' or '.join(map(str, dims))})"
    arrays = as_panels(panels, lambda s: len(s) == 3 and s[2] in dims, what=what, expected=expected, fix=_FIX)
    classes = as_array(labels)
    if len({array.shape[2] for array in arrays.values()}) > 1:
        raise ValueError(f"{what}: panels must be all 2-D or all 3-D; got {[a.shape for a in arrays.values()]}. {_FIX}")
    for name, array in arrays.items():
        if classes.shape != (len(array),):
            raise ValueError(
                f"{what}: labels must have shape ({len(array)},), one per input of panel {name!r}; got "
                f"{classes.shape}. Pass the labels of the traced inputs."
            )
    return arrays, classes.astype(int)


def by_class(states: np.ndarray, labels: np.ndarray, names: Sequence[str] | None) -> list[Paths]:
    n, depth, dims = states.shape
    points = np.concatenate([np.full((n, 1, dims), np.nan), states], axis=1)
    depths, inputs = np.meshgrid([depth - 1, *range(depth)], range(n))
    if names is not None and labels.max() >= len(names):
        raise ValueError(f"class_names must name classes 0..{labels.max()}; got {len(names)} names.")
    result = []
    for label in np.unique(labels):
        on = labels == label
        name = str(names[label]) if names is not None else str(label)
        result.append(Paths(int(label), name, points[on].reshape(-1, dims), depths[on].ravel(), inputs[on].ravel()))
    return result


def boxes_around(arrays: list[np.ndarray], shared: bool) -> list[np.ndarray]:
    """Per panel the limits (p, 2) of a cube around all points, so that all directions have one scale."""
    spans = [_span(array) for array in arrays]
    if shared:
        low, high = np.min([s[:, 0] for s in spans], axis=0), np.max([s[:, 1] for s in spans], axis=0)
        spans = [np.stack([low, high], 1)] * len(arrays)
    return [_cube(span) for span in spans]


def _span(array: np.ndarray) -> np.ndarray:
    points = array[np.isfinite(array).all(-1)]
    if not len(points):
        return np.array([[-1.0, 1.0]] * array.shape[-1])
    return np.stack([points.min(0), points.max(0)], 1)


def _cube(span: np.ndarray) -> np.ndarray:
    half = 0.54 * (span[:, 1] - span[:, 0]).max() or 1.0
    middle = span.mean(1)
    return np.stack([middle - half, middle + half], 1)
