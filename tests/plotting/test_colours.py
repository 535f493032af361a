"""Colours: fixed for what has a meaning, never twice in a figure, and told apart by colour-blind readers."""

import itertools

import matplotlib as mpl
import numpy as np
import pytest
import torch
from figures import FILM, LINES, TOPS, clashes, named, random, states

from resalign_utils import plotting
from resalign_utils.plotting import _colours

EIGHT = {
    "others": list("abcdefgh"),
    "numbers": [f"C = {number}" for number in (2, 4, 6, 8, 10, 20, 50, 100)],
    "conditions": ["trained", "untrained", "no skip", "with skips", "no skips, L = 8", "with skips, L = 8", "a", "b"],
    "one condition and two counts": ["plain", "plain, 2", *(f"{n}, L = {k}" for n in "cd" for k in (1, 2, 3))],
}
# Machado, Oliveira & Fernandes 2009, doi:10.1109/TVCG.2009.113: full protanopia and deuteranopia, in linear RGB.
SEEN = {
    "all cones": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}


def lab(colour, seen):
    """CIELAB of a colour, as someone sees it."""
    part = np.array(mpl.colors.to_rgb(colour))
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    f = np.cbrt(xyz @ np.clip(np.asarray(seen) @ linear, 0, 1) / [0.9505, 1, 1.089])
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("seen", SEEN)
def test_conditions_and_others_are_told_apart_by_everyone(seen):
    palette = [*plotting.CONDITION_COLOURS.values(), *_colours._OTHER_COLOURS]
    apart = [np.linalg.norm(lab(a, SEEN[seen]) - lab(b, SEEN[seen])) for a, b in itertools.combinations(palette, 2)]
    assert min(apart) > 14  # a difference of 2 is just seen side by side


@pytest.mark.parametrize("kind", EIGHT)
def test_eight_series_of_any_figure_differ(kind):
    names, x, options = EIGHT[kind], [1, 2, 3], {"x_label": "x", "y_label": "y"}
    lines = {name: (x, random(3, 3, seed=seed).exp()) for seed, name in enumerate(names)}
    figures = [
        plotting.curves(lines, **options),
        plotting.curve_panels({"one": lines, "two": lines}, x_label="x"),
        plotting.depth_law(lines, fits={name: (-1.0, 0.1) for name in names}),
        plotting.inverse_singular_values({name: y for name, (_, y) in lines.items()}),
        plotting.condition_dots({"group": {"row": {name: y[:, 0] for name, (_, y) in lines.items()}}}, x_label="x"),
    ]
    for figure in figures:
        entries = {trace.legendgroup for trace in figure.data if trace.showlegend is not False}
        assert len(entries) == 8
        assert clashes(figure) == []
        swapped = figure.to_dict()
        for trace in swapped["data"]:
            trace.get("line", {}).update(color="#123456", dash="solid")
            trace.get("marker", {}).update(color="#123456", symbol="circle")
        assert clashes(swapped)  # the check itself sees them


def test_no_two_of_24_others_share_colour_and_dash_or_colour_and_marker():
    styles = _colours.condition_styles(
        [*(f"series {letter}" for letter in "abcdefghijklmnopqrstuvwx"), "trained"]
    ).values()
    assert len({(style.colour, style.dash) for style in styles}) == len({(s.colour, s.marker) for s in styles}) == 25


def test_twelve_classes_differ_too():
    twelve = {"a": random(12, 3, 2)}
    figures = [
        plotting.trajectories(twelve, torch.arange(12)),
        plotting.trajectories({"a": random(12, 3, 3)}, torch.arange(12)),
    ]
    assert [clashes(figure) for figure in figures] == [[], []]
    films = plotting.trajectories_over_training({0: random(12, 3, 2)}, torch.arange(12))
    assert clashes(films) == []


def test_bars_of_eight_conditions_have_colours_of_their_own():
    names = [*plotting.CONDITION_COLOURS, *"abcd"]
    figure = plotting.bars({name: ([1], [1.0]) for name in names}, x_label="x", y_label="y")
    assert clashes(figure) == []


