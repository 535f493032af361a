"""A grid of small signed images, for instance singular vectors in the shape of the input."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from ._heatmaps import colour_bar, colour_bar_matplotlib
from ._inputs import as_panels, small
from ._palette import SIGNED_SCALE, UNKNOWN
from ._theme import Backend, as_html, as_unicode, draw, matplotlib_panels, plotly_panels

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIDE = 0.92  # longer side of an image; the middles of neighbours are 1 apart
_NAME = 14  # letters a line of a row's name
_BELOW = 80  # pixels for the colour bar


class _Picture(NamedTuple):
    """One image of the grid. Its middle stands at (column, row), rows downwards."""

    row: str
    column: str
    middle: tuple[int, int]
    entries: np.ndarray  # (h, w), NaN where not finite

    @property
    def shown(self) -> np.ndarray:  # (h, w), from −1 to 1
        largest = np.abs(np.nan_to_num(self.entries)).max()
        return self.entries / (largest or 1)  # zeros stay 0

    @property
    def pixel(self) -> float:
        return _SIDE / max(self.entries.shape)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, right, top, bottom."""
        (x, y), (h, w) = self.middle, self.entries.shape
        return x - w * self.pixel / 2, x + w * self.pixel / 2, y - h * self.pixel / 2, y + h * self.pixel / 2


class _Grid(NamedTuple):
    """All images, row by row, and what stands beside and above them."""

    pictures: list[_Picture]
    rows: list[str]  # wrapped
    columns: list[str]  # wrapped
    side: int  # pixels on the page a row or column

    @property
    def top(self) -> int:
        """Pixels for the columns' titles, clear of the modebar."""
        return 28 + 17 * max(title.count("\n") + 1 for title in self.columns)


def image_grid(
    rows: Mapping[str, Tensor],
    *,
    columns: Sequence[str],
    label: str = "relative to the largest entry",
    height: int | None = None,
    backend: Backend = "plotly",
) -> Any:
    """Draw small signed images, each on its own scale from −1 to 1, white at 0.

    Every image is divided by its own largest absolute value, so that colours compare places in one image, never two
    images; in Plotly the original value is seen when pointed at. An image of NaN is left blank; single pixels of NaN
    are grey.

    Args:
        rows: name → one image for each column (columns, h, w); h and w may differ between rows.
        columns: titles over the columns.
        label: what the colours are, for the colour bar.
        height: of the figure in pixels.
        backend: ``"plotly"`` or ``"matplotlib"``.

    Raises:
        ValueError: no column, shapes that do not fit, no row, or an unknown backend.
    """
    titles = [str(title) for title in columns]
    if not titles:
        raise ValueError("image_grid: columns must have a title for at least one column; got none.")
    arrays = as_panels(
        rows,
        lambda s: len(s) == 3 and s[0] == len(titles),
        what="image_grid",
        expected=f"({len(titles)}, h, w)",
        fix="Pass one image without channels for each of columns; one of NaN is left blank.",
    )
    grid = _arrange(arrays, titles)
    return draw(
        backend,
        lambda: _plotly(grid, as_html(label), height or grid.top + grid.side * len(grid.rows) + _BELOW),
        lambda: _matplotlib(grid, as_unicode(label), height),
    )


