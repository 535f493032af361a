"""The map: every cell's number and panels, whichever is chosen; what is refused."""

import functools
import json
import math
import re
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
import plotly.io
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from resalign_utils import plotting
from resalign_utils.plotting import MapCell, _palette

LABELS = [0, 2, 2, 7]
SWITCHES = ("with skips", "without skips")


def cell(switch, blocks, decay, *, score=None, train=1.0, rank=5):
    """A cell whose parts can be told from those of all others."""
    draw = np.random.default_rng([blocks, round(decay * 1e6), SWITCHES.index(switch)])
    middle = draw.uniform(-0.9, 0.9) if score is None else score
    return MapCell(
        row=blocks,
        column=decay,
        switch=switch,
        scores=[middle - 0.1, middle, middle + 0.1],
        train_accuracy=[1.0, train, 1.0],
        test_accuracy=[0.97, 0.98, 0.99],
        trajectories=draw.standard_normal((len(LABELS), blocks + 1, 2)),
        singular_values=-np.sort(-draw.uniform(0.01, 2, (blocks, rank)), 1),
        coupling=draw.uniform(-1, 1, (blocks, blocks)),
    )


CELLS = [cell(switch, blocks, decay) for switch in SWITCHES for blocks in (8, 2) for decay in (0.01, 0.0, 0.001)]
CELLS[4] = cell("with skips", 2, 0.0, score=-0.8, train=0.988)  # one of its seeds did not train
CELLS[7] = cell("without skips", 8, 0.0, score=0.85)  # the best
NAMES = [
    f"{switch}, blocks L = {blocks}, weight decay = {decay}"
    for switch in SWITCHES
    for blocks in (2, 8)
    for decay in ("0", "0.001", "0.01")
]


def draw(cells=CELLS, labels=LABELS, **options):
    return plotting.alignment_map(cells, labels, row_label="blocks L", column_label="weight decay", **options)


@functools.cache
def default():
    return draw()


def name_of(cell):
    return f"{cell.switch}, blocks L = {cell.row}, weight decay = {cell.column:g}"


def close(drawn, given):
    np.testing.assert_allclose(np.asarray(drawn, dtype=float), np.asarray(given, dtype=float), rtol=1e-5, atol=1e-3)


def panels(figure):
    """Name of each frame → the figure's traces with that frame's data, those that frames change."""
    for frame in figure.frames:
        yield (
            frame,
            [
                go.Figure(figure.data[index]).data[0].update(data)
                for index, data in zip(frame.traces, frame.data, strict=True)
            ],
        )


def written(figure):
    """Frame's name → (text in its cell, its z, the trace's colour axis)."""
    found = {}
    for trace in figure.data:
        for where, name in np.ndenumerate(np.array(trace.customdata if trace.text is not None else [])):
            if name:
                found[str(name)] = (trace.text[where[0]][where[1]], trace.z[where], trace.coloraxis, trace.xaxis, where)
    return found


# ---- the heat maps


def test_each_cell_stands_in_its_map_row_and_column_with_its_mean():
    found = written(default())
    assert sorted(found) == sorted(NAMES)
    for each in CELLS:
        text, z, colours, axis, (row, column) = found[name_of(each)]
        assert (row, column) == ([2, 8].index(each.row), [0.0, 0.001, 0.01].index(each.column))
        assert axis == ("x" if each.switch == "with skips" else "x2")
        if each is not CELLS[4]:
            close(z, np.mean(each.scores))
            assert text == f"{np.mean(each.scores):.2f}".replace("-", "−")
            assert colours == "coloraxis"


def test_what_did_not_train_is_grey_with_its_lowest_accuracy():
    figure = default()
    text, _, colours, *_ = written(figure)[name_of(CELLS[4])]
    assert text == "✗ 0.98"  # 0.988 is not rounded up to what would count as trained
    assert colours is None
    (grey,) = [trace for trace in figure.data if trace.type == "heatmap" and trace.colorscale]
    assert {colour for _, colour in grey.colorscale} == {"#e3e3e3"}
    tip = grey.hovertext[0][0]
    assert tip.startswith(
        "with skips, blocks L = 2, weight decay = 0<br>alignment −0.80 ± 0.08 (mean ± 1 sd over 3 seeds)"
    )
    assert tip.endswith("accuracy: train 0.996, test 0.980; ✗ 1 of 3 seeds")
    notes = [note.text for note in figure.layout.annotations]
    assert "✗ did not train: its lowest train accuracy, below 0.99" in notes
    tolerant = draw(trained_at=0.9)
    assert written(tolerant)[name_of(CELLS[4])][0] == "−0.80"
    assert not any("✗" in note.text for note in tolerant.layout.annotations)


