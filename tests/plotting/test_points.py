"""Dots of networks: each where it belongs, panels alike, marks named once."""

import numpy as np
import pytest
from figures import DOTS, draw, named

from resalign_utils import plotting

LABELS = {"x_label": "s", "y_label": "alignment"}


def test_each_dot_is_where_its_numbers_are():
    figure = draw("points")
    x, y = DOTS["a"]["no skip"]
    trace = named(figure, "no skip")
    assert np.allclose(trace.x, x)
    assert np.allclose(trace.y, y)
    assert sum(len(trace.x) for trace in figure.data) == 9


def test_panels_have_one_range_and_a_group_looks_alike_and_is_named_once():
    both = {"fitted": {"skips": ([1, 2], [0.1, 0.9])}, "tested": {"skips": ([5], [0.5])}}
    figure = plotting.point_panels(both, **LABELS)
    first, second = figure.data
    assert first.marker == second.marker
    assert [first.showlegend, second.showlegend] == [True, False]
    assert figure.layout.yaxis.range == figure.layout.yaxis2.range
    assert figure.layout.xaxis2.matches == "x"
    low, high = figure.layout.yaxis.range
    assert low < 0.1 < 0.9 < high


def test_marks_are_drawn_in_each_panel_and_named_with_their_value_once():
    shapes = draw("points").layout.shapes
    assert [shape.name for shape in shapes].count("limit: 2") == 2
    assert [shape.showlegend for shape in shapes if shape.name == "aligned: 0.5"] == [True, False]


@pytest.mark.parametrize(
    ("pair", "options", "text"),
    [
        (([1, 2], [1]), {}, r"needs x \(n,\) and y \(n,\); got \(2,\) and \(1,\)"),
        (([], []), {}, r"got \(0,\)"),
        (([1.0], [np.nan]), {}, "must be finite"),
        (([0.0], [1.0]), {"log_x": True}, "x > 0 for the logarithmic axis"),
    ],
)
def test_points_that_cannot_be_drawn_are_refused(pair, options, text):
    with pytest.raises(ValueError, match=text):
        plotting.point_panels({"a": {"b": pair}}, **LABELS, **options)


def test_a_panel_without_groups_is_refused():
    with pytest.raises(ValueError, match="groups in panel 'a'"):
        plotting.point_panels({"a": {}}, **LABELS)
