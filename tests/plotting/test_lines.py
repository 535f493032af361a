"""Lines, points, spectra and bars: means, deviations and fits as given; what is left out is said."""

import math
import re

import numpy as np
import pytest
import torch
from figures import FITS, LAW, LINES, TOPS, close, draw, named, note, sigmas

from resalign_utils import plotting

MINUS, PM = "−", "\u00a0±\u00a0"


def refused(text, function, *arguments, **options):
    with pytest.raises(ValueError, match=re.escape(text)):
        function(*arguments, **options)


# ---- curves and bars


def test_curves_are_means_with_a_band_of_one_deviation():
    figure = draw("curves")
    values = LINES["trained"][1]
    mean, sd = values.mean(0), values.std(0, correction=0)
    line = named(figure, "trained")
    close(line.x, [1, 2, 3])
    close(line.y, mean)
    close([float(text.split(PM)[0]) for text in line.customdata], [f"{value:.2f}" for value in mean], atol=0.1)
    close(named(figure, "trained, band").y, torch.cat([mean + sd, (mean - sd).flip(0)]))
    close(named(figure, "loss").y, [3, math.nan, 1])
    assert list(named(figure, "loss").customdata) == ["3", "–", "1"]
    assert note(figure) == "line: mean, band: ±1 sd over 4 seeds"
    mixed = {"a": ([1], [[1.0], [2.0]]), "b": ([1], [[1.0], [2.0], [3.0]]), "c": ([1], [1.0])}
    figure = plotting.curves(mixed, x_label="x", y_label="y", band="inputs")
    assert note(figure) == "line: mean, band: ±1 sd over 2 or 3 inputs"


def test_a_reference_is_a_line_named_in_the_legend_not_on_the_curves():
    (level,) = draw("curves").layout.shapes
    assert level.y0 == level.y1 == 0.5
    assert (level.line.dash, level.name, level.showlegend) == ("dash", "null: 0.5", True)
    assert not draw("curves").layout.annotations


def test_repeats_that_are_nan_do_not_count():
    values = torch.tensor([[1.0, 2.0, math.nan], [3.0, math.nan, math.nan]])
    figure = plotting.curves({"a": ([1, 2, 3], values)}, x_label="x", y_label="y")
    close(named(figure, "a").y, [2, 2, math.nan])
    assert np.isfinite(named(figure, "a, band").y).all()


def test_on_a_logarithmic_axis_mean_and_band_are_geometric():
    given = {"a": ([1, 10], torch.tensor([[1.0, 4.0], [100.0, 4.0]]))}
    figure = plotting.curves(given, x_label="x", y_label="y", log_x=True, log_y=True)
    close(figure.data[1].y, [10, 4])
    close(figure.data[0].y, [100, 4, 4, 1])
    assert figure.data[1].customdata[0] == "10 (±1 sd: 1 … 100)"
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"


def test_curve_panels_have_their_own_axis_and_one_legend():
    panels = {
        "loss": {"train": ([1, 2], [3.0, 1.0])},
        "accuracy": {"train": ([1, 2], [0.1, 0.9]), "test": ([1], [0.5])},
    }
    figure = plotting.curve_panels(panels, x_label="epoch", reference={"accuracy": {"chance": 0.1}})
    assert [title.text for title in figure.layout.annotations] == ["loss", "accuracy"]
    assert [(trace.name, trace.yaxis, trace.showlegend) for trace in figure.data] == [
        ("train", "y", True),
        ("train", "y2", False),
        ("test", "y2", True),
    ]
    assert figure.data[0].line.color == figure.data[1].line.color != figure.data[2].line.color
    assert "accuracy" in figure.data[1].hovertemplate
    assert figure.layout.shapes[0].yref == "y2"
    both = plotting.curve_panels(panels, x_label="epoch", reference={label: {"null": 0.0} for label in panels})
    assert [shape.showlegend for shape in both.layout.shapes] == [True, False]  # one entry for one thing
    long = plotting.curve_panels({"a word " * 20: panels["loss"], "b": panels["loss"]}, x_label="epoch")
    assert long.layout.annotations[0].text.count("<br>") >= 2  # no title runs into the next one


def test_bars_have_the_heights_given():
    given = {"a": ([0, 1, 2], [1.0, 2.0, 1.0]), "b": ([0, 1, 2], torch.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]))}
    figure = plotting.bars(given, x_label="length", y_label="share")
    close(named(figure, "a").y, [1, 2, 1])
    close(named(figure, "b").error_y.array, [1, math.nan, 1])  # no whisker that would be a dot
    assert named(figure, "a").error_y.array is None
    assert figure.layout.barmode == "group"


def test_bars_that_do_not_meet_stand_on_their_ticks():
    apart = {"a": ([0, 1, 2], [0.5, 0.5, 1e-5]), "b": ([0, 1, 2], [0.0, 0.0, 1.0])}
    assert plotting.bars(apart, x_label="length", y_label="share").layout.barmode == "overlay"


