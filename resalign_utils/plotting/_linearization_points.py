"""What a sweep over NAPL is made of: its points, checked and in order, and what is shown of them at each NAPL."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ._inputs import as_array

LINEAR = 0.25  # below this NAPL the axis is nearly linear, above it every doubling is about as wide
PALE = 0.35  # opacity of what stands at another NAPL
_TOLERANCE = 0.02  # how far a law may be from what it must be: it is rounded, and a mean over seeds
_WHAT = "linearization_sweep"


@dataclass(frozen=True)
class LinearizedPoint:
    """One point of :func:`linearization_sweep`: the networks of one method at one NAPL. Means are over the seeds.

    Args:
        method: ``"channel-wise"``, ``"layer-wise"``.
        napl: their average path length, in nonlinear units.
        accuracy: (seeds,).
        law: (max_length+1,), mean probabilities of the path lengths 0, 1, ...; as long as the longest path asks.
        surviving: (L,), mean share of units that are nonlinear in each layer, from 0 to 1, from input to output.
        target: the NAPL that was aimed at, by which the slider compares methods; ``napl`` if not given.
    """

    method: str
    napl: float
    accuracy: Any
    law: Any = field(repr=False)
    surviving: Any = field(repr=False)
    target: float | None = None


class Accuracy(NamedTuple):
    """Mean over seeds, and one standard deviation (ddof = 0)."""

    mean: float
    sd: float
    seeds: int

    @property
    def text(self) -> str:
        return f"{self.mean:.3f} ± {self.sd:.3f}" if self.seeds > 1 else f"{self.mean:.3f}"


class Point(NamedTuple):
    """A checked point."""

    napl: float
    target: float
    accuracy: Accuracy
    law: np.ndarray  # (max_length+1,), the same for all points
    surviving: np.ndarray  # (L,)

    @property
    def mean_length(self) -> float:
        return mean_length(self.law)


class Sweep(NamedTuple):
    """All that is drawn, whichever library draws it."""

    methods: dict[str, list[Point]]  # by ascending NAPL
    targets: list[float]  # ascending
    start: tuple[float, Accuracy] | None
    labels: tuple[str, str]  # of length and accuracy

    @property
    def layers(self) -> int:
        return len(next(iter(self.methods.values()))[0].surviving)

    @property
    def longest(self) -> int:
        """The largest length that has a place on the axis."""
        return len(next(iter(self.methods.values()))[0].law) - 1

    @property
    def largest(self) -> float:
        """The largest NAPL that is drawn."""
        ends = [*self.targets, *(point.napl for points in self.methods.values() for point in points)]
        return max([*ends, self.start[0]] if self.start else ends)

    def shown(self, target: float) -> dict[str, tuple[Point, bool]]:
        """Of each method its point there; if it has none, the one nearest on the axis, and False."""
        found = {}
        for method, points in self.methods.items():
            nearest = min(points, key=lambda p: (p.target != target, abs(place(p.napl) - place(target))))
            found[method] = (nearest, nearest.target == target)
        return found

    def words(self, target: float) -> list[str]:
        """What is shown: what of which NAPL, and a line per method."""
        lines = [f"{self.labels[0]} = {target:.3g}", f"; {self.labels[1]}:"]
        for method, (point, own) in self.shown(target).items():
            where = f"{point.napl:.3g}" if own else f"{point.napl:.3g}, its nearest (pale)"
            lines.append(f"{method} at {where}: {point.accuracy.text}")
        return lines

    def titles(self) -> list[str]:
        """Of the two panels."""
        repeated = any(point.accuracy.seeds > 1 for points in self.methods.values() for point in points)
        return ["units still nonlinear" + " (mean of seeds)" * repeated, "path lengths (▼ mean)"]

    def named(self) -> list[str]:
        """Each method with what its bars mean."""
        return [_with_seeds(method, [p.accuracy.seeds for p in points]) for method, points in self.methods.items()]

    def ticks(self) -> tuple[list[float], list[str]]:
        """0, 0.25, 0.5, 1, 2, ... and the largest NAPL, with their texts."""
        doubled = [LINEAR * 2**power for power in range(64) if LINEAR * 2**power < 0.7 * self.largest]
        places = sorted({0.0, *doubled, self.largest})
        return places, [f"{place:.3g}" for place in places]

    def limits(self) -> tuple[float, float]:
        """Ends of the axis of NAPL, as :func:`place` counts."""
        return -0.2, float(place(self.largest)) + 0.2

    def accuracy_limits(self) -> tuple[float, float]:
        """From the lowest to the highest bar's end, with a margin."""
        every = [p.accuracy for points in self.methods.values() for p in points]
        every += [self.start[1]] if self.start else []
        low, high = min(a.mean - a.sd for a in every), max(a.mean + a.sd for a in every)
        margin = 0.08 * (high - low) or 0.05
        return low - margin, high + margin

    def law_limit(self, target: float) -> int:
        """End of the axis of the laws, in %: as low as their highest bar allows, to be read at a glance."""
        highest = max(100 * float(point.law.max()) for point, _ in self.shown(target).values())
        return next((limit for limit in (20, 40) if highest <= limit), 100)


