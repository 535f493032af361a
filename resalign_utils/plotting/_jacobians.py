"""Heat maps of Jacobians in each other's singular frames: vector by vector, and one score a pair of blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from ._heatmaps import colour_bar, colour_bar_matplotlib, image, square, square_height
from ._inputs import as_array, as_panels, small
from ._palette import INK, MAGNITUDE_SCALE, SIGNED_SCALE, UNKNOWN
from ._theme import Backend, as_html, as_unicode, draw, matplotlib_panels, plotly_panels

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.figure import Figure


class _Grid(NamedTuple):
    """One panel of :func:`coupling_grid`: k×k cells a pair of blocks, with a gap (NaN) of one cell between pairs."""

    blocks: list[int]  # shown, 1-based
    k: int
    shown: np.ndarray  # (cells, cells), entries / scale of their row
    entries: np.ndarray  # (cells, cells)

    @property
    def centres(self) -> list[float]:
        return [place * (self.k + 1) + (self.k - 1) / 2 for place in range(len(self.blocks))]

    def names(self, of: str, vector: str) -> list[str]:
        """A name per row or column of cells; gaps get different numbers of blanks."""
        cells = [[f"{of} = {b}, {vector} = {kappa + 1}" for kappa in range(self.k)] + [" " * b] for b in self.blocks]
        return [name for block in cells for name in block][:-1]


def coupling_grid(
    matrices: Tensor | Mapping[str, Tensor],
    *,
    blocks: Sequence[int] | None = None,
    absolute: bool = True,
    symbol: str = "U_jᵀ J_i V_j",
    scale: Tensor | Mapping[str, Tensor] | None = None,
    height: int | None = None,
    backend: Backend = "plotly",
) -> Any:
    """Draw block i's Jacobian in the singular frames of block j for many i (rows) and j (columns), as one image.

    Diagonal small squares everywhere mean that the blocks share their singular vectors one by one; white ones off the
    diagonal of the grid, that they share nothing.

    Args:
        matrices: (L, L, k, k), ``[i, j] = U_jᵀ J_i V_j`` of one input (:func:`coupling_matrices`), or name → those.
        blocks: which blocks to show, from 1; at most six, evenly spaced from the first to the last, if not given.
        absolute: show |entries| from 0 to 1, else signed entries from −1 to 1.
        symbol: what the matrices are, for the colour bar; ``_j`` becomes a subscript.
        scale: (L,), what row i is divided by, so that late blocks with small Jacobians are seen too. By default its
            largest entry in absolute value over all j, which for ``U_jᵀ J_i V_j`` is σ₁(J_i), reached at j = i.
        height: of the figure in pixels.
        backend: ``"plotly"`` or ``"matplotlib"``.

    Raises:
        ValueError: shapes that do not fit, a block outside 1..L, or an unknown backend.
    """
    panels = matrices if isinstance(matrices, Mapping) else {"": matrices}
    arrays = as_panels(
        panels,
        lambda s: len(s) == 4 and s[0] == s[1] and s[2] == s[3],
        what="coupling_grid",
        expected="(L, L, k, k)",
        fix="coupling_matrices(trace(model, x), k)[input] returns it.",
    )
    scales = scale if isinstance(scale, Mapping) else dict.fromkeys(arrays, scale)
    grids = [_grid(array, blocks, absolute, scales.get(name), name) for name, array in arrays.items()]
    title = (
        f"|{symbol}|  relative to the largest in row i" if absolute else f"{symbol}  relative to the largest in row i"
    )
    return draw(
        backend,
        lambda: _grid_plotly(list(arrays), grids, as_html(title), absolute, height or square_height(len(grids))),
        lambda: _grid_matplotlib(list(arrays), grids, as_unicode(title), absolute, height),
    )


def score_matrix(
    panels: Mapping[str, Tensor],
    *,
    label: str = "coupling",
    height: int | None = None,
    backend: Backend = "plotly",
) -> Any:
    """Draw a score of every pair of blocks as a heat map from −1 to 1, white at 0.

    The mean over comparable pairs i ≠ j stands above each panel. A pair that is not comparable (NaN: blocks of
    different shapes) is grey with a cross or hatching, and says so when pointed at.

    Args:
        panels: name → scores (L, L), for instance ``report.coupling.mean(0)``; L may differ.
        label: name of the score, for the colour bar.
        height: of the figure in pixels.
        backend: ``"plotly"`` or ``"matplotlib"``.

    Raises:
        ValueError: shapes that do not fit, no panel, or an unknown backend.
    """
    arrays = as_panels(
        panels,
        lambda s: len(s) == 2 and s[0] == s[1],
        what="score_matrix",
        expected="(L, L)",
        fix="Average over inputs first: report.coupling.mean(0).",
    )
    titles = {name: _mean_title(name, scores) for name, scores in arrays.items()}
    return draw(
        backend,
        lambda: _scores_plotly(titles, arrays, label, height or square_height(len(arrays)) + 15),
        lambda: _scores_matplotlib(titles, arrays, label, height),
    )


def _grid(array: np.ndarray, blocks: Sequence[int] | None, absolute: bool, scale: Any, name: str) -> _Grid:
    count, k = array.shape[0], array.shape[2]
    chosen = _choose(count) if blocks is None else [int(block) for block in blocks]
    if not chosen or not all(1 <= block <= count for block in chosen):
        raise ValueError(f"coupling_grid: blocks must lie in 1..{count} of panel {name!r}; got {chosen}.")
    size = np.abs(np.nan_to_num(array)).max((1, 2, 3)) if scale is None else as_array(scale)
    if size.shape != (count,):
        raise ValueError(f"coupling_grid: scale must have shape ({count},), one per block; got {size.shape}.")
    entries = np.abs(array) if absolute else array
    relative = entries / np.where(size > 0, size, 1)[:, None, None, None]  # a dead block stays 0
    index = np.array(chosen) - 1
    return _Grid(chosen, k, _tile(relative[np.ix_(index, index)]), _tile(entries[np.ix_(index, index)]))


def _choose(count: int) -> list[int]:
    return sorted({round(place) for place in np.linspace(1, count, min(count, 6))})


def _every(count: int) -> list[int]:
    """At most ten evenly spaced ticks."""
    step = -(-count // 10)
    return list(range(step, count + 1, step))


def _tile(blocks: np.ndarray) -> np.ndarray:
    """(b, b, k, k) → one image with a gap of NaN between blocks."""
    padded = np.pad(blocks, [(0, 0), (0, 0), (0, 1), (0, 1)], constant_values=np.nan)
    rows, _, k, _ = padded.shape
    return padded.transpose(0, 2, 1, 3).reshape(rows * k, rows * k)[:-1, :-1]


def _grid_plotly(titles: list[str], grids: list[_Grid], title: str, absolute: bool, height: int) -> go.Figure:
    import plotly.graph_objects as go

    figure = plotly_panels(titles, height=height)
    for column, grid in enumerate(grids, start=1):
        trace = go.Heatmap(
            z=small(grid.shown),
            x=grid.names("frames of block j", "κ′"),
            y=grid.names("matrix of block i", "κ"),
            customdata=small(grid.entries),
            coloraxis="coloraxis",
            hoverongaps=False,
            hovertemplate="%{y}<br>%{x}<br>entry %{customdata:.3g}<br>relative %{z:.2f}<extra></extra>",
        )
        figure.add_trace(trace, row=1, col=column)
        ticks = {"tickvals": grid.centres, "ticktext": [str(block) for block in grid.blocks]}
        square(figure, column, "block j (frames)", "block i (matrix)" if column == 1 else "", **ticks)
    figure.update_layout(plot_bgcolor=UNKNOWN)
    colour_bar(figure, MAGNITUDE_SCALE if absolute else SIGNED_SCALE, 0 if absolute else -1, title)
    return figure


def _mean_title(name: str, scores: np.ndarray) -> str:
    others = scores[~np.eye(len(scores), dtype=bool) & np.isfinite(scores)]
    value = round(float(others.mean()), 2) + 0.0 if len(others) else 0.0  # + 0.0: never "−0.00"
    mean = f"mean over i ≠ j: {value:.2f}".replace("-", "−") if len(others) else "no comparable pair"
    return f"{name}\n{mean}" if name else mean


def _scores_plotly(titles: Mapping[str, str], arrays: Mapping[str, np.ndarray], label: str, height: int) -> go.Figure:
    import plotly.graph_objects as go

    figure = plotly_panels([t.replace("\n", "<br>") for t in titles.values()], height=height)
    for column, scores in enumerate(arrays.values(), start=1):
        index = list(range(1, len(scores) + 1))
        common = {"x": index, "y": index, "hoverongaps": False}
        pair = "matrix of block i = %{y}<br>frames of block j = %{x}<br>"
        tip = f"{pair}{label} %{{z:.3f}}<extra></extra>"
        figure.add_trace(
            go.Heatmap(z=small(scores), coloraxis="coloraxis", hovertemplate=tip, **common), row=1, col=column
        )
        if np.isnan(scores).any():
            figure.add_trace(_incomparable(scores, pair, common), row=1, col=column)
        ticks = {"tickvals": _every(len(scores))}
        square(figure, column, "block j (frames)", "block i (matrix)" if column == 1 else "", **ticks)
    figure.update_layout(margin={"t": 66})
    colour_bar(figure, SIGNED_SCALE, -1, as_html(label))
    return figure


def _incomparable(scores: np.ndarray, pair: str, common: Mapping[str, Any]) -> Any:
    import plotly.graph_objects as go

    return go.Heatmap(
        z=small(np.where(np.isnan(scores), 0.0, np.nan)),
        colorscale=[[0, UNKNOWN], [1, UNKNOWN]],
        showscale=False,
        text=np.where(np.isnan(scores), "×", "").tolist(),
        texttemplate="%{text}",
        textfont={"color": INK, "size": 9},
        hovertemplate=f"{pair}not comparable: different shapes<extra></extra>",
        **common,
    )


def _grid_matplotlib(titles: list[str], grids: list[_Grid], title: str, absolute: bool, height: int | None) -> Figure:
    default = 3.6 if len(titles) > 1 else 5.2
    figure, axes = matplotlib_panels(titles, height=height / 100 if height else default)
    for axis, grid in zip(axes, grids, strict=True):
        ticks = (grid.centres, [str(block) for block in grid.blocks])
        image(axis, grid.shown, MAGNITUDE_SCALE if absolute else SIGNED_SCALE, 0 if absolute else -1, ticks)
        axis.set_facecolor(UNKNOWN)
    axes[0].set_ylabel("block i (matrix)")
    colour_bar_matplotlib(figure, axes, title)
    return figure


def _scores_matplotlib(
    titles: Mapping[str, str], arrays: Mapping[str, np.ndarray], label: str, height: int | None
) -> Figure:
    default = 3.6 if len(titles) > 1 else 5.0
    figure, axes = matplotlib_panels(list(titles.values()), height=height / 100 if height else default)
    for axis, scores in zip(axes, arrays.values(), strict=True):
        chosen = _every(len(scores))
        image(axis, scores, SIGNED_SCALE, -1, ([block - 1 for block in chosen], [str(block) for block in chosen]))
        axis.set_facecolor(UNKNOWN)
        axis.patch.set(hatch="////", edgecolor="#777777", linewidth=0)  # seen where the image has no value
    axes[0].set_ylabel("block i (matrix)")
    colour_bar_matplotlib(figure, axes, as_unicode(label))
    return figure
