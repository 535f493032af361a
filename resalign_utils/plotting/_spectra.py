"""Singular values of each block, with the first C set off."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from ._inputs import as_panels, small
from ._palette import DEPTH_SCALE, INK, colour_scale, depth_colours, faded
from ._theme import Backend, as_html, as_unicode, draw, log_ticks, matplotlib_panels, plotly_panels

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FLOOR = 1e-6  # smaller singular values are rounding in float32


class _Spectrum(NamedTuple):
    """Over inputs: the median and the quartiles (L, r) of what is drawn, and how many were dead (L,)."""

    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray
    dead: np.ndarray
    clipped: bool


def spectra(
    panels: Mapping[str, Tensor],
    num_classes: int,
    *,
    relative: bool = True,
    height: int | None = None,
    backend: Backend = "plotly",
) -> Any:
    """Draw each block's largest singular values on a logarithmic scale, with the first C set off.

    A line is a block, dark for the first; it is the median over inputs, its band goes from the first to the third
    quartile. Inputs at which the block is dead (σ₁ = 0) are left out and counted. Values below 10⁻⁶ are drawn at
    10⁻⁶ and the figure says so.

    Args:
        panels: name → ``report.singular_values`` (n, L, r), descending; L and r may differ.
        num_classes: C.
        relative: draw σ_κ / σ₁, else σ_κ.
        height: of the figure in pixels.
        backend: ``"plotly"`` or ``"matplotlib"``.

    Raises:
        ValueError: shapes that do not fit, C below 1, or an unknown backend.
    """
    arrays = as_panels(
        panels, lambda s: len(s) == 3, what="spectra", expected="(n, L, r)", fix="report.singular_values has it."
    )
    if num_classes < 1:
        raise ValueError(f"spectra: num_classes must be at least 1; got {num_classes}.")
    found = {name: _spectrum(array, relative) for name, array in arrays.items()}
    label = "σ_κ / σ₁" if relative else "σ_κ"
    height = height or 420
    return draw(
        backend,
        lambda: _spectra_plotly(found, num_classes, label, height),
        lambda: _spectra_matplotlib(found, num_classes, label, height / 100),
    )


def _spectrum(values: np.ndarray, relative: bool) -> _Spectrum:
    dead = values[..., 0] == 0  # (n, L)
    top = np.where(dead, np.nan, values[..., 0])[..., None] if relative else np.where(dead, np.nan, 1.0)[..., None]
    shown = values / top
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a block dead at all inputs: NaN, drawn as nothing
        low, middle, high = np.nanpercentile(shown, [25, 50, 75], axis=0)
    clipped = bool((low < FLOOR).any())
    low, middle, high = (np.maximum(part, FLOOR) for part in (low, middle, high))
    return _Spectrum(middle, low, high, dead.sum(0), clipped)


def _spectra_plotly(found: Mapping[str, _Spectrum], classes: int, label: str, height: int) -> go.Figure:
    figure = plotly_panels(list(found), height=height, shared_yaxes=True)
    for column, (name, spectrum) in enumerate(found.items(), start=1):
        for trace in _block_traces(name, spectrum, label):
            figure.add_trace(trace, row=1, col=column)
        figure.add_vline(x=classes + 0.5, line={"color": INK, "dash": "dash", "width": 1.2}, row=1, col=column)
        domain = "" if column == 1 else str(column)
        place = {"x": classes + 0.5, "xref": f"x{domain}", "y": 1, "yref": f"y{domain} domain"}
        figure.add_annotation(text=f"C = {classes} ", xanchor="right", yanchor="top", font={"size": 12}, **place)
        limits = [0.5, spectrum.middle.shape[1] + 0.5]
        figure.update_xaxes(title_text="index κ", range=limits, row=1, col=column)
    places, texts = log_ticks(*(part for spectrum in found.values() for part in spectrum[:3]))
    figure.update_yaxes(type="log", tickvals=places, ticktext=texts)
    figure.update_yaxes(title_text=as_html(label), row=1, col=1)
    _depth_bar(figure, max(len(s.middle) for s in found.values()), _note(found))
    return figure


def _block_traces(name: str, spectrum: _Spectrum, label: str) -> list[Any]:
    """A band and a line per block."""
    import plotly.graph_objects as go

    blocks, rank = spectrum.middle.shape
    index, traces = np.arange(1, rank + 1), []
    for block, colour in enumerate(depth_colours(blocks)):
        band = np.r_[spectrum.high[block], spectrum.low[block][::-1]]
        fill = {"fill": "toself", "fillcolor": faded(colour, 0.12), "mode": "none", "hoverinfo": "skip"}
        traces.append(go.Scatter(x=small(np.r_[index, index[::-1]]), y=small(band), showlegend=False, **fill))
        dead = f"<br>dead at {spectrum.dead[block]} inputs" if spectrum.dead[block] else ""
        line = go.Scatter(
            x=small(index),
            y=small(spectrum.middle[block]),
            name=f"block {block + 1}",
            mode="lines+markers",
            line={"color": colour, "width": 1.5},
            marker={"size": 4},
            showlegend=False,
            customdata=small(np.stack([spectrum.low[block], spectrum.high[block]], 1)),
            hovertemplate=f"{name}, block {block + 1}<br>κ = %{{x}}<br>{as_html(label)} = %{{y:.3g}}<br>"
            f"quartiles: %{{customdata[0]:.3g}} … %{{customdata[1]:.3g}}{dead}<extra></extra>",
        )
        traces.append(line)
    return traces


def _note(found: Mapping[str, _Spectrum]) -> str:
    notes = ["line: median over inputs, band: quartiles"]
    if any(spectrum.clipped for spectrum in found.values()):
        notes.append("values below 10⁻⁶ are drawn at 10⁻⁶")
    dead = {name: int(s.dead.sum()) for name, s in found.items() if s.dead.any()}
    notes += [f"{name}: {count} dead (input, block) pairs left out" for name, count in dead.items()]
    return "; ".join(notes)


def _depth_bar(figure: go.Figure, blocks: int, note: str) -> None:
    """A colour bar for depth, carried by a trace that draws nothing."""
    import plotly.graph_objects as go

    bar = {
        "title": {"text": "block ℓ", "side": "top", "font": {"size": 14}},
        "thickness": 12,
        "outlinewidth": 0,
        "tickvals": sorted({1, (1 + blocks) // 2, blocks}),
    }
    scale = {"colorscale": colour_scale(DEPTH_SCALE), "cmin": 1, "cmax": max(blocks, 2), "color": [1], "colorbar": bar}
    figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", marker=scale, showlegend=False, hoverinfo="skip"))
    figure.add_annotation(
        text=note, xref="paper", yref="paper", x=0.5, y=0, yshift=-50, yanchor="top", font={"size": 12}
    )


def _spectra_matplotlib(found: Mapping[str, _Spectrum], classes: int, label: str, height: float) -> Figure:
    figure, axes = matplotlib_panels(list(found), height=height, sharey=True)
    for axis, spectrum in zip(axes, found.values(), strict=True):
        _plot_blocks(axis, spectrum)
        axis.axvline(classes + 0.5, color=INK, linestyle="--", linewidth=1)
        axis.annotate(f"C = {classes} ", (classes + 0.5, 1), xycoords=("data", "axes fraction"), ha="right", va="top")
        axis.set(xlabel="index κ", yscale="log")
    axes[0].set_ylabel(as_unicode(label))
    _depth_bar_matplotlib(figure, axes, max(len(s.middle) for s in found.values()))
    figure.supxlabel(_note(found), fontsize=9)
    return figure


def _plot_blocks(axis: Axes, spectrum: _Spectrum) -> None:
    blocks, rank = spectrum.middle.shape
    index = np.arange(1, rank + 1)
    for block, colour in enumerate(depth_colours(blocks)):
        axis.fill_between(index, spectrum.low[block], spectrum.high[block], color=colour, alpha=0.12, linewidth=0)
        style = {"linewidth": 1.1, "marker": ".", "markersize": 4}
        axis.plot(index, spectrum.middle[block], color=colour, label=f"block {block + 1}", **style)  # type: ignore[arg-type]


def _depth_bar_matplotlib(figure: Figure, axes: list[Axes], blocks: int) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    scale = LinearSegmentedColormap.from_list("depth", list(DEPTH_SCALE))
    bar = figure.colorbar(ScalarMappable(Normalize(1, max(blocks, 2)), scale), ax=axes, aspect=30, pad=0.02)
    bar.ax.set_title("block ℓ", fontsize=9.5)
    bar.set_ticks(sorted({1, (1 + blocks) // 2, blocks}))
    bar.outline.set_visible(False)
