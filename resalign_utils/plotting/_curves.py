"""General lines: training courses, norms over depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..formatting import format_mean_sd, format_number
from ._colours import Style, condition_styles, faded
from ._inputs import Line, Series, check_series, small
from ._theme import add_line, add_note, as_html, log_axis, share_axis, side_by_side, wrapped

if TYPE_CHECKING:
    import plotly.graph_objects as go


def curves(
    series: Series,
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    band: str = "seeds",
    reference: Mapping[str, float] | None = None,
    height: int = 420,
) -> go.Figure:
    """Draw lines, with a band of one standard deviation where there are repeats.

    Args:
        series: name → (x (t,), y (t,) or (repeats, t)); NaN leaves a gap.
        x_label: of the horizontal axis, with its unit.
        y_label: of the vertical axis, with its unit.
        log_x: logarithmic horizontal axis.
        log_y: logarithmic vertical axis; mean and band are then of the logarithm (geometric).
        band: what the repeats are, for the note; ``"seeds"``, ``"inputs"``.
        reference: name → height of a dashed line, for instance the value of an untrained network.
        height: of the figure in pixels.

    Raises:
        ValueError: lengths that disagree, or a logarithm of what is not positive.
    """
    look: dict[str, Any] = {"x_label": x_label, "log_x": log_x, "log_y": log_y, "band": band, "height": height}
    figure = curve_panels({y_label: series}, reference={y_label: reference or {}}, **look)
    figure.layout.annotations = []  # the name of a single panel stands beside its axis
    figure.update_yaxes(title_text=as_html(y_label))
    return figure.update_layout(margin={"t": 24})


def curve_panels(
    panels: Mapping[str, Series],
    *,
    x_label: str,
    log_x: bool = False,
    log_y: bool = False,
    band: str = "seeds",
    reference: Mapping[str, Mapping[str, float]] | None = None,
    height: int = 400,
) -> go.Figure:
    """Draw several :func:`curves` side by side, each with its own vertical axis, named above it.

    Args:
        panels: label of the vertical axis → series. A series of the same name looks the same in all panels.
        x_label: of the horizontal axes, with its unit.
        log_x: logarithmic horizontal axes.
        log_y: logarithmic vertical axes.
        band: what the repeats are, for the note.
        reference: label of the vertical axis → name → height of a dashed line.
        height: of the figure in pixels.

    Raises:
        ValueError: as for :func:`curves`, or a reference for a panel that there is not.
    """
    if not isinstance(panels, Mapping) or not panels:
        raise ValueError("curve_panels: expected a mapping label → series with at least one entry.")
    references = reference or {}
    unknown = set(references) - set(panels)
    if unknown:
        raise ValueError(f"curve_panels: reference names {sorted(unknown)}; the panels are {list(panels)}.")
    drawn = {y: check_series(panels[y], what=f"panel {y!r}", log_x=log_x, log_y=log_y) for y in panels}
    figure = side_by_side(list(drawn), height=height)
    styles = condition_styles(name for lines in drawn.values() for name in lines)
    named: set[str] = set()  # in the legend already
    for column, (y_label, lines) in enumerate(drawn.items(), start=1):
        at = {"row": 1, "col": column}
        for name, line in lines.items():
            if line.repeats > 1:
                figure.add_trace(_band(name, line, styles[name]), **at)
            trace = _line(name, line, styles[name], (as_html(x_label), as_html(y_label)))
            figure.add_trace(trace.update(showlegend=name not in named), **at)
            named.add(name)
        marks = references.get(y_label, {})
        for name, value in marks.items():
            text = f"{name}: {format_number(value)}"
            add_line(figure, text, column=column, legend=text not in named, y=value)
            named.add(text)
        every = [part for line in lines.values() for part in (line.low, line.mean, line.high)]
        figure.update_xaxes(title_text=as_html(x_label), **at)
        figure.update_xaxes(**(log_axis(line.x for line in lines.values()) if log_x else {}), **at)
        figure.update_yaxes(**(log_axis(every) if log_y else share_axis([*lines.values()], [*marks.values()])), **at)
    counts = sorted({line.repeats for lines in drawn.values() for line in lines.values()} - {1})
    add_note(figure, f"line: mean, band: ±1 sd over {' or '.join(map(str, counts))} {band}" if counts else "")
    return figure


def _band(name: str, line: Line, style: Style) -> Any:
    import plotly.graph_objects as go

    on = ~np.isnan(line.mean)
    x, y = np.r_[line.x[on], line.x[on][::-1]], np.r_[line.high[on], line.low[on][::-1]]
    look = {"fill": "toself", "fillcolor": faded(style.colour, 0.2), "mode": "none", "hoverinfo": "skip"}
    return go.Scatter(x=small(x), y=small(y), name=f"{name}, band", legendgroup=name, showlegend=False, **look)


def _line(name: str, line: Line, style: Style, labels: tuple[str, str]) -> Any:
    import plotly.graph_objects as go

    return go.Scatter(
        x=small(line.x),
        y=small(line.mean),
        name=as_html(wrapped(name, 44)),
        legendgroup=name,
        mode="lines+markers" if len(line.x) <= 40 else "lines",
        line={"color": style.colour, "dash": style.dash, "width": 2},
        marker={"symbol": style.marker, "size": 7},
        text=[format_number(x) for x in line.x],
        customdata=said(line),
        hovertemplate=f"{as_html(name)}<br>{labels[0]} %{{text}}<br>{labels[1]} %{{customdata}}<extra></extra>",
    )


def said(line: Line) -> list[str]:
    """Mean and deviation of each point in words; of a geometric mean both ends, since they lie unevenly around it."""
    if line.repeats == 1:
        return [format_number(mean) for mean in line.mean]
    if not line.log:
        return [format_mean_sd(*pair) for pair in zip(line.mean, line.sd, strict=True)]
    parts = zip(*([format_number(value) for value in part] for part in (line.mean, line.low, line.high)), strict=True)
    return [f"{mean} (±1 sd: {low} … {high})" for mean, low, high in parts]
