"""Accuracy over NAPL, and for a chosen NAPL what became of the layers and of the path lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._inputs import small
from ._linearization_furniture import furnish, law_axis, page, phone, words
from ._linearization_points import PALE, Accuracy, LinearizedPoint, Point, Sweep, check_sweep, mark_height, place
from ._linearization_static import sweep_matplotlib
from ._palette import INK, condition_styles
from ._theme import Backend, as_html, draw, theme

if TYPE_CHECKING:
    import plotly.graph_objects as go


def linearization_sweep(
    points: Sequence[LinearizedPoint],
    *,
    start: tuple[float, Any] | None = None,
    length_label: str = "average path length NAPL",
    accuracy_label: str = "test accuracy",
    chosen: float | None = None,
    height: int | None = None,
    backend: Backend = "plotly",
) -> Any:
    """Draw accuracy over NAPL for each method, and below it the inside of the networks at the chosen NAPL.

    The axis of NAPL is asinh(4 · NAPL): linear around 0, logarithmic above, with true numbers. The lower panels show
    the share of units that are still nonlinear, layer by layer, and the law of the path lengths with its mean. In
    Plotly a slider goes over all NAPL that were aimed at. A method that has no point there shows, in pale, the one
    that is nearest on the axis, and the words above the panels name its NAPL: equal NAPL is what may be compared.

    Args:
        points: one per method and NAPL; see :class:`LinearizedPoint`. Methods have colours in the order they come.
        start: (NAPL, accuracies (seeds,)) of the network before linearisation: a star, and a dashed line.
        length_label: of the axis of NAPL.
        accuracy_label: of the axis of accuracies.
        chosen: the NAPL that is shown first; by default the middle one at which most methods have a point.
        height: of the figure in pixels.
        backend: ``"plotly"`` or ``"matplotlib"``; the latter shows the chosen NAPL only.

    Raises:
        ValueError: no point, two of one method at one NAPL, a part that is not what it must be, a choice that there is
            not, or an unknown backend.
    """
    sweep = check_sweep(points, start, (length_label, accuracy_label))
    if chosen is not None and chosen not in sweep.targets:
        known = ", ".join(f"{target:g}" for target in sweep.targets)
        raise ValueError(f"linearization_sweep: chosen must be one of the points' NAPL, {known}; got {chosen!r}.")
    first = _middle(sweep) if chosen is None else float(chosen)
    return draw(
        backend,
        lambda: _plotly(sweep, first, height),
        lambda: sweep_matplotlib(sweep, first, height),
    )


def _middle(sweep: Sweep) -> float:
    own = {target: sum(has for _, has in sweep.shown(target).values()) for target in sweep.targets}
    most = [target for target, methods in own.items() if methods == max(own.values())]
    return most[(len(most) - 1) // 2]


def _plotly(sweep: Sweep, first: float, height: int | None) -> go.Figure:
    import plotly.graph_objects as go

    fixed = [*_accuracy_traces(sweep), *_start_traces(sweep)]
    moving = {target: _moving(sweep, target) for target in sweep.targets}
    figure = go.Figure(fixed + moving[first], layout={"template": theme()})
    figure.frames = [
        go.Frame(
            name=str(target),
            data=[_changes(trace) for trace in traces],
            traces=list(range(len(fixed), len(figure.data))),
            layout={"annotations": [{"text": words(sweep, target)}], "yaxis3": law_axis(sweep, target)},
        )
        for target, traces in moving.items()
    ]
    furnish(figure, sweep, first)
    for path, value in page(sweep, height).items():
        figure.layout[path] = value
    figure.layout.meta = {"narrow": phone(sweep)}  # for book-plotly.js; Plotly itself ignores it
    return figure


def _accuracy_traces(sweep: Sweep) -> list[Any]:
    """A line per method, with bars of one deviation."""
    import plotly.graph_objects as go

    traces, styles = [], condition_styles(sweep.methods)
    for (method, points), name in zip(sweep.methods.items(), sweep.named(), strict=True):
        style = styles[method]
        traces.append(
            go.Scatter(
                **_means(sweep, method, [(point.napl, point.accuracy) for point in points]),
                mode="lines+markers",
                line={"color": style["colour"], "dash": style["dash"][0], "width": 2},
                marker={"symbol": style["marker"][0], "size": 8},
                name=as_html(name),
                legendgroup=method,
            )
        )
    return traces


def _start_traces(sweep: Sweep) -> list[Any]:
    """The network before linearisation: a dashed line at its accuracy, and a star at its NAPL."""
    import plotly.graph_objects as go

    if sweep.start is None:
        return []
    accuracy, name = sweep.start[1], "before linearisation"
    group = {"legendgroup": name, "name": f"{name}: {accuracy.text}"}
    line = {"mode": "lines", "line": {"color": INK, "dash": "dash", "width": 1.2}, "hoverinfo": "skip"}
    star = {"mode": "markers", "marker": {"symbol": "star", "size": 12, "color": INK}, "cliponaxis": False}
    return [
        go.Scatter(x=sweep.limits(), y=[accuracy.mean] * 2, showlegend=False, **line, **group),
        go.Scatter(**_means(sweep, name, [sweep.start]), **star, **group),
    ]


def _means(sweep: Sweep, name: str, known: list[tuple[float, Accuracy]]) -> dict[str, Any]:
    """Where means over seeds stand, with their bars and what is said under the mouse."""
    spread = np.array([accuracy.sd for _, accuracy in known])
    return {
        "x": small(place([napl for napl, _ in known])),
        "y": small(np.array([accuracy.mean for _, accuracy in known])),
        "error_y": {"array": small(spread), "thickness": 1.5, "width": 4, "visible": bool(spread.any())},
        "text": [_tip(sweep, name, napl, accuracy) for napl, accuracy in known],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _tip(sweep: Sweep, name: str, napl: float, accuracy: Accuracy) -> str:
    lines = [name, f"{sweep.labels[0]} {napl:.4g}", f"{sweep.labels[1]} {accuracy.mean:.4g}"]
    if accuracy.seeds > 1:
        ends = f"{accuracy.mean - accuracy.sd:.4g} … {accuracy.mean + accuracy.sd:.4g}"
        lines.append(f"mean of {accuracy.seeds} seeds, ±1 sd: {ends}")
    return "<br>".join(map(as_html, lines))


def _moving(sweep: Sweep, target: float) -> list[Any]:
    """The traces that differ from NAPL to NAPL: always as many, in the same order."""
    import plotly.graph_objects as go

    x, line = [float(place(target))] * 2, {"color": INK, "dash": "dot", "width": 1}
    silent = {"showlegend": False, "hoverinfo": "skip"}
    traces = [go.Scatter(x=x, y=sweep.accuracy_limits(), mode="lines", line=line, name="chosen NAPL", **silent)]
    for number, (method, (point, own)) in enumerate(sweep.shown(target).items()):
        opacity = 1.0 if own else PALE
        ring = {"symbol": "circle-open", "size": 18, "color": INK, "line": {"width": 2}, "opacity": opacity}
        at = {"x": [float(place(point.napl))], "y": [point.accuracy.mean], "cliponaxis": False}
        traces.append(go.Scatter(**at, mode="markers", marker=ring, name=f"{method}, chosen", **silent))
        colour = condition_styles(sweep.methods)[method]["colour"]
        traces += _insides(as_html(method), point, {"color": colour, "opacity": opacity})
        traces.append(_mean(as_html(method), point, colour, opacity, sweep.law_limit(target) * mark_height(number)))
    return traces


def _insides(method: str, point: Point, marker: dict[str, Any]) -> list[Any]:
    """Bars of the layers and of the path lengths."""
    import plotly.graph_objects as go

    look = {"marker": marker, "legendgroup": method, "offsetgroup": method, "showlegend": False}
    seeds = f", mean of {point.accuracy.seeds} seeds" if point.accuracy.seeds > 1 else ""
    at = f"{method}, NAPL {point.napl:.3g}{seeds}"
    layer = f"{at}<br>layer %{{x}}: %{{y:.3g}} % of its units are nonlinear<extra></extra>"
    length = f"{at}<br>length %{{x}}: %{{y:.3g}} % of the paths<extra></extra>"
    index = np.arange(len(point.surviving) + 1, dtype=np.uint8)[1:]
    lengths = np.arange(len(point.law), dtype=np.uint8)
    left = {"x": index, "y": small(100 * point.surviving), "xaxis": "x2", "yaxis": "y2", "hovertemplate": layer}
    right = {"x": lengths, "y": small(100 * point.law), "xaxis": "x3", "yaxis": "y3", "hovertemplate": length}
    return [go.Bar(**left, name=f"{method}, layers", **look), go.Bar(**right, name=f"{method}, law", **look)]


def _mean(method: str, point: Point, colour: str, opacity: float, y: float) -> Any:
    import plotly.graph_objects as go

    return go.Scatter(
        x=[point.mean_length],
        y=[y],
        xaxis="x3",
        yaxis="y3",
        mode="markers",
        marker={"symbol": "triangle-down", "size": 11, "color": colour, "opacity": opacity},
        name=f"{method}, mean",
        legendgroup=method,
        showlegend=False,
        hovertemplate=f"{method}<br>mean path length %{{x:.3g}}<extra></extra>",
    )


def _changes(trace: Any) -> dict[str, Any]:
    """Of a trace, what a frame changes."""
    full = trace.to_plotly_json()
    kept = {key: full[key] for key in ("type", "x", "y", "hovertemplate") if key in full}
    return kept | ({"marker": {"opacity": full["marker"]["opacity"]}} if "marker" in full else {})
