"""The map: every cell's number and panels, whichever is chosen; what is refused."""

import functools
import json
import math
import re
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
from figures import clashes, note
from figures import close as close_to

from resalign_utils import plotting
from resalign_utils.plotting import MapCell

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
    close_to(drawn, given, atol=1e-3)


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
    grey = next(trace for trace in figure.data if trace.type == "heatmap" and trace.colorscale)
    assert {colour for _, colour in grey.colorscale} == {"#e3e3e3"}
    tip = grey.hovertext[0][0].replace("\u00a0", " ")
    assert tip.startswith("with skips, blocks L = 2, weight decay = 0<br>alignment −0.80 ± 0.08 (±1 sd, 3 seeds)")
    assert tip.endswith("accuracy: train 0.996, test 0.98; ✗ 1 of 3 seeds")
    assert "✗ not trained, with its lowest train accuracy: below 0.99" in note(figure).replace("<br>", " ")
    assert "✗" not in note(draw([CELLS[0]]))


def test_a_score_or_an_accuracy_that_is_nan_is_said():
    broken = [cell("with skips", 2, 0.0, score=math.nan), replace(CELLS[0], train_accuracy=[None, 1.0, 1.0])]
    found = written(draw(broken))
    assert found[name_of(broken[0])][:2] == ("–", 0)
    assert found[name_of(broken[1])][0] == "✗"


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


def test_the_best_cell_that_trained_is_chosen_first():
    figure, wanted = default(), CELLS[7]
    assert figure.layout.title.text.startswith(f"<b>{name_of(wanted)}</b>")
    (slider,) = figure.layout.sliders
    assert slider.steps[slider.active].args[0] == (name_of(wanted),)
    close(figure.data[-1].z, wanted.coupling)
    failed = replace(cell("with skips", 4, 0.0, score=0.95), train_accuracy=[0.5] * 3)
    assert draw([*CELLS, failed]).layout.title.text == figure.layout.title.text
    assert "weight decay = 0.01<" in draw([replace(CELLS[0], train_accuracy=[0.5] * 3)]).layout.title.text


def test_there_is_a_frame_and_a_step_per_cell_in_the_order_of_the_maps():
    figure = default()
    assert [frame.name for frame in figure.frames] == NAMES
    assert [step.args[0][0] for step in figure.layout.sliders[0].steps] == NAMES
    assert {step.method for step in figure.layout.sliders[0].steps} == {"animate"}
    assert len({frame.traces for frame in figure.frames}) == 1


def test_each_frame_shows_the_trajectories_of_its_cell():
    assert clashes(default()) == []
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
    assert "dashed: C = 3" in note(figure).replace("<br>", " ")


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


def test_each_frame_says_which_cell_it_is():
    for frame in default().frames:
        title, score, accuracy = frame.layout.title.text.replace("\u00a0", " ").split("<br>")
        assert title == f"<b>{frame.name}</b>"
        assert re.fullmatch(r"alignment −?\d\.\d\d ± 0\.08 \(±1 sd, 3 seeds\)", score)
        assert accuracy.startswith("accuracy: train ")
    single = replace(CELLS[0], scores=[0.5], train_accuracy=[1], test_accuracy=[0.9])
    assert "alignment 0.5<br>" in draw([single]).layout.title.text


def test_small_singular_values_are_clipped_and_it_is_said():
    low = replace(CELLS[0], singular_values=np.full((8, 5), 1e-9))
    figure = draw([low])
    assert list(figure.data[-2].y) == pytest.approx([1e-6] * 5)
    assert "values below 10⁻⁶ are drawn at 10⁻⁶" in note(figure)
    assert "10⁻⁶" not in note(default())
    unknown = replace(CELLS[0], singular_values=np.full((8, 5), math.nan))
    assert np.isfinite(draw([unknown]).layout.yaxis4.range).all()


# ---- places and size


def test_maps_and_panels_have_their_titles():
    words = [title.text for title in default().layout.annotations]
    assert words == [*SWITCHES, "trajectories", "singular values", "coupling"]
    assert default().layout.coloraxis.colorbar.title.text == "alignment"
    assert [default().layout[f"{letter}axis"].title.text for letter in "xy"] == ["weight decay", "blocks L"]


def test_the_page_is_told_that_a_click_on_a_cell_shows_its_frame():
    assert default().layout.meta == {"click_to_frame": True}
    assert set(written(default())) == {frame.name for frame in default().frames}
    assert all(axis.fixedrange for axis in (default().layout.xaxis, default().layout.yaxis2))  # a tap does not zoom


@pytest.mark.parametrize("switches", [1, 2, 3])
def test_no_panel_covers_another(switches):
    cells = [replace(CELLS[0], switch=str(number)) for number in range(switches)]
    figure = draw(cells)
    axes = zip(figure.select_xaxes(), figure.select_yaxes(), strict=True)
    boxes = [(*x.domain, *y.domain) for x, y in axes]
    assert len(boxes) == switches + 3
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


# ---- what is refused


def refused(text, *arguments, **options):
    with pytest.raises(ValueError, match=re.escape(text)):
        draw(*arguments, **options)


def test_what_cannot_be_drawn_is_refused():
    for nothing in ([], {}, [vars(CELLS[0])]):
        refused("alignment_map: expected a sequence of at least one MapCell; MapCell(**record) makes one.", nothing)
    text = "two cells stand at with skips, blocks L = 8, weight decay = 0.01. Put all seeds into one cell."
    refused(text, [CELLS[0], CELLS[0]])
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
