"""Dots in rows: what one change at a time does to a number, seed by seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..formatting import format_number
from ._colours import GRID, INK, Style, condition_styles, faded
from ._curves import said
from ._inputs import Array, Line, as_array, small
from ._theme import add_line, add_note, as_html, log_axis, side_by_side

if TYPE_CHECKING:
    import plotly.graph_objects as go

_SHAPE = "group → row → (seeds,), or group → row → series → (seeds,), or row → (seeds,)"
_DASHES = ("dash", "dot", "dashdot")
# Pixels: the rings of the seeds stand clear of their mean and its bar, and a series of the one above it.
_SERIES, _BELOW, _BETWEEN = 20, 10, 16


class _Dots(NamedTuple):
    """The seeds (NaN: no value) of one series in one row; where its mean stands, in rows from the top, and they."""

    series: str
    row: str
    y: float
    below: float
    seeds: Array


def condition_dots(
    values: Mapping[str, Any],
    *,
    x_label: str,
    reference: Mapping[str, float] | None = None,
    log_x: bool = False,
    repeat: str = "seed",
    height: int | None = None,
) -> go.Figure:
    """Draw a row per condition: the mean as a dot on a bar of ± 1 sd over seeds, and a ring below it per seed.

    Args:
        values: group → row → (seeds,), with the group's name above its rows; or row → (seeds,) without groups. To
            compare series within a row, group → row → series → (seeds,); a series has one colour in all rows. NaN is
            a seed without a value: the row says how many there are.
        x_label: what the numbers are, with their unit.
        reference: name → place of a vertical line, for instance the value of the baseline.
        log_x: logarithmic axis; mean and deviation are then of the logarithm (geometric).
        repeat: what a ring is, for the note; "input".
        height: of the figure in pixels; by default as the number of rows asks.

    Raises:
        ValueError: no row, values of another shape, or a logarithm of what is not positive.
    """
    groups = _nested(values)
    series = list(dict.fromkeys(name for rows in groups.values() for row in rows.values() for name in row))
    ticks, dots = _placed(groups, series)
    marks = {str(name): float(value) for name, value in (reference or {}).items()}
    every = np.concatenate([*(each.seeds for each in dots), [*marks.values()]])
    if log_x and (every <= 0).any():
        raise ValueError("condition_dots: values ≤ 0 cannot be shown on a logarithmic axis. Leave them out.")
    figure = side_by_side([""], height=height or 175 + _row_height(len(series)) * len(ticks))
    for number, (name, value) in enumerate(marks.items()):
        add_line(figure, f"{name}: {format_number(value)}", dash=_DASHES[number % len(_DASHES)], x=value)
    unnamed = "" if "trained" in series else "trained"  # a series without a name looks like what is trained
    styles = condition_styles(name or unnamed for name in series)
    for name in series:
        mine = [each for each in dots if each.series == name and np.isfinite(each.seeds).any()]
        if mine:
            style = styles[name or unnamed]
            figure.add_trace(_seeds(name, mine, style, as_html(x_label), repeat, tint=0.35 * (len(series) > 1)))
            figure.add_trace(_means(name, mine, style, as_html(x_label), repeat, log=log_x))
    rows = {"tickvals": [*range(len(ticks))], "ticktext": ticks, "range": [len(ticks) - 0.4, -0.6]}
    standoff = {"ticklabelstandoff": 6}  # a reference at the edge of the panel would run through the names of the rows
    figure.update_yaxes(ticks="", showline=False, fixedrange=True, gridcolor=GRID, **rows, **standoff)
    figure.update_xaxes(title_text=as_html(x_label), **(log_axis([every]) if log_x else {}))
    add_note(figure, f"filled: mean ± 1 sd over {repeat}s, ring below it: one {repeat}")
    return figure.update_layout(margin={"t": 24})


def _nested(values: Any) -> dict[str, dict[str, dict[str, Array]]]:
    """group → row → series → (seeds,); what has no name is called ""."""
    if not isinstance(values, Mapping) or not values:
        raise ValueError(f"condition_dots: expected a mapping {_SHAPE}, with at least one row; got {values!r:.80}.")
    if not any(isinstance(rows, Mapping) for rows in values.values()):
        values = {"": values}
    found: dict[str, dict[str, dict[str, Array]]] = {}
    for group, rows in values.items():
        if not isinstance(rows, Mapping) or not rows:
            raise ValueError(f"condition_dots: group {group!r} must map rows to values; got {rows!r:.80}.")
        found[str(group)] = {str(row): _series(str(row), parts) for row, parts in rows.items()}
    return found


def _series(row: str, parts: Any) -> dict[str, Array]:
    parts = parts if isinstance(parts, Mapping) else {"": parts}
    if not parts:
        raise ValueError(f"condition_dots: row {row!r} has no series.")
    arrays = {str(name): as_array(seeds) for name, seeds in parts.items()}
    for name, array in arrays.items():
        if array.ndim != 1 or not len(array):
            where = f"row {row!r}" + (f", series {name!r}" if name else "")
            raise ValueError(f"condition_dots: {where} must have shape (seeds,); got {array.shape}. One number a seed.")
    return arrays


def _row_height(series: int) -> int:
    return _SERIES * (series - 1) + _BELOW + _BETWEEN


def _placed(groups: dict[str, dict[str, dict[str, Array]]], names: list[str]) -> tuple[list[str], list[_Dots]]:
    """Texts of all headings and rows from top to bottom, and where each series of a row stands."""
    pixels = 1 / _row_height(len(names))
    first = -pixels * (_SERIES * (len(names) - 1) + _BELOW) / 2 if names[1:] else 0.0  # one stands on the row's line
    places = {name: first + pixels * _SERIES * number for number, name in enumerate(names)}
    ticks: list[str] = []
    dots = []
    for group, rows in groups.items():
        ticks += [f"<b>{as_html(group)}</b>"] if group else []
        for row, parts in rows.items():
            tops = {name: len(ticks) + places[name] for name in parts}
            dots += [_Dots(name, row, tops[name], tops[name] + pixels * _BELOW, parts[name]) for name in parts]
            missing = sum(int(np.isnan(seeds).sum()) for seeds in parts.values())
            known = sum(int(np.isfinite(seeds).sum()) for seeds in parts.values())
            note = "" if not missing else f" ({missing} without value)" if known else " (no value)"
            ticks.append(as_html(row + note))
    return ticks, dots


def _group(name: str) -> dict[str, Any]:
    """What the two traces of a series share: one click in the legend hides both."""
    return {"mode": "markers", "legendgroup": name or "mean"}


def _seeds(name: str, dots: list[_Dots], style: Style, label: str, repeat: str, *, tint: float) -> go.Scatter:
    """Rings in ink, seen on any ground; where several series stand in a row, filled with a tint of their own."""
    import plotly.graph_objects as go

    title = f"{name}, " if name else ""
    ring = {"size": 7, "symbol": style.marker, "color": faded(style.colour, tint), "line": {"color": INK, "width": 1.4}}
    return go.Scatter(
        x=small(np.concatenate([each.seeds for each in dots])),
        y=small(np.concatenate([np.full(len(each.seeds), each.below) for each in dots])),
        marker=ring,
        name=f"{title}one {repeat}",
        showlegend=False,
        hovertemplate=f"{title}one {repeat}<br>{label}: %{{x:.3~r}}<extra></extra>",
        **_group(name),
    )


def _means(name: str, dots: list[_Dots], style: Style, label: str, repeat: str, *, log: bool) -> go.Scatter:
    """The means with their bars: the entry of the legend."""
    import plotly.graph_objects as go

    lines = [Line(np.zeros(1), each.seeds[:, None], log=log) for each in dots]
    mean, low, high = (np.concatenate([getattr(line, part) for line in lines]) for part in ("mean", "low", "high"))
    bar = {"type": "data", "symmetric": False, "thickness": 1.8, "width": 4, "color": style.colour}
    title = f"{name}, " if name else ""
    tips = [
        f"{title}{as_html(each.row)}<br>{label}: {said(line)[0]}<br>{repeat}s: {np.isfinite(each.seeds).sum()}"
        for each, line in zip(dots, lines, strict=True)
    ]
    return go.Scatter(
        x=small(mean),
        y=small([each.y for each in dots]),
        marker={"size": 10, "symbol": style.marker, "color": style.colour},
        error_x=bar | {"array": small(high - mean), "arrayminus": small(mean - low)},
        name=name or "mean",
        text=tips,
        hovertemplate="%{text}<extra></extra>",
        **_group(name),
    )
