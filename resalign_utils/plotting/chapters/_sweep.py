"""Accuracy over NAPL, and for a chosen NAPL what became of the layers and of the path lengths (chapter 16)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...formatting import format_mean, format_number
from .._colours import INK, Style, condition_styles
from .._frames import add_frames
from .._inputs import Array, Numbers, as_array, small
from .._theme import add_note, as_html, theme

if TYPE_CHECKING:
    import plotly.graph_objects as go

_LINEAR = 0.25  # below this NAPL the axis is nearly linear, above it every doubling is about as wide
_PALE = 0.35  # opacity of what stands at another NAPL
_TOLERANCE = 0.02  # how far a law may be from what it must be: it is rounded, and a mean over seeds
_WHAT = "linearization_sweep"


@dataclass(frozen=True)
class LinearizedPoint:
    """One point of :func:`linearization_sweep`: the networks of one method at one NAPL. Means are over the seeds.

    Args:
        method: ``"channel-wise"``, ``"layer-wise"``.
        napl: their average path length, in nonlinear units.
        accuracy: (seeds,).
        law: (max_length+1,), mean probabilities of the path lengths 0, 1, ...; as long as the longest path asks.
        surviving: (L,), mean share of units that are nonlinear in each layer, from 0 to 1, from input to output.
        target: the NAPL that was aimed at, by which the slider compares methods; ``napl`` if not given.
    """

    method: str
    napl: float
    accuracy: Any
    law: Any = field(repr=False)
    surviving: Any = field(repr=False)
    target: float | None = None


_Shown = dict[str, tuple[LinearizedPoint, bool]]


def linearization_sweep(
    points: Sequence[LinearizedPoint], *, start: tuple[float, Numbers] | None = None, height: int = 760
) -> go.Figure:
    """Draw accuracy over NAPL for each method, and below it the inside of the networks at the chosen NAPL.

    The axis of NAPL is asinh(4 · NAPL): linear around 0, logarithmic above, with true numbers. The lower panels show
    the share of units that are still nonlinear, layer by layer, and the law of the path lengths with its mean. A slider
    goes over all NAPL that were aimed at, and begins in the middle. A method that has no point there shows, in pale,
    the one that is nearest on the axis, and the words above name its NAPL: equal NAPL is what may be compared.

    Args:
        points: one per method and NAPL; see :class:`LinearizedPoint`. Methods have colours in the order they come.
        start: (NAPL, accuracies (seeds,)) of the network before linearisation: a star.
        height: of the figure in pixels.

    Raises:
        ValueError: no point, two of one method at one NAPL, or a part that is not what it must be.
    """
    from plotly.subplots import make_subplots

    methods = _checked(points)
    if start is not None and (not isinstance(start, tuple | list) or len(start) != 2):
        raise ValueError(f"{_WHAT}: start must be a pair (napl, accuracies (seeds,)); got {start!r:.80}.")
    before = None if start is None else _checked_pair(*start, f"{_WHAT}: start")
    styles = condition_styles(methods)
    panels = {"specs": [[{"colspan": 2}, None], [{}, {}]], "row_heights": [0.55, 0.45], "vertical_spacing": 0.2}
    titles = [" ", "units still nonlinear, %", "paths, %"]
    figure = make_subplots(2, 2, subplot_titles=titles, horizontal_spacing=0.12, **panels)
    figure.update_layout(template=theme(), height=height, margin={"t": 165}, barmode="group", bargap=0.15)
    figure.update_annotations(font={"size": 14})
    for method, known in methods.items():
        line = {"color": styles[method].colour, "dash": styles[method].dash, "width": 2}
        look = {"mode": "lines+markers", "line": line, "marker": {"symbol": styles[method].marker, "size": 8}}
        figure.add_trace(_means(method, [(p.napl, p.accuracy) for p in known], look), row=1, col=1)
    if before:
        name, star = f"before linearisation: {format_mean(before[1])}", {"symbol": "star", "size": 13, "color": INK}
        figure.add_trace(_means(name, [before], {"mode": "markers", "marker": star}), row=1, col=1)
    targets = sorted({_target(point) for known in methods.values() for point in known})
    shown = {str(target): _shown(methods, target) for target in targets}
    moving = {name: _inside(inside, styles) for name, inside in shown.items()}
    layouts = {name: _layout(inside, float(name)) for name, inside in shown.items()}
    own = {name: sum(has for _, has in inside.values()) for name, inside in shown.items()}
    most = [name for name, count in own.items() if count == max(own.values())]  # NAPL at which most methods have one
    labels = [format_number(target) for target in targets]
    add_frames(figure, moving, layouts, first=most[(len(most) - 1) // 2], step="NAPL", labels=labels)
    everywhere = [point for known in methods.values() for point in known]
    _name_axes(figure, everywhere, max([*targets, *(p.napl for p in everywhere), *(before[:1] if before else ())]))
    seeds = sorted({len(point.accuracy) for point in everywhere} - {1})
    add_note(figure, f"mean ± 1 sd over {' or '.join(map(str, seeds))} seeds" if seeds else "", "▼ mean path length")
    return figure


def _checked(points: Sequence[LinearizedPoint]) -> dict[str, list[LinearizedPoint]]:
    """Method → its points by ascending NAPL, with arrays, all laws of one length."""
    if not isinstance(points, Sequence) or not points or not all(isinstance(p, LinearizedPoint) for p in points):
        raise ValueError(f"{_WHAT}: expected a sequence of at least one LinearizedPoint; got {points!r:.80}.")
    layers, longest = (np.size(as_array(points[0].surviving)), max(np.size(as_array(p.law)) for p in points))
    methods: dict[str, list[LinearizedPoint]] = {}
    for given in points:
        point, known = _checked_point(given, layers, longest), methods.setdefault(str(given.method), [])
        if any(_target(point) == _target(other) for other in known):
            where = f"{given.method!r} at NAPL {_target(point):g}"
            raise ValueError(f"{_WHAT}: two points of {where}. Average over the seeds, or say their target.")
        known.append(point)
    return {method: sorted(known, key=lambda point: point.napl) for method, known in methods.items()}


def _checked_point(given: LinearizedPoint, layers: int, longest: int) -> LinearizedPoint:
    name = f"{_WHAT}: {given.method!r} at NAPL {given.napl!r}"
    napl, accuracy = _checked_pair(given.napl, given.accuracy, name)
    target, _ = _checked_pair(_target(given), accuracy, f"{name}: target")
    law, surviving = as_array(given.law), as_array(given.surviving)
    if law.ndim != 1 or not (law >= 0).all() or abs(law.sum() - 1) > _TOLERANCE:
        got = f"shape {law.shape}, sum {law.sum():.4g}. path_length_distribution(model) returns it."
        raise ValueError(f"{name}: law must be probabilities (max_length+1,) of sum 1; got {got}")
    if abs(_mean_length(law) - napl) > 2 * _TOLERANCE + _TOLERANCE * napl:
        fix = "Give the measured NAPL, and what was aimed at as target; take both means over the same seeds."
        raise ValueError(f"{name}: the mean of law is {_mean_length(law):.4g}, not napl. {fix}")
    if surviving.shape != (layers,) or not layers or not ((surviving >= 0) & (surviving <= 1)).all():
        got = f"shape {surviving.shape}: {np.array2string(surviving, precision=3, threshold=8)}."
        raise ValueError(f"{name}: surviving must be shares from 0 to 1 of shape ({layers},); got {got}")
    filled = np.pad(law, (0, max(longest, layers + 1) - len(law)))
    return LinearizedPoint(given.method, napl, accuracy, filled, surviving, target)


def _checked_pair(napl: Any, accuracy: Any, name: str) -> tuple[float, Array]:
    if not math.isfinite(napl) or napl < 0:
        raise ValueError(f"{name}: NAPL must be a finite number of nonlinear units, at least 0; got {napl!r}.")
    array = as_array(accuracy)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise ValueError(f"{name}: accuracy must be one finite number per seed, (seeds,); got {accuracy!r:.80}.")
    return float(napl), array


def _target(point: LinearizedPoint) -> float:
    return float(point.napl if point.target is None else point.target)


def _mean_length(law: Array) -> float:
    return float(np.arange(len(law)) @ law)


def _place(napl: Any) -> Array:
    """Where a NAPL stands on the axis."""
    return as_array(np.arcsinh(as_array(napl) / _LINEAR))


def _shown(methods: Mapping[str, list[LinearizedPoint]], target: float) -> _Shown:
    """Of each method its point at this NAPL; if it has none, the one nearest on the axis, and False."""
    found = {}
    for method, known in methods.items():
        nearest = min(known, key=lambda p: (_target(p) != target, abs(_place(p.napl) - _place(target))))
        found[method] = (nearest, _target(nearest) == target)
    return found


def _means(name: str, known: Sequence[tuple[float, Array]], look: dict[str, Any]) -> Any:
    """Where means over seeds stand, with their bars and what is said under the mouse."""
    import plotly.graph_objects as go

    spread = np.array([accuracy.std() for _, accuracy in known])
    return go.Scatter(
        x=small(_place([napl for napl, _ in known])),
        y=small([accuracy.mean() for _, accuracy in known]),
        error_y={"array": small(spread), "thickness": 1.5, "width": 4, "visible": bool(spread.any())},
        name=as_html(name),
        legendgroup=name,
        text=[f"NAPL {format_number(napl)}<br>test accuracy {format_mean(accuracy)}" for napl, accuracy in known],
        hovertemplate=f"{as_html(name)}<br>%{{text}}<extra></extra>",
        **look,
    )


def _inside(shown: _Shown, styles: Mapping[str, Style]) -> list[Any]:
    """The traces that differ from NAPL to NAPL: always as many, in the same order."""
    import plotly.graph_objects as go

    traces = []
    for number, (method, (point, own)) in enumerate(shown.items()):
        colour, opacity = styles[method].colour, 1.0 if own else _PALE
        ring = {"symbol": "circle-open", "size": 18, "color": colour, "line": {"width": 2}, "opacity": opacity}
        common: dict[str, Any] = {"legendgroup": method, "showlegend": False}
        at = {"x": [float(_place(point.napl))], "y": [float(point.accuracy.mean())], "xaxis": "x", "yaxis": "y"}
        traces.append(go.Scatter(**at, mode="markers", marker=ring, name="chosen", hoverinfo="skip", **common))
        said = f"{as_html(method)}, NAPL {format_number(point.napl)}"
        layers, lengths = np.arange(1, len(point.surviving) + 1), np.arange(len(point.law))
        for axis, index, shares, words in (
            (2, layers, point.surviving, "layer %{x}: %{y:.3~r} % nonlinear"),
            (3, lengths, point.law, "length %{x}: %{y:.3~r} % of the paths"),
        ):
            bars = {"x": index.astype(np.uint8), "y": small(100 * shares), "xaxis": f"x{axis}", "yaxis": f"y{axis}"}
            look = {"marker": {"color": colour, "opacity": opacity}, "offsetgroup": method, "name": method}
            traces.append(go.Bar(**bars, hovertemplate=f"{said}<br>{words}<extra></extra>", **look, **common))
        mark = {"symbol": "triangle-down", "size": 11, "color": colour, "opacity": opacity}
        length, top = _mean_length(point.law), _law_limit(shown) * (1.08 + 0.1 * number)
        tip = f"{as_html(method)}<br>mean path length %{{x:.3~r}}<extra></extra>"
        at = {"x": [length], "y": [top], "xaxis": "x3", "yaxis": "y3"}
        traces.append(go.Scatter(**at, mode="markers", marker=mark, name="mean", hovertemplate=tip, **common))
    return traces


def _law_limit(shown: _Shown) -> int:
    """End of the axis of the laws, in %: as low as their highest bar allows, to be read at a glance."""
    highest = max(100 * float(point.law.max()) for point, _ in shown.values())
    return next((limit for limit in (20, 40) if highest <= limit), 100)


def _layout(shown: _Shown, target: float) -> dict[str, Any]:
    """What a NAPL changes of the layout: the words above, and the end of the axis of the laws."""
    lines = [f"<b>NAPL {format_number(target)}</b>; test accuracy:"]
    for method, (point, own) in shown.items():
        where = format_number(point.napl) + ("" if own else ", its nearest (pale)")
        lines.append(as_html(f"{method} at {where}: {format_mean(point.accuracy)}"))
    limit = _law_limit(shown)
    ticks = [limit * part // 4 for part in range(5)]  # the marks of the means stand above the last
    axis = {"range": [0, limit * (1.08 + 0.1 * len(shown))], "tickvals": ticks}
    return {"title": {"text": "<br>".join(lines)}, "yaxis3": axis}


def _name_axes(figure: go.Figure, points: Sequence[LinearizedPoint], largest: float) -> None:
    doubled = [_LINEAR * 2**power for power in range(64) if _LINEAR * 2**power < 0.7 * largest]
    ticks = sorted({0.0, *doubled, largest})
    named = {"tickvals": _place(ticks).tolist(), "ticktext": [format_number(tick) for tick in ticks]}
    ends, longest = [-0.2, float(_place(largest)) + 0.2], len(points[0].law) - 0.4
    layers = [0.4, len(points[0].surviving) + 0.6]
    figure.update_xaxes(title_text="average path length NAPL", range=ends, **named, row=1, col=1)
    figure.update_yaxes(title_text="test accuracy", row=1, col=1)
    figure.update_xaxes(title_text="layer, input to output", range=layers, showgrid=False, row=2, col=1)
    figure.update_xaxes(title_text="path length", range=[-0.6, longest], showgrid=False, row=2, col=2)
    figure.update_yaxes(range=[0, 105], dtick=25, row=2, col=1)
