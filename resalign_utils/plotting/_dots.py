"""Dots in rows: what one change at a time does to a number, seed by seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..formatting import format_number
from ._colours import GRID, Style, condition_styles, faded
from ._curves import said
from ._inputs import Array, Line, as_array, small
from ._theme import add_line, add_note, as_html, log_axis, side_by_side

if TYPE_CHECKING:
    import plotly.graph_objects as go

_SHAPE = "group → row → (seeds,), or group → row → series → (seeds,), or row → (seeds,)"
_DASHES = ("dash", "dot", "dashdot")


class _Dots(NamedTuple):
    """The seeds (NaN: no value) of one series in one row, and where it stands, counted downwards from 0."""

    series: str
    row: str
    y: float
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
    """Draw a row of dots per condition: a small one per seed, a large one for the mean with a bar of ± 1 sd over seeds.

    Args:
        values: group → row → (seeds,), with the group's name above its rows; or row → (seeds,) without groups. To
            compare series within a row, group → row → series → (seeds,); a series has one colour in all rows. NaN is
            a seed without a value: the row says how many there are.
        x_label: what the numbers are, with their unit.
        reference: name → place of a vertical line, for instance the value of the baseline.
        log_x: logarithmic axis; mean and deviation are then of the logarithm (geometric).
        repeat: what a small dot is, for the note; "input".
        height: of the figure in pixels; by default as the number of rows asks.

    Raises:
        ValueError: no row, values of another shape, or a logarithm of what is not positive.
    """
    ticks, dots = _placed(_nested(values))
    marks = {str(name): float(value) for name, value in (reference or {}).items()}
    every = np.concatenate([*(each.seeds for each in dots), [*marks.values()]])
    if log_x and (every <= 0).any():
        raise ValueError("condition_dots: values ≤ 0 cannot be shown on a logarithmic axis. Leave them out.")
    figure = side_by_side([""], height=height or 175 + 25 * len(ticks))
    for number, (name, value) in enumerate(marks.items()):
        add_line(figure, f"{name}: {format_number(value)}", dash=_DASHES[number % len(_DASHES)], x=value)
    series = list(dict.fromkeys(each.series for each in dots))
    unnamed = "" if "trained" in series else "trained"  # a series without a name looks like what is trained
    styles = condition_styles(name or unnamed for name in series)
    for name in series:
        mine = [each for each in dots if each.series == name and np.isfinite(each.seeds).any()]
        if mine:
            figure.add_traces(_traces(name, mine, styles[name or unnamed], as_html(x_label), log_x, repeat))
    rows = {"tickvals": [*range(len(ticks))], "ticktext": ticks, "range": [len(ticks) - 0.4, -0.6]}
    figure.update_yaxes(ticks="", showline=False, fixedrange=True, gridcolor=GRID, **rows)
    figure.update_xaxes(title_text=as_html(x_label), **(log_axis([every]) if log_x else {}))
    add_note(figure, f"large: mean ± 1 sd over {repeat}s, small: one {repeat}")
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


def _placed(groups: dict[str, dict[str, dict[str, Array]]]) -> tuple[list[str], list[_Dots]]:
    """Texts of all headings and rows from top to bottom, and where each series of a row stands."""
    names = list(dict.fromkeys(name for rows in groups.values() for row in rows.values() for name in row))
    offsets = np.linspace(-0.23, 0.23, len(names)).tolist() if names[1:] else [0.0]
    ticks: list[str] = []
    dots = []
    for group, rows in groups.items():
        ticks += [f"<b>{as_html(group)}</b>"] if group else []
        for row, parts in rows.items():
            dots += [_Dots(name, row, len(ticks) + offsets[names.index(name)], parts[name]) for name in parts]
            missing = sum(int(np.isnan(seeds).sum()) for seeds in parts.values())
            known = sum(int(np.isfinite(seeds).sum()) for seeds in parts.values())
            note = "" if not missing else f" ({missing} without value)" if known else " (no value)"
            ticks.append(as_html(row + note))
    return ticks, dots


def _traces(name: str, dots: list[_Dots], style: Style, label: str, log: bool, repeat: str) -> list[Any]:
    """The seeds, pale and small, and the means with their bars: one legend entry."""
    import plotly.graph_objects as go

    lines = [Line(np.zeros(1), each.seeds[:, None], log=log) for each in dots]
    mean, low, high = (np.concatenate([getattr(line, part) for line in lines]) for part in ("mean", "low", "high"))
    bar = {"type": "data", "symmetric": False, "thickness": 1.8, "width": 0, "color": style.colour}
    title, common = f"{name}, " if name else "", {"mode": "markers", "legendgroup": name or "mean"}
    seeds = go.Scatter(
        x=small(np.concatenate([each.seeds for each in dots])),
        y=small(np.concatenate([np.full(len(each.seeds), each.y) for each in dots])),
        marker={"size": 5, "symbol": style.marker, "color": faded(style.colour, 0.45)},
        name=f"{title}one {repeat}",
        showlegend=False,
        hoverinfo="skip",
        **common,
    )
    tips = [
        f"{title}{as_html(each.row)}<br>{label}: {said(line)[0]}<br>{repeat}s: {np.isfinite(each.seeds).sum()}"
        for each, line in zip(dots, lines, strict=True)
    ]
    means = go.Scatter(
        x=small(mean),
        y=small([each.y for each in dots]),
        marker={"size": 10, "symbol": style.marker, "color": style.colour},
        error_x=bar | {"array": small(high - mean), "arrayminus": small(mean - low)},
        name=name or "mean",
        text=tips,
        hovertemplate="%{text}<extra></extra>",
        **common,
    )
    return [seeds, means]
