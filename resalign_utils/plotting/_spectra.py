"""Singular values of each block, with the first C set off."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..formatting import format_number
from ._colours import depth_colours, faded
from ._inputs import Array, as_panels, small
from ._theme import add_line, add_note, log_axis, side_by_side

if TYPE_CHECKING:
    import plotly.graph_objects as go

FLOOR = 1e-6  # smaller singular values are rounding in float32
CLIPPED = "values below 10⁻⁶ are drawn at 10⁻⁶"
_LABEL = "σ<sub>κ</sub> / σ<sub>1</sub>"


def spectra(panels: Mapping[str, Tensor], num_classes: int, *, height: int = 440) -> go.Figure:
    """Draw each block's largest singular values on a logarithmic scale, with the first C set off.

    A line is a block, dark for the first; it is the median over inputs of σ_κ / σ_1, its band goes from the first to
    the third quartile. Inputs at which the block is dead (σ₁ = 0) are left out and counted. Values below 10⁻⁶ are
    drawn at 10⁻⁶ and the figure says so.

    Args:
        panels: name → ``report.singular_values`` (n, L, r), descending; L and r may differ.
        num_classes: C.
        height: of the figure in pixels.

    Raises:
        ValueError: shapes that do not fit, or C below 1.
    """
    said = {"expected": "(n, L, r)", "fix": "report.singular_values has it."}
    arrays = as_panels(panels, lambda s: len(s) == 3, what="spectra", **said)
    if num_classes < 1:
        raise ValueError(f"spectra: num_classes must be at least 1; got {num_classes}.")
    figure = side_by_side(list(arrays), height=height)
    drawn: list[Array] = []
    notes = ["line: median over inputs, band: quartiles"]
    for column, (name, values) in enumerate(arrays.items(), start=1):
        dead = values[..., 0] == 0  # (n, L)
        relative = values / np.where(dead, np.nan, values[..., 0])[..., None]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a block dead at all inputs: NaN, drawn as nothing
            quartiles = np.nanpercentile(relative, [25, 50, 75], axis=0)  # (3, L, r)
        drawn.append(np.maximum(quartiles, FLOOR))
        notes += [f"{name}: {dead.sum():,} dead (input, block) pairs left out"] if dead.any() else []
        notes += [CLIPPED] if (quartiles < FLOOR).any() and CLIPPED not in notes else []
        figure.add_traces(_lines(name, drawn[-1]), rows=1, cols=column)
        add_line(figure, f"C = {num_classes}", column=column, legend=column == 1, x=num_classes + 0.5)
        figure.update_xaxes(range=[0.5, values.shape[2] + 0.5], row=1, col=column)
    figure.update_xaxes(title_text="index κ")
    figure.update_yaxes(matches="y", **log_axis(drawn))
    figure.update_yaxes(title_text=_LABEL, matches=None, row=1, col=1)
    _depth_bar(figure, max(array.shape[1] for array in arrays.values()))
    add_note(figure, *notes)
    return figure


def _lines(name: str, quartiles: Array) -> list[Any]:
    """A band and a line per block."""
    import plotly.graph_objects as go

    _, blocks, rank = quartiles.shape
    index, traces = np.arange(1, rank + 1), []
    for block, colour in enumerate(depth_colours(blocks)):
        low, median, high = quartiles[:, block]
        x, y = np.r_[index, index[::-1]], np.r_[high, low[::-1]]
        fill = {"fill": "toself", "fillcolor": faded(colour, 0.12), "mode": "none", "hoverinfo": "skip"}
        traces.append(go.Scatter(x=small(x), y=small(y), showlegend=False, **fill))
        texts = [[format_number(value, 2) for value in part] for part in (median, low, high)]
        line = go.Scatter(
            x=small(index),
            y=small(median),
            name=f"block {block + 1}",
            mode="lines+markers",
            line={"color": colour, "width": 1.5},
            marker={"size": 4},
            showlegend=False,
            customdata=[f"{middle} (quartiles {first} … {third})" for middle, first, third in zip(*texts, strict=True)],
            hovertemplate=f"{name}, block {block + 1}<br>κ = %{{x}}<br>{_LABEL} = %{{customdata}}<extra></extra>",
        )
        traces.append(line)
    return traces


def _depth_bar(figure: go.Figure, blocks: int) -> None:
    """A colour bar for depth, carried by a trace that draws nothing."""
    import plotly.graph_objects as go

    title = {"text": "block ℓ", "side": "top", "font": {"size": 13}}
    bar = {"title": title, "thickness": 10, "outlinewidth": 0, "tickvals": sorted({1, (1 + blocks) // 2, blocks})}
    marker = {"colorscale": depth_colours(10), "cmin": 1, "cmax": max(blocks, 2), "color": [1], "colorbar": bar}
    figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", marker=marker, showlegend=False, hoverinfo="skip"))
