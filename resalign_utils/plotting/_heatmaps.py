"""Heat maps of Jacobians in each other's singular frames: vector by vector, and one score a pair of blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..formatting import format_number
from ._colours import UNKNOWN
from ._inputs import Array, as_panels, small
from ._theme import as_html, side_by_side

if TYPE_CHECKING:
    import plotly.graph_objects as go


_GAP = 0.055  # between square panels: room for the ticks, since one title of the vertical axes serves all


def coupling_grid(
    matrices: Tensor | Mapping[str, Tensor], *, symbol: str = "U_jᵀ J_i V_j", height: int | None = None
) -> go.Figure:
    """Draw block i's Jacobian in the singular frames of block j for many i (rows) and j (columns), as one image.

    Diagonal small squares everywhere mean that the blocks share their singular vectors one by one; pale ones off the
    diagonal of the grid, that they share nothing. Absolute values are shown, row i divided by its largest: for
    ``U_jᵀ J_i V_j`` that is σ₁(J_i), reached at j = i. At most six blocks are shown, evenly spaced.

    Args:
        matrices: (L, L, k, k), ``[i, j] = U_jᵀ J_i V_j`` of one input (:func:`coupling_matrices`), or name → those.
        symbol: what the matrices are, for the colour bar; ``_j`` becomes a subscript.
        height: of the figure in pixels.

    Raises:
        ValueError: shapes that do not fit.
    """
    panels = matrices if isinstance(matrices, Mapping) else {"": matrices}
    said = {"expected": "(L, L, k, k)", "fix": "coupling_matrices(trace(model, x), k)[input] returns it."}
    arrays = as_panels(panels, lambda s: len(s) == 4 and s == (s[0], s[0], s[2], s[2]), what="coupling_grid", **said)
    figure = side_by_side(list(arrays), height=height or _square_height(len(arrays)), gap=_GAP)
    for column, array in enumerate(arrays.values(), start=1):
        figure.add_trace(_matrices(array), row=1, col=column)
        count, k = array.shape[0], array.shape[2]
        blocks = _evenly_spaced(count)
        centres = [place * (k + 1) + (k - 1) / 2 for place in range(len(blocks))]
        square_axes(figure, column, {"tickvals": centres, "ticktext": [str(block) for block in blocks]})
    figure.update_layout(plot_bgcolor=UNKNOWN)
    colour_bar(figure, "Blues", 0, as_html(f"|{symbol}|  relative to the largest in row i"))
    return figure


def score_matrix(panels: Mapping[str, Tensor], *, label: str = "coupling", height: int | None = None) -> go.Figure:
    """Draw a score of every pair of blocks as a heat map from −1 to 1, pale at 0.

    The mean over comparable pairs i ≠ j stands above each panel. A pair that is not comparable (NaN: blocks of
    different shapes) is grey.

    Args:
        panels: name → scores (L, L), for instance ``report.coupling.mean(0)``; L may differ.
        label: name of the score, for the colour bar.
        height: of the figure in pixels.

    Raises:
        ValueError: shapes that do not fit, or no panel.
    """
    said = {"expected": "(L, L)", "fix": "Average over inputs first: report.coupling.mean(0)."}
    arrays = as_panels(panels, lambda s: len(s) == 2 and s[0] == s[1], what="score_matrix", **said)
    titles = [_mean_title(name, scores) for name, scores in arrays.items()]
    figure = side_by_side(titles, height=height or _square_height(len(arrays)) + 15, gap=_GAP)
    for column, scores in enumerate(arrays.values(), start=1):
        figure.add_trace(scores_trace(scores, label), row=1, col=column)
        step = -(-len(scores) // 10)  # at most ten ticks
        square_axes(figure, column, {"tick0": step, "dtick": step})
    figure.update_layout(plot_bgcolor=UNKNOWN)
    grey = "<br>grey: different shapes, not comparable" * any(np.isnan(scores).any() for scores in arrays.values())
    colour_bar(figure, "RdBu", -1, as_html(label) + grey)
    return figure


def scores_trace(scores: Array, label: str) -> Any:
    """One matrix of scores on the figure's colour axis."""
    import plotly.graph_objects as go

    index = np.arange(1, len(scores) + 1, dtype=np.uint8)
    tip = "matrix of block i = %{y}<br>frames of block j = %{x}<br>" + as_html(label) + " %{z:.2f}<extra></extra>"
    look = {"coloraxis": "coloraxis", "hoverongaps": False, "hovertemplate": tip}
    return go.Heatmap(x=index, y=index, z=small(np.round(scores, 3)), **look)


