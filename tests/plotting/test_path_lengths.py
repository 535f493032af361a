"""Laws of path lengths in rows: each law, its mean and its seeds where they belong."""

import re

import numpy as np
import pytest
import torch
from figures import close

from resalign_utils import ResNetConfig, build_model, path_length_distribution, plotting

BINOMIAL = torch.tensor([1.0, 5, 10, 10, 5, 1]) / 32
PLAIN = torch.eye(12)[11]
LAWS = {"trained": BINOMIAL, "no skip": PLAIN, "λ_1": [0.25, 0.75]}
SEEDS = {"trained": [torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.25, 0.0, 0.5])]}


def draw(laws=LAWS, **options):
    return plotting.path_lengths(laws, **options)


def means(figure):
    """Place of the dotted line of each row."""
    return [shape.x0 for shape in figure.layout.shapes if shape.line.dash == "dot"]


def titles(figure):
    return [note.text for note in figure.layout.annotations]


def test_each_law_has_a_row_of_its_own_over_one_axis():
    figure = draw()
    assert [trace.name for trace in figure.data] == ["trained", "no skip", "λ<sub>1</sub>"]
    for trace, law in zip(figure.data, LAWS.values(), strict=True):
        close(trace.y, law)
        close(trace.x, np.arange(len(law)))
    assert [trace.yaxis for trace in figure.data] == ["y", "y2", "y3"]
    tops = [axis.domain[0] for axis in figure.select_yaxes()]
    assert tops == sorted(tops, reverse=True)  # in the order of the mapping, from above
    assert {axis.range for axis in figure.select_xaxes()} == {(-0.6, 11.6)}
    assert {axis.matches for axis in figure.select_xaxes()} == {"x3", None}  # and they are zoomed together


def test_the_mean_is_marked_and_said():
    figure = draw()
    close(means(figure), [2.5, 11, 0.75])
    assert titles(figure) == ["trained: mean 2.5", "no skip: mean 11", "λ<sub>1</sub>: mean 0.75"]


def test_the_law_of_a_network_can_be_handed_over(pictures):
    law = path_length_distribution(build_model(ResNetConfig(5, 4), pictures))
    figure = draw({"residual": law})
    close(figure.data[0].y[6:], BINOMIAL)
    close(means(figure), [8.5])


def test_seeds_of_different_lengths_have_a_mean_and_whiskers_that_stay_above_zero():
    figure = draw(SEEDS)
    (bars,) = figure.data
    close(bars.y, [0.375, 0.375, 0, 0.25])
    close(bars.error_y.array, [0.125, 0.125, np.nan, 0.25])  # ddof = 0; no whisker where no path is
    close(bars.error_y.arrayminus, [0.125, 0.125, np.nan, 0.25])
    close(means(figure), [1.125])  # of 0.5 and 1.75
    assert titles(figure) == ["trained: mean 1.1\u00a0±\u00a00.6 (2 seeds)"]
    rare = [[0.99, 0.01], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]  # deviation 0.0043 around 0.0025
    assert np.isnan(draw({"a": rare}).data[0].error_y.array[1])
    skewed = [[0.4, 0.6], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]  # deviation 0.26 around 0.15
    close(draw({"a": skewed}).data[0].error_y.arrayminus[1], 0.15)
    assert draw({"a": torch.tensor(rare, dtype=torch.float64)}).to_json() == draw({"a": rare}).to_json()
    assert draw().data[0].error_y.array is None


def test_rows_have_the_colour_of_their_condition():
    assert draw().data[1].marker.color == plotting.CONDITION_COLOURS["no skip"]


def test_axes_are_named_and_the_height_grows_with_the_rows():
    six = {str(k): BINOMIAL for k in range(6)}
    figure = draw(six)
    assert [axis.title.text for axis in figure.select_xaxes()][-1] == "path length (nonlinear units)"
    assert {axis.title.text for axis in figure.select_yaxes()} == {"share"}
    assert 350 <= draw({"a": PLAIN}).layout.height <= figure.layout.height <= 550


@pytest.mark.parametrize(
    ("laws", "text"),
    [
        ({}, "path_lengths: expected a mapping name → law (max_length+1,) with at least one entry."),
        (PLAIN, "path_lengths: expected a mapping name → law"),
        (
            {"a": [2.0, 1.0]},
            "'a' must have probabilities of the lengths 0, 1, ..., which sum to 1; got shape (2,)",
        ),
        ({"a": [1.5, -0.5]}, "with sum 1 and least value -0.5. path_length_distribution(model) returns them."),
        ({"a": [float("nan"), 1.0]}, "'a' must have probabilities"),
        ({"a": []}, "got shape (0,) with sum 0"),
        ({"a": torch.ones(1, 1, 1)}, "got shape (1, 1) with sum 1"),
        ({"a": [[1.0], [0.5, 0.25]]}, "got shape (2,) with sum 0.75"),
    ],
)
def test_what_is_no_law_is_refused(laws, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        draw(laws)
