"""Which units of a network are nonlinear, and how many of them a path meets (chapter 16)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...formatting import format_number
from .._colours import INK, condition_styles
from .._inputs import as_array, small
from .._theme import add_note, side_by_side

if TYPE_CHECKING:
    import plotly.graph_objects as go

_WHAT = "unit_paths"
_DASHES = ("solid", "dash", "dot", "dashdot")


def unit_paths(
    units: Mapping[str, Any], paths: Mapping[str, Sequence[Sequence[int]]], *, height: int = 380
) -> go.Figure:
    """Draw networks as grids of units, full where a unit is nonlinear, with some paths and their lengths.

    A path passes one unit of each layer; its length is the number of nonlinear units on it, written at its end. The
    title of a panel says which lengths there are, and their mean over all paths (the NAPL of a plain network).

    Args:
        units: name → (L, channels) of 0 or 1, or booleans; 1 where the unit is nonlinear. Layers from input to output.
        paths: name → paths, each the channel (from 0) that it passes in each of the L layers.
        height: of the figure in pixels.

    Raises:
        ValueError: no network, values other than 0 and 1, or a path that the network does not have.
    """
    import plotly.graph_objects as go

    grids = _checked(units)
    figure = side_by_side([_title(name, grid) for name, grid in grids.items()], height=height)
    styles = condition_styles(grids)
    for column, (name, grid) in enumerate(grids.items(), start=1):
        at, first = {"row": 1, "col": column}, column == 1
        for path, dash in zip(paths.get(name, ()), _DASHES, strict=False):
            figure.add_trace(_path(name, grid, path, dash), **at)
        layers, channels = (axis.ravel() for axis in np.indices(grid.shape))
        for nonlinear, kind in ((1, "nonlinear"), (0, "linear")):
            chosen = grid.ravel() == nonlinear
            colour = styles[name].colour if nonlinear else "#ffffff"
            dots = go.Scatter(
                x=small(layers[chosen] + 1),
                y=small(channels[chosen] + 1),
                mode="markers",
                marker={"size": 13, "color": colour, "line": {"color": INK, "width": 1}},
                name=f"{kind} unit" if nonlinear == 0 else f"{kind} unit, {name}",
                showlegend=bool(nonlinear) or first,
                hovertemplate=f"layer %{{x}}, channel %{{y}}: {kind}<extra></extra>",
            )
            figure.add_trace(dots, **at)
        plain = {"showgrid": False, "showline": False, "fixedrange": True, "ticks": ""}
        ticks = list(range(1, len(grid) + 1))
        figure.update_xaxes(
            title_text="layer, input to output", tickvals=ticks, range=[0.3, len(grid) + 1.6], **plain, **at
        )
        figure.update_yaxes(showticklabels=False, range=[0.3, grid.shape[1] + 0.7], **plain, **at)
    figure.update_yaxes(title_text="channel", row=1, col=1)
    add_note(figure, "at the end of a path: its nonlinear units")
    return figure


def _checked(units: object) -> dict[str, NDArray[np.int64]]:
    if not isinstance(units, Mapping) or not units:
        raise ValueError(
            f"{_WHAT}: expected a mapping name → (L, channels) with at least one entry; got {units!r:.40}."
        )
    grids = {}
    for name, given in units.items():
        array = as_array(given)
        if array.ndim != 2 or not array.size or not np.isin(array, (0, 1)).all():
            raise ValueError(f"{_WHAT}: {name!r} must be (L, channels) of 0 and 1; got shape {array.shape}.")
        grids[str(name)] = array.astype(np.int64)
    return grids


def _title(name: str, grid: NDArray[np.int64]) -> str:
    """Name, the lengths that paths can have, and the mean over all paths."""
    low, high = int(grid.min(1).sum()), int(grid.max(1).sum())
    lengths = f"all paths of length {low}" if low == high else f"paths of length {low} to {high}"
    return f"{name}:<br>{lengths}, mean {format_number(float(grid.mean(1).sum()))}"


def _path(name: str, grid: NDArray[np.int64], path: Sequence[int], dash: str) -> Any:
    import plotly.graph_objects as go

    places = np.asarray(path)
    if places.shape != (len(grid),) or not np.isin(places, range(grid.shape[1])).all():
        has = f"one channel from 0 to {grid.shape[1] - 1} in each of {len(grid)} layers"
        raise ValueError(f"{_WHAT}: a path of {name!r} must be {has}; got {path!r:.80}.")
    length = int(grid[np.arange(len(grid)), places].sum())
    return go.Scatter(
        x=small([*range(1, len(grid) + 1), np.nan, len(grid) + 0.4]),  # a gap, lest a dash be read as a minus
        y=small([*places + 1, np.nan, places[-1] + 1]),
        mode="lines+text",
        line={"color": INK, "width": 1.6, "dash": dash},
        text=[""] * (len(grid) + 1) + [str(length)],
        textposition="middle right",
        textfont={"size": 15, "color": INK},
        showlegend=False,
        hoverinfo="skip",
    )