def mark_height(number: int) -> float:
    """Of a method's mark of the mean, in units of ``law_limit``: above all bars, one method above the other."""
    return 1.08 + 0.1 * number


def whole_ticks(low: int, high: int) -> list[int]:
    """Whole numbers, no more than have room."""
    return list(range(low, high + 1, max(1, 2 ** math.ceil(math.log2(max(high - low, 1) / 9)))))


def place(napl: Any) -> Any:
    """Where a NAPL stands on the axis: asinh, which is linear around 0 and logarithmic above."""
    return np.arcsinh(np.asarray(napl, dtype=float) / LINEAR)


def mean_length(law: np.ndarray) -> float:
    """Σ k · P(length = k)."""
    return float(np.arange(len(law)) @ law)


def _with_seeds(name: str, seeds: list[int]) -> str:
    few, many = min(seeds), max(seeds)
    return f"{name} (±1 sd, {many if few == many else f'{few} to {many}'} seeds)" if many > 1 else name


def check_sweep(points: Any, start: Any, labels: tuple[str, str]) -> Sweep:
    """Check all points and put them in order; laws are filled up with zeros to one length.

    Raises:
        ValueError: see :func:`linearization_sweep`.
    """
    if not isinstance(points, Sequence) or not points or not all(isinstance(p, LinearizedPoint) for p in points):
        raise ValueError(f"{_WHAT}: expected a sequence of at least one LinearizedPoint; got {points!r:.80}.")
    layers, longest = (np.size(as_array(points[0].surviving)), max(np.size(as_array(p.law)) for p in points))
    methods: dict[str, list[Point]] = {}
    for given in points:
        point, known = _checked(given, layers, longest), methods.setdefault(str(given.method), [])
        if any(point.target == other.target for other in known):
            where = f"{given.method!r} at NAPL {point.target:g}"
            raise ValueError(f"{_WHAT}: two points of {where}. Average over the seeds, or say their target.")
        known.append(point)
    for known in methods.values():
        known.sort(key=lambda point: point.napl)
    targets = sorted({point.target for known in methods.values() for point in known})
    return Sweep(methods, targets, None if start is None else _start(start), labels)


def _checked(given: LinearizedPoint, layers: int, longest: int) -> Point:
    name = f"{_WHAT}: {given.method!r} at NAPL {given.napl!r}"
    napl, target = _length(given.napl, name, "napl"), given.napl if given.target is None else given.target
    law, surviving = as_array(given.law), as_array(given.surviving)
    if law.ndim != 1 or not (law >= 0).all() or abs(law.sum() - 1) > _TOLERANCE:
        raise ValueError(
            f"{name}: law must be probabilities (max_length+1,) of sum 1; got shape {law.shape}, sum {law.sum():.4g}. "
            "path_length_distribution(model) returns it."
        )
    if abs(mean_length(law) - napl) > 2 * _TOLERANCE + _TOLERANCE * napl:
        raise ValueError(
            f"{name}: the mean of law is {mean_length(law):.4g}, not napl. Give the measured NAPL, and what was aimed "
            "at as target; take both means over the same seeds."
        )
    if surviving.shape != (layers,) or not layers or not ((surviving >= 0) & (surviving <= 1)).all():
        raise ValueError(
            f"{name}: surviving must be shares from 0 to 1 of shape (L,), L = {layers} as in the first point; got "
            f"shape {surviving.shape}: {np.array2string(surviving, precision=3, threshold=8)}."
        )
    filled = np.pad(law, (0, max(longest, layers + 1) - len(law)))
    return Point(napl, _length(target, name, "target"), _accuracy(given.accuracy, name), filled, surviving)


def _length(value: Any, name: str, what: str) -> float:
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{name}: {what} must be a finite number of nonlinear units, at least 0; got {value!r}.")
    return float(value)


def _accuracy(values: Any, name: str) -> Accuracy:
    array = as_array(values)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise ValueError(f"{name}: accuracy must be one finite number per seed, (seeds,); got {values!r:.80}.")
    return Accuracy(float(array.mean()), float(array.std()), len(array))


def _start(start: Any) -> tuple[float, Accuracy]:
    if not isinstance(start, tuple | list) or len(start) != 2:
        raise ValueError(f"{_WHAT}: start must be a pair (napl, accuracies (seeds,)); got {start!r:.80}.")
    return _length(start[0], f"{_WHAT}: start", "napl"), _accuracy(start[1], f"{_WHAT}: start")
