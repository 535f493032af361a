"""Laws of path lengths as bars: side by side (chapter 1), or a row each over one axis of lengths (chapter 14)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...formatting import format_mean
from .._colours import INK, Style, condition_styles
from .._curves import said
from .._inputs import Array, Line, Numbers, Series, as_array, check_series, small
from .._theme import add_note, as_html, side_by_side, theme

if TYPE_CHECKING:
    import plotly.graph_objects as go


def bars(series: Series, *, x_label: str, y_label: str, height: int = 380) -> go.Figure:
    """Draw bars, one colour a series: on their ticks, or side by side where two series have a bar at the same place.

    A bar under 1/100 of the highest is none here.

    Args:
        series: name → (x (t,), y (t,) or (repeats, t)); the mean over repeats is drawn, with their deviation.
        x_label: of the horizontal axis, with its unit.
        y_label: of the vertical axis, with its unit.
        height: of the figure in pixels.

    Raises:
        ValueError: lengths that disagree.
    """
    lines = check_series(series, what="bars")
    figure = side_by_side([""], height=height)
    for name, style in condition_styles(lines).items():
        figure.add_trace(_bars(name, lines[name], style, (as_html(x_label), as_html(y_label))))
    figure.update_xaxes(title_text=as_html(x_label))
    figure.update_yaxes(title_text=as_html(y_label))
    add_note(figure)
    mode = "group" if _meet(list(lines.values())) else "overlay"
    return figure.update_layout(barmode=mode, bargap=0.15, margin={"t": 24})


def _meet(lines: list[Line]) -> bool:
    """Whether two series have a bar that is seen at the same place."""
    least = 0.01 * max(np.nanmax(np.abs(line.mean), initial=0) for line in lines)
    places = [place for line in lines for place in line.x[np.abs(line.mean) > least]]
    return len(places) > len(set(places))


def path_lengths(laws: Mapping[str, Numbers | Sequence[Numbers]], *, height: int | None = None) -> go.Figure:
    """Draw laws of path lengths as histograms in rows, each with its mean as a dotted line.

    All rows share the axis of lengths. Each has its own vertical scale, since the single length of a plain network
    would flatten the many of a residual one: compare places and shapes, and read heights from the ticks.

    Args:
        laws: name → law (max_length+1,), as :func:`resalign_utils.path_length_distribution` returns it; or name → a
            sequence of laws, one per seed and of any lengths, of which mean and deviation are drawn.
        height: of the figure in pixels; by default as the number of rows asks.

    Raises:
        ValueError: no law, or one that is not a probability law on 0, 1, ....
    """
    from plotly.subplots import make_subplots

    if not isinstance(laws, Mapping) or not laws:
        raise ValueError("path_lengths: expected a mapping name → law (max_length+1,) with at least one entry.")
    rows = {str(name): _stacked(str(name), law) for name, law in laws.items()}
    count = len(rows)
    means = {name: law @ np.arange(law.shape[1]) for name, law in rows.items()}
    seeds = {name: f" ({len(mean)} seeds)" if len(mean) > 1 else "" for name, mean in means.items()}
    titles = [as_html(f"{name}: mean {format_mean(means[name])}{seeds[name]}") for name in rows]
    figure = make_subplots(count, 1, shared_xaxes=True, subplot_titles=titles, vertical_spacing=0.36 / count)
    figure.update_layout(template=theme(), height=height or max(350, 95 + 75 * count), margin={"t": 30}, bargap=0.2)
    figure.update_annotations(font={"size": 13}, x=0, xanchor="left")
    for row, (name, style) in enumerate(condition_styles(rows).items(), start=1):
        line = Line(np.arange(rows[name].shape[1], dtype=float), rows[name])
        figure.add_trace(_bars(name, line, style, ("length", "share")), row=row, col=1)
        for look in ({"color": "#ffffff", "width": 3}, {"color": INK, "width": 1.2, "dash": "dot"}):
            figure.add_vline(x=means[name].mean(), line=look, row=row, col=1)  # a white one below: seen on dark bars
    figure.update_xaxes(range=[-0.6, max(law.shape[1] for law in rows.values()) - 0.4])
    figure.update_xaxes(title_text="path length (nonlinear units)", row=count, col=1)
    figure.update_yaxes(title_text="share", nticks=6 if count == 1 else 3, rangemode="tozero")
    return figure.update_layout(showlegend=False)


def _stacked(name: str, values: Any) -> Array:
    """One law or several → (seeds, longest+1), filled up with zeros."""
    several = isinstance(values, list | tuple) and len(values) > 0 and np.ndim(values[0]) > 0
    laws = [as_array(law) for law in values] if several else [*np.atleast_2d(as_array(values))]
    for law in laws:
        if law.ndim != 1 or not len(law) or not (law >= 0).all() or abs(law.sum() - 1) > 1e-3:
            raise ValueError(
                f"path_lengths: {name!r} must have probabilities of the lengths 0, 1, ..., which sum to 1; got shape "
                f"{law.shape} with sum {law.sum():.4g} and least value {law.min(initial=np.inf):.4g}. "
                "path_length_distribution(model) returns them."
            )
    longest = max(map(len, laws))
    return np.stack([np.pad(law, (0, longest - len(law))) for law in laws])


def _bars(name: str, line: Line, style: Style, labels: tuple[str, str]) -> Any:
    """Bars with whiskers of one deviation: none where it would be a dot, none below zero."""
    import plotly.graph_objects as go

    above = np.where(line.sd > 0.01 * np.nanmax(line.mean), line.sd, np.nan)
    whiskers = {"symmetric": False, "array": small(above), "arrayminus": small(np.minimum(above, line.mean))}
    return go.Bar(
        x=small(line.x),
        y=small(line.mean),
        name=as_html(name),
        error_y=whiskers | {"thickness": 1.2, "width": 2} if line.repeats > 1 else None,
        marker={"color": style.colour},
        customdata=said(line),
        hovertemplate=f"{as_html(name)}<br>{labels[0]} %{{x}}<br>{labels[1]} %{{customdata}}<extra></extra>",
    )
