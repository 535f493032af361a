"""Trajectories at several epochs of training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ._inputs import small
from ._palette import GRID
from ._paths import UNIT, Paths, boxes_around, by_class, check_paths
from ._theme import Backend, draw, matplotlib_panels
from ._trajectories import axes_words, class_legend, draw_plotly, fill, largest_marker, limits_of

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.figure import Figure


def trajectories_over_training(
    frames: Mapping[int, Tensor],
    labels: Tensor,
    *,
    class_names: Sequence[str] | None = None,
    shared_scale: bool = False,
    axis_label: str = "projection",
    height: int | None = None,
    backend: Backend = "plotly",
) -> Any:
    """Draw the trajectories at several epochs: a slider and a play button in Plotly, small multiples in Matplotlib.

    Args:
        frames: epoch → projected states (n, L+1, 2), one projection for all epochs.
        labels: classes (n,).
        class_names: a name per class; their numbers if not given.
        shared_scale: the same axes at all epochs. By default each epoch has its own, so that the lines' shape is seen
            although the states shrink a hundredfold in training; the tick labels tell the scale.
        axis_label: what the coordinates are; a number and the unit are added.
        height: of the figure in pixels.
        backend: ``"plotly"`` or ``"matplotlib"``.

    Raises:
        ValueError: shapes that do not fit, no frame, or an unknown backend.
    """
    arrays, classes = check_paths(frames, labels, "trajectories_over_training", dims=(2,))
    boxes = boxes_around(list(arrays.values()), shared_scale)
    paths = [by_class(array, classes, class_names) for array in arrays.values()]
    axes = [f"{axis_label} {index + 1}{UNIT}" for index in range(2)]
    epochs = [str(epoch) for epoch in frames]
    return draw(
        backend,
        lambda: _film(epochs, paths, boxes, axes, height or 520),
        lambda: _multiples(epochs, paths, boxes, axes, height),
    )


def _film(
    epochs: list[str], paths: list[list[Paths]], boxes: list[np.ndarray], axes: list[str], height: int
) -> go.Figure:
    import plotly.graph_objects as go

    figure = draw_plotly([""], paths[:1], boxes[:1], axes, height)
    figure.frames = [
        go.Frame(
            name=epoch,
            data=[{"type": "scatter", "x": small(p.points[:, 0]), "y": small(p.points[:, 1])} for p in panel],
            traces=list(range(len(panel))),
            layout={
                "xaxis": {"range": limits_of(box[0])},
                "yaxis": {"range": limits_of(box[1])},
                "title": {"text": f"epoch {epoch}"},
            },
        )
        for epoch, panel, box in zip(epochs, paths, boxes, strict=True)
    ]
    # The title says the epoch, not the slider: after a fast drag Plotly's slider may stand still while the film plays.
    title = {"text": f"epoch {epochs[0]}", "x": 0.5, "y": 0.98, "yanchor": "top", "font": {"size": 15}}
    figure.update_layout(title=title, sliders=[_slider(epochs)], updatemenus=[_buttons()], margin={"t": 95})
    return figure


_MOVE = {"frame": {"duration": 900, "redraw": True}, "transition": {"duration": 0}, "fromcurrent": True}


def _slider(epochs: list[str]) -> dict[str, Any]:
    jump = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    return {
        "steps": [{"label": epoch, "method": "animate", "args": [[epoch], jump]} for epoch in epochs],
        "currentvalue": {"visible": False},
        "x": 0.3,
        "len": 0.7,
        "y": 1,
        "yanchor": "bottom",
        "pad": {"b": 5, "t": 0},
        "bgcolor": GRID,
    }


def _buttons() -> dict[str, Any]:
    stop = {"mode": "immediate", "frame": {"duration": 0, "redraw": False}, "transition": {"duration": 0}}
    return {
        "type": "buttons",
        "direction": "left",
        "showactive": False,
        "x": 0,
        "xanchor": "left",
        "y": 1,
        "yanchor": "bottom",
        "pad": {"b": 12, "r": 10},
        "buttons": [
            {"label": "▶ play", "method": "animate", "args": [None, _MOVE]},
            {"label": "❚❚", "method": "animate", "args": [[None], stop]},
        ],
    }


def _multiples(
    epochs: list[str], paths: list[list[Paths]], boxes: list[np.ndarray], axes: list[str], height: int | None
) -> Figure:
    columns = min(len(epochs), 3 if len(epochs) <= 9 else 4)
    rows = math.ceil(len(epochs) / columns)
    titles = [f"epoch {epoch}" for epoch in epochs]
    names, note = axes_words(axes, columns)
    figure, panels = matplotlib_panels(titles, height=height / 100 if height else 0.9 + 2.1 * rows, rows=rows)
    for place, (axis, panel, box) in enumerate(zip(panels, paths, boxes, strict=True)):
        fill(axis, panel, box, largest_marker(2))
        if place + columns >= len(epochs):
            axis.set_xlabel(names[0])
        if place % columns == 0:
            axis.set_ylabel(names[1])
    class_legend(figure, paths, note)
    return figure
