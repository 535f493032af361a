"""One dot a network: two of its scores against each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...formatting import format_number
from .._colours import condition_styles
from .._inputs import Array, Numbers, as_array, small
from .._theme import add_line, add_note, as_html, log_axis, side_by_side, wrapped

if TYPE_CHECKING:
    import plotly.graph_objects as go

Points = Mapping[str, tuple[Numbers, Numbers]]
_DASHES = ("dash", "dot", "dashdot")


def point_panels(
    panels: Mapping[str, Points],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    x_marks: Mapping[str, float] | None = None,
    y_marks: Mapping[str, float] | None = None,
    point: str = "network",
    height: int = 440,
) -> go.Figure:
    """Draw dots in panels side by side, on the same axes.

    Args:
        panels: title → group → (x (n,), y (n,)). A group of the same name looks the same in all panels.
        x_label: of the horizontal axes, with its unit.
        y_label: of the vertical axes, with its unit.
        log_x: logarithmic horizontal axes.
        x_marks: name → place of a vertical line, in each panel.
        y_marks: name → place of a horizontal line, in each panel.
        point: what a dot is, for the note.
        height: of the figure in pixels.

    Raises:
        ValueError: no panel, no group, x and y of other shapes or not finite, or a logarithm of what is not positive.
    """
    groups = {title: _checked(title, panel, log_x) for title, panel in _mapping(panels, "panels", "title").items()}
    every = [array for panel in groups.values() for pair in panel.values() for array in pair]
    xs, ys = np.concatenate(every[::2]), np.concatenate(every[1::2])
    figure = side_by_side(list(groups), height=height)
    styles = condition_styles(name for panel in groups.values() for name in panel)
    named = set[str]()
    for column, panel in enumerate(groups.values(), start=1):
        for name, (x, y) in panel.items():
            marker = {"color": styles[name].colour, "symbol": styles[name].marker, "size": 7, "opacity": 0.75}
            figure.add_scatter(
                x=small(x),
                y=small(y),
                mode="markers",
                marker=marker | {"line": {"width": 0.5, "color": "#ffffff"}},
                name=as_html(wrapped(name, 44)),
                legendgroup=name,
                showlegend=name not in named,
                hovertemplate=f"{as_html(name)}<br>{as_html(x_label)}: %{{x:.3~g}}<br>{as_html(y_label)}: %{{y:.3~f}}"
                "<extra></extra>",
                row=1,
                col=column,
            )
            named.add(name)
        lines = [("x", *mark) for mark in (x_marks or {}).items()] + [("y", *mark) for mark in (y_marks or {}).items()]
        for number, (axis, name, at) in enumerate(lines):
            look: dict[str, Any] = {"dash": _DASHES[number % len(_DASHES)], axis: at}
            add_line(figure, f"{name}: {format_number(at)}", column=column, legend=column == 1, **look)
    margin = 0.03 * (float(ys.max() - ys.min()) or 1.0)
    figure.update_xaxes(title_text=as_html(x_label), matches="x", **(log_axis([xs]) if log_x else {}))
    figure.update_yaxes(range=[float(ys.min()) - margin, float(ys.max()) + margin])
    figure.update_yaxes(title_text=as_html(y_label))
    add_note(figure, f"a dot: one {point}")
    return figure


def _mapping(value: object, what: str, keys: str) -> Mapping[str, Points]:
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"point_panels: expected a mapping {keys} → … of {what} with at least one; got {value!r:.60}.")
    return value


def _checked(title: str, panel: object, log_x: bool) -> dict[str, tuple[Array, Array]]:
    found = {}
    for name, (first, second) in _mapping(panel, f"groups in panel {title!r}", "group").items():
        x, y = as_array(first), as_array(second)
        if x.ndim != 1 or x.shape != y.shape or not len(x):
            raise ValueError(f"point_panels: group {name!r} needs x (n,) and y (n,); got {x.shape} and {y.shape}.")
        if not (np.isfinite(x).all() and np.isfinite(y).all()) or (log_x and (x <= 0).any()):
            lacking = "finite" + (", and x > 0 for the logarithmic axis" if log_x else "")
            raise ValueError(f"point_panels: group {name!r} must be {lacking}. Leave the others out.")
        found[str(name)] = (x, y)
    return found
