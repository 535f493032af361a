"""Dots in rows: each seed, mean and deviation where they belong, what is missing said."""

import math
import re

import numpy as np
import pytest
from figures import close, named

from resalign_utils import plotting

GROUPED = {
    "weight decay": {"0": {"trained": [1.0, 3.0], "no skip": [0.0, 0.5]}, "0.01": {"trained": [4.0, math.nan]}},
    "depth": {"0": {"trained": [math.nan] * 2, "no skip": [0.25, 0.25]}, "16": {"no skip": [math.nan]}},
}


def draw(values=GROUPED, **options):
    return plotting.condition_dots(values, **({"x_label": "alignment"} | options))


def places(figure):
    """Name of each row and heading → its height."""
    axis = figure.layout.yaxis
    return list(zip(axis.ticktext, axis.tickvals, strict=True))


def test_headings_stand_above_their_rows_from_top_to_bottom():
    figure = draw()
    rows = [
        "<b>weight decay</b>",
        "0",
        "0.01 (1 without value)",
        "<b>depth</b>",
        "0 (2 without value)",
        "16 (no value)",
    ]
    assert places(figure) == [(text, place) for place, text in enumerate(rows)]
    assert figure.layout.yaxis.range[0] > 5 > 0 > figure.layout.yaxis.range[1]


def pixels_of_a_row(figure):
    """As the browser draws them: what the margins, axis, note and legend leave."""
    low, high = figure.layout.yaxis.range
    return (figure.layout.height - 155) / (low - high)


