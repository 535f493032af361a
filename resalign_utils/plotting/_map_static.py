"""The map in Matplotlib: the heat maps, and the panels of one cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._cells import FAILED, Cell, Grid, Words, deep_ticks
from ._heatmaps import BAR_TICKS
from ._palette import INK, SIGNED_SCALE, UNKNOWN, depth_colours
from ._paths import boxes_around, by_class
from ._spectra import FLOOR
from ._theme import WIDTH, as_unicode
from ._trajectories import fill

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def map_matplotlib(grid: Grid, cell: Cell, words: Words, height: int | None) -> Figure:
    """Maps above, the three panels of the chosen cell below; made through pyplot and closed, as all figures are."""
    import matplotlib.pyplot as plt

    size = (WIDTH, height / 100 if height else 4.6 + 0.3 * len(grid.rows))
    figure: Any = plt.figure(figsize=size, layout="constrained")
    plt.close(figure)
    upper, lower = figure.subfigures(2, 1, height_ratios=[1.1 + 0.3 * len(grid.rows), 3.5])
    maps = upper.subplots(1, len(grid.switches), squeeze=False, sharey=True)[0]
    for number, (axis, switch) in enumerate(zip(maps, grid.switches, strict=True)):
        _map(axis, grid, number, cell)
        axis.set(title=as_unicode(switch), xlabel=as_unicode(words.column))
    maps[0].set_ylabel(as_unicode(words.row))
    if not grid.all_trained:
        upper.supxlabel(grid.failed_note, fontsize=9)
    lower.suptitle("\n".join([as_unicode(cell.name), *cell.facts(as_unicode(words.score))]), fontsize=10)
    _panels(lower, grid, cell, words)
    return figure


def _map(axis: Axes, grid: Grid, number: int, chosen: Cell) -> None:
    from matplotlib.patches import Rectangle

    scores = np.full((len(grid.rows), len(grid.columns)), np.nan)
    for cell in [cell for cell in grid.cells.values() if cell.at[0] == number]:
        _, row, column = cell.at
        if cell.trained:
            scores[row, column] = np.nan_to_num(cell.score)
        else:
            axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=FAILED, edgecolor="white"))
        axis.text(column, row, cell.text, ha="center", va="center", fontsize=8, color=cell.ink)
    _coloured(axis, scores, aspect="auto")
    axis.set_xticks(range(len(grid.columns)), grid.columns)
    axis.set_yticks(range(len(grid.rows)), grid.rows)
    if chosen.at[0] == number:
        corner = (chosen.at[2] - 0.5, chosen.at[1] - 0.5)
        for colour, width in (("white", 4.5), (INK, 2.2)):
            axis.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=colour, linewidth=width, clip_on=False))


def _coloured(axis: Axes, values: np.ndarray, **options: Any) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    scale = LinearSegmentedColormap.from_list("resalign", list(SIGNED_SCALE))
    axis.grid(False)
    axis.tick_params(length=0)
    axis.spines[:].set(visible=True, color=UNKNOWN)
    return axis.imshow(np.ma.masked_invalid(values), cmap=scale, vmin=-1, vmax=1, **options)


def _panels(figure: Any, grid: Grid, cell: Cell, words: Words) -> None:
    states, sigmas, matrix = figure.subplots(1, 3)
    paths = by_class(cell.trajectories, grid.labels, words.classes)
    fill(states, paths, boxes_around([cell.trajectories], False)[0], 4.5)
    states.set(title="trajectories", xlabel="projection 1", ylabel="projection 2", box_aspect=1)
    for values, colour in zip(cell.sigmas, depth_colours(len(cell.sigmas)), strict=True):
        index = np.arange(1, len(values) + 1)
        sigmas.plot(index, np.maximum(values, FLOOR), color=colour, linewidth=1, marker=".", markersize=3)
    sigmas.axvline(grid.classes + 0.5, color=INK, linestyle="--", linewidth=1)
    place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "ha": "right", "va": "top", "fontsize": 8}
    sigmas.annotate(f"C = {grid.classes} ", (grid.classes + 0.5, 1), **place)
    sigmas.set(title="singular values", xlabel="index κ", ylabel=as_unicode("σ_κ"), yscale="log", box_aspect=1)
    blocks = len(cell.coupling)
    shown = _coloured(matrix, cell.coupling, extent=(0.5, blocks + 0.5, blocks + 0.5, 0.5))
    matrix.set(title="coupling", xlabel="block j (frames)", ylabel="block i (matrix)", facecolor=UNKNOWN)
    matrix.set(xticks=deep_ticks(blocks), yticks=deep_ticks(blocks))
    label = f"{as_unicode(words.score)}, coupling"
    figure.colorbar(shown, ax=matrix, location="right", aspect=25, shrink=0.7, ticks=BAR_TICKS, label=label)
    look: dict[str, Any] = {"ncols": min(10, len(paths)), "handlelength": 1.2, "columnspacing": 1.0, "fontsize": 8.5}
    handles, names = states.get_legend_handles_labels()
    key = "\n".join(["; ".join(grid.key[:2]), "; ".join([*grid.key[2:], "colour: class"])])
    legend = figure.legend(handles, names, loc="outside lower center", title=key, title_fontsize=8.5, **look)
    legend.get_title().set_multialignment("center")
