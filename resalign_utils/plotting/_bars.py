"""Bars: histograms of path lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._curves import Line, Series, summarize, whole_ticks
from ._inputs import check_series, small
from ._palette import condition_styles
from ._theme import Backend, as_html, as_unicode, draw, matplotlib_legend, matplotlib_panels, plotly_panels

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.figure import Figure


def bars(
    series: Series,
    *,
    x_label: str,
    y_label: str,
    height: int | None = None,
    backend: Backend = "plotly",
) -> Any:
    """Draw bars side by side, one colour a series.

    Args:
        series: name → (x (t,), y (t,) or (repeats, t)); the mean over repeats is drawn, with their deviation.
        x_label: of the horizontal axis, with its unit.
        y_label: of the vertical axis, with its unit.
        height: of the figure in pixels.
        backend: ``"plotly"`` or ``"matplotlib"``.

    Raises:
        ValueError: lengths that disagree, or an unknown backend.
    """
    lines = {name: summarize(x, y, log=False) for name, (x, y) in check_series(series, what="bars").items()}
    height = height or 380
    return draw(
        backend,
        lambda: _bars_plotly(lines, x_label, y_label, height),
        lambda: _bars_matplotlib(lines, x_label, y_label, height / 100),
    )


def _bars_plotly(lines: dict[str, Line], x_label: str, y_label: str, height: int) -> go.Figure:
    import plotly.graph_objects as go

    figure = plotly_panels([""], height=height)
    for (name, line), style in zip(lines.items(), condition_styles(lines).values(), strict=True):
        spread = {"array": small(line.high - line.mean), "thickness": 1.2, "width": 2} if line.repeats > 1 else None
        figure.add_trace(
            go.Bar(
                x=small(line.x),
                y=small(line.mean),
                name=name,
                error_y=spread,
                marker={"color": style["colour"]},
                hovertemplate=f"{name}<br>{x_label} %{{x}}<br>{y_label} %{{y:.4g}}<extra></extra>",
            )
        )
    figure.update_xaxes(title_text=as_html(x_label))
    figure.update_yaxes(title_text=as_html(y_label))
    figure.update_layout(barmode="group", bargap=0.15, showlegend=True, margin={"t": 20})
    return figure


def _bars_matplotlib(lines: dict[str, Line], x_label: str, y_label: str, height: float) -> Figure:
    figure, (axis,) = matplotlib_panels([""], height=height)
    gap = min([float(np.diff(np.unique(line.x)).min()) for line in lines.values() if len(line.x) > 1], default=1.0)
    width = 0.85 * gap / len(lines)
    for place, (name, style) in enumerate(condition_styles(lines).items()):
        line = lines[name]
        x = line.x + (place - (len(lines) - 1) / 2) * width
        spread = line.high - line.mean if line.repeats > 1 else None
        axis.bar(x, line.mean, width, yerr=spread, color=style["colour"], label=name)
    axis.set(xlabel=as_unicode(x_label), ylabel=as_unicode(y_label))
    whole_ticks(axis, [line.x for line in lines.values()])
    axis.grid(visible=False, axis="x")
    matplotlib_legend(figure, axis)
    return figure
