"""General lines: training courses, norms over depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ._inputs import check_series, small
from ._palette import INK, condition_styles, faded
from ._theme import Backend, as_html, as_unicode, draw, log_ticks, matplotlib_panels, plotly_panels

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Series = Mapping[str, tuple[Any, Any]]


class Line(NamedTuple):
    """Mean over repeats, and the band of one standard deviation around it."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    repeats: int


class _Look(NamedTuple):
    """What the axes are."""

    x_label: str
    y_labels: list[str]
    log_x: bool
    log_y: bool
    band: str


def curves(
    series: Series,
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    band: str = "seeds",
    reference: Mapping[str, float] | None = None,
    height: int | None = None,
    backend: Backend = "plotly",
) -> Any:
    """Draw lines, with a band of one standard deviation where there are repeats.

    Args:
        series: name → (x (t,), y (t,) or (repeats, t)); NaN leaves a gap.
        x_label: of the horizontal axis, with its unit.
        y_label: of the vertical axis, with its unit.
        log_x: logarithmic horizontal axis.
        log_y: logarithmic vertical axis; mean and band are then of the logarithm (geometric).
        band: what the repeats are, for the legend; ``"seeds"``, ``"inputs"``.
        reference: name → height of a dashed line, for instance the value of an untrained network.
        height: of the figure in pixels.
        backend: ``"plotly"`` or ``"matplotlib"``.

    Raises:
        ValueError: lengths that disagree, a logarithm of what is not positive, or an unknown backend.
    """
    return _draw_panels(
        [check_series(series, what="curves")],
        _Look(x_label, [y_label], log_x, log_y, band),
        [reference or {}],
        height or 400,
        backend,
    )


def curve_panels(
    panels: Mapping[str, Series],
    *,
    x_label: str,
    log_x: bool = False,
    log_y: bool = False,
    band: str = "seeds",
    reference: Mapping[str, Mapping[str, float]] | None = None,
    height: int | None = None,
    backend: Backend = "plotly",
) -> Any:
    """Draw several :func:`curves` side by side, each with its own vertical axis.

    Args:
        panels: label of the vertical axis → series. A series of the same name has the same colour in all panels.
        x_label: of the horizontal axes, with its unit.
        log_x: logarithmic horizontal axes.
        log_y: logarithmic vertical axes.
        band: what the repeats are, for the legend.
        reference: label of the vertical axis → name → height of a dashed line.
        height: of the figure in pixels.
        backend: ``"plotly"`` or ``"matplotlib"``.

    Raises:
        ValueError: as for :func:`curves`, or a reference for a panel that there is not.
    """
    if not isinstance(panels, Mapping) or not panels:
        raise ValueError("curve_panels: expected a mapping label → series with at least one entry.")
    unknown = set(reference or {}) - set(panels)
    if unknown:
        raise ValueError(f"curve_panels: reference names {sorted(unknown)}; the panels are {list(panels)}.")
    checked = [check_series(series, what=f"curve_panels: panel {label!r}") for label, series in panels.items()]
    look = _Look(x_label, list(panels), log_x, log_y, band)
    references = [(reference or {}).get(label, {}) for label in panels]
    return _draw_panels(checked, look, references, height or 380, backend)


def _draw_panels(
    panels: list[dict[str, tuple[np.ndarray, np.ndarray]]],
    look: _Look,
    references: list[Mapping[str, float]],
    height: int,
    backend: Backend,
) -> Any:
    for series in panels:
        for name, (x, y) in series.items():
            if (look.log_x and (x <= 0).any()) or (look.log_y and (y <= 0).any()):
                raise ValueError(
                    f"Series {name!r} has values ≤ 0, which a logarithmic axis cannot show. Leave them out."
                )
    lines = [{name: summarize(x, y, look.log_y) for name, (x, y) in series.items()} for series in panels]
    styles = condition_styles(dict.fromkeys(name for panel in lines for name in panel))
    return draw(
        backend,
        lambda: _lines_plotly(lines, styles, look, references, height),
        lambda: _lines_matplotlib(lines, styles, look, references, height / 100),
    )


def summarize(x: np.ndarray, y: np.ndarray, log: bool) -> Line:
    """Mean and deviation (ddof = 0) over the repeats that are not NaN."""
    y = np.log(y) if log else y
    known = ~np.isnan(y)
    count = known.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, y, 0).sum(0) / count
        sd = np.sqrt(np.where(known, (y - mean) ** 2, 0).sum(0) / count)
    low, middle, high = (np.exp(part) if log else part for part in (mean - sd, mean, mean + sd))
    return Line(x, middle, low, high, len(y))