def _arrange(arrays: Mapping[str, np.ndarray], titles: list[str]) -> _Grid:
    pictures = [
        _Picture(name, title, (x, y), np.where(np.isfinite(entries), entries, np.nan))
        for y, (name, images) in enumerate(arrays.items())
        for x, (title, entries) in enumerate(zip(titles, images, strict=True))
    ]
    side = min(120, 590 // len(titles))
    return _Grid(pictures, [_wrap(name, _NAME) for name in arrays], [_wrap(t, max(side // 8, 3)) for t in titles], side)


def _wrap(text: str, letters: int) -> str:
    return "\n".join(textwrap.wrap(text, letters))


def _plotly(grid: _Grid, label: str, height: int) -> go.Figure:
    figure = plotly_panels([""], height=height)
    for picture in grid.pictures:
        figure.add_trace(_trace(picture))
    figure.update_layout(shapes=[shape for picture in grid.pictures for shape in _frame(picture)])
    common = {"showgrid": False, "showline": False, "ticks": "", "constrain": "domain"}
    figure.update_xaxes(side="top", range=[-0.5, len(grid.columns) - 0.5], **_ticks(grid.columns), **common)
    down = {"scaleanchor": "x", "constraintoward": "top"}
    figure.update_yaxes(range=[len(grid.rows) - 0.5, -0.5], **down, **_ticks(grid.rows), **common)
    colour_bar(figure, SIGNED_SCALE, -1, label)
    # Without padding the colour bar claims no more than its margin, which a figure of one row needs.
    figure.update_layout(margin={"l": 15, "t": grid.top, "b": _BELOW}, coloraxis={"colorbar": {"ypad": 0}})
    return figure


def _ticks(names: list[str]) -> dict[str, Any]:
    return {"tickvals": list(range(len(names))), "ticktext": [as_html(name).replace("\n", "<br>") for name in names]}


def _trace(picture: _Picture) -> Any:
    import plotly.graph_objects as go

    left, _, top, _ = picture.box
    down, across = np.indices(picture.entries.shape) + 1
    tip = f"{as_html(picture.row)}<br>{as_html(picture.column)}<br>"
    pixel = "pixel in row %{customdata[1]}, column %{customdata[2]}<br>"
    return go.Heatmap(
        z=small(picture.shown),
        x0=left + picture.pixel / 2,
        dx=picture.pixel,
        y0=top + picture.pixel / 2,
        dy=picture.pixel,
        name=f"{picture.row}, {picture.column}",
        customdata=small(np.stack([picture.entries, down, across], -1)),  # (h, w, 3)
        coloraxis="coloraxis",
        hoverongaps=False,
        hovertemplate=f"{tip}{pixel}value %{{customdata[0]:.3g}}<br>relative %{{z:.2f}}<extra></extra>",
    )


def _frame(picture: _Picture) -> list[dict[str, Any]]:
    """A thin frame, over grey where single pixels are unknown; nothing where the image is blank."""
    unknown = np.isnan(picture.entries)
    if unknown.all():
        return []
    left, right, top, bottom = picture.box
    shape = {"type": "rect", "x0": left, "x1": right, "y0": top, "y1": bottom}
    ground = [{**shape, "layer": "below", "fillcolor": UNKNOWN, "line": {"width": 0}}] if unknown.any() else []
    return [*ground, {**shape, "line": {"color": UNKNOWN, "width": 1}}]


def _matplotlib(grid: _Grid, label: str, height: int | None) -> Figure:
    default = (grid.top + grid.side * len(grid.rows) + _BELOW) / 100
    figure, (axis,) = matplotlib_panels([""], height=height / 100 if height else default)
    for picture in grid.pictures:
        _show(axis, picture)
    axis.xaxis.tick_top()
    axis.set_xticks(range(len(grid.columns)), [as_unicode(title) for title in grid.columns])
    axis.set_yticks(range(len(grid.rows)), [as_unicode(name) for name in grid.rows])
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines[:].set(visible=False)
    axis.set(xlim=(-0.5, len(grid.columns) - 0.5), ylim=(len(grid.rows) - 0.5, -0.5))
    colour_bar_matplotlib(figure, [axis], label)
    return figure


def _show(axis: Axes, picture: _Picture) -> None:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    left, right, top, bottom = picture.box
    values = np.ma.masked_invalid(picture.shown)
    blank = bool(values.mask.all())
    if not blank:
        axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=UNKNOWN, linewidth=0.8))
    scale = LinearSegmentedColormap.from_list("resalign", list(SIGNED_SCALE))
    known = scale.with_extremes(bad="none" if blank else UNKNOWN)
    axis.imshow(values, cmap=known, vmin=-1, vmax=1, extent=(left, right, bottom, top))