def test_a_score_or_an_accuracy_that_is_nan_is_said():
    broken = [cell("with skips", 2, 0.0, score=math.nan), replace(CELLS[0], train_accuracy=[None, 1.0, 1.0])]
    found = written(draw(broken))
    assert found[name_of(broken[0])][:2] == ("–", 0)
    assert found[name_of(broken[1])][0] == "✗"
    draw(broken, backend="matplotlib").draw_without_rendering()


def test_text_is_light_on_dark_cells():
    figure = draw([cell("with skips", 2, 0.0, score=0.8), cell("with skips", 2, 0.1, score=0.1)])
    inks = {
        trace.textfont.color: [t for row in trace.text for t in row if t]
        for trace in figure.data
        if trace.text is not None
    }
    assert inks == {_palette.INK: ["0.10"], "#ffffff": ["0.80"]}


def test_numbers_are_put_in_order_and_texts_stay():
    figure = default()
    assert [list(axis.ticktext) for axis in (figure.layout.xaxis, figure.layout.yaxis)] == [
        ["0", "0.001", "0.01"],
        ["2", "8"],
    ]
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]  # downwards
    texts = [replace(CELLS[0], row=row, column="on") for row in ("wide", "deep")]
    assert list(draw(texts).layout.yaxis.ticktext) == ["wide", "deep"]


def test_a_place_without_a_cell_stays_empty():
    found = written(draw(CELLS[1:]))
    assert name_of(CELLS[0]) not in found
    assert len(found) == 11


# ---- the chosen cell


def test_the_best_cell_that_trained_is_chosen_unless_one_asks():
    for figure, wanted in ((default(), CELLS[7]), (draw(chosen=("with skips", 2, 0.0)), CELLS[4])):
        assert figure.layout.annotations[0].text.startswith(f"<b>{name_of(wanted)}</b>")
        (slider,) = figure.layout.sliders
        assert slider.steps[slider.active].args[0] == (name_of(wanted),)
        close(figure.data[-1].z, wanted.coupling)
    assert "weight decay = 0.01<" in draw([replace(CELLS[0], train_accuracy=[0.5] * 3)]).layout.annotations[0].text


def test_there_is_a_frame_and_a_step_per_cell_in_the_order_of_the_maps():
    figure = default()
    assert [frame.name for frame in figure.frames] == NAMES
    assert [step.args[0][0] for step in figure.layout.sliders[0].steps] == NAMES
    assert {step.method for step in figure.layout.sliders[0].steps} == {"animate"}
    assert len({frame.traces for frame in figure.frames}) == 1


def test_each_frame_shows_the_trajectories_of_its_cell():
    by_name = {name_of(each): each for each in CELLS}
    for frame, traces in panels(draw(class_names="abcdefgh")):
        each = by_name[frame.name]
        states = [trace for trace in traces if trace.legendgroup]
        assert [trace.name for trace in states] == ["a", "c", "h"]
        for trace, label in zip(states, (0, 2, 7), strict=True):
            points = np.stack([trace.x, trace.y], 1)
            wanted = each.trajectories[np.array(LABELS) == label].reshape(-1, 2)
            close(points[~np.isnan(points[:, 0])], wanted)
            assert len(trace.marker.size) == len(trace.marker.color) == len(trace.customdata) == len(points)
            assert trace.marker.cmax == each.row
            assert trace.marker.colorscale[-1][1] == plotting.class_colour(label)
        low, high = frame.layout.xaxis3.range
        assert low < each.trajectories[..., 0].min() <= each.trajectories[..., 0].max() < high


