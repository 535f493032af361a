"""Trajectories and their film: each state of each input where it belongs, deeper ones larger and brighter."""

import math
import re

import matplotlib as mpl
import numpy as np
import pytest
import torch
from figures import FILM, LABELS, close, draw, note, random, states

from resalign_utils import plotting


@pytest.mark.parametrize("dims", [2, 3])
def test_trajectories_draw_each_state_of_each_input(dims):
    given = states(dims=dims)
    figure = plotting.trajectories(given, LABELS)
    assert len(figure.data) == 9
    traces = iter(figure.data)
    for values in given.values():
        for label in (0, 2, 7):
            trace, members = next(traces), torch.where(label == LABELS)[0]
            path = np.stack([np.asarray(getattr(trace, axis)) for axis in "xyz"[:dims]], 1)
            path = path.reshape(len(members), values.shape[1] + 1, dims)
            assert trace.name == str(label)
            assert np.isnan(path[:, 0]).all()  # a gap before each input
            close(path[:, 1:], values[members])
            hover = trace.customdata.reshape(len(members), -1, 2)[:, 1:]
            assert (hover[..., 0] == members[:, None].numpy()).all()
            assert (hover[..., 1] == np.arange(values.shape[1])).all()
            assert all(word in trace.hovertemplate for word in ("class", "input", "block"))
    assert [trace.showlegend for trace in figure.data] == [True] * 3 + [False] * 6


def test_trajectories_get_larger_and_brighter_with_depth():
    for trace in draw("trajectories").data:
        assert (np.diff(trace.marker.size[1:5]) > 0).all()
        assert (np.diff(trace.marker.color[1:5].astype(int)) > 0).all()
        dark, bright = (sum(mpl.colors.to_rgb(shade)) for _, shade in trace.marker.colorscale)
        assert dark < bright
        assert trace.marker.color[0] == max(trace.marker.color)  # from which the legend takes its shade
    assert "from h₀ (small, dark) to the end" in note(draw("trajectories")).replace("<br>", " ")


def test_each_panel_has_its_own_scale_the_same_in_all_directions():
    given = {"small": random(3, 4, 2), "large": 100 * random(3, 4, 2)}
    layout = plotting.trajectories(given, torch.zeros(3)).layout
    for x, y, values in ((layout.xaxis, layout.yaxis, given["small"]), (layout.xaxis2, layout.yaxis2, given["large"])):
        for axis, part in ((x, values[..., 0]), (y, values[..., 1])):
            assert axis.range[0] < part.min() <= part.max() < axis.range[1]
        assert np.ptp(x.range) == pytest.approx(np.ptp(y.range), rel=1e-3)
    assert np.ptp(layout.xaxis2.range) == pytest.approx(100 * np.ptp(layout.xaxis.range), rel=1e-2)


def test_small_cubes_say_their_size():
    figure = plotting.trajectories({"a": random(3, 4, 3) * 1000, "b": random(3, 4, 3)}, torch.zeros(3))
    first = figure.layout.annotations[0].text
    side = float(np.ptp(figure.layout.scene.xaxis.range))
    assert float(re.search(r"cube of side ([\d,.]+)", first)[1].replace(",", "")) == pytest.approx(side, rel=0.05)
    assert figure.layout.scene.aspectmode == "cube"
    assert "cube" not in plotting.trajectories({"a": random(3, 4, 3)}, torch.zeros(3)).layout.annotations[0].text


def test_one_panel_one_class_and_one_input_are_enough():
    for dims in (2, 3):
        plotting.trajectories({"": random(1, 1, dims)}, torch.tensor([4]))
    figure = plotting.trajectories({"only": random(5, 3, 2)}, torch.full((5,), 4), class_names="abcde", axis_label="PC")
    assert [trace.name for trace in figure.data] == ["e"]
    assert [figure.layout.xaxis.title.text, figure.layout.yaxis.title.text] == ["PC 1", "PC 2"]
    assert not plotting.trajectories({"": random(31, 3, 2)}, torch.arange(31)).layout.showlegend  # too many classes


def test_a_state_that_is_nan_leaves_a_gap_and_no_trace_in_the_scale():
    broken = random(3, 4, 2)
    broken[0, 2] = math.nan
    figure = plotting.trajectories({"a": broken}, torch.zeros(3))
    assert np.isfinite(figure.layout.xaxis.range).all()
    assert np.isnan(figure.data[0].x).sum() == 4
    empty = plotting.trajectories({"a": broken * math.nan}, torch.zeros(3))
    assert np.isfinite(empty.layout.xaxis.range).all()
    assert np.ptp(empty.layout.xaxis.range) > 0