def test_series_that_do_not_fit_are_refused():
    options = {"x_label": "x", "y_label": "y"}
    text = "series 'a' needs x (t,) and y (t,) or (repeats, t); got (2,) and (2, 3). Transpose y"
    refused(text, plotting.curves, {"a": ([1, 2], torch.zeros(2, 3))}, **options)
    refused("bars: series 'a' must be a pair (x, y); got [1, 2, 3]", plotting.bars, {"a": [1, 2, 3]}, **options)
    text = "series 'a' has values ≤ 0, which a logarithmic axis cannot show. Leave them out."
    refused(text, plotting.curves, {"a": ([0, 1], [1, 1])}, **options, log_x=True)
    refused(text, plotting.curves, {"a": ([1, 1], [0, 1])}, **options, log_y=True)
    refused("depth_law: " + text, plotting.depth_law, {"a": ([4], [0.0])})
    panels = {"a": {"s": ([1], [1])}}
    text = "reference names ['b']; the panels are ['a']"
    refused(text, plotting.curve_panels, panels, x_label="", reference={"b": {}})


# ---- singular values


def test_spectra_are_medians_and_quartiles_of_each_block():
    given = sigmas()["trained"]
    figure = plotting.spectra({"trained": given}, 3)
    shown = given / given[..., :1]
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    for block, colour in enumerate(plotting.depth_colours(4)):
        trace = named(figure, f"block {block + 1}")
        close(trace.x, np.arange(1, 7))
        close(trace.y, np.median(shown[:, block], axis=0))
        low, high = np.percentile(shown[:, block], [25, 75], axis=0)
        close(bands[block].y, [*high, *low[::-1]])
        assert trace.line.color == colour
        assert "(quartiles 1 … 1)" in trace.customdata[0]
    (mark,) = figure.layout.shapes
    assert mark.x0 == mark.x1 == 3.5
    assert (mark.name, mark.showlegend) == ("C = 3", True)
    assert figure.layout.yaxis.type == "log"
    assert [shape.showlegend for shape in draw("spectra").layout.shapes] == [True, False, False]


def test_small_and_dead_singular_values_are_clipped_left_out_and_said():
    values = sigmas()["trained"]
    values[:, 0, 4:] = 1e-9
    values[0, 1] = 0  # one input's second block is dead
    values[:, 2] = 0  # the third block is dead for all
    figure = plotting.spectra({"a": values}, 3)
    first, second, third = (named(figure, f"block {block}") for block in (1, 2, 3))
    close(first.y[4:], [1e-6, 1e-6])
    close(second.y, np.median(values[1:, 1] / values[1:, 1, :1], axis=0))
    assert np.isnan(third.y).all()
    assert "values below 10⁻⁶ are drawn at 10⁻⁶" in note(figure)
    assert "a: 6 dead (input, block) pairs left out" in note(figure)
    plain = note(plotting.spectra({"a": sigmas()["trained"]}, 3))
    assert "10⁻⁶" not in plain
    assert "dead" not in plain


def test_inverse_singular_values_are_means_deviations_and_fits():
    figure = draw("inverse")
    points = {trace.legendgroup: trace for trace in figure.data if trace.mode == "markers"}
    for name, values in TOPS.items():
        close(points[name].x, [1, 2, 3, 4])
        close(points[name].y, (1 / values).mean(0))
        close(points[name].error_y.array, (1 / values).std(0, correction=0))
    fitted = {trace.legendgroup: trace for trace in figure.data if trace.mode == "lines"}
    assert set(fitted) == set(FITS)
    close(fitted["trained"].y, 1.25 * np.arange(1, 5) - 0.5)
    assert points["trained"].name == f"trained: 1/σ₁ = {MINUS}0.5 + 1.25 ℓ, R² = 0.99"
    assert points["no skip"].name == f"no skip: 1/σ₁ = 2 {MINUS} 0.03 ℓ, R² = 0.1"
    assert points["untrained"].name == "untrained"


def test_dead_blocks_are_left_out_and_counted():
    tops = TOPS["trained"].clone()
    tops[0, 1] = 0
    tops[:, 3] = 0
    trace = plotting.inverse_singular_values({"a": tops}).data[0]
    close(trace.y[1], (1 / tops[1:, 1]).mean())
    assert np.isnan(trace.y[3])
    assert trace.name == "a, 6 of 20 dead left out"


def test_depth_law_is_log_log_with_the_slope_through_the_centre():
    figure = draw("law")
    trained, line, wide = figure.data
    values = LAW["trained"][1]
    close(trained.x, [4, 8, 16])
    close(trained.y, values.mean(0))
    close(trained.error_y.array, values.std(0, correction=0))
    close(wide.y, [0.5, 0.25])
    assert trained.name == f"trained: slope {MINUS}1.02{PM}0.05 s.e."
    log_x, log_y = np.log(line.x), np.log(line.y)
    close(np.diff(log_y) / np.diff(log_x), [-1.02] * 2)
    close(log_y.mean(), np.log(trained.y).mean())
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"
    assert list(figure.layout.xaxis.ticktext) == ["4", "8", "16"]


def test_what_is_no_spectrum_or_fit_is_refused():
    flat = torch.zeros(6, 3)
    text = "spectra: panel 'a' must have shape (n, L, r); got (6, 3). report.singular_values"
    refused(text, plotting.spectra, {"a": flat}, 3)
    refused("num_classes must be at least 1; got 0", plotting.spectra, sigmas(), 0)
    text = "inverse_singular_values: panel 'a' must have shape (n, L); got (1, 6, 3). Pass report.singular_values"
    refused(text, plotting.inverse_singular_values, {"a": flat[None]})
    text = "fits must map one of ['a'] to (slope, intercept, r2); got 'b'"
    refused(text, plotting.inverse_singular_values, {"a": torch.ones(2, 3)}, fits={"b": (1, 2, 3)})
    refused("to (slope, standard error); got 'a': (1.0,)", plotting.depth_law, {"a": ([4], [1.0])}, fits={"a": (1,)})