def contrast(colour, ground="#ffffff"):
    """WCAG's, of an opaque colour."""
    lights = []
    for one in (colour, ground):
        parts = [int(one[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        lights.append(np.dot(linear, [0.2126, 0.7152, 0.0722]) + 0.05)
    return max(lights) / min(lights)


@pytest.mark.parametrize("values", [GROUPED, {"a": [1.0, 2.0]}])
def test_rings_of_seeds_are_seen_and_touch_neither_their_mean_nor_another_series(values):
    figure = draw(values)
    rings = [trace for trace in figure.data if "one seed" in trace.name]
    for trace in rings:
        outline = trace.marker.line
        assert contrast(outline.color) > 3
        assert len({outline.color[i : i + 2] for i in (1, 3, 5)}) == 1, "only a pure grey is turned over in the dark"
        assert outline.width >= 1
    places = sorted({float(y) for trace in figure.data for y in trace.y})
    assert min(np.diff(places)) * pixels_of_a_row(figure) > 9
    assert len({trace.marker.color for trace in rings}) == len(rings)  # tints of their own


def test_means_have_bars_of_one_deviation_and_seeds_stand_beside():
    figure = draw()
    means = named(figure, "trained")
    close(means.x, [2, 4])
    close(means.error_x.array, [1, 0])  # ddof = 0
    close(means.error_x.arrayminus, [1, 0])
    assert means.text[0] == "trained, 0<br>alignment: 2\u00a0±\u00a01<br>seeds: 2"
    assert means.text[1].endswith("<br>seeds: 1")
    seeds = named(figure, "trained, one seed")
    close(seeds.x, [1, 3, 4, math.nan])
    below = np.asarray(seeds.y) - np.repeat(means.y, 2)
    assert (below * pixels_of_a_row(figure) > 9).all(), "a ring of radius 4 lies on its mean of radius 5"
    assert (np.round(means.y) == [1, 2]).all()
    assert (means.y < named(figure, "no skip").y[0]).any()  # series stand apart within a row
    assert len({*means.y[:1], *named(figure, "no skip").y[:1]}) == 2


def test_series_have_the_colour_of_their_condition_and_one_without_name_that_of_trained():
    figure = draw()
    for name in ("trained", "no skip"):
        assert named(figure, name).marker.color == named(figure, name).error_x.color == plotting.CONDITION_COLOURS[name]
    single = draw({"a": [1.0, 2.0], "b": [3.0]})
    assert named(single, "mean").marker.color == plotting.CONDITION_COLOURS["trained"]
    close(named(single, "mean").y, [0, 1])  # and stand on the row's line
    assert places(single) == [("a", 0), ("b", 1)]


def test_a_row_without_any_value_is_left_empty():
    figure = draw({"a": [math.nan], "b": [1.0]})
    assert places(figure) == [("a (no value)", 0), ("b", 1)]
    close(named(figure, "mean").y, [1])
    assert not draw({"a": [math.nan]}).data


def test_references_are_vertical_lines_with_their_value_in_the_legend():
    figure = draw(reference={"baseline": 0.5, "null": -0.25})
    baseline, null = figure.layout.shapes
    assert (baseline.name, null.name) == ("baseline: 0.5", "null: −0.25")
    assert (baseline.x0, baseline.x1, baseline.showlegend) == (0.5, 0.5, True)
    assert baseline.line.dash != null.line.dash
    assert not [note.text for note in figure.layout.annotations if note.text.strip()]


def test_on_a_logarithmic_axis_mean_and_bar_are_geometric():
    figure = draw({"a": [0.01, 1.0]}, log_x=True, reference={"bound": 0.02})
    close(named(figure, "mean").x, [0.1])
    close(named(figure, "mean").error_x.array, [0.9])
    close(named(figure, "mean").error_x.arrayminus, [0.09])
    assert figure.layout.xaxis.type == "log"


def test_what_cannot_be_drawn_is_refused():
    def refused(text, values, **options):
        with pytest.raises(ValueError, match=re.escape(text)):
            draw(values, **options)

    refused("condition_dots: expected a mapping group → row → (seeds,)", {})
    refused("group 'b' must map rows to values; got [1.0]", {"a": {"r": [1.0]}, "b": [1.0]})
    refused("group 'b' must map rows to values; got {}", {"a": {"r": [1.0]}, "b": {}})
    refused("row 'r' must have shape (seeds,); got (2, 1). One number a seed.", {"r": [[1.0], [2.0]]})
    refused("row 'r', series 's' must have shape (seeds,); got (0,)", {"a": {"r": {"s": []}}})
    refused("row 'r' has no series", {"a": {"r": {}}})
    text = "values ≤ 0 cannot be shown on a logarithmic axis. Leave them out."
    refused(text, {"a": [0.0]}, log_x=True)
    refused(text, {"a": [1.0]}, log_x=True, reference={"null": 0.0})


GAINS = {"with − without": ([1.0, 3.0, 2.0], 2.0, -0.5, 4.5), "half − without": ([0.0, 1.0], 0.5, 0.25, 0.75)}


def test_differences_stand_with_their_intervals_against_zero():
    figure = plotting.difference_dots(GAINS, x_label="gain")
    assert figure.layout.yaxis.ticktext == (*GAINS,)
    assert figure.layout.yaxis.range[0] > 1 > 0 > figure.layout.yaxis.range[1]
    means, seeds = named(figure, "mean, 95 % interval"), named(figure, "one seed")
    close(means.x, [2, 0.5])
    close(means.y, [0, 1])
    close(means.error_x.array, [2.5, 0.25])
    close(means.error_x.arrayminus, [2.5, 0.25])
    close(seeds.x, [1, 3, 2, 0, 1])
    close([round(y) for y in seeds.y], [0, 0, 0, 1, 1])
    assert all(abs(y - round(y)) > 0.2 for y in seeds.y)  # beside the interval, not on it
    assert (seeds.marker.symbol, means.marker.symbol) == ("circle-open", None)
    assert seeds.marker.color != means.marker.color
    assert False not in (seeds.showlegend, means.showlegend)  # both are named in the legend
    assert [shape.x0 for shape in figure.layout.shapes] == [0]
    assert means.text[0] == "with − without<br>gain: 2<br>from −0.5 to 4.5"


def test_the_legend_says_what_the_bars_are():
    figure = plotting.difference_dots(GAINS, x_label="gain", interval="joint 95 % interval")
    assert named(figure, "mean, joint 95 % interval").x[0] == 2


def test_differences_that_cannot_be_drawn_are_refused():
    for text, values in {
        "expected a mapping row → ((seeds,), mean, low, high)": {},
        "row 'a' must be ((seeds,), mean, low, high); got 1.0": {"a": 1.0},
        "row 'a' needs finite differences (seeds,); got (0,)": {"a": ([], 0, 0, 0)},
        "row 'a' needs low ≤ mean ≤ high; got 1.0, 0.0, 2.0": {"a": ([0.0], 0, 1, 2)},
    }.items():
        with pytest.raises(ValueError, match=re.escape(text)):
            plotting.difference_dots(values, x_label="gain")


def test_small_dots_are_called_what_they_are():
    figure = draw({"a": [1.0, 2.0]}, repeat="input")
    close(named(figure, "one input").x, [1, 2])
    assert named(figure, "mean").text[0].endswith("<br>inputs: 2")
    words = figure.layout.legend.title.text.replace("<br>", " ")
    assert words == "filled: mean ± 1 sd over inputs, ring below it: one input"