def _matrices(array: Array) -> Any:
    """The matrices of all pairs of the chosen blocks in one heat map, with a gap (NaN) of one cell between pairs."""
    import plotly.graph_objects as go

    blocks, k = _evenly_spaced(len(array)), array.shape[2]
    largest = np.abs(np.nan_to_num(array)).max((1, 2, 3))
    entries = np.abs(array)[np.ix_(np.array(blocks) - 1, np.array(blocks) - 1)]
    rows = np.where(largest > 0, largest, 1)[np.array(blocks) - 1]  # a dead block stays 0
    names = [[f"{block}, vector {vector}" for vector in range(1, k + 1)] + [" " * block] for block in blocks]
    cells = [name for block in names for name in block][:-1]  # gaps have different numbers of blanks
    return go.Heatmap(
        z=small(_tiled(entries / rows[:, None, None, None])),
        x=cells,
        y=cells,
        customdata=small(_tiled(entries)),
        coloraxis="coloraxis",
        hoverongaps=False,
        hovertemplate="matrix of block i = %{y}<br>frames of block j = %{x}<br>"
        "entry %{customdata:.3~r}<br>relative %{z:.2f}<extra></extra>",
    )


def _tiled(blocks: Array) -> Array:
    """(b, b, k, k) → one image with a gap of NaN between blocks."""
    padded = np.pad(blocks, [(0, 0), (0, 0), (0, 1), (0, 1)], constant_values=np.nan)
    rows, _, k, _ = padded.shape
    return padded.transpose(0, 2, 1, 3).reshape(rows * k, rows * k)[:-1, :-1]


def _evenly_spaced(count: int) -> list[int]:
    return sorted({round(place) for place in np.linspace(1, count, min(count, 6))})


def _mean_title(name: str, scores: Array) -> str:
    others = scores[~np.eye(len(scores), dtype=bool) & np.isfinite(scores)]
    mean = f"mean over i ≠ j: {format_number(round(others.mean(), 2))}" if len(others) else "no comparable pair"
    return f"{name}<br>{mean}" if name else mean


def _square_height(panels: int) -> int:
    """Height of a figure of square panels on a page of 690 pixels, with the colour bar below."""
    return min(350, 620 // panels) + 178  # with room for titles of two lines


def square_axes(figure: go.Figure, column: int, ticks: dict[str, Any], row: int = 1) -> None:
    """Square cells, rows downwards as in a matrix."""
    look = {"showline": True, "mirror": True, "linecolor": UNKNOWN, "showgrid": False, "ticks": "", **ticks}
    place: dict[str, Any] = {"constrain": "domain", "row": row, "col": column}
    (x_axis,) = figure.select_xaxes(row=row, col=column)
    down = {"autorange": "reversed", "constraintoward": "top", "scaleanchor": x_axis.plotly_name.replace("axis", "")}
    figure.update_xaxes(title_text="block j (frames)", constraintoward="center", **look, **place)
    figure.update_yaxes(title_text="block i (matrix)" if column == 1 else "", **down, **look, **place)


def colour_bar(figure: go.Figure, scale: str, low: float, title: str) -> None:
    """One colour bar for all panels, below them."""
    bar = {"title": {"text": title, "side": "bottom"}, "tickvals": [-1, -0.5, 0, 0.5, 1], "outlinewidth": 0.5}
    bar |= {"orientation": "h", "thickness": 12, "len": 0.8, "y": 0, "yref": "container", "yanchor": "bottom"}
    figure.update_layout(coloraxis={"colorscale": scale, "cmin": low, "cmax": 1, "colorbar": bar}, margin={"b": 112})
