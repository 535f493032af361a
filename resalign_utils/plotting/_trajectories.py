"""Trajectories: the states of each input on their way through the network, projected to a plane or a space."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ._inputs import small
from ._palette import colour_scale, faded, mix
from ._paths import KEY, UNIT, Paths, boxes_around, by_class, check_paths
from ._theme import Backend, draw, matplotlib_panels, plotly_panels

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def trajectories(
    panels: Mapping[str, Tensor],
    labels: Tensor,
    *,
    class_names: Sequence[str] | None = None,
    shared_scale: bool = False,
    axis_label: str = "projection",
    height: int | None = None,
    backend: Backend = "plotly",
) -> Any:
    """Draw each input's states as a line through depth, in the colour of its class.

    Args:
        panels: name → projected states (n, L+1, 2) or (n, L+1, 3), all 2 or all 3; L may differ.
        labels: classes (n,), the same inputs in every panel.
        class_names: a name per class; their numbers if not given.
        shared_scale: the same axes in all panels. By default each has its own, because an untrained network's states
            are often hundreds of times larger than a trained one's.
        axis_label: what the coordinates are; a number and the unit are added.
        height: of the figure in pixels.
        backend: ``"plotly"`` or ``"matplotlib"``.

    Raises:
        ValueError: shapes that do not fit, no panel, or an unknown backend.
    """
    arrays, classes = check_paths(panels, labels, "trajectories", dims=(2, 3))
    dims = next(iter(arrays.values())).shape[2]
    boxes = boxes_around(list(arrays.values()), shared_scale)
    paths = [by_class(array, classes, class_names) for array in arrays.values()]
    axes = [f"{axis_label} {index + 1}{UNIT}" for index in range(dims)]
    titles = list(arrays)
    height = height or (400 if dims == 3 and len(arrays) > 1 else 460 if dims == 3 else 400)
    return draw(
        backend,
        lambda: draw_plotly(titles, paths, boxes, axes, height),
        lambda: _matplotlib(titles, paths, boxes, axes, height / 100),
    )


def draw_plotly(
    titles: list[str], paths: list[list[Paths]], boxes: list[np.ndarray], axes: list[str], height: int
) -> go.Figure:
    """Panels side by side; classes in the order of their numbers, one legend entry each."""
    space, (names, note) = len(axes) == 3, axes_words(axes, len(titles))
    titles = _space_titles(titles, boxes) if space else titles
    figure = plotly_panels([title.replace("\n", "<br>") for title in titles], height=height, scenes=space)
    seen: set[int] = set()
    for column, (panel, box) in enumerate(zip(paths, boxes, strict=True), start=1):
        for path in panel:
            figure.add_trace(path_trace(path, path.label not in seen, largest_marker(len(titles))), row=1, col=column)
            seen.add(path.label)
        if space:
            figure.update_scenes(_scene(box, names, len(titles)), row=1, col=column)
        else:
            figure.update_xaxes(
                range=limits_of(box[0]), title_text=names[0], nticks=4 if len(titles) > 1 else 8, row=1, col=column
            )
            figure.update_yaxes(range=limits_of(box[1]), nticks=8, row=1, col=column)
    if not space:
        figure.update_yaxes(title_text=names[1], row=1, col=1)
    _finish(figure, len(seen), note, bottom=8 if space else 50, top=66 if "\n" in titles[0] else 48)
    return figure


def axes_words(axes: list[str], panels: int) -> tuple[list[str], str]:
    """Axis titles, and what to say below the panels where there is no room for units beside the axes."""
    if len(axes) == 2 and panels < 3:
        return axes, ""
    short = [axis.removesuffix(UNIT) for axis in axes]
    if len(axes) == 2 or panels == 1:
        return short, "axes in arbitrary units"
    return ["1", "2", "3"], f"axes 1, 2, 3: {short[0].removesuffix(' 1')}{UNIT}"


def largest_marker(panels: int) -> float:
    """Diameter of the marker at the last block, pixels or points."""
    return 6.0 if panels == 1 else 4.5


def path_trace(path: Paths, legend: bool, largest: float) -> Any:
    import plotly.graph_objects as go

    where = "<br>".join(f"{axis} %{{{axis}:.3g}}" for axis in "xyz"[: path.points.shape[1]])
    options = {
        "mode": "lines+markers",
        "name": path.name,
        "legendgroup": path.name,
        "showlegend": legend,
        "marker": {
            "size": small(largest * (0.3 + 0.7 * path.growth)),
            "color": path.depths.astype(np.uint8),
            "colorscale": colour_scale(path.shades),
            "opacity": 1,
            "line": {"width": 0},
        },
        "customdata": np.stack([path.inputs, path.depths], 1).astype(np.int16),
        "hovertemplate": f"class {path.name}<br>input %{{customdata[0]}}<br>after block %{{customdata[1]}}<br>{where}"
        "<extra></extra>",
    }
    points = {axis: small(path.points[:, index]) for index, axis in enumerate("xyz"[: path.points.shape[1]])}
    if "z" in points:
        return go.Scatter3d(**points, line={"color": mix(path.colour, "#ffffff", 0.35), "width": 2}, **options)
    return go.Scatter(**points, line={"color": faded(path.colour, 0.55), "width": 1}, **options)


def limits_of(pair: np.ndarray) -> list[float]:
    return [float(f"{value:.4g}") for value in pair]


def _scene(box: np.ndarray, names: list[str], panels: int) -> dict[str, Any]:
    """Several cubes side by side are too small for tick labels; their size stands in the title instead."""
    scene: dict[str, Any] = {}
    for letter, limits, name in zip("xyz", box, names, strict=True):
        look = {"range": limits_of(limits), "title": {"text": name, "font": {"size": 12}}, "nticks": 6}
        scene[f"{letter}axis"] = look | {"showticklabels": panels == 1, "tickfont": {"size": 11}}
    far = 1.5 if panels == 1 else 1.7
    camera = {"eye": {"x": far, "y": far, "z": 0.55 * far}, "center": {"x": 0, "y": 0, "z": -0.1}}
    return scene | {"aspectmode": "cube", "camera": camera}


def _space_titles(titles: list[str], boxes: list[np.ndarray]) -> list[str]:
    sides = [f"cube of side {float(f'{box[0, 1] - box[0, 0]:.2g}'):,g}" for box in boxes]
    return [f"{title}\n{side}" for title, side in zip(titles, sides, strict=True)] if len(titles) > 1 else titles


def _finish(figure: go.Figure, classes: int, note: str, bottom: int, top: int) -> None:
    """Explain depth below the panels, and the classes below that."""
    text = KEY + (f"<br>{note}" if note else "")
    place = {"xref": "paper", "yref": "paper", "x": 0.5, "y": 0, "yshift": -bottom, "yanchor": "top"}
    figure.add_annotation(text=text, font={"size": 12}, **place)
    figure.update_layout(
        legend={"title": {"text": "class "}, "itemsizing": "constant", "tracegroupgap": 0},
        showlegend=classes <= 30,
        margin={"t": top, "b": bottom + 30 + 22 * math.ceil(classes / 10) + (18 if note else 0)},
    )


def _matplotlib(
    titles: list[str], paths: list[list[Paths]], boxes: list[np.ndarray], axes: list[str], height: float
) -> Figure:
    space, (names, note) = len(axes) == 3, axes_words(axes, len(titles))
    options: dict[str, Any] = {"subplot_kw": {"projection": "3d"}} if space else {}
    figure, panels = matplotlib_panels(_space_titles(titles, boxes) if space else titles, height=height, **options)
    for axis, panel, box in zip(panels, paths, boxes, strict=True):
        fill(axis, panel, box, largest_marker(len(titles)))
        if space:
            _cube_axes(axis, names, len(titles))
        else:
            axis.set_xlabel(names[0])
    if not space:
        panels[0].set_ylabel(names[1])
    class_legend(figure, paths, note)
    return figure


def _cube_axes(axis: Any, names: list[str], panels: int) -> None:
    for letter, name in zip("xyz", names, strict=True):
        getattr(axis, f"set_{letter}label")(name, labelpad=2 if panels == 1 else -12)
        if panels > 1:
            getattr(axis, f"set_{letter}ticklabels")([])
    axis.set_box_aspect((1, 1, 1), zoom=0.85 if panels == 1 else 1.0)


def fill(axis: Axes, panel: list[Paths], box: np.ndarray, largest: float) -> None:
    """Draw one panel's paths."""
    for path in panel:
        columns = path.points.T
        axis.plot(*columns, color=path.colour, alpha=0.55, linewidth=0.8, label=path.name)
        first, last = path.shades
        colours = [mix(first, last, share) for share in path.growth]
        sizes = (0.8 * largest * (0.3 + 0.7 * path.growth)) ** 2
        axis.scatter(*columns, s=sizes, c=colours, linewidths=0, zorder=2)  # type: ignore[misc]
    for letter, limits in zip("xyz", box, strict=False):
        getattr(axis, f"set_{letter}lim")(*limits)
        axis.locator_params(axis=letter, nbins=5)  # type: ignore[arg-type]


def class_legend(figure: Figure, paths: list[list[Paths]], note: str) -> None:
    """Explain depth below the panels, and the classes below that."""
    from matplotlib.lines import Line2D

    classes = {path.label: path for panel in paths for path in panel}
    text = KEY + (f"; {note}" if note else "")
    if len(classes) > 30:
        figure.supxlabel(text, fontsize=9)
        return
    handles = [Line2D([], [], color=p.colour, marker="o", label=p.name) for p in classes.values()]
    look: dict[str, Any] = {"ncols": min(10, len(handles)), "handlelength": 1.5, "columnspacing": 1.2}
    figure.legend(handles=handles, loc="outside lower center", title=f"{text}; colour: class", **look)
