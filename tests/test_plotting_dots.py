"""Dots in rows: each seed, mean and deviation where they belong, what is missing said."""

import math
import re

import numpy as np
import pytest
from matplotlib.colors import to_hex

from resalign_utils import plotting
from resalign_utils.plotting import _palette

GROUPED = {
    "weight decay": {"0": {"trained": [1.0, 3.0], "no skip": [0.0, 0.5]}, "0.01": {"trained": [4.0, math.nan]}},
    "depth": {"0": {"trained": [math.nan] * 2, "no skip": [0.25, 0.25]}, "16": {"no skip": [math.nan]}},
}
NULLS = {"weight decay": {"0": -0.5}, "depth": {"16": 0.125}}


def draw(values=GROUPED, **options):
    return plotting.condition_dots(values, **({"x_label": "alignment"} | options))


def named(figure, name):
    (trace,) = [trace for trace in figure.data if trace.name == name]
    return trace


def places(figure):
    """Name of each row and heading → its height."""
    axis = figure.layout.yaxis
    return list(zip(axis.ticktext, axis.tickvals, strict=True))


def close(drawn, given):
    np.testing.assert_allclose(np.asarray(drawn, dtype=float), np.asarray(given, dtype=float), rtol=1e-5, atol=1e-6)


def test_headings_stand_above_their_rows_from_top_to_bottom():
    figure = draw()
    rows = ["<b>weight decay</b>", "0", "0.01 (1 without value)", "<b>depth</b>", "0", "16"]
    assert places(figure) == [(text, place) for place, text in enumerate(rows)]
    assert figure.layout.yaxis.range[0] > 5 > 0 > figure.layout.yaxis.range[1]
    static = draw(backend="matplotlib").axes[0]
    assert [text.get_text() for text in static.get_yticklabels()] == [re.sub("</?b>", "", row) for row in rows]
    assert [text.get_fontweight() for text in static.get_yticklabels()][::3] == ["bold", "bold"]
    assert static.get_ylim()[0] > static.get_ylim()[1]


def test_means_have_bars_of_one_deviation_and_seeds_stand_beside():
    figure = draw()
    means = named(figure, "trained")
    close(means.x, [2, 4])
    close(means.error_x.array, [1, 0])  # ddof = 0
    close(means.error_x.arrayminus, [1, 0])
    assert "mean 2<br>±1 sd over 2 seeds: 1 … 3" in means.text[0]
    assert "over 1 of 2 seeds" in means.text[1]
    seeds = named(figure, "trained, one seed")
    close(seeds.x, [1, 3, 4, math.nan])
    close(seeds.y, np.repeat(means.y, 2))
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


def test_a_row_without_value_says_so():
    notes = {note.y: note.text for note in draw().layout.annotations if note.text.strip()}
    assert notes.pop(5) == "no value"
    ((place, text),) = notes.items()
    assert text == "trained: no value"
    assert round(place) == 4
    static = draw(backend="matplotlib").axes[0]
    assert sorted(text.get_text() for text in static.texts) == ["no value", "trained: no value"]
    nothing = draw({"a": [math.nan]}, backend="matplotlib")
    nothing.draw_without_rendering()
    assert [text.get_text() for text in nothing.axes[0].texts] == ["no value"]
    assert len(draw({"a": [math.nan]}).layout.annotations) == 2  # with the empty title


def test_references_are_vertical_lines_with_their_value():
    figure = draw(reference={"baseline": 0.5, "null": -0.25})
    baseline, null = named(figure, "baseline: 0.5"), named(figure, "null: −0.25")
    assert list(baseline.x) == [0.5, 0.5]
    assert baseline.line.dash != null.line.dash
    low, high = figure.layout.xaxis.range
    assert low < -0.25
    assert high > 4
    static = draw(reference={"baseline": 0.5, "null": -9.0}, backend="matplotlib")
    assert {"baseline: 0.5", "null: −9"} <= {text.get_text() for text in static.legends[0].get_texts()}
    assert static.axes[0].get_xlim()[0] < -9


def test_untrained_values_are_hollow_squares_in_their_rows():
    hollow = named(draw(untrained=NULLS), "untrained")
    close(hollow.x, [-0.5, 0.125])
    close(hollow.y, [1, 5])
    assert hollow.marker.symbol == "square-open"
    assert hollow.marker.color == plotting.CONDITION_COLOURS["untrained"]
    static = draw(untrained=NULLS, backend="matplotlib").axes[0]
    (line,) = [line for line in static.lines if line.get_label() == "untrained"]
    close(line.get_xdata(), [-0.5, 0.125])
    assert line.get_markerfacecolor() == "none"
    close(named(draw({"a": [1.0], "b": [2.0]}, untrained={"b": 0.5}), "untrained").y, [1])


def test_on_a_logarithmic_axis_mean_and_bar_are_geometric():
    figure = draw({"a": [0.01, 1.0]}, log_x=True, reference={"bound": 0.02})
    close(named(figure, "mean").x, [0.1])
    close(named(figure, "mean").error_x.array, [0.9])
    close(named(figure, "mean").error_x.arrayminus, [0.09])
    low, high = figure.layout.xaxis.range
    assert low < -2 < 0 < high
    static = draw({"a": [0.01, 1.0]}, log_x=True, backend="matplotlib").axes[0]
    assert static.get_xscale() == "log"
    assert static.get_xlim()[0] < 0.01


def test_matplotlib_draws_the_same():
    figure, axis = draw(), draw(backend="matplotlib").axes[0]
    bars = dict(zip(("trained", "no skip"), axis.containers, strict=True))
    for name, container in bars.items():
        line = container.lines[0]
        close(line.get_xdata(), named(figure, name).x)
        close(line.get_ydata(), named(figure, name).y)
        assert to_hex(line.get_color()) == _palette.CONDITION_COLOURS[name].lower()
        ends = np.array([segment[:, 0] for segment in container.lines[2][0].get_segments()])
        close(np.diff(ends, axis=1)[:, 0], 2 * np.array(named(figure, name).error_x.array))


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
    text = "untrained names (group, row) ('', 'c'), which values does not have. Nest it as values"
    refused(text, {"a": [1.0]}, untrained={"c": 1.0})
    text = "values ≤ 0 cannot be shown on a logarithmic axis. Leave them out."
    refused(text, {"a": [0.0]}, log_x=True)
    refused(text, {"a": [1.0]}, log_x=True, reference={"null": 0.0})
    refused(text, {"a": [1.0]}, log_x=True, untrained={"a": -1.0})
    refused("backend must be one of", {"a": [1.0]}, backend="bokeh")