def test_each_frame_shows_the_singular_values_and_the_coupling_of_its_cell():
    by_name = {name_of(each): each for each in CELLS}
    for frame, traces in panels(default()):
        each = by_name[frame.name]
        lines = [trace for trace in traces if trace.name and trace.name.startswith("block")]
        assert len(lines) == 8
        for line, values, colour in zip(lines, each.singular_values, plotting.depth_colours(each.row), strict=False):
            close(line.y, values)
            close(line.x, np.arange(1, 6))
            assert line.line.color == colour
        assert [len(line.y) for line in lines[each.row :]] == [0] * (8 - each.row)  # blocks it does not have
        close(traces[-1].z, each.coupling)
        assert tuple(frame.layout.yaxis5.range) == (each.row + 0.5, 0.5)
    figure = default()
    assert figure.layout.yaxis4.type == "log"
    (end, _) = figure.layout.shapes
    assert end.x0 == 3.5  # C = 3 different labels
    assert any("C = 3" in note.text for note in figure.layout.annotations)


def test_each_frame_puts_a_frame_around_its_cell_alone():
    places = {name: (axis, place) for name, (*_, axis, place) in written(default()).items()}
    for frame, traces in panels(default()):
        outlines = [trace for trace in traces if trace.name == "chosen"]
        assert [trace.xaxis for trace in outlines] == ["x", "x", "x2", "x2"]
        axis, (row, column) = places[frame.name]
        for trace in outlines:
            if trace.xaxis == axis:
                close([min(trace.x), max(trace.x)], [column - 0.5, column + 0.5])
                close([min(trace.y), max(trace.y)], [row - 0.5, row + 0.5])
            else:
                assert len(trace.x) == len(trace.y) == 0


def test_each_frame_says_which_cell_it_is_and_changes_no_other_words():
    for frame in default().frames:
        (note,) = frame.layout.annotations
        title, score, accuracy = note.text.split("<br>")
        assert title == f"<b>{frame.name}</b>"
        assert re.fullmatch(r"alignment −?\d\.\d\d ± 0\.08 \(mean ± 1 sd over 3 seeds\)", score)
        assert accuracy.startswith("accuracy: train ")
    single = replace(CELLS[0], scores=[0.5], train_accuracy=[1], test_accuracy=[0.9])
    assert "alignment 0.50 (1 seed)" in draw([single]).layout.annotations[0].text


def test_small_singular_values_are_clipped_and_it_is_said():
    low = replace(CELLS[0], singular_values=np.full((8, 5), 1e-9))
    figure = draw([low])
    assert list(figure.data[-2].y) == pytest.approx([1e-6] * 5)
    assert any("values below 10⁻⁶ are drawn at 10⁻⁶" in note.text for note in figure.layout.annotations)
    assert not any("10⁻⁶" in note.text for note in default().layout.annotations)
    unknown = replace(CELLS[0], singular_values=np.full((8, 5), math.nan))
    assert np.isfinite(draw([unknown]).layout.yaxis4.range).all()


# ---- places, size, the other library


def test_maps_and_panels_have_their_titles():
    words = [note.text for note in default().layout.annotations]
    assert words[1:6] == [*SWITCHES, "trajectories", "singular values", "coupling"]
    assert default().layout.coloraxis.colorbar.title.text == "alignment, coupling"
    assert [default().layout[f"{letter}axis"].title.text for letter in "xy"] == ["weight decay", "blocks L"]


def test_the_page_is_told_how_to_choose_and_what_a_phone_changes():
    meta = default().layout.meta
    assert meta["click_to_frame"] is True
    phone = go.Figure(default())
    for path, value in meta["narrow"].items():
        phone.layout[path] = value  # each is a property that Plotly knows
    first, second = phone.layout.yaxis.domain, phone.layout.yaxis2.domain
    assert first[0] > second[1]  # one map below the other
    assert phone.layout.xaxis.domain == phone.layout.xaxis2.domain == (0, 1)
    assert phone.layout.yaxis2.showticklabels
    assert phone.layout.height > default().layout.height


@pytest.mark.parametrize("narrow", [False, True])
def test_no_panel_covers_another(narrow):
    layout = go.Figure(default()).layout
    for path, value in layout.meta["narrow"].items() if narrow else ():
        layout[path] = value
    boxes = [(*layout[f"xaxis{n}"].domain, *layout[f"yaxis{n}"].domain) for n in ("", 2, 3, 4, 5)]
    assert all(0 <= low < high <= 1 for box in boxes for low, high in (box[:2], box[2:]))
    for place, a in enumerate(boxes):
        for b in boxes[:place]:
            assert a[0] >= b[1] or b[0] >= a[1] or a[2] >= b[3] or b[2] >= a[3]


