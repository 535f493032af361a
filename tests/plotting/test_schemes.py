"""Drawings, and figures with a slider: they say that nothing is measured, or show what they are given, step by step."""

import itertools
import json
import re

import numpy as np
import pytest
import torch
from figures import close

from resalign_utils import plotting
from resalign_utils.plotting._colours import GRID, INK

WALKS = {"skips": torch.linspace(0, 1, 5).expand(2, 5), "no skips": torch.tensor([[0.0, 0.5, 0.5, 0.5, 1.0]])}
MATRICES = {k: {"skips": k * torch.ones(4, 4) / 10, "no skips": torch.eye(4)} for k in (1, 5, 10)}
PAIR = {"shared frame": torch.ones(6, 6), "relay": torch.eye(6)}


def texts(figure):
    return [note.text for note in figure.layout.annotations]


# ---- the block


def test_the_block_is_drawn_and_says_so():
    figure = plotting.block_diagram()
    assert "drawn, not measured" in figure.layout.legend.title.text
    assert {"ReLU", "skip", "+"} <= set(texts(figure))
    assert "$" not in figure.to_json()
    assert '"#000' not in figure.to_json()


def test_what_is_linearised_leaves_the_skip_out():
    ways = {trace.name: trace for trace in plotting.block_diagram().data}
    skip, covered = ways["skip path: λ times the state"], ways["J: derivative of branch and outer activation"]
    assert len(set(skip.x)) == 1  # straight down
    middle = np.mean(skip.y)
    assert max(covered.x) > skip.x[0]
    steps = list(zip(covered.x, covered.y, strict=True))
    for (x0, y0), (x1, y1) in itertools.pairwise(steps):
        assert not (x0 == x1 == skip.x[0] and min(y0, y1) < middle < max(y0, y1))
    assert covered.line.width > 3 * skip.line.width


def test_drawings_have_only_colours_that_the_dark_theme_turns_or_keeps():
    for figure in (plotting.block_diagram(), plotting.frame_schemes(PAIR)):
        fills = {shape.fillcolor for shape in figure.layout.shapes}
        assert fills <= {"#ffffff", f"rgba({','.join(str(int(GRID[i : i + 2], 16)) for i in (1, 3, 5))},0.4)"}
        assert {shape.line.color for shape in figure.layout.shapes} == {INK}


def test_words_of_the_block_fit_a_phone():
    legend = [trace.name for trace in plotting.block_diagram().data]
    assert max(map(len, legend)) <= 46


# ---- relay and shared frame


def arrows(figure, row):
    """(name of the block's side → angle in degrees, colour) of the arrows of one row, in order."""
    axis = "x" if row == 1 else "x3"
    found = [note for note in figure.layout.annotations if note.showarrow and note.xref == axis]
    return [(round(np.degrees(np.arctan2(a.ay, -a.ax))), a.arrowcolor) for a in sorted(found, key=lambda a: a.x)]


def test_in_a_relay_each_output_is_the_next_input_and_in_a_shared_frame_all_blocks_have_one_pair():
    figure = plotting.frame_schemes(PAIR)
    shared, relay = arrows(figure, 1), arrows(figure, 2)
    assert len(shared) == len(relay) == 8
    assert len(set(shared[0::2])) == len(set(shared[1::2])) == 1
    assert relay[1:-1:2] == relay[2::2]  # u of a block, v of the next
    assert len(set(relay)) == 5


def test_the_matrices_beside_are_those_that_are_given():
    figure = plotting.frame_schemes(PAIR)
    for trace, scores in zip(figure.data, PAIR.values(), strict=True):
        close(trace.z, scores)
    assert [text for text in texts(figure) if "drawn" in text] == ["shared frame<br>drawn", "relay<br>drawn"]


@pytest.mark.parametrize("blocks", [1, 5])
def test_a_number_of_blocks_that_cannot_be_drawn_is_refused(blocks):
    with pytest.raises(ValueError, match=f"blocks must be 2 to 4; got {blocks}"):
        plotting.frame_schemes(PAIR, blocks=blocks)


def test_two_matrices_are_needed():
    with pytest.raises(ValueError, match="expected two matrices, of a shared frame and of a relay; got 1"):
        plotting.frame_schemes({"relay": torch.eye(3)})
    with pytest.raises(ValueError, match=re.escape("must have shape (L, L); got (3, 4)")):
        plotting.frame_schemes({"a": torch.zeros(3, 4), "b": torch.eye(3)})


# ---- the share of the way


def test_each_step_shows_the_blocks_passed_and_names_the_last():
    figure = plotting.way_covered(WALKS, start=1)
    assert [frame.name for frame in figure.frames] == ["0", "1", "2", "3", "4"]
    skips = figure.frames[3].data[0]
    close(skips.x, [0, 0.25, 0.5, 0.75, np.nan])
    assert [text.replace("\u00a0", " ") for text in skips.text] == ["", "", "", "0.75 ± 0", ""]
    assert figure.layout.sliders[0].active == 1
    assert figure.layout.title.text == "after block 1 of 4"


def test_the_number_moves_with_the_slider():
    frames = plotting.way_covered(WALKS).frames
    said = [[text for text in frame.data[1].text if text] for frame in frames]
    assert said == [["0"], ["0.5"], ["0.5"], ["0.5"], ["1"]]


def test_networks_of_different_depth_and_a_start_outside_are_refused():
    with pytest.raises(ValueError, match=re.escape("as many blocks; got [1, 4]")):
        plotting.way_covered(WALKS | {"short": torch.zeros(1, 2)})
    with pytest.raises(ValueError, match="start must be a block from 0 to 4; got 7"):
        plotting.way_covered(WALKS, start=7)
    with pytest.raises(ValueError, match=re.escape("must have shape (seeds, L+1); got (5,)")):
        plotting.way_covered({"a": torch.zeros(5)})


# ---- scores over a choice


def test_the_mean_of_the_chosen_step_stands_above():
    figure = plotting.score_matrices(MATRICES, start=5)
    assert figure.layout.title.text == "<b>k = 5</b>; mean over i ≠ j:<br>skips: 0.5<br>no skips: 0"
    close(figure.data[0].z, MATRICES[5]["skips"])
    close(figure.frames[2].data[0].z, MATRICES[10]["skips"])
    assert [step.label for step in figure.layout.sliders[0].steps] == ["1", "5", "10"]
    assert [trace.xaxis for trace in figure.data] == ["x", "x2"]


def test_frames_with_other_panels_and_a_start_that_is_none_are_refused():
    with pytest.raises(ValueError, match=re.escape("each frame must have the panels ['a']; 2 has ['b']")):
        plotting.score_matrices({1: {"a": torch.eye(2)}, 2: {"b": torch.eye(2)}})
    with pytest.raises(ValueError, match=re.escape("start must be one of ['1', '5', '10']; got 3")):
        plotting.score_matrices(MATRICES, start=3)
    with pytest.raises(ValueError, match="expected a mapping choice"):
        plotting.score_matrices({})


def test_figures_with_a_slider_are_light():
    walks = {name: torch.rand(3, 17) for name in "abcd"}
    assert len(plotting.way_covered(walks).to_json()) < 150_000
    matrices = {k: {name: torch.rand(16, 16) for name in "ab"} for k in range(1, 9)}
    figure = plotting.score_matrices(matrices)
    assert len(figure.to_json()) < 100_000
    assert json.loads(figure.to_json())["frames"]
