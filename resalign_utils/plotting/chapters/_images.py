"""A grid of small signed images, for instance singular vectors in the shape of the input (chapter 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from .._colours import UNKNOWN
from .._heatmaps import colour_bar
from .._inputs import Array, as_panels, small
from .._theme import as_html, side_by_side, wrapped

if TYPE_CHECKING:
    import plotly.graph_objects as go

_WIDE, _BELOW = 0.92, 80  # longer side of an image, the middles of neighbours being 1 apart; pixels for the colour bar


def image_grid(
    rows: Mapping[str, Tensor],
    *,
    columns: Sequence[str],
    label: str = "relative to the largest entry",
    height: int | None = None,
) -> go.Figure:
    """Draw small signed images, each on its own scale from −1 to 1, pale at 0.

    Every image is divided by its own largest absolute value, so that colours compare places in one image, never two
    images; the original value is seen when pointed at. NaN is left blank.

    Args:
        rows: name → one image for each column (columns, h, w); h and w may differ between rows.
        columns: titles over the columns.
        label: what the colours are, for the colour bar.
        height: of the figure in pixels.

    Raises:
        ValueError: no column, shapes that do not fit, or no row.
    """
    titles = [str(title) for title in columns]
    if not titles:
        raise ValueError("image_grid: columns must have a title for at least one column; got none.")
    expected, fix = f"({len(titles)}, h, w)", "Pass one image without channels for each of columns; NaN is left blank."
    arrays = as_panels(
        rows, lambda s: len(s) == 3 and s[0] == len(titles), what="image_grid", expected=expected, fix=fix
    )
    side = min(120, 590 // len(titles))  # pixels on the page
    above = [as_html(wrapped(title, max(side // 8, 3))) for title in titles]
    beside = [as_html(wrapped(name, 14)) for name in arrays]
    top = 28 + 17 * max(title.count("<br>") + 1 for title in above)  # clear of the modebar
    figure = side_by_side([""], height=height or top + side * len(arrays) + _BELOW)
    for row, (name, images) in enumerate(arrays.items()):
        for column, (title, image) in enumerate(zip(titles, images, strict=True)):
            figure.add_trace(_image(image, (column, row), (name, title)))
            if np.isfinite(image).any():
                figure.add_shape(_frame(image, column, row))
    look: dict[str, Any] = {"showgrid": False, "showline": False, "ticks": "", "constrain": "domain"}
    look["tickvals"] = [*range(max(len(titles), len(arrays)))]
    down = {"range": [len(arrays) - 0.5, -0.5], "scaleanchor": "x", "constraintoward": "top"}
    figure.update_xaxes(side="top", range=[-0.5, len(titles) - 0.5], ticktext=above, **look)
    figure.update_yaxes(ticktext=beside, **down, **look)
    colour_bar(figure, "RdBu", -1, as_html(label))
    # Without padding the colour bar claims no more than its margin, which a figure of one row needs.
    return figure.update_layout(margin={"l": 15, "t": top, "b": _BELOW}, coloraxis={"colorbar": {"ypad": 0}})


def _image(image: Array, middle: tuple[int, int], names: tuple[str, str]) -> Any:
    import plotly.graph_objects as go

    known = np.where(np.isfinite(image), image, np.nan)
    largest = np.abs(np.nan_to_num(known)).max() or 1.0  # zeros stay 0
    pixel = _WIDE / max(image.shape)
    (column, row), (height, width) = middle, image.shape
    down, across = np.indices(image.shape) + 1
    tip = "<br>".join(map(as_html, names)) + "<br>pixel in row %{customdata[1]}, column %{customdata[2]}<br>"
    corner = {"x0": column - (width - 1) * pixel / 2, "y0": row - (height - 1) * pixel / 2, "dx": pixel, "dy": pixel}
    return go.Heatmap(
        z=small(known / largest),
        **corner,
        name=", ".join(names),
        customdata=small(np.stack([known, down, across], -1)),  # (h, w, 3)
        coloraxis="coloraxis",
        hoverongaps=False,
        hovertemplate=f"{tip}value %{{customdata[0]:.3~r}}<br>relative %{{z:.2f}}<extra></extra>",
    )


def _frame(image: Array, x: int, y: int) -> dict[str, Any]:
    high, wide = (_WIDE * length / max(image.shape) / 2 for length in image.shape)
    return {"type": "rect", "x0": x - wide, "x1": x + wide, "y0": y - high, "y1": y + high, "line": {"color": UNKNOWN}}