def test_the_slider_has_a_step_per_epoch_and_each_frame_its_states():
    figure = draw("film")
    (slider,) = figure.layout.sliders
    epochs = [str(epoch) for epoch in FILM]
    assert [step.label for step in slider.steps] == [step.args[0][0] for step in slider.steps] == epochs
    assert [frame.name for frame in figure.frames] == epochs
    for frame, (epoch, values) in zip(figure.frames, FILM.items(), strict=True):
        assert frame.traces == (0, 1, 2)
        assert frame.layout.title.text == f"epoch {epoch}"
        for trace, label in zip(frame.data, (0, 2, 7), strict=True):
            points = np.stack([trace.x, trace.y], 1)
            close(points[~np.isnan(points[:, 0])], values[label == LABELS].flatten(0, 1))
        low, high = frame.layout.xaxis.range  # each epoch fills its axes
        assert low < values[..., 0].min() <= values[..., 0].max() < high
        assert high - low < 1.1 * max(np.ptp(values[..., axis].numpy()) for axis in (0, 1))
    assert figure.layout.title.text == "epoch 0"
    assert slider.currentvalue.prefix == "epoch "  # the name of the page's own slider
    close(figure.data[0].x[1:5], FILM[0][0, :, 0])
    assert figure.layout.updatemenus[0].buttons[0].label.endswith("play")


def test_a_film_of_two_networks_moves_both_panels():
    other = {epoch: random(6, 3, 2, seed=9 + epoch) for epoch in (5, 2, 1, 0)}  # in another order, and less deep
    words = {5: "score 1.0 and 3.2"}
    film = plotting.trajectories_over_training({"with skips": FILM, "no skip": other}, LABELS, words=words, first=5)
    assert [note.text for note in film.layout.annotations] == ["with skips", "no skip"]
    assert film.layout.sliders[0].active == 3
    assert film.layout.title.text == "epoch 5<br>score 1.0 and 3.2"
    assert [frame.name for frame in film.frames] == ["0", "1", "2", "5"]
    assert film.frames[0].layout.title.text == "epoch 0"
    assert [trace.xaxis for trace in film.data] == [None] * 3 + ["x2"] * 3
    assert [trace.showlegend for trace in film.data] == [None] * 3 + [False] * 3
    for frame, epoch in zip(film.frames, FILM, strict=True):
        close(frame.data[0].x[1:5], FILM[epoch][0, :, 0])
        close(frame.data[3].x[1:4], other[epoch][0, :, 0])
        for axis, values in ((frame.layout.xaxis, FILM[epoch]), (frame.layout.xaxis2, other[epoch])):
            assert axis.range[0] < values[..., 0].min() <= values[..., 0].max() < axis.range[1]


def test_what_does_not_fit_is_refused_with_the_fix():
    def refused(text, panels, labels=LABELS, function=plotting.trajectories, **options):
        with pytest.raises(ValueError, match=re.escape(text)):
            function(panels, labels, **options)

    text = "trajectories: panel 'a' must have shape (n, L+1, 2 or 3); got (6, 3). Trace.project(2) or Trace.project"
    refused(text, {"a": torch.zeros(6, 3)})
    refused("must have shape (n, L+1, 2 or 3); got (0, 3, 2)", {"a": torch.zeros(0, 3, 2)})
    refused("panels must be all 2-D or all 3-D", {"a": torch.zeros(6, 3, 2), "b": torch.zeros(6, 3, 3)})
    text = "labels must have shape (5,), one per input of panel 'a'; got (6,). Pass the labels of the traced inputs"
    refused(text, {"a": torch.zeros(5, 3, 2)})
    refused("class_names must name classes 0..7; got 2 names", states(), class_names="ab")
    film = plotting.trajectories_over_training
    refused("panel '3' must have shape (n, L+1, 2); got (6, 3, 3)", {3: torch.zeros(6, 3, 3)}, function=film)
    two = {"a": FILM, "b": {0: FILM[0], 7: FILM[1]}}
    refused("need the same epochs, 0, 1, 2, 5; panel 'b' has 0, 7", two, function=film)
    refused("first must be one of the epochs 0, 1, 2, 5; got 3", FILM, function=film, first=3)
