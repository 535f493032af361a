"""What of a map in Plotly stays while cells are chosen: axes, words, colour bar, legend and slider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._cells import Cell, Grid, Words
from ._heatmaps import BAR_TICKS
from ._map_places import LEFT, RIGHT, TOP
from ._palette import GRID, INK, SIGNED_SCALE, UNKNOWN, colour_scale
from ._spectra import FLOOR
from ._theme import as_html, log_ticks
from ._trajectories import limits_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

_JUMP = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
_PAPER = {"xref": "paper", "yref": "paper"}


def furnish(figure: go.Figure, grid: Grid, first: Cell, words: Words) -> None:
    """Add all that does not depend on the chosen cell, except where it stands."""
    for number in range(1, len(grid.switches) + 1):
        _map_axes(figure, number, grid, words)
    _panel_axes(figure, grid)
    _say(figure, grid)
    _mark_spectrum_and_gaps(figure, grid)
    figure.update_layout(
        coloraxis={"colorscale": colour_scale(SIGNED_SCALE), "cmin": -1, "cmax": 1, "colorbar": _bar(words.score)},
        margin={"t": TOP, "l": LEFT, "r": RIGHT},
        sliders=[_slider([cell.name for cell in grid.cells.values()], first.name)],
        legend={"title": {"text": "class "}, "itemsizing": "constant", "tracegroupgap": 0},
    )


def _map_axes(figure: go.Figure, number: int, grid: Grid, words: Words) -> None:
    """Cells count from 0, rows downwards; without zoom, so that a click or a tap is a choice."""
    plain = {"fixedrange": True, "showgrid": False, "ticks": "", "showline": False}
    for letter, names, title in (("x", grid.columns, words.column), ("y", grid.rows, words.row)):
        limits = [-0.5, len(names) - 0.5]
        axis = {"tickvals": list(range(len(names))), "ticktext": names, "title": {"text": as_html(title)}}
        axis |= {"anchor": f"{'y' if letter == 'x' else 'x'}{number}", **plain}
        figure.update_layout({f"{letter}axis{number}": {"range": limits if letter == "x" else limits[::-1], **axis}})
    if number > 1:
        figure.update_layout({f"yaxis{number}": {"showticklabels": False, "title": {"text": ""}}})


def _panel_axes(figure: go.Figure, grid: Grid) -> None:
    maps = len(grid.switches)
    sigmas = np.concatenate([cell.sigmas.ravel() for cell in grid.cells.values()])
    sigmas = np.maximum(sigmas[np.isfinite(sigmas)], FLOOR)
    places, texts = log_ticks(sigmas)
    ends = np.log10([sigmas.min() / 1.5, sigmas.max() * 1.5]) if len(sigmas) else np.array([-1.0, 1.0])
    rank = max(cell.sigmas.shape[1] for cell in grid.cells.values())
    log = {"type": "log", "tickvals": places, "ticktext": texts, "range": limits_of(ends), "fixedrange": True}
    index = {"range": [0.5, rank + 0.5], "fixedrange": True}
    plain = {"showgrid": False, "ticks": "", "fixedrange": True, "mirror": True, "linecolor": UNKNOWN}
    _panel(figure, maps + 1, ("projection 1", "projection 2"), {"nticks": 4}, {"nticks": 4})
    _panel(figure, maps + 2, ("index κ", "σ<sub>κ</sub>"), index, log)
    _panel(figure, maps + 3, ("block j (frames)", "block i (matrix)"), plain, plain)


def _panel(figure: go.Figure, number: int, titles: tuple[str, str], x: dict[str, Any], y: dict[str, Any]) -> None:
    for letter, other, title, look in (("x", "y", titles[0], x), ("y", "x", titles[1], y)):
        text = {"text": title, "font": {"size": 12}, "standoff": 4}
        axis = {"anchor": f"{other}{number}", "title": text, "tickfont": {"size": 11}, **look}
        figure.update_layout({f"{letter}axis{number}": axis})


def _say(figure: go.Figure, grid: Grid) -> None:
    """The words about the chosen cell come first: frames change them. Then in the order of ``as_layout``."""
    left: dict[str, Any] = {"x": 0, "xanchor": "left", "yanchor": "top", "align": "left", **_PAPER}
    figure.add_annotation(font={"size": 13}, **left)
    for title in [*grid.switches, "trajectories", "singular values", "coupling"]:
        figure.add_annotation(text=as_html(title), yanchor="bottom", xanchor="center", font={"size": 14}, **_PAPER)
    below = {"x": 0.5, "yanchor": "top", "yshift": -44, "font": {"size": 12}}
    figure.add_annotation(text="<br>".join(grid.key), **below, **_PAPER)
    figure.add_annotation(text=" " if grid.all_trained else grid.failed_note, font={"size": 12}, **left)


def _mark_spectrum_and_gaps(figure: go.Figure, grid: Grid) -> None:
    """A line after the first C singular values, and grey behind pairs of blocks that cannot be compared."""
    spectrum, matrix = (f"{len(grid.switches) + number}" for number in (2, 3))
    at = {"xref": f"x{spectrum}", "yref": f"y{spectrum} domain"}
    end, line = grid.classes + 0.5, {"color": INK, "dash": "dash", "width": 1.2}
    figure.add_shape(type="line", x0=end, x1=end, y0=0, y1=1, line=line, **at)
    corner = {"x": end, "y": 1, "xanchor": "right", "yanchor": "top", "font": {"size": 11}}
    figure.add_annotation(text=f"C = {grid.classes} ", **corner, **at)
    ground = {"xref": f"x{matrix} domain", "yref": f"y{matrix} domain", "layer": "below", "line": {"width": 0}}
    figure.add_shape(type="rect", x0=0, x1=1, y0=0, y1=1, fillcolor=UNKNOWN, **ground)


def _bar(label: str) -> dict[str, Any]:
    return {
        "title": {"text": f"{as_html(label)}, coupling", "side": "bottom", "font": {"size": 13}},
        "tickvals": BAR_TICKS,
        "orientation": "h",
        "thickness": 10,
        "len": 0.6,
        "y": 0,
        "yref": "container",
        "yanchor": "bottom",
        "ypad": 2,
        "outlinewidth": 0.5,
    }


def _slider(names: list[str], first: str) -> dict[str, Any]:
    return {
        "active": names.index(first),
        "steps": [{"label": "", "method": "animate", "args": [[name], _JUMP]} for name in names],
        "currentvalue": {"visible": False},
        "ticklen": 0,
        "minorticklen": 0,
        "x": 0,
        "len": 1,
        "yanchor": "top",
        "pad": {"t": 0, "b": 0},
        "bgcolor": GRID,
    }
