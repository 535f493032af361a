"""Grids of units, full where they are nonlinear, and paths whose length is counted, not written by hand."""

import numpy as np
import pytest
from figures import close

from resalign_utils.plotting import unit_paths

UNITS = {
    "channel-wise": [[1, 0], [0, 1], [1, 1], [0, 0]],
    "layer-wise": np.array([[1, 1], [0, 0], [1, 1], [0, 0]], dtype=bool),
}
PATHS = {"channel-wise": [[1, 0, 0, 0], [0, 1, 1, 1]], "layer-wise": [[0, 1, 0, 1]]}


def drawn(figure, axis, mode):
    return [trace for trace in figure.data if trace.xaxis == axis and trace.mode == mode]


def test_titles_say_which_lengths_there_are_and_their_mean():
    written = [note.text for note in unit_paths(UNITS, PATHS).layout.annotations]
    assert max(len(line) for title in written for line in title.split("<br>")) < 36, "of two panels, and is cut"
    titles = [title.replace("<br>", " ") for title in written]
    assert titles[0] == "channel-wise: paths of length 1 to 3, mean 2"
    assert titles[1] == "layer-wise: all paths of length 2, mean 2"


def test_nonlinear_units_are_full_and_linear_ones_empty():
    nonlinear, linear = drawn(unit_paths(UNITS, PATHS), "x", "markers")
    close(np.stack([nonlinear.x, nonlinear.y], 1), [[1, 1], [2, 2], [3, 1], [3, 2]])
    close(np.stack([linear.x, linear.y], 1), [[1, 2], [2, 1], [4, 1], [4, 2]])
    assert linear.marker.color == "#ffffff" != nonlinear.marker.color


def test_a_path_ends_with_the_number_of_nonlinear_units_on_it():
    figure = unit_paths(UNITS, PATHS)
    assert [line.text[-1] for line in drawn(figure, "x", "lines+text")] == ["1", "3"]
    (line,) = drawn(figure, "x2", "lines+text")
    assert line.text[-1] == "2"
    close(line.y, [1, 2, 1, 2, np.nan, 2])  # the gap keeps a dash from being read as a minus sign
    assert len({line.line.dash for line in drawn(figure, "x", "lines+text")}) == 2


@pytest.mark.parametrize(
    ("units", "paths", "text"),
    [
        ({}, {}, "expected a mapping name"),
        ({"a": [1, 0]}, {}, "'a' must be \\(L, channels\\) of 0 and 1"),
        ({"a": [[1, 0.5]]}, {}, "'a' must be"),
        ({"a": [[1, 0]]}, {"a": [[2]]}, "a path of 'a' must be one channel from 0 to 1 in each of 1 layers"),
        ({"a": [[1, 0]]}, {"a": [[0, 0]]}, "a path of 'a' must be"),
    ],
)
def test_what_cannot_be_drawn_is_refused(units, paths, text):
    with pytest.raises(ValueError, match=text):
        unit_paths(units, paths)
