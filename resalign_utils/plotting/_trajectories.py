"""Trajectories: the states of each input on their way through the network, projected to a plane or a space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..formatting import format_number
from ._colours import class_style, faded, sample
from ._frames import add_frames
from ._inputs import Array, Numbers, as_array, as_panels, small
from ._theme import add_note, side_by_side

if TYPE_CHECKING:
    import plotly.graph_objects as go

KEY = "from h₀ (small, dark) to the end (large, bright)"


def trajectories(
    panels: Mapping[str, Tensor],
    labels: Numbers,
    *,
    class_names: Sequence[str] | None = None,
    axis_label: str = "projection",
    height: int = 460,
) -> go.Figure:
    """Draw each input's states as a line through depth, in the colour of its class.

    Each panel has its own scale, because an untrained network's states are often hundreds of times larger than a
    trained one's; within a panel all directions have the same.

    Args:
        panels: name → projected states (n, L+1, 2) or (n, L+1, 3), all 2 or all 3; L may differ.
        labels: classes (n,), the same inputs in every panel.
        class_names: a name per class; their numbers if not given.
        axis_label: what the coordinates are; a number is added.
        height: of the figure in pixels.

    Raises:
        ValueError: shapes that do not fit, or no panel.
    """
    arrays, classes = _checked(panels, labels, "trajectories", dims=(2, 3))
    space, several = next(iter(arrays.values())).shape[2] == 3, len(arrays) > 1
    titles = list(arrays)
    if space and several:  # small cubes have no tick labels
        sides = [np.ptp(limits(array)[0]) for array in arrays.values()]
        titles = [f"{name}<br>cube of side {format_number(side, 2)}" for name, side in zip(arrays, sides, strict=True)]
    figure = side_by_side(titles, height=height, scenes=space)
    for column, array in enumerate(arrays.values(), start=1):
        for trace in class_traces(array, classes, class_names, 4.5 if several else 6.0):
            figure.add_trace(trace.update(showlegend=column == 1), row=1, col=column)
        if space:
            figure.update_scenes(_scene(limits(array), axis_label, several), row=1, col=column)
        else:
            _plane(figure, column, limits(array), axis_label, 4 if several else 8)
    _class_legend(figure, classes)
    return figure


def trajectories_over_training(
    frames: Mapping[int, Tensor] | Mapping[str, Mapping[int, Tensor]],
    labels: Numbers,
    *,
    class_names: Sequence[str] | None = None,
    axis_label: str = "projection",
    height: int = 560,
    words: Mapping[int, str] | None = None,
    first: int | None = None,
) -> go.Figure:
    """Draw the trajectories at several epochs, with a slider and a play button; of several networks side by side.

    Each epoch and each panel has its own scale, so that the lines' shape is seen although the states shrink a
    hundredfold in training; the tick labels tell it.

    Args:
        frames: epoch → projected states (n, L+1, 2), one projection for all epochs; or name → such a mapping, a panel
            a name, all with the same epochs and inputs; L may differ.
        labels: classes (n,).
        class_names: a name per class; their numbers if not given.
        axis_label: what the coordinates are; a number is added.
        height: of the figure in pixels.
        words: epoch → what stands under the epoch above the panels, such as scores.
        first: the epoch that is shown before the slider is moved; the first one if not given.

    Raises:
        ValueError: shapes or epochs that do not fit, or no frame.
    """
    what = "trajectories_over_training"
    nested = isinstance(frames, Mapping) and any(isinstance(frame, Mapping) for frame in frames.values())
    films = _films(frames if nested else {"": frames}, labels, what)
    epochs, classes = list(next(iter(films.values()))), as_array(labels)
    shown = epochs[0] if first is None else str(first)
    if shown not in epochs:
        raise ValueError(f"{what}: first must be one of the epochs {', '.join(epochs)}; got {shown}.")
    figure = side_by_side(list(films), height=height)
    moving: dict[str, list[Any]] = {epoch: [] for epoch in epochs}
    layouts: dict[str, dict[str, Any]] = {epoch: {"title": {"text": _title(epoch, words)}} for epoch in epochs}
    for column, arrays in enumerate(films.values(), start=1):
        _plane(figure, column, limits(arrays[shown]), axis_label, 8 if len(films) == 1 else 5)
        for epoch, array in arrays.items():
            axes = {} if column == 1 else {"xaxis": f"x{column}", "yaxis": f"y{column}", "showlegend": False}
            traces = class_traces(array, classes, class_names, 6.0 if len(films) == 1 else 4.5)
            moving[epoch] += [trace.update(axes) for trace in traces]
            number = "" if column == 1 else column
            for letter, ends in zip("xy", limits(array), strict=True):
                layouts[epoch][f"{letter}axis{number}"] = {"range": ends}
    add_frames(figure, moving, layouts, first=shown, step="epoch", play=True)
    _class_legend(figure, classes)
    lines = 1 + max(layout["title"]["text"].count("<br>") for layout in layouts.values()) + any(films)
    return figure.update_layout(margin={"t": 92 + 18 * lines})


def _title(epoch: str, words: Mapping[int, str] | None) -> str:
    said = {str(key): text for key, text in (words or {}).items()}
    return f"epoch {epoch}" + (f"<br>{said[epoch]}" if epoch in said else "")


def _films(films: Any, labels: Numbers, what: str) -> dict[str, dict[str, Array]]:
    """Checked arrays, name → epoch → states; all films have the epochs of the first, in its order."""
    found = {str(name): _checked(film, labels, what, dims=(2,))[0] for name, film in films.items()}
    epochs = list(next(iter(found.values())))
    for name, film in found.items():
        if set(film) != set(epochs):
            raise ValueError(
                f"{what}: all panels need the same epochs, {', '.join(epochs)}; panel {name!r} has {', '.join(film)}."
            )
    return {name: {epoch: film[epoch] for epoch in epochs} for name, film in found.items()}


def _checked(panels: object, labels: object, what: str, dims: tuple[int, ...]) -> tuple[dict[str, Array], Array]:
    expected, fix = f"(n, L+1, {' or '.join(map(str, dims))})", "Trace.project(2) or Trace.project(3) returns it."
    arrays = as_panels(panels, lambda s: len(s) == 3 and s[2] in dims, what=what, expected=expected, fix=fix)
    classes = as_array(labels)
    if len({array.shape[2] for array in arrays.values()}) > 1:
        raise ValueError(f"{what}: panels must be all 2-D or all 3-D; got {[a.shape for a in arrays.values()]}. {fix}")
    for name, array in arrays.items():
        if classes.shape != (len(array),):
            needed = f"({len(array)},), one per input of panel {name!r}; got {classes.shape}"
            raise ValueError(f"{what}: labels must have shape {needed}. Pass the labels of the traced inputs.")
    return arrays, classes


def class_traces(states: Array, labels: Array, names: Sequence[str] | None, largest: float) -> list[Any]:
    """A trace a class: its paths one after the other, with a gap (NaN) before each; the last mark is the largest."""
    import plotly.graph_objects as go

    n, depth, dims = states.shape
    if names is not None and labels.max() >= len(names):
        raise ValueError(f"class_names must name classes 0..{int(labels.max())}; got {len(names)} names.")
    points = np.concatenate([np.full((n, 1, dims), np.nan), states], axis=1)
    depths, inputs = np.meshgrid([depth - 1, *range(depth)], range(n))  # legends take the colour of the first entry
    where = "<br>".join(f"{axis} %{{{axis}:.3~r}}" for axis in "xyz"[:dims])
    tip = f"input %{{customdata[0]}}<br>after block %{{customdata[1]}}<br>{where}<extra></extra>"
    traces = []
    for label in np.unique(labels).astype(int):
        on, name, style = labels == label, str(label if names is None else names[label]), class_style(label)
        at, last = depths[on].ravel(), max(1, depth - 1)
        marker = {"size": small(largest * (0.3 + 0.7 * at / last)), "symbol": style.marker, "opacity": 1}
        marker |= {"color": at.astype(np.uint8), "colorscale": sample(["#000000", style.colour], [0.35, 1])}
        marker |= {"cmin": 0, "cmax": last, "line": {"width": 0}}
        line = {"color": faded(style.colour, 0.55), "width": 1, "dash": style.dash}
        if dims == 3:  # WebGL draws no opacity of lines
            line |= {"color": sample([style.colour, "#ffffff"], [0.35])[0], "width": 2}
        data = {axis: small(points[on][..., place].ravel()) for place, axis in enumerate("xyz"[:dims])}
        trace = (go.Scatter3d if dims == 3 else go.Scatter)(**data, mode="lines+markers", marker=marker, line=line)
        known = np.stack([inputs[on].ravel(), at], 1).astype(np.int16)
        tip_of_class = f"class {name}<br>{tip}"
        traces.append(trace.update(name=name, legendgroup=name, customdata=known, hovertemplate=tip_of_class))
    return traces


def limits(states: Array) -> list[list[float]]:
    """Per coordinate the ends of a cube around all points, so that all directions have one scale."""
    points = states[np.isfinite(states).all(-1)]
    low, high = (points.min(0), points.max(0)) if len(points) else (np.zeros(states.shape[-1]),) * 2
    half = 0.54 * (high - low).max() or 1.0
    return [[float(f"{end:.4g}") for end in (middle - half, middle + half)] for middle in (low + high) / 2]


def _plane(figure: go.Figure, column: int, box: list[list[float]], label: str, ticks: int) -> None:
    figure.update_xaxes(range=box[0], title_text=f"{label} 1", nticks=ticks, row=1, col=column)
    figure.update_yaxes(range=box[1], title_text=f"{label} 2" if column == 1 else "", nticks=8, row=1, col=column)


def _scene(box: list[list[float]], label: str, several: bool) -> dict[str, Any]:
    """Several cubes side by side are too small for names and tick labels; their size stands in the title instead."""
    far = 1.7 if several else 1.5
    camera = {"eye": {"x": far, "y": far, "z": 0.55 * far}, "center": {"x": 0, "y": 0, "z": -0.1}}
    scene: dict[str, Any] = {"aspectmode": "cube", "camera": camera}
    for number, (letter, ends) in enumerate(zip("xyz", box, strict=True), start=1):
        title = {"text": str(number) if several else f"{label} {number}"}
        scene[f"{letter}axis"] = {"range": ends, "title": title, "nticks": 6, "showticklabels": not several}
    return scene


def _class_legend(figure: go.Figure, labels: Array) -> None:
    add_note(figure, f"one line per input, {KEY}", "coordinates in arbitrary units; colour: class")
    figure.update_layout(showlegend=len(np.unique(labels)) <= 30, legend={"itemsizing": "constant"})
