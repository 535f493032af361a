"""Rows of dots: from nested mappings to what stands where, and what has no value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ._curves import summarize
from ._inputs import as_array

_SHAPE = "group → row → (seeds,), or group → row → series → (seeds,), or row → (seeds,)"


class Dots(NamedTuple):
    """One series in one row: at height y, its seeds, their mean, and the ends of its bar."""

    row: str
    y: float
    seeds: np.ndarray  # (seeds,), NaN where there is no value
    mean: float
    low: float
    high: float

    @property
    def text(self) -> str:
        known = int(np.isfinite(self.seeds).sum())
        of = f"{known} of {len(self.seeds)}" if known < len(self.seeds) else str(known)
        bar = f"<br>±1 sd over {of} seeds: {self.low:.4g} … {self.high:.4g}" if len(self.seeds) > 1 else ""
        return f"mean {self.mean:.4g}{bar}".replace("-", "−")


class Chart(NamedTuple):
    """All that is drawn, whichever library draws it; heights count downwards from 0."""

    series: dict[str, list[Dots]]
    headings: dict[int, str]
    rows: dict[int, str]
    untrained: list[tuple[float, float]]  # (value, height)
    reference: dict[str, float]
    label: str
    log: bool

    @property
    def slots(self) -> int:
        return len(self.headings) + len(self.rows)

    def no_value(self) -> list[tuple[float, str]]:
        """Height and words of what has no value: once in a row where no series has one."""
        found = []
        for y in self.rows:
            beside = {name: d for name, dots in self.series.items() for d in dots if round(d.y) == y}
            lacking = {name: d.y for name, d in beside.items() if not np.isfinite(d.mean)}
            if len(lacking) == len(beside):
                found.append((float(y), "no value"))
            else:
                found += [(place, f"{name}: no value") for name, place in lacking.items()]
        return found

    def limits(self) -> tuple[float, float]:
        """From the least to the largest thing drawn, with a margin; of the logarithm on a logarithmic axis."""
        ends = [np.append(d.seeds, [d.low, d.high]) for dots in self.series.values() for d in dots]
        every = np.concatenate([*ends, [value for value, _ in self.untrained], [*self.reference.values()]])
        every = every[np.isfinite(every)] if np.isfinite(every).any() else np.array([1.0, 10.0])
        every = np.log10(every) if self.log else every
        margin = 0.04 * float(np.ptp(every)) or 0.5
        return float(every.min()) - margin, float(every.max()) + margin


def chart_of(values: Any, reference: Mapping[str, float], untrained: Mapping[str, Any], label: str, log: bool) -> Chart:
    """Check all that is to be drawn and give it its place.

    Raises:
        ValueError: see :func:`condition_dots`.
    """
    groups = _nested(values)
    nulls = _nulls(untrained, groups)
    marks = {str(name): float(value) for name, value in reference.items()}
    every = [part for rows in groups.values() for row in rows.values() for part in row.values()]
    if log and (np.concatenate([*every, [*nulls.values(), *marks.values()]]) <= 0).any():
        raise ValueError("condition_dots: values ≤ 0 cannot be shown on a logarithmic axis. Leave them out.")
    return _placed(groups, nulls, marks, label, log)


def _nested(values: Any) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """group → row → series → (seeds,); what has no name is called ""."""
    if not isinstance(values, Mapping) or not values:
        raise ValueError(f"condition_dots: expected a mapping {_SHAPE}, with at least one row; got {values!r:.80}.")
    if not any(isinstance(rows, Mapping) for rows in values.values()):
        values = {"": values}
    found: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for group, rows in values.items():
        if not isinstance(rows, Mapping) or not rows:
            raise ValueError(f"condition_dots: group {group!r} must map rows to values; got {rows!r:.80}.")
        found[str(group)] = {str(row): _series(str(row), parts) for row, parts in rows.items()}
    return found


def _series(row: str, parts: Any) -> dict[str, np.ndarray]:
    named = parts if isinstance(parts, Mapping) else {"": parts}
    arrays = {str(name): as_array(seeds) for name, seeds in named.items()}
    for name, array in arrays.items():
        if array.ndim != 1 or not len(array):
            where = f"row {row!r}, series {name!r}" if name else f"row {row!r}"
            raise ValueError(f"condition_dots: {where} must have shape (seeds,); got {array.shape}. One number a seed.")
    if not arrays:
        raise ValueError(f"condition_dots: row {row!r} has no series.")
    return arrays


def _nulls(untrained: Mapping[str, Any], groups: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    nested = untrained if any(isinstance(rows, Mapping) for rows in untrained.values()) else {"": untrained}
    found = {(str(g), str(row)): float(value) for g, rows in nested.items() for row, value in rows.items()}
    unknown = [place for place in found if place[1] not in groups.get(place[0], {})]
    if unknown:
        raise ValueError(
            f"condition_dots: untrained names (group, row) {unknown[0]}, which values does not have. "
            "Nest it as values: group → row → value, or row → value."
        )
    return found


def _placed(groups: Any, nulls: Any, reference: dict[str, float], label: str, log: bool) -> Chart:
    """Give every heading and row its height, and every series of a row its own within it."""
    names = list(dict.fromkeys(name for rows in groups.values() for row in rows.values() for name in row))
    places = 0.46 * (np.arange(len(names)) - (len(names) - 1) / 2) / max(1, len(names) - 1)
    offsets = dict(zip(names, places.tolist(), strict=True))
    chart = Chart({name: [] for name in names}, {}, {}, [], reference, label, log)
    for group, rows in groups.items():
        if group:
            chart.headings[chart.slots] = group
        for row, parts in rows.items():
            y = chart.slots
            chart.rows[y] = _row_text(row, parts)
            chart.untrained.extend([(nulls[group, row], float(y))] if (group, row) in nulls else [])
            for name, seeds in parts.items():
                line = summarize(np.zeros(1), seeds[:, None], log)
                ends = [float(part[0]) for part in (line.mean, line.low, line.high)]
                chart.series[name].append(Dots(row, y + offsets[name], seeds, *ends))
    return chart


def _row_text(row: str, parts: Mapping[str, np.ndarray]) -> str:
    missing = sum(int(np.isnan(seeds).sum()) for seeds in parts.values() if np.isfinite(seeds).any())
    return f"{row} ({missing} without value)" if missing else row
