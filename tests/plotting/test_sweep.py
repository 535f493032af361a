"""The sweep over NAPL: every point's numbers, whichever NAPL is chosen; what is refused."""

import functools
import math
import re
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from figures import clashes, note
from figures import close as close_to

from resalign_utils.formatting import format_mean
from resalign_utils.plotting import LinearizedPoint, condition_colours, linearization_sweep

LAYERS = 5


def law_of(shares):
    """Poisson-binomial, counted over all 2^L choices of nonlinear layers."""
    law = np.zeros(len(shares) + 1)
    for chosen in np.ndindex(*[2] * len(shares)):
        law[sum(chosen)] += np.prod(np.where(np.array(chosen), shares, 1 - np.asarray(shares)))
    return law[: np.flatnonzero(law).max() + 1]


def point(method, target, napl=None):
    """A point whose parts can be told from those of all others."""
    napl = target if napl is None else napl
    draw = np.random.default_rng([round(1000 * target), method == "layer-wise"])
    shares = draw.uniform(0.5, 1, LAYERS)
    shares *= napl / shares.sum()
    assert shares.max() <= 1
    accuracy = draw.uniform(0.8, 0.9, 3)
    return LinearizedPoint(method, napl, accuracy, torch.tensor(law_of(shares)), shares.tolist(), target)


CHANNEL = [point("channel-wise", target, napl) for target, napl in ((0.5, 0.51), (0, 0.0), (2, 2.0), (3, 3.02))]
LAYER = [point("layer-wise", target) for target in (3.0, 1.0, 0.0)]
POINTS = [*LAYER[:1], *CHANNEL, *LAYER[1:]]
TARGETS = [0.0, 0.5, 1.0, 2.0, 3.0]
# Which target each method's point has that is shown: nearest in asinh(4 · NAPL), that is in ratio above 0.25.
SHOWN_FIRST = ("layer-wise", "channel-wise")  # in the order of POINTS
SHOWN = {
    "channel-wise": dict(zip(TARGETS, (0, 0.5, 0.5, 2, 3), strict=True)),
    "layer-wise": dict(zip(TARGETS, (0, 1, 1, 3, 3), strict=True)),
}
START = (5.0, [0.9, 0.92])
COLOURS = condition_colours(["layer-wise", "channel-wise"])  # in the order of POINTS


def draw(points=POINTS, **options):
    return linearization_sweep(points, **({"start": START} | options))


@functools.cache
def default():
    return draw()


def given(method, target):
    """The point that is shown of a method at a target, and whether it is its own."""
    wanted = SHOWN[method][target]
    (found,) = [p for p in POINTS if p.method == method and p.target == wanted]
    return found, wanted == target


def drawn(traces, method, mode):
    """The one trace of this mode that belongs to a method."""
    (trace,) = [t for t in traces if t.type == "scatter" and (t.legendgroup, t.mode) == (method, mode)]
    return trace


def scatters(figure):
    return [trace for trace in figure.data if trace.type == "scatter"]


def law_drawn(figure):
    (trace,) = [trace for trace in figure.data if trace.type == "bar" and trace.xaxis == "x3"]
    return trace.y


def shown_by(frame, figure):
    """The figure's traces with that frame's data."""
    changed = go.Figure(figure.data)
    for index, data in zip(frame.traces, frame.data, strict=True):
        changed.data[index].update(data)
    return changed.data


def close(drawn, wanted):
    close_to(drawn, wanted, atol=1e-5)


def napl_at(x):
    return np.sinh(np.asarray(x, dtype=float)) / 4


# ---- accuracy over NAPL


