"""Top singular values from block to block, and from network to network: points, deviations and fitted lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from ._inputs import as_panels, as_series, small
from ._palette import condition_styles
from ._theme import Backend, draw, log_ticks, matplotlib_legend, matplotlib_panels, plotly_panels

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.figure import Figure


class _Points(NamedTuple):
    """Mean and standard deviation (ddof = 0) at each x, and how many were left out there."""

    x: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    left_out: np.ndarray
    of: int


def inverse_singular_values(
    panels: Mapping[str, Tensor],
    *,
    fits: Mapping[str, tuple[float, float, float]] | None = None,
    height: int | None = None,
    backend: Backend = "plotly",
) -> Any:
    """Draw 1/σ₁ against the block index ℓ: mean over inputs, bars of one standard deviation, and straight-line fits.

    A block that is dead (σ₁ = 0) at an input is left out there; how many were stands in the legend and the hover text.

    Args:
        panels: name → σ₁ (n, L), ``report.singular_values[..., 0]``; L may differ.
        fits: name → (slope, intercept, r2), ``report.depth_fit``; for any of the panels.
        height: of the figure in pixels.
        backend: ``"plotly"`` or ``"matplotlib"``.

    Raises:
        ValueError: shapes that do not fit, a fit without a panel, or an unknown backend.
    """
    arrays = as_panels(
        panels,
        lambda s: len(s) == 2,
        what="inverse_singular_values",
        expected="(n, L)",
        fix="Pass report.singular_values[..., 0].",
    )
    lines = _known_fits(fits, arrays, 3, "inverse_singular_values", "(slope, intercept, r2)")
    points = {name: _inverse(array) for name, array in arrays.items()}
    fitted = {name: points[name].x * slope + intercept for name, (slope, intercept, _) in lines.items()}
    texts = {name: _line_text(*lines[name]) for name in lines}
    return _draw_points(
        points, fitted, texts, ("block ℓ", "1/σ₁ (mean ± 1 sd over inputs)"), "inputs", False, height or 420, backend
    )


def depth_law(
    points: Mapping[str, tuple[Sequence[int], Tensor]],
    *,
    fits: Mapping[str, tuple[float, float]] | None = None,
    height: int | None = None,
    backend: Backend = "plotly",
) -> Any:
    """Draw the mean σ₁ of networks against their number of blocks, log–log, with bars of one deviation over seeds.

    Args:
        points: name → (numbers of blocks, mean σ₁ (seeds, numbers) or (numbers,)), all positive.
        fits: name → (slope, its standard error) of log σ₁ on log L; drawn through the points' logarithmic centre,
            where every least-squares line goes.
        height: of the figure in pixels.
        backend: ``"plotly"`` or ``"matplotlib"``.

    Raises:
        ValueError: shapes that do not fit, values that are not positive, a fit without points, or an unknown backend.
    """
    if not isinstance(points, Mapping) or not points:
        raise ValueError("depth_law: expected a mapping name → (numbers of blocks, mean σ₁) with at least one entry.")
    series = {str(name): as_series(str(name), pair, what="depth_law") for name, pair in points.items()}
    for name, (x, y) in series.items():
        if (x <= 0).any() or (y <= 0).any():
            raise ValueError(
                f"depth_law: {name!r} has values ≤ 0, which a logarithmic axis cannot show. Leave them out."
            )
    slopes = _known_fits(fits, series, 2, "depth_law", "(slope, standard error)")
    means = {name: _over_rows(x, y) for name, (x, y) in series.items()}
    fitted = {name: _power_law(means[name], slope) for name, (slope, _) in slopes.items()}
    texts = {name: _minus(f"slope {slope:.2f} ± {error:.2f} s.e.") for name, (slope, error) in slopes.items()}
    return _draw_points(
        means,
        fitted,
        texts,
        ("number of blocks L", "mean σ₁ (± 1 sd over seeds)"),
        "seeds",
        True,
        height or 420,
        backend,
    )


def _inverse(values: np.ndarray) -> _Points:
    with np.errstate(divide="ignore"):
        inverse = 1 / values  # infinite where dead
    return _over_rows(np.arange(1.0, values.shape[1] + 1), inverse)


def _over_rows(x: np.ndarray, y: np.ndarray) -> _Points:
    known = np.isfinite(y)
    count = known.sum(0)
    with np.errstate(invalid="ignore"):
        mean = np.where(known, y, 0).sum(0) / count
        sd = np.sqrt(np.where(known, (y - mean) ** 2, 0).sum(0) / count)
    return _Points(x, mean, sd, len(y) - count, len(y))


def _power_law(points: _Points, slope: float) -> np.ndarray:
    known = np.isfinite(points.mean)
    x, y = np.log(points.x[known]), np.log(points.mean[known])
    return np.exp(y.mean() + slope * (np.log(points.x) - x.mean()))


def _known_fits(fits: Any, names: Mapping[str, Any], size: int, what: str, expected: str) -> dict[str, tuple]:
    found = {str(name): tuple(float(part) for part in fit) for name, fit in (fits or {}).items()}
    for name, fit in found.items():
        if name not in names or len(fit) != size:
            raise ValueError(f"{what}: fits must map one of {list(names)} to {expected}; got {name!r}: {fit}.")
    return found


def _line_text(slope: float, intercept: float, r2: float) -> str:
    sign = "+" if slope >= 0 else "−"
    return _minus(f"1/σ₁ = {intercept:.2f} {sign} {abs(slope):.2f} ℓ, R² = {r2:.2f}")


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _draw_points(
    points: Mapping[str, _Points],
    fitted: Mapping[str, np.ndarray],
    texts: Mapping[str, str],
    labels: tuple[str, str],
    repeats: str,
    log: bool,
    height: int,
    backend: Backend,
) -> Any:
    names = {name: _points_name(name, points[name], texts.get(name)) for name in points}
    return draw(
        backend,
        lambda: _points_plotly(points, fitted, names, labels, repeats, log, height),
        lambda: _points_matplotlib(points, fitted, names, labels, log, height / 100),
    )


def _points_name(name: str, points: _Points, text: str | None) -> str:
    dead = f", {points.left_out.sum()} of {points.mean.size * points.of} dead left out"
    return (f"{name}: {text}" if text else name) + (dead if points.left_out.any() else "")


def _points_plotly(
    points: Mapping[str, _Points],
    fitted: Mapping[str, np.ndarray],
    names: Mapping[str, str],
    labels: tuple[str, str],
    repeats: str,
    log: bool,
    height: int,
) -> go.Figure:
    import plotly.graph_objects as go

    figure = plotly_panels([""], height=height)
    for (name, data), style in zip(points.items(), condition_styles(points).values(), strict=True):
        figure.add_trace(_marks(name, names[name], data, style, labels, repeats))
        if name in fitted:
            line = {"color": style["colour"], "dash": style["dash"][0], "width": 1.5}
            options = {"mode": "lines", "legendgroup": name, "showlegend": False, "hoverinfo": "skip", "line": line}
            figure.add_trace(go.Scatter(x=small(data.x), y=small(fitted[name]), name=f"{name}, fit", **options))
    figure.update_xaxes(title_text=labels[0])
    figure.update_yaxes(title_text=labels[1])
    if log:
        places, words = log_ticks(*(data.mean for data in points.values()))
        figure.update_xaxes(type="log", tickvals=_numbers(points))
        figure.update_yaxes(type="log", tickvals=places, ticktext=words)
    figure.update_layout(showlegend=True, legend={"orientation": "v"}, margin={"t": 20, "b": 55 + 30 * len(points)})
    return figure


def _marks(name: str, legend: str, data: _Points, style: Any, labels: tuple[str, str], repeats: str) -> Any:
    import plotly.graph_objects as go

    dead = f"<br>left out as dead: %{{customdata[1]}} of {data.of} {repeats}" if data.left_out.any() else ""
    return go.Scatter(
        x=small(data.x),
        y=small(data.mean),
        error_y={"array": small(data.sd), "thickness": 1.2, "width": 3},
        name=legend,
        legendgroup=name,
        mode="markers",
        marker={"color": style["colour"], "symbol": style["marker"][0], "size": 8},
        customdata=np.stack([data.sd, data.left_out], 1).astype(np.float32),
        hovertemplate=f"{name}<br>{labels[0]} = %{{x}}<br>{labels[1]}:<br>%{{y:.3g}} ± %{{customdata[0]:.2g}}"
        f"{dead}<extra></extra>",
    )


def _numbers(points: Mapping[str, _Points]) -> list[float]:
    return sorted({float(x) for data in points.values() for x in data.x})


def _points_matplotlib(
    points: Mapping[str, _Points],
    fitted: Mapping[str, np.ndarray],
    names: Mapping[str, str],
    labels: tuple[str, str],
    log: bool,
    height: float,
) -> Figure:
    figure, (axis,) = matplotlib_panels([""], height=height)
    for (name, data), style in zip(points.items(), condition_styles(points).values(), strict=True):
        look = {"color": style["colour"], "marker": style["marker"][1], "linestyle": "none"}
        axis.errorbar(data.x, data.mean, data.sd, label=names[name], **look)
        if name in fitted:
            axis.plot(data.x, fitted[name], color=style["colour"], linestyle=style["dash"][1], linewidth=1.3)
    axis.set(xlabel=labels[0], ylabel=labels[1])
    if log:
        axis.set(xscale="log", yscale="log")
        axis.set_xticks(_numbers(points), [f"{x:g}" for x in _numbers(points)])
        limits = axis.get_ylim()  # ticks outside would move them
        axis.set_yticks(*log_ticks(*(data.mean for data in points.values())))
        axis.set_ylim(limits)
        axis.minorticks_off()
    matplotlib_legend(figure, axis, columns=1)
    return figure