def test_a_full_map_stays_below_the_size_limit():
    full = [
        cell(s, blocks, d, rank=15) for s in SWITCHES for blocks in (2, 4, 8, 16, 32) for d in np.linspace(0, 0.05, 6)
    ]
    assert len(draw(full).to_json()) < 1_200_000


def test_records_of_a_json_file_will_do_and_give_the_same_json():
    lists = {"trajectories", "singular_values", "coupling"}
    records = [{k: v.tolist() if k in lists else v for k, v in vars(each).items()} for each in CELLS]
    read = [MapCell(**record) for record in json.loads(json.dumps(records))]
    assert draw(read).to_json() == draw().to_json()


def test_matplotlib_draws_the_maps_and_the_chosen_cell():
    before = (plotly.io.templates.default, plt.get_fignums())
    figure = draw(chosen=("with skips", 8, 0.01), backend="matplotlib")
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    assert (plotly.io.templates.default, plt.get_fignums()) == before
    first, second, states, sigmas, matrix, bar = figure.axes
    assert [axis.get_title() for axis in (first, second)] == list(SWITCHES)
    for axis, switch in ((first, SWITCHES[0]), (second, SWITCHES[1])):
        found = {text.get_position(): text.get_text() for text in axis.texts}
        for each in (each for each in CELLS if each.switch == switch):
            place = ([0.0, 0.001, 0.01].index(each.column), [2, 8].index(each.row))
            assert found[place] == written(default())[name_of(each)][0]
            if each is not CELLS[4]:
                close(axis.images[0].get_array()[place[::-1]], np.mean(each.scores))
    outline = [p for p in first.patches if isinstance(p, Rectangle) and not p.get_fill()]
    assert [p.get_xy() for p in outline] == [(1.5, 0.5)] * 2
    assert not [p for p in second.patches if not p.get_fill()]
    close(matrix.images[0].get_array(), CELLS[0].coupling)
    close([line.get_ydata() for line in sigmas.lines[:8]], CELLS[0].singular_values)
    close(states.lines[0].get_xdata()[1:], CELLS[0].trajectories[0, :, 0])
    assert bar.get_ylabel() == "alignment, coupling"
    assert draw(backend="matplotlib", height=900).get_size_inches()[1] == 9
    assert draw(height=900).layout.height == 900


# ---- what is refused


def refused(text, *arguments, **options):
    with pytest.raises(ValueError, match=re.escape(text)):
        draw(*arguments, **options)


def test_what_cannot_be_drawn_is_refused():
    for nothing in ([], {}, [vars(CELLS[0])]):
        refused("alignment_map: expected a sequence of at least one MapCell; MapCell(**record) makes one.", nothing)
    text = "two cells stand at ('with skips', 8, 0.01). Put all seeds into one cell."
    refused(text, [CELLS[0], CELLS[0]])
    refused(
        "chosen must be (switch, row, column) of a cell; got ('with skips', 3, 0.01).", chosen=("with skips", 3, 0.01)
    )
    refused("backend must be one of", backend="bokeh")
    name = "panel 'with skips, blocks L = 8, weight decay = 0.01: "
    fix = "Here seeds = 3, L = 8 (from coupling) and n = 4 (from labels)."
    for part, expected, wrong in (
        ("scores", "(seeds,)", np.zeros((3, 1))),
        ("train_accuracy", "(seeds,)", np.zeros(2)),
        ("test_accuracy", "(seeds,)", np.zeros(4)),
        ("trajectories", "(n, L+1, 2)", np.zeros((4, 8, 2))),
        ("trajectories", "(n, L+1, 2)", np.zeros((5, 9, 2))),
        ("singular_values", "(L, r)", np.zeros(8)),
        ("coupling", "(L, L)", np.zeros((8, 7))),
    ):
        text = f"{name}{part}' must have shape {expected}; got {np.shape(wrong)}. {fix}"
        refused(text, [replace(CELLS[0], **{part: wrong})])
    refused("class_names must name classes 0..7; got 2 names", class_names="ab")