def _lines_plotly(
    panels: list[dict[str, Line]], styles: dict[str, Any], look: _Look, references: list[Any], height: int
) -> go.Figure:
    figure = plotly_panels([""] * len(panels), height=height, horizontal_spacing=0.3 / len(panels) if panels[1:] else 0)
    seen: set[str] = set()
    for column, (panel, reference, label) in enumerate(zip(panels, references, look.y_labels, strict=True), start=1):
        for name, line in panel.items():
            for trace in _line_traces(name, line, styles[name], (look.x_label, label), look.band, name not in seen):
                figure.add_trace(trace, row=1, col=column)
            seen.add(name)
        for name, value in reference.items():
            _reference(figure, name, float(value), column)
        x_scale = _log_axis([line.x for line in panel.values()]) if look.log_x else {}
        y_scale = _log_axis([part for line in panel.values() for part in line[1:4]]) if look.log_y else {}
        figure.update_xaxes(title_text=as_html(look.x_label), row=1, col=column, **x_scale)
        figure.update_yaxes(title_text=as_html(label), row=1, col=column, **y_scale)
    figure.update_layout(showlegend=True, margin={"t": 20})
    return figure


def _log_axis(values: list[np.ndarray]) -> dict[str, Any]:
    places, texts = log_ticks(*values)
    return {"type": "log", "tickvals": places, "ticktext": texts}


def _line_traces(
    name: str, line: Line, style: dict[str, Any], labels: tuple[str, str], band: str, legend: bool
) -> list[Any]:
    """A band where there are repeats, and the line; they share one legend entry."""
    import plotly.graph_objects as go

    group = {"legendgroup": name, "showlegend": False}
    x_label, y_label = map(as_html, labels)
    tip, traces = f"{name}<br>{x_label} %{{x}}<br>{y_label} %{{y:.4g}}", []
    if line.repeats > 1:
        on = ~np.isnan(line.mean)
        x, y = np.r_[line.x[on], line.x[on][::-1]], np.r_[line.high[on], line.low[on][::-1]]
        fill = {"fill": "toself", "fillcolor": faded(style["colour"], 0.2), "mode": "none", "hoverinfo": "skip"}
        traces.append(go.Scatter(x=small(x), y=small(y), name=f"{name}, band", **fill, **group))
        tip += f"<br>mean of {line.repeats} {band}, ±1 sd: %{{customdata[0]:.4g}} … %{{customdata[1]:.4g}}"
    few = len(line.x) <= 40
    main = go.Scatter(
        x=small(line.x),
        y=small(line.mean),
        name=_legend_name(name, line, band),
        mode="lines+markers" if few else "lines",
        line={"color": style["colour"], "dash": style["dash"][0], "width": 2},
        marker={"symbol": style["marker"][0], "size": 7},
        customdata=small(np.stack([line.low, line.high], 1)) if line.repeats > 1 else None,
        hovertemplate=tip + "<extra></extra>",
        **(group | {"showlegend": legend}),
    )
    return [*traces, main]


def _legend_name(name: str, line: Line, band: str) -> str:
    return f"{name} (±1 sd, {line.repeats} {band})" if line.repeats > 1 else name


def _reference(figure: go.Figure, name: str, value: float, column: int) -> None:
    figure.add_hline(y=value, line={"color": INK, "dash": "dash", "width": 1}, row=1, col=column)
    figure.add_annotation(
        text=f"{name}: {value:.3g}".replace("-", "−"),
        x=1,
        xref="x domain" if column == 1 else f"x{column} domain",
        y=value,
        yref="y" if column == 1 else f"y{column}",
        xanchor="right",
        yanchor="bottom",
        font={"size": 12},
    )


def _lines_matplotlib(
    panels: list[dict[str, Line]], styles: dict[str, Any], look: _Look, references: list[Any], height: float
) -> Figure:
    figure, axes = matplotlib_panels([""] * len(panels), height=height)
    handles: dict[str, Any] = {}
    for axis, panel, reference, label in zip(axes, panels, references, look.y_labels, strict=True):
        for name, line in panel.items():
            handles.setdefault(_legend_name(name, line, look.band), _plot_line(axis, line, styles[name]))
        for name, value in reference.items():
            axis.axhline(value, color=INK, linestyle="--", linewidth=0.9)
            place = {"xy": (1, value), "xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
            axis.annotate(f"{name}: {value:.3g}".replace("-", "−"), **place)  # type: ignore[arg-type]
        axis.set(xlabel=as_unicode(look.x_label), ylabel=as_unicode(label))
        axis.set(xscale="log" if look.log_x else "linear", yscale="log" if look.log_y else "linear")
        if not look.log_x:
            whole_ticks(axis, [line.x for line in panel.values()])
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(3, len(handles)))
    return figure


def whole_ticks(axis: Axes, values: list[np.ndarray]) -> None:
    """No block 2.5 where all x are whole."""
    axis.locator_params(axis="x", integer=all((x == np.round(x)).all() for x in values))


def _plot_line(axis: Axes, line: Line, style: dict[str, Any]) -> Any:
    if line.repeats > 1:
        axis.fill_between(line.x, line.low, line.high, color=style["colour"], alpha=0.2, linewidth=0)
    marker = style["marker"][1] if len(line.x) <= 40 else None
    return axis.plot(line.x, line.mean, color=style["colour"], linestyle=style["dash"][1], marker=marker)[0]
