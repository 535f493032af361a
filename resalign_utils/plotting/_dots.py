"""Dots in rows: what one change at a time does to a number, seed by seed."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ._inputs import small
from ._palette import GRID, INK, condition_styles, faded
from ._rows import Chart, Dots, chart_of
from ._theme import Backend, as_html, as_unicode, draw, log_ticks, matplotlib_panels, plotly_panels

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_KEY = "large: mean ± 1 sd over seeds, small: one seed"
_DASHES = (("dash", "--"), ("dot", ":"), ("dashdot", "-."))


def condition_dots(
    values: Mapping[str, Any],
    *,
    x_label: str,
    reference: Mapping[str, float] | None = None,
    untrained: Mapping[str, Any] | None = None,
    log_x: bool = False,
    height: int | None = None,
    backend: Backend = "plotly",
) -> Any:
    """Draw a row of dots per condition: a small one per seed, a large one for the mean with a bar of ± 1 sd over seeds.

    Args:
        values: group → row → (seeds,), with the group's name above its rows; or row → (seeds,) without groups. To
            compare series within a row, group → row → series → (seeds,); a series has one colour in all rows. NaN is
            a seed without a value: the row says how many there are, or "no value" if all are.
        x_label: what the numbers are, with their unit.
        reference: name → place of a vertical line, for instance the value of the baseline.
        untrained: group → row → value, or row → value, as in ``values``: what the row's network has before training,
            drawn as a hollow square. Rows may be left out.
        log_x: logarithmic axis; mean and deviation are then of the logarithm (geometric).
        height: of the figure in pixels; by default as the number of rows asks.
        backend: ``"plotly"`` or ``"matplotlib"``.

    Raises:
        ValueError: no row, values of another shape, an untrained value for a row that there is not, a logarithm of
            what is not positive, or an unknown backend.
    """
    chart = chart_of(values, reference or {}, untrained or {}, x_label, log_x)
    height = height or 155 + 25 * chart.slots
    return draw(backend, lambda: _plotly(chart, height), lambda: _matplotlib(chart, height / 100))


def _styles(names: Collection[str]) -> list[dict[str, Any]]:
    """A series without a name looks like what is trained, unless that is there too."""
    unnamed = "" if "trained" in names else "trained"
    return list(condition_styles([name or unnamed for name in names]).values())


def _plotly(chart: Chart, height: int) -> go.Figure:
    import plotly.graph_objects as go

    figure = plotly_panels([""], height=height)
    for text, value, (dash, _) in _references(chart):
        line = {"color": INK, "width": 1.2, "dash": dash}
        look = {"mode": "lines", "line": line, "name": text, "hovertemplate": f"{text}<extra></extra>"}
        figure.add_trace(go.Scatter(x=[value, value], y=[-0.6, chart.slots - 0.4], **look))
    for (name, dots), style in zip(chart.series.items(), _styles(chart.series), strict=True):
        figure.add_traces(_series_traces(name, dots, style, as_html(chart.label)))
    if chart.untrained:
        figure.add_trace(_hollow(chart))
    for y, text in chart.no_value():
        at = {"x": 0, "xref": "x domain", "xanchor": "left", "xshift": 4, "y": y, "yref": "y"}
        figure.add_annotation(text=as_html(text), font={"size": 11}, **at)
    for y in chart.rows:
        figure.add_hline(y=y, line={"color": GRID, "width": 1}, layer="below")
    figure.update_yaxes(**_y_axis(chart))
    figure.update_xaxes(**_x_axis(chart))
    title = {"text": _KEY, "side": "top", "font": {"size": 12}}
    figure.update_layout(showlegend=True, margin={"t": 20, "b": 125}, legend={"title": title, "tracegroupgap": 0})
    return figure


def _references(chart: Chart) -> list[tuple[str, float, tuple[str, str]]]:
    """Text, place and dash of each line."""
    texts = [f"{name}: {value:.3g}".replace("-", "−") for name, value in chart.reference.items()]
    return list(zip(texts, chart.reference.values(), itertools.cycle(_DASHES), strict=False))


def _y_axis(chart: Chart) -> dict[str, Any]:
    """Downwards, with a name a row."""
    names = {y: f"<b>{as_html(text)}</b>" for y, text in chart.headings.items()}
    names = dict(sorted((names | {y: as_html(text) for y, text in chart.rows.items()}).items()))
    plain = {"ticks": "", "showgrid": False, "showline": False, "fixedrange": True}
    return {"tickvals": [*names], "ticktext": [*names.values()], "range": [chart.slots - 0.4, -0.6], **plain}


def _x_axis(chart: Chart) -> dict[str, Any]:
    limits = chart.limits()
    axis: dict[str, Any] = {"title_text": as_html(chart.label), "range": [float(f"{end:.4g}") for end in limits]}
    if chart.log:
        places, texts = log_ticks(10.0 ** np.array(limits))
        axis |= {"type": "log", "tickvals": places, "ticktext": texts}
    return axis


def _series_traces(name: str, dots: list[Dots], style: dict[str, Any], label: str) -> list[Any]:
    """The seeds, pale and small, and the means with their bars: one legend entry."""
    import plotly.graph_objects as go

    known = [d for d in dots if np.isfinite(d.mean)]
    title = f"{name}, " if name else ""
    seeds = go.Scatter(
        x=small(np.concatenate([d.seeds for d in known] or [np.empty(0)])),
        y=small(np.concatenate([np.full(len(d.seeds), d.y) for d in known] or [np.empty(0)])),
        mode="markers",
        marker={"size": 5, "color": faded(style["colour"], 0.45)},
        name=f"{title}one seed",
        legendgroup=name,
        showlegend=False,
        hoverinfo="skip",
    )
    means = np.array([d.mean for d in known])
    bar = {"type": "data", "symmetric": False, "thickness": 1.8, "width": 0, "color": style["colour"]}
    high, low = np.array([d.high for d in known]), np.array([d.low for d in known])
    bar |= {"array": small(high - means), "arrayminus": small(means - low)}
    return [
        seeds,
        go.Scatter(
            x=small(means),
            y=small(np.array([d.y for d in known])),
            mode="markers",
            marker={"size": 10, "symbol": style["marker"][0], "color": style["colour"]},
            error_x=bar,
            name=name or "mean",
            legendgroup=name,
            text=[f"{title}{as_html(d.row)}<br>{label}: {d.text}" for d in known],
            hovertemplate="%{text}<extra></extra>",
        ),
    ]


def _hollow(chart: Chart) -> Any:
    import plotly.graph_objects as go

    style = condition_styles(["untrained"])["untrained"]
    marker = {"size": 9, "symbol": f"{style['marker'][0]}-open", "color": style["colour"], "line": {"width": 1.5}}
    x, y = np.array(chart.untrained).T
    tip = f"untrained<br>{as_html(chart.label)}: %{{x:.4g}}<extra></extra>"
    return go.Scatter(x=small(x), y=small(y), mode="markers", marker=marker, name="untrained", hovertemplate=tip)


def _matplotlib(chart: Chart, height: float) -> Figure:
    figure, (axis,) = matplotlib_panels([""], height=height)
    for text, value, (_, dash) in _references(chart):
        axis.axvline(value, color=INK, linestyle=dash, linewidth=1, label=text)
    for (name, dots), style in zip(chart.series.items(), _styles(chart.series), strict=True):
        _plot_series(axis, name, dots, style)
    if chart.untrained:
        style = condition_styles(["untrained"])["untrained"]
        look: dict[str, Any] = {"marker": style["marker"][1], "markerfacecolor": "none", "markersize": 6}
        axis.plot(*np.array(chart.untrained).T, color=style["colour"], linestyle="none", label="untrained", **look)
    for place, text in chart.no_value():
        axis.text(0.01, place, text, transform=axis.get_yaxis_transform(), va="center", fontsize=8)
    _axes_matplotlib(axis, chart)
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)), title=_KEY)
    return figure


def _axes_matplotlib(axis: Axes, chart: Chart) -> None:
    names = {**chart.headings, **chart.rows}
    axis.set_yticks(sorted(names), [as_unicode(names[y]) for y in sorted(names)])
    for y in chart.headings:
        axis.get_yticklabels()[y].set_fontweight("bold")
    axis.set(ylim=(chart.slots - 0.4, -0.6), xlabel=as_unicode(chart.label), xscale="log" if chart.log else "linear")
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False, axis="y")
    axis.hlines(list(chart.rows), 0, 1, transform=axis.get_yaxis_transform(), color=GRID, linewidth=0.8, zorder=0)
    axis.spines["left"].set_visible(False)
    axis.set_xlim(*(10**end if chart.log else end for end in chart.limits()))


def _plot_series(axis: Axes, name: str, dots: list[Dots], style: dict[str, Any]) -> None:
    known = [d for d in dots if np.isfinite(d.mean)]
    for d in known:
        axis.plot(d.seeds, np.full(len(d.seeds), d.y), ".", color=style["colour"], alpha=0.45, markersize=5)
    spread = [[d.mean - d.low for d in known], [d.high - d.mean for d in known]]
    look: dict[str, Any] = {"fmt": style["marker"][1], "color": style["colour"], "markersize": 6.5, "capsize": 0}
    axis.errorbar([d.mean for d in known], [d.y for d in known], xerr=spread, label=name or "mean", **look)