def test_each_method_has_its_accuracies_at_its_measured_napl():
    figure = default()
    for method, points in (("channel-wise", CHANNEL), ("layer-wise", LAYER)):
        line, ordered = drawn(figure.data, method, "lines+markers"), sorted(points, key=lambda p: p.napl)
        close(napl_at(line.x), [p.napl for p in ordered])
        close(line.y, [np.mean(p.accuracy) for p in ordered])
        close(line.error_y.array, [np.std(p.accuracy) for p in ordered])  # ddof = 0
        assert line.line.color == COLOURS[method]
        said = f"NAPL {ordered[1].napl:.3g}<br>test accuracy {format_mean(ordered[1].accuracy)}"
        assert line.text[1] == said
    assert clashes(figure) == []
    assert len({trace.marker.symbol for trace in scatters(figure) if trace.mode == "lines+markers"}) == 2
    assert note(figure) == "mean ± 1 sd over 3 seeds<br>▼ mean path length"


def test_the_ticks_tell_the_napl_at_their_places():
    axis = default().layout.xaxis
    assert list(axis.ticktext) == ["0", "0.25", "0.5", "1", "2", "5"]
    close(napl_at(axis.tickvals), [float(text) for text in axis.ticktext])
    low, high = napl_at(axis.range)
    assert low < 0
    assert high > 5
    assert default().layout.xaxis.title.text == "average path length NAPL"
    texts = list(draw(start=None).layout.xaxis.ticktext)
    assert texts == ["0", "0.25", "0.5", "1", "2", "3.02"]
    assert list(draw([point("a", 0.0)], start=None).layout.xaxis.ticktext) == ["0"]


def test_the_network_before_is_a_star():
    (star,) = [trace for trace in scatters(default()) if trace.marker.symbol == "star"]
    assert star.name == "before linearisation: 0.910\u00a0±\u00a00.010"
    close(napl_at(star.x), [5])
    close([*star.y, *star.error_y.array], [0.91, 0.01])
    assert "star" not in [trace.marker.symbol for trace in scatters(draw(start=None))]


def test_one_seed_has_no_bars_and_speaks_of_none():
    figure = draw([replace(CHANNEL[0], accuracy=[0.5])], start=(4, [0.75]))
    assert not any(trace.error_y.visible for trace in figure.data if trace.type == "scatter")
    assert drawn(figure.data, "channel-wise", "lines+markers").text[0].endswith("test accuracy 0.5")
    assert figure.layout.title.text.endswith("channel-wise at 0.51: 0.5")
    assert note(figure) == "▼ mean path length"


# ---- the slider


def test_there_is_a_frame_and_a_step_per_napl_in_ascending_order():
    figure = default()
    assert [float(frame.name) for frame in figure.frames] == TARGETS
    (slider,) = figure.layout.sliders
    assert [step.args[0][0] for step in slider.steps] == [frame.name for frame in figure.frames]
    assert [step.label for step in slider.steps] == ["0", "0.5", "1", "2", "3"]
    assert {step.method for step in slider.steps} == {"animate"}
    (traces,) = {frame.traces for frame in figure.frames}
    assert traces == tuple(range(3, 11))  # two lines and the start stay; 2 · (ring, layers, law, mean) move


@pytest.mark.parametrize("place", range(len(TARGETS)))
def test_each_frame_shows_the_layers_and_the_law_of_its_points(place):
    figure, target = default(), TARGETS[place]
    frame = figure.frames[place]
    traces = shown_by(frame, figure)
    for number, method in enumerate(SHOWN_FIRST):
        wanted, own = given(method, target)
        ring, layers, law, mean = traces[3 + 4 * number :][:4]
        close(layers.x, np.arange(1, LAYERS + 1))
        close(layers.y, 100 * np.array(wanted.surviving))
        close(law.x, np.arange(LAYERS + 1))
        close(law.y, [*100 * wanted.law.numpy(), *[0] * (LAYERS + 1 - len(wanted.law))])
        close([mean.x[0], napl_at(ring.x)[0]], [wanted.napl, wanted.napl])
        close(ring.y, [np.mean(wanted.accuracy)])
        assert {trace.marker.opacity for trace in (layers, law, mean, ring)} == {1.0 if own else 0.35}
        assert {trace.marker.color for trace in (ring, layers, law, mean)} == {COLOURS[method]}
        assert f"NAPL {wanted.napl:.3g}<br>layer %{{x}}: " in layers.hovertemplate
        assert max(law.y) < mean.y[0] < frame.layout.yaxis3.range[1]
        assert [(t.type, t.xaxis, t.yaxis) for t in (layers, law)] == [("bar", "x2", "y2"), ("bar", "x3", "y3")]


