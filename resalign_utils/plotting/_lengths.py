"""Laws of path lengths: one row each, over one axis of lengths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ._curves import Line, summarize
from ._inputs import as_array, small
from ._palette import INK, condition_styles
from ._theme import Backend, as_html, as_unicode, draw, matplotlib_panels, theme

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_X_LABEL = "path length (nonlinear units)"
_Y_LABEL = "share"


class _Law(NamedTuple):
    """One row: shares of the lengths 0, 1, ..., the mean length, and the row's title."""

    shares: Line
    mean: float
    title: str


def path_lengths(laws: Mapping[str, Any], *, height: int | None = None, backend: Backend = "plotly") -> Any:
    """Draw laws of path lengths as histograms in rows, each with its mean as a dotted line.

    All rows share the axis of lengths. Each has its own vertical scale, since the single length of a plain network
    would flatten the many of a residual one: compare places and shapes, and read heights from the ticks.

    Args:
        laws: name → law (max_length+1,), as :func:`resalign_utils.path_length_distribution` returns it; or name → a
            sequence of laws, one per seed and of any lengths, of which mean and deviation are drawn.
        height: of the figure in pixels; by default as the number of rows asks.
        backend: ``"plotly"`` or ``"matplotlib"``.

    Raises:
        ValueError: no law, one that is not a probability law on 0, 1, ..., or an unknown backend.
    """
    if not isinstance(laws, Mapping) or not laws:
        raise ValueError("path_lengths: expected a mapping name → law (max_length+1,) with at least one entry.")
    rows = {str(name): _law(str(name), law) for name, law in laws.items()}
    height = height or max(350, 95 + 75 * len(rows))
    return draw(backend, lambda: _plotly(rows, height), lambda: _matplotlib(rows, height / 100))


def _law(name: str, values: Any) -> _Law:
    several = isinstance(values, list | tuple) and len(values) > 0 and np.ndim(values[0]) > 0
    laws = [as_array(law) for law in values] if several else [*np.atleast_2d(as_array(values))]
    for law in laws:
        if law.ndim != 1 or not len(law) or not (law >= 0).all() or abs(law.sum() - 1) > 1e-3:
            raise ValueError(
                f"path_lengths: {name!r} must have probabilities of the lengths 0, 1, ..., which sum to 1; got shape "
                f"{law.shape} with sum {law.sum():.4g} and least value {law.min(initial=np.inf):.4g}. "
                "path_length_distribution(model) returns them."
            )
    longest = max(map(len, laws))
    stacked = np.stack([np.pad(law, (0, longest - len(law))) for law in laws])
    means = stacked @ np.arange(longest)
    text = f"{means.mean():.3g}" + (f" ± {means.std():.2g} ({len(laws)} seeds)" if len(laws) > 1 else "")
    return _Law(summarize(np.arange(longest), stacked, log=False), float(means.mean()), f"{name}: mean {text}")


def _spread(line: Line) -> np.ndarray | None:
    """Lengths of the error bars below and above, (2, t), if there are seeds: none where it would be a dot, none < 0."""
    if line.repeats == 1:
        return None
    above = np.where(line.high - line.mean > 0.01 * line.mean.max(), line.high - line.mean, np.nan)
    return np.stack([np.minimum(above, line.mean), above])


def _limits(rows: dict[str, _Law]) -> tuple[float, float]:
    return -0.6, max(law.shares.x[-1] for law in rows.values()) + 0.6


def _plotly(rows: dict[str, _Law], height: int) -> go.Figure:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    titles = [as_html(law.title) for law in rows.values()]
    gap = 0.36 / len(rows)  # of the height, so that a title fits between two rows
    figure = make_subplots(len(rows), 1, shared_xaxes=True, subplot_titles=titles, vertical_spacing=gap)
    figure.update_layout(template=theme(), height=height, showlegend=False, margin={"t": 30, "b": 50}, bargap=0.2)
    figure.update_annotations(font={"size": 13, "color": INK}, x=0, xanchor="left")
    for place, ((name, law), style) in enumerate(zip(rows.items(), condition_styles(rows).values(), strict=True), 1):
        spread = _spread(law.shares)
        bars = go.Bar(
            x=small(law.shares.x),
            y=small(law.shares.mean),
            name=name,
            error_y=None if spread is None else _whiskers(*spread),
            marker={"color": style["colour"]},
            hovertemplate=f"{as_html(name)}<br>length %{{x}}<br>share %{{y:.4g}}<extra></extra>",
        )
        figure.add_trace(bars, row=place, col=1)
        for look in ({"color": "#ffffff", "width": 3}, {"color": INK, "width": 1.2, "dash": "dot"}):
            figure.add_vline(x=law.mean, line=look, row=place, col=1)  # the white one keeps it visible on dark bars
    figure.update_xaxes(range=_limits(rows))
    figure.update_xaxes(title_text=_X_LABEL, row=len(rows), col=1)
    figure.update_yaxes(title_text=_Y_LABEL, nticks=_ticks(rows), rangemode="tozero")
    return figure


def _whiskers(below: np.ndarray, above: np.ndarray) -> dict[str, Any]:
    return {"array": small(above), "arrayminus": small(below), "symmetric": False, "thickness": 1.2, "width": 2}


def _ticks(rows: dict[str, _Law]) -> int:
    return 6 if len(rows) == 1 else 3


def _matplotlib(rows: dict[str, _Law], height: float) -> Figure:
    figure, axes = matplotlib_panels([""] * len(rows), height=height, rows=len(rows), sharex=True)
    for axis, law, style in zip(axes, rows.values(), condition_styles(rows).values(), strict=True):
        _row_matplotlib(axis, law, style["colour"])
        axis.locator_params(axis="y", nbins=_ticks(rows))
    axes[0].set_xlim(*_limits(rows))
    axes[0].locator_params(axis="x", integer=True)
    axes[-1].set_xlabel(_X_LABEL)
    return figure


def _row_matplotlib(axis: Axes, law: _Law, colour: str) -> None:
    spread: dict[str, Any] = {"yerr": _spread(law.shares), "error_kw": {"elinewidth": 0.9, "capsize": 1.5}}
    axis.bar(law.shares.x, law.shares.mean, 0.8, color=colour, **spread)
    axis.axvline(law.mean, color="white", linewidth=2.5)
    axis.axvline(law.mean, color=INK, linestyle=":", linewidth=1.2)
    axis.set_title(as_unicode(law.title), loc="left", fontsize=9.5)
    axis.set_ylabel(_Y_LABEL)
    axis.grid(visible=False, axis="x")
