"""What heat maps share: square cells in the order of a matrix, and one colour bar for all panels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._palette import UNKNOWN, colour_scale

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def square_height(panels: int) -> int:
    """Height of a figure of square panels on a page of 720 pixels, with the colour bar below."""
    return min(350, 620 // panels) + 178


def square(figure: go.Figure, column: int, x_title: str, y_title: str, **ticks: Any) -> None:
    """Square cells, rows downwards as in a matrix."""
    frame = {"showline": True, "mirror": True, "linecolor": UNKNOWN}
    common = {"showgrid": False, "constrain": "domain", "ticks": "", **frame, **ticks}
    figure.update_xaxes(title_text=x_title, row=1, col=column, **common)
    name = "x" if column == 1 else f"x{column}"
    figure.update_yaxes(
        title_text=y_title, autorange="reversed", scaleanchor=name, constraintoward="top", row=1, col=column, **common
    )
    figure.update_xaxes(constraintoward="center", row=1, col=column)


BAR_TICKS = [-1, -0.5, 0, 0.5, 1]


def colour_bar(figure: go.Figure, colours: Sequence[str], low: float, title: str) -> None:
    """One colour bar for all panels, below them."""
    bar = {
        "title": {"text": title, "side": "bottom"},
        "tickvals": BAR_TICKS,
        "orientation": "h",
        "thickness": 12,
        "len": 0.6,
        "y": 0,
        "yref": "container",
        "yanchor": "bottom",
        "outlinewidth": 0.5,
    }
    axis = {"colorscale": colour_scale(colours), "cmin": low, "cmax": 1, "colorbar": bar}
    figure.update_layout(coloraxis=axis, margin={"b": 125})


def image(axis: Axes, values: np.ndarray, colours: Sequence[str], low: float, ticks: tuple[list, list[str]]) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    scale = LinearSegmentedColormap.from_list("resalign", list(colours))
    axis.imshow(np.ma.masked_invalid(values), cmap=scale, vmin=low, vmax=1)
    axis.set_xticks(ticks[0], ticks[1])
    axis.set_yticks(ticks[0], ticks[1])
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines[:].set(visible=True, color=UNKNOWN)
    axis.set_xlabel("block j (frames)")


def colour_bar_matplotlib(figure: Figure, axes: list[Axes], title: str) -> None:
    """The same in Matplotlib."""
    look: dict[str, Any] = {"location": "bottom", "shrink": 0.6, "aspect": 40, "ticks": BAR_TICKS}
    figure.colorbar(axes[0].images[0], ax=axes, label=title, **look)