def test_words_name_each_methods_own_napl_and_what_is_not_there():
    words = {float(frame.name): frame.layout.title.text for frame in default().frames}
    means = {(p.method, p.target): format_mean(p.accuracy) for p in POINTS}
    assert words[0.5].split("<br>") == [
        "<b>NAPL 0.5</b>; test accuracy:",
        f"layer-wise at 1, its nearest (pale): {means['layer-wise', 1]}",
        f"channel-wise at 0.51: {means['channel-wise', 0.5]}",
    ]
    assert f"channel-wise at 0.51, its nearest (pale): {means['channel-wise', 0.5]}" in words[1]
    assert "pale" not in words[0] + words[3]


def test_laws_fill_their_axis_and_all_frames_say_its_ends():
    flat = replace(CHANNEL[2], law=[0.19, 0.15, 0.32, 0.15, 0.19])
    whole = replace(LAYER[0], law=[0, 0, 0, 1])
    figure = draw([flat, whole], start=None)
    ends = {float(frame.name): list(frame.layout.yaxis3.tickvals) for frame in figure.frames}
    assert ends[2.0] == ends[3.0] == [0, 25, 50, 75, 100]  # the other is shown beside it
    alone = draw([flat], start=None)
    assert list(alone.layout.yaxis3.tickvals) == [0, 10, 20, 30, 40]
    assert alone.frames[0].layout.yaxis3.range == alone.layout.yaxis3.range
    both = draw([flat, CHANNEL[1]])  # NAPL 2 and 0
    assert [frame.layout.yaxis3.tickvals[-1] for frame in both.frames] == [100, 40]


def test_the_middle_napl_that_all_methods_have_is_chosen_first():
    for figure, wanted in ((default(), 0.0), (draw([*POINTS, point("layer-wise", 2.0)]), 2.0)):
        (slider,) = figure.layout.sliders
        assert float(slider.steps[slider.active].args[0][0]) == wanted
        frame = figure.frames[slider.active]
        assert figure.layout.title.text == frame.layout.title.text
        assert figure.layout.yaxis3.range == frame.layout.yaxis3.range
        for index, data in zip(frame.traces, frame.data, strict=True):
            close(figure.data[index].y, data.y)


def test_a_point_is_shown_at_its_target_although_another_came_nearer():
    above, below = (replace(point("channel-wise", napl), target=target) for napl, target in ((0.9, 0.5), (0.6, 1.0)))
    figure = draw([above, below])
    for frame, napl in zip(figure.frames, (0.9, 0.6), strict=True):
        close(shown_by(frame, figure)[-1].x, [napl])
        assert f"channel-wise at {napl}: " in frame.layout.title.text


def test_without_a_target_a_point_stands_at_its_napl():
    figure = draw([replace(CHANNEL[0], target=None)])
    assert [float(frame.name) for frame in figure.frames] == [0.51]
    assert figure.layout.sliders[0].steps[0].label == "0.51"


# ---- size


def test_a_full_sweep_is_small_and_the_same_each_time():
    targets = np.linspace(0, 3, 12).tolist()
    full = [point(method, target) for method in ("channel-wise", "layer-wise") for target in targets]
    assert len(draw(full).to_json()) < 60_000
    assert draw(full).to_json() == draw(full).to_json()
    assert draw(POINTS[::-1]).layout.sliders == default().layout.sliders


