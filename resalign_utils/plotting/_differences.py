"""Differences with their intervals, one in a row, against zero."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..formatting import format_number
from ._colours import CONDITION_COLOURS, GRID, INK
from ._inputs import Numbers, as_array, small
from ._theme import add_line, as_html, side_by_side, wrapped

if TYPE_CHECKING:
    import plotly.graph_objects as go

_SHAPE = "row → ((seeds,), mean, low, high)"
_BELOW = 0.24  # of a row: the seeds stand beside the interval, not on it


def difference_dots(
    values: Mapping[str, tuple[Numbers, float, float, float]],
    *,
    x_label: str,
    interval: str = "95 % interval",
    height: int | None = None,
) -> go.Figure:
    """Draw a row a difference: the mean as a dot on the bar of its interval, a ring below it a seed, and zero.

    Args:
        values: row → (differences of the seeds (seeds,), mean, lower end, upper end of the interval of the mean).
        x_label: what the numbers are, with their unit.
        interval: what the bars are, for the legend.
        height: of the figure in pixels; by default as the number of rows asks.

    Raises:
        ValueError: no row, values of another shape or not finite, or a mean outside of its interval.
    """
    import plotly.graph_objects as go

    rows = _checked(values)
    ticks = [as_html(wrapped(name, 26)) for name in rows]
    figure = side_by_side([""], height=height or 190 + 40 * len(rows))
    add_line(figure, "no difference", x=0)
    colour, places = CONDITION_COLOURS["trained"], range(len(rows))
    seeds = [part for part, *_ in rows.values()]
    mean, low, high = np.array([interval for _, *interval in rows.values()]).T  # (rows,) each
    figure.add_trace(
        go.Scatter(
            x=small(np.concatenate(seeds)),
            y=small(np.repeat(places, [len(part) for part in seeds]) + _BELOW),
            mode="markers",
            marker={"size": 7, "symbol": "circle-open", "color": INK, "line": {"width": 1.4}},
            name="one seed",
            hovertemplate=f"one seed<br>{as_html(x_label)}: %{{x:.3~r}}<extra></extra>",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=small(mean),
            y=small(places),
            mode="markers",
            marker={"size": 10, "color": colour},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": small(high - mean),
                "arrayminus": small(mean - low),
                "thickness": 1.8,
                "width": 4,
                "color": colour,
            },
            name=f"mean, {interval}",
            text=[
                f"{as_html(name)}<br>{as_html(x_label)}: {format_number(m)}<br>from {format_number(a)} to "
                f"{format_number(b)}"
                for name, (_, m, a, b) in rows.items()
            ],
            hovertemplate="%{text}<extra></extra>",
        )
    )
    axis = {"tickvals": [*places], "ticktext": ticks, "range": [len(rows) - 0.4, -0.6]}
    figure.update_yaxes(ticks="", showline=False, fixedrange=True, gridcolor=GRID, **axis)
    figure.update_xaxes(title_text=as_html(x_label))
    return figure.update_layout(margin={"t": 24}, showlegend=True)


def _checked(values: object) -> dict[str, tuple[np.ndarray, float, float, float]]:
    if not isinstance(values, Mapping) or not values:
        raise ValueError(f"difference_dots: expected a mapping {_SHAPE}, with at least one row; got {values!r:.80}.")
    rows = {}
    for name, parts in values.items():
        if not isinstance(parts, tuple | list) or len(parts) != 4:
            raise ValueError(f"difference_dots: row {name!r} must be ((seeds,), mean, low, high); got {parts!r:.80}.")
        seeds, (mean, low, high) = as_array(parts[0]), map(float, parts[1:])
        if seeds.ndim != 1 or not len(seeds) or not np.isfinite(seeds).all():
            raise ValueError(f"difference_dots: row {name!r} needs finite differences (seeds,); got {seeds.shape}.")
        if not (low <= mean <= high and math.isfinite(high - low)):
            raise ValueError(f"difference_dots: row {name!r} needs low ≤ mean ≤ high; got {low}, {mean}, {high}.")
        rows[str(name)] = (seeds, mean, low, high)
    return rows
