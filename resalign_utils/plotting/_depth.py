"""Top singular values from block to block, and from network to network: points, deviations and fitted lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..formatting import format_mean_sd, format_number
from ._colours import condition_styles
from ._curves import said
from ._inputs import Array, Line, Numbers, as_panels, check_series, small
from ._theme import add_note, log_axis, side_by_side, wrapped

if TYPE_CHECKING:
    import plotly.graph_objects as go


def inverse_singular_values(
    panels: Mapping[str, Tensor], *, fits: Mapping[str, tuple[float, float, float]] | None = None, height: int = 460
) -> go.Figure:
    """Draw 1/σ₁ against the block index ℓ: mean over inputs, bars of one standard deviation, and straight-line fits.

    A block that is dead (σ₁ = 0) at an input is left out there; how many were stands in the legend.

    Args:
        panels: name → σ₁ (n, L), ``report.singular_values[..., 0]``; L may differ.
        fits: name → (slope, intercept, r2), ``report.depth_fit``; for any of the panels.
        height: of the figure in pixels.

    Raises:
        ValueError: shapes that do not fit, or a fit without a panel.
    """
    what, fix = "inverse_singular_values", "Pass report.singular_values[..., 0]."
    arrays = as_panels(panels, lambda s: len(s) == 2, what=what, expected="(n, L)", fix=fix)
    with np.errstate(divide="ignore"):  # infinite where dead, and left out
        lines = {name: Line(np.arange(1.0, array.shape[1] + 1), 1 / array) for name, array in arrays.items()}
    texts, fitted = dict.fromkeys(lines, ""), {}
    for name, (slope, intercept, r2) in _known_fits(fits, lines, what, "(slope, intercept, r2)").items():
        fitted[name] = lines[name].x * slope + intercept
        sign, size = "+" if slope >= 0 else "−", format_number(abs(slope))
        texts[name] = f": 1/σ₁ = {format_number(intercept)} {sign} {size} ℓ, R² = {format_number(r2)}"
    for name, line in lines.items():
        if line.left_out.any():
            texts[name] += f", {line.left_out.sum():,} of {arrays[name].size:,} dead left out"
    figure = _draw(lines, fitted, texts, ("block ℓ", "1/σ₁"), height)
    add_note(figure, "mean ± 1 sd over inputs")
    return figure


def depth_law(
    points: Mapping[str, tuple[Sequence[int], Numbers]],
    *,
    fits: Mapping[str, tuple[float, float]] | None = None,
    height: int = 420,
) -> go.Figure:
    """Draw the mean σ₁ of networks against their number of blocks, log–log, with bars of one deviation over seeds.

    Args:
        points: name → (numbers of blocks, mean σ₁ (seeds, numbers) or (numbers,)), all positive.
        fits: name → (slope, its standard error) of log σ₁ on log L; drawn through the points' logarithmic centre,
            where every least-squares line goes.
        height: of the figure in pixels.

    Raises:
        ValueError: shapes that do not fit, values that are not positive, or a fit without points.
    """
    check_series(points, what="depth_law", log_x=True, log_y=True)
    lines = check_series(points, what="depth_law")
    texts, fitted = dict.fromkeys(lines, ""), {}
    for name, fit in _known_fits(fits, lines, "depth_law", "(slope, standard error)").items():
        x, y = np.log(lines[name].x), np.log(lines[name].mean)
        fitted[name] = np.exp(np.nanmean(y) + fit[0] * (x - x[np.isfinite(y)].mean()))
        texts[name] = f": slope {format_mean_sd(*fit)} s.e."
    figure = _draw(lines, fitted, texts, ("number of blocks L", "mean σ₁"), height)
    numbers = sorted({float(x) for line in lines.values() for x in line.x})
    figure.update_xaxes(type="log", tickvals=numbers, ticktext=[format_number(number) for number in numbers])
    figure.update_yaxes(**log_axis(line.mean for line in lines.values()))
    add_note(figure, "mean ± 1 sd over seeds" if any(line.repeats > 1 for line in lines.values()) else "")
    return figure


def _known_fits(fits: Any, names: Mapping[str, Line], what: str, expected: str) -> dict[str, tuple[float, ...]]:
    found = {str(name): tuple(float(part) for part in fit) for name, fit in (fits or {}).items()}
    for name, fit in found.items():
        if name not in names or len(fit) != expected.count(",") + 1:
            raise ValueError(f"{what}: fits must map one of {list(names)} to {expected}; got {name!r}: {fit}.")
    return found


def _draw(
    lines: Mapping[str, Line],
    fitted: Mapping[str, Array],
    texts: Mapping[str, str],
    labels: tuple[str, str],
    height: int,
) -> go.Figure:
    import plotly.graph_objects as go

    figure = side_by_side([""], height=height)
    for name, style in condition_styles(lines).items():
        line = lines[name]
        points = go.Scatter(
            x=small(line.x),
            y=small(line.mean),
            error_y={"array": small(line.sd), "thickness": 1.2, "width": 3, "visible": line.repeats > 1},
            name=wrapped(name + texts[name], 44),
            legendgroup=name,
            mode="markers",
            marker={"color": style.colour, "symbol": style.marker, "size": 8},
            customdata=said(line),
            hovertemplate=f"{name}<br>{labels[0]} = %{{x}}<br>{labels[1]}: %{{customdata}}<extra></extra>",
        )
        figure.add_trace(points)
        if name in fitted:
            look = {"mode": "lines", "line": {"color": style.colour, "dash": style.dash, "width": 1.5}}
            law = go.Scatter(x=small(line.x), y=small(fitted[name]), name=f"{name}, fit", legendgroup=name, **look)
            figure.add_trace(law.update(showlegend=False, hoverinfo="skip"))
    figure.update_xaxes(title_text=labels[0])
    figure.update_yaxes(title_text=labels[1])
    return figure.update_layout(legend={"orientation": "v", "xref": "paper"})  # "container" would put it at the side