def test_lists_arrays_and_tensors_give_the_same():
    kinds = (lambda law: law.requires_grad_(), lambda law: law.numpy(), lambda law: law.tolist())
    figures = {draw([replace(p, law=kind(p.law.clone())) for p in POINTS]).to_json() for kind in kinds}
    assert len(figures) == 1


def test_the_height_can_be_chosen():
    assert draw(height=900).layout.height == 900


# ---- what is refused


def refused(text, points=POINTS, **options):
    with pytest.raises(ValueError, match=re.escape(text)):
        draw(points, **options)


def test_what_is_no_sweep_is_refused():
    for nothing in ([], {}, [vars(CHANNEL[0])]):
        refused("linearization_sweep: expected a sequence of at least one LinearizedPoint; got ", nothing)
    text = "two points of 'channel-wise' at NAPL 0.5. Average over the seeds, or say their target."
    refused(text, [CHANNEL[0], replace(CHANNEL[0], accuracy=[0.1])])
    for start in (0.9, (0.9,), [1, 2, 3]):
        refused(f"start must be a pair (napl, accuracies (seeds,)); got {start!r}.", start=start)
    refused("start: accuracy must be one finite number per seed, (seeds,); got 0.9.", start=(17, 0.9))
    refused("start: NAPL must be a finite number of nonlinear units, at least 0; got -1.", start=(-1, [0.9]))


def test_a_part_that_does_not_fit_is_refused():
    first, name = CHANNEL[0], "linearization_sweep: 'channel-wise' at NAPL 0.51: "

    def wrong(text, **parts):
        refused(text, [first, replace(CHANNEL[0], target=1.0, **parts)])

    for napl in (-1.0, math.nan, math.inf):
        wrong(f"NAPL {napl!r}: NAPL must be a finite number of nonlinear units, at least 0; got {napl!r}.", napl=napl)
    refused("target: NAPL must be a finite number of nonlinear units", [replace(first, target=-1.0)])
    for accuracy in (0.9, [], [[0.9]], [0.9, math.nan], [0.9, None]):
        text = f"{name}accuracy must be one finite number per seed, (seeds,); got {accuracy!r}."
        wrong(text, accuracy=accuracy)
    text = f"{name}law must be probabilities (max_length+1,) of sum 1; got shape "
    for law, got in (
        ([0.6, 0.6], "(2,), sum 1.2. path_length_distribution(model) returns it."),
        ([[1.0]], "(1, 1), sum 1."),
        ([1.5, -0.5], "(2,), sum 1."),
        ([math.nan, 1.0], "(2,), sum nan."),
    ):
        wrong(text + got, law=law)
    wrong(f"{name}the mean of law is 1, not napl. Give the measured NAPL, and what was aimed at as target", law=[0, 1])
    text = f"{name}surviving must be shares from 0 to 1 of shape (5,); got shape "
    for surviving, got in (
        ([0.25] * 2, "(2,): [0.25 0.25]."),
        ([[0.25] * 5], "(1, 5): "),
        ([50.0] * 5, "(5,): [50. 50."),
        ([-0.5] * 5, "(5,): [-0.5"),
        ([math.nan] * 5, "(5,): [nan"),
    ):
        wrong(text + got, surviving=surviving)
    refused("of shape (0,); got shape (0,): [].", [replace(first, surviving=[])])


def test_a_law_may_be_rounded_and_shorter_than_the_longest():
    rounded = replace(CHANNEL[3], law=[round(float(part), 3) for part in CHANNEL[3].law])
    close(law_drawn(draw([rounded])), 100 * np.array(rounded.law))
    assert len(CHANNEL[1].law) == 1  # all of it at length 0
    assert list(law_drawn(draw([CHANNEL[1]]))) == [100, 0, 0, 0, 0, 0]
    longer = replace(CHANNEL[1], law=[1.0, *[0.0] * 7])  # a network may have units that are no PReLU
    assert list(draw([longer, LAYER[0]]).layout.xaxis3.range) == [-0.6, 7.6]