@pytest.mark.parametrize(
    ("condition", "names"),
    {
        "trained": ["trained", "Trained", "trained, random direction", "block Krylov, trained"],
        "untrained": ["untrained", "untrained, L = 16", "untrained, plain"],
        "no skip": ["no skip", "no-skip", "No skips, L = 8", "without skips", "16 blocks without", "plain twin"],
        "skip": [
            "skip, no norm",
            "with skips",
            "16 blocks, skips, batch norm",
            "balanced twin, with skips",
            "residual",
        ],
        None: ["one unit beside each skip", "post-activation", "from the plain network", "constrained", "no norm"],
    }.items(),
)
def test_names_of_the_book_have_the_colour_of_their_condition(condition, names):
    for name in names:
        colour = plotting.condition_colours([name])[name]
        assert colour == plotting.CONDITION_COLOURS.get(condition, _colours._OTHER_COLOURS[0]), name


def test_what_is_trained_or_has_skips_is_a_solid_line():
    styles = _colours.condition_styles(["with skips", "no skips", "trained", "untrained"])
    assert [style.dash for style in styles.values()] == ["solid", "dashdot", "solid", "dash"]
    assert len({style.marker for style in styles.values()}) == 4


def test_conditions_keep_their_colour_in_every_figure():
    for name, colour in plotting.CONDITION_COLOURS.items():
        points = plotting.inverse_singular_values({"other": TOPS["trained"], name: TOPS["trained"]})
        lines = plotting.curves({"other": LINES["loss"], name: LINES["loss"]}, x_label="x", y_label="y")
        boxes = plotting.bars({"other": LINES["loss"], name: LINES["loss"]}, x_label="x", y_label="y")
        rows = plotting.condition_dots({"g": {"r": {"other": [1.0], name: [2.0]}}}, x_label="x")
        marks = [points.data[1].marker.color, named(lines, name).line.color, named(boxes, name).marker.color]
        assert {*marks, named(rows, name).marker.color} == {colour}


def test_an_ordered_number_has_a_scale_from_dark_to_light():
    names = ["C = 10", "C = 2", "no skip", "C = 4"]
    styles = _colours.condition_styles(names)
    assert list(styles) == names
    assert [styles[f"C = {number}"].colour for number in (2, 4, 10)] == plotting.depth_colours(3)
    light = [lab(styles[f"C = {number}"].colour, np.eye(3))[0] for number in (2, 4, 10)]
    assert light == sorted(light)
    assert styles["no skip"].colour == plotting.CONDITION_COLOURS["no skip"]
    negative = _colours.condition_styles(["x −1", "x 0", "x 1e-3"])
    assert [style.colour for style in negative.values()] == plotting.depth_colours(3)
    assert (
        plotting.depth_colours(3)[0] not in plotting.condition_colours(["C = 2", "C = 4"]).values()
    )  # two are no order


def test_a_class_has_one_colour_everywhere():
    labels, wanted = torch.tensor([3, 3, 1, 1, 0, 3]), _colours.CLASS_COLOURS[3]
    for dims in (2, 3):
        for trace in plotting.trajectories(states(dims=dims), labels).select_traces({"name": "3"}):
            assert trace.marker.colorscale[-1][1] == wanted
    film = plotting.trajectories_over_training(FILM, labels)
    assert named(film, "3").marker.colorscale[-1][1] == wanted
    assert plotting.class_colour(13) == wanted  # after ten classes they start again


def test_classes_are_petroffs_and_depths_viridis():
    assert [mpl.colors.to_hex(colour) for colour in mpl.color_sequences["petroff10"]] == list(plotting.CLASS_COLOURS)
    for colour, place in zip(plotting.depth_colours(10), np.linspace(0, 0.9, 10), strict=True):
        given, wanted = (np.array(mpl.colors.to_rgb(c)) for c in (colour, mpl.colormaps["viridis"](place)))
        assert np.abs(given - wanted).max() < 0.03
    assert plotting.depth_colours(1) == plotting.depth_colours(7)[:1]
    assert len(set(plotting.depth_colours(100))) > 90
