"""Every figure in both libraries: what is drawn is what was given, readable, stable, and refused where it cannot be."""

import itertools
import json
import math
import re
import subprocess
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import plotly.graph_objects as go
import plotly.io
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from nbclient import NotebookClient

from resalign_utils import plotting
from resalign_utils.plotting import _palette, _theme

NAMES = ("trained", "untrained", "no skip")
MINUS = "−"


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def states(inputs=6, blocks=4, dims=2):
    """The no-skip network has one block less, as in the book."""
    return {name: random(inputs, blocks + 1 - (name == "no skip"), dims, seed=i) for i, name in enumerate(NAMES)}


def sigmas(inputs=5, blocks=4, rank=6):
    return {name: random(inputs, blocks, rank, seed=i).abs().sort(-1, True).values for i, name in enumerate(NAMES)}


LABELS = torch.tensor([0, 2, 2, 0, 7, 2])
FILM = {epoch: random(6, 4, 2, seed=epoch) * 10 ** (2 - epoch) for epoch in (0, 1, 2, 5)}
GRIDS = {name: random(7, 7, 3, 3, seed=i) for i, name in enumerate(NAMES)}
SCORES = {name: random(5, 5, seed=i).clamp(-1, 1) for i, name in enumerate(NAMES)}
IMAGES = {"digits, v_1": random(4, 8, 8), "blobs": random(4, 14, 10, seed=1), "no skip": random(4, 2, 3, seed=2)}
STAGES = ("image", "block 1", "block 3", "x_i")
TOPS = {name: values[..., 0] for name, values in sigmas().items()}
FITS = {"trained": (1.25, -0.5, 0.99), "no skip": (-0.03, 2.0, 0.1)}
LAW = {"trained": ([4, 8, 16], random(3, 3).exp()), "wide": ([8, 16], torch.tensor([0.5, 0.25]))}
LINES = {"trained": ([1, 2, 3], random(4, 3).exp()), "loss": ([1, 2, 3], [3.0, math.nan, 1.0])}
ONE_FACTOR = {
    "batch norm": {"on": {"trained": random(3), "no skip": random(3, seed=1)}, "off": {"trained": random(3, seed=2)}},
    "depth": {"2": [0.25], "4": random(3, seed=3), "8": [0.5, math.nan], "16": [math.nan]},
}
CASES = {
    "trajectories": (plotting.trajectories, (states(), LABELS), {}),
    "trajectories 3-D": (plotting.trajectories, (states(dims=3), LABELS), {"shared_scale": True}),
    "film": (plotting.trajectories_over_training, (FILM, LABELS), {}),
    "grid": (plotting.coupling_grid, (GRIDS,), {}),
    "scores": (plotting.score_matrix, (SCORES,), {}),
    "images": (plotting.image_grid, (IMAGES,), {"columns": STAGES}),
    "spectra": (plotting.spectra, (sigmas(), 3), {}),
    "inverse": (plotting.inverse_singular_values, (TOPS,), {"fits": FITS}),
    "law": (plotting.depth_law, (LAW,), {"fits": {"trained": (-1.02, 0.05)}}),
    "curves": (plotting.curves, (LINES,), {"x_label": "epoch", "y_label": "loss", "reference": {"null": 0.5}}),
    "curve panels": (plotting.curve_panels, ({"loss": LINES, "‖h_ℓ‖": LINES},), {"x_label": "epoch", "log_y": True}),
    "dots": (plotting.condition_dots, (ONE_FACTOR,), {"x_label": "alignment", "reference": {"baseline": 0.5}}),
    "bars": (plotting.bars, (LINES,), {"x_label": "length (blocks)", "y_label": "share"}),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def draw(case, backend="plotly", **more):
    function, arguments, options = case
    return function(*arguments, backend=backend, **options, **more)


def named(figure, name):
    (trace,) = [trace for trace in figure.data if trace.name == name]
    return trace


def legend(figure):
    return [text.get_text() for each in figure.legends for text in each.get_texts()]


def close(drawn, given):
    np.testing.assert_allclose(np.asarray(drawn, dtype=float), np.asarray(given, dtype=float), rtol=1e-5)


# ---- all figures


@pytest.mark.parametrize(("backend", "kind"), [("plotly", go.Figure), ("matplotlib", Figure)])
def test_each_figure_is_of_its_library_and_can_be_drawn(case, backend, kind):
    figure = draw(case, backend)
    assert isinstance(figure, kind)
    if backend == "matplotlib":
        figure.draw_without_rendering()  # a missing glyph or a layout that collapses is a warning, so an error
    else:
        assert 350 <= figure.layout.height <= 550


def test_the_height_can_be_chosen(case):
    assert draw(case, height=610).layout.height == 610
    assert draw(case, "matplotlib", height=610).get_size_inches()[1] == pytest.approx(6.1)


def test_an_unknown_backend_is_refused(case):
    with pytest.raises(ValueError, match=r"backend must be one of 'plotly', 'matplotlib'; got 'bokeh'\."):
        draw(case, "bokeh")


def test_drawing_again_gives_the_same_json(case):
    assert draw(case).to_json() == draw(case).to_json()


def test_axes_have_titles(case):
    if case[0] in (plotting.image_grid, plotting.condition_dots):
        return  # whose names of rows say what is drawn
    figure, static = draw(case), draw(case, "matplotlib")
    if figure.layout.scene.domain.x is None:
        assert all(axis.title.text for axis in figure.select_xaxes())
        assert next(figure.select_yaxes()).title.text
    assert any(axis.get_xlabel() for axis in static.axes)
    assert static.axes[0].get_ylabel()


def test_no_text_is_tex_in_plotly(case):
    assert "$" not in re.sub(r'"bdata":"[^"]*"', "", draw(case).to_json())


def test_nothing_global_is_changed(case):
    with mpl.rc_context({"font.size": 31, "axes.grid": False}):
        before = (dict(mpl.rcParams), plotly.io.templates.default, plotly.io.renderers.default, plt.get_fignums())
        draw(case), draw(case, "matplotlib")
        after = (dict(mpl.rcParams), plotly.io.templates.default, plotly.io.renderers.default, plt.get_fignums())
    assert before == after


def test_ones_own_style_does_not_leak_in(case):
    with mpl.rc_context({"figure.facecolor": "black", "axes.facecolor": "black", "xtick.major.size": 40}):
        figure = draw(case, "matplotlib")
    assert to_hex(figure.get_facecolor()) == "#ffffff"
    if case[0] not in (plotting.coupling_grid, plotting.score_matrix):  # whose background is grey, without tick marks
        assert to_hex(figure.axes[0].get_facecolor()) == "#ffffff"
        assert figure.axes[0].xaxis.get_major_ticks()[0].tick1line.get_markersize() < 40


def test_plotly_is_a_white_card_that_shares_nothing_with_a_cloud(case):
    layout = draw(case).layout.template.layout
    assert layout.paper_bgcolor == "#ffffff"
    assert "xaxis" in layout.to_plotly_json()


def test_a_tensor_with_a_gradient_or_an_array_will_do(case):
    function, arguments, options = case
    first = {
        name: value.clone().requires_grad_() if isinstance(value, torch.Tensor) else value
        for name, value in arguments[0].items()
    }
    assert function(first, *arguments[1:], **options).to_json() == draw(case).to_json()


def test_importing_the_package_imports_no_plotting_library():
    code = "import sys, resalign_utils; print([m for m in ('matplotlib', 'plotly') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_figure_at_the_end_of_a_cell_is_shown_once_as_a_picture():
    setup = "import torch\nfrom resalign_utils import plotting\nfew = {'a': ([1, 2], [1.0, 2.0])}"
    plot = "plotting.curves(few, x_label='x', y_label='y', backend='matplotlib')"
    cells = [nbformat.v4.new_code_cell(source) for source in (f"{setup}\n{plot}", plot, f"{plot};")]
    book = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(book, kernel_name="python3", timeout=120).execute()
    shown = [[set(output.get("data", {})) for output in cell.outputs] for cell in book.cells]
    assert shown == [[{"image/png", "text/plain"}], [{"image/png", "text/plain"}], []]


# ---- colours


def test_a_class_has_one_colour_everywhere():
    labels, wanted = torch.tensor([3, 3, 1, 1, 0, 3]), _palette.CLASS_COLOURS[3]
    for dims in (2, 3):
        for trace in plotting.trajectories(states(dims=dims), labels).select_traces({"name": "3"}):
            assert trace.marker.colorscale[-1][1] == wanted
    film = plotting.trajectories_over_training(FILM, labels)
    assert named(film, "3").marker.colorscale[-1][1] == wanted
    static = plotting.trajectories(states(), labels, backend="matplotlib")
    assert {line.get_color() for axis in static.axes for line in axis.lines if line.get_label() == "3"} == {wanted}
    (handle,) = [line for line in static.legends[0].get_lines() if line.get_label() == "3"]
    assert handle.get_color() == wanted
    assert plotting.class_colour(13) == wanted  # after ten classes they start again


def test_the_legend_of_plotly_takes_the_brightest_shade():
    for trace in draw(CASES["trajectories"]).data:
        assert trace.marker.color[0] == max(trace.marker.color)
        assert trace.marker.size[0] == max(trace.marker.size)


def test_classes_are_petroffs_and_depths_viridis():
    assert [to_hex(colour) for colour in mpl.color_sequences["petroff10"]] == list(plotting.CLASS_COLOURS)
    for colour, place in zip(plotting.depth_colours(10), np.linspace(0, 0.9, 10), strict=True):
        given, wanted = (np.array(mpl.colors.to_rgb(c)) for c in (colour, mpl.colormaps["viridis"](place)))
        assert np.abs(given - wanted).max() < 0.02
    assert plotting.depth_colours(1) == plotting.depth_colours(7)[:1]
    assert len(set(plotting.depth_colours(100))) > 90


def test_conditions_keep_their_colour_whatever_stands_beside_them():
    alone, beside = plotting.condition_colours(["no-skip"]), plotting.condition_colours(["a", "No skip", "b"])
    assert alone["no-skip"] == beside["No skip"] == plotting.CONDITION_COLOURS["no skip"]
    assert len(set(beside.values())) == 3
    for name, colour in plotting.CONDITION_COLOURS.items():
        points = plotting.inverse_singular_values({"other": TOPS["trained"], name: TOPS["trained"]})
        lines = plotting.curves({"other": LINES["loss"], name: LINES["loss"]}, x_label="x", y_label="y")
        boxes = plotting.bars({"other": LINES["loss"], name: LINES["loss"]}, x_label="x", y_label="y")
        marks = [points.data[1].marker.color, named(lines, name).line.color, named(boxes, name).marker.color]
        assert set(marks) == {colour}


def test_conditions_differ_without_colour_too():
    styles = _palette.condition_styles([*NAMES, "a"])
    assert len({style["marker"] for style in styles.values()}) == 4
    assert len({styles[name]["dash"] for name in NAMES}) == 3


# ---- trajectories


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
    trace = draw(CASES["trajectories"]).data[0]
    assert (np.diff(trace.marker.size[1:6]) > 0).all()
    assert (np.diff(trace.marker.color[1:6].astype(int)) > 0).all()
    dark, bright = (sum(mpl.colors.to_rgb(shade)) for _, shade in trace.marker.colorscale)
    assert dark < bright


@pytest.mark.parametrize("dims", [2, 3])
def test_trajectories_in_matplotlib_draw_the_same(dims):
    given = states(dims=dims)
    figure = plotting.trajectories(given, LABELS, class_names=list("abcdefgh"), backend="matplotlib")
    for axis, values in zip(figure.axes, given.values(), strict=True):
        for line, label in zip(axis.lines, (0, 2, 7), strict=True):
            points = np.stack(line.get_data_3d() if dims == 3 else line.get_data(), 1)
            close(points[~np.isnan(points[:, 0])], values[label == LABELS].flatten(0, 1))
    assert legend(figure) == ["a", "c", "h"]
    assert "arbitrary units" in figure.legends[0].get_title().get_text()


def test_panels_have_their_own_scale_unless_asked():
    given = {"small": random(3, 4, 2), "large": 100 * random(3, 4, 2)}
    for shared in (False, True):
        figure = plotting.trajectories(given, torch.zeros(3), shared_scale=shared)
        assert (figure.layout.xaxis.range == figure.layout.xaxis2.range) == shared
        for axis, values in (
            (figure.layout.xaxis, given["small"][..., 0]),
            (figure.layout.yaxis, given["small"][..., 1]),
        ):
            assert axis.range[0] < values.min() <= values.max() < axis.range[1]
        width, height = (np.ptp(axis.range) for axis in (figure.layout.xaxis, figure.layout.yaxis))
        assert width == pytest.approx(height, rel=1e-3)  # directions have one scale


def test_small_cubes_say_their_size():
    figure = plotting.trajectories({"a": random(3, 4, 3) * 1000, "b": random(3, 4, 3)}, torch.zeros(3))
    first = figure.layout.annotations[0].text
    side = float(np.ptp(figure.layout.scene.xaxis.range))
    assert float(re.search(r"cube of side ([\d,.]+)", first)[1].replace(",", "")) == pytest.approx(side, rel=0.05)
    assert figure.layout.scene.aspectmode == "cube"


def test_one_panel_one_class_and_one_input_are_enough():
    for backend in ("plotly", "matplotlib"):
        for dims in (2, 3):
            plotting.trajectories({"": random(1, 1, dims)}, torch.tensor([4]), backend=backend)
    figure = plotting.trajectories({"only": random(5, 3, 2)}, torch.full((5,), 4))
    assert [trace.name for trace in figure.data] == ["4"]


def test_a_state_that_is_nan_leaves_a_gap_and_no_trace_in_the_scale():
    broken = random(3, 4, 2)
    broken[0, 2] = math.nan
    figure = plotting.trajectories({"a": broken}, torch.zeros(3))
    assert np.isfinite(figure.layout.xaxis.range).all()
    assert np.isnan(figure.data[0].x).sum() == 4
    empty = plotting.trajectories({"a": broken * math.nan}, torch.zeros(3))
    assert np.isfinite(empty.layout.xaxis.range).all()


def test_a_hundred_inputs_stay_below_the_size_limit():
    given = {name: random(100, 17, 2, seed=i) for i, name in enumerate(NAMES)}
    assert len(plotting.trajectories(given, torch.arange(100) % 10).to_json()) < 250_000
    given = {name: random(100, 17, 3, seed=i) for i, name in enumerate(NAMES)}
    assert len(plotting.trajectories(given, torch.arange(100) % 10).to_json()) < 250_000


# ---- the film


def test_the_slider_has_a_step_per_epoch_and_each_frame_its_states():
    figure = plotting.trajectories_over_training(FILM, LABELS)
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
    assert figure.layout.title.text == "epoch 0"
    close(figure.data[0].x[1:5], FILM[0][0, :, 0])
    assert figure.layout.updatemenus[0].buttons[0].label.endswith("play")


def test_each_epoch_fills_its_axes_unless_asked():
    figure = plotting.trajectories_over_training(FILM, LABELS)
    for frame, values in zip(figure.frames, FILM.values(), strict=True):
        low, high = frame.layout.xaxis.range
        spread = max(np.ptp(values[..., axis].numpy()) for axis in (0, 1))
        assert low < values[..., 0].min() <= values[..., 0].max() < high
        assert high - low < 1.1 * spread
    shared = plotting.trajectories_over_training(FILM, LABELS, shared_scale=True)
    assert len({tuple(frame.layout.xaxis.range) for frame in shared.frames}) == 1


def test_the_film_in_print_is_small_multiples():
    figure = plotting.trajectories_over_training(FILM, LABELS, backend="matplotlib")
    assert [axis.get_title() for axis in figure.axes] == [f"epoch {epoch}" for epoch in FILM]
    for axis, values in zip(figure.axes, FILM.values(), strict=True):
        points = np.stack(axis.lines[1].get_data(), 1)
        close(points[~np.isnan(points[:, 0])], values[LABELS == 2].flatten(0, 1))


# ---- heat maps


def test_the_grid_shows_the_entries_relative_to_the_largest_of_their_row():
    matrices = GRIDS["trained"]
    figure = plotting.coupling_grid(matrices, blocks=[1, 4, 7])
    (image,) = figure.data
    assert image.z.shape == (11, 11)  # 3 blocks of 3 cells, 2 gaps
    for row, i in enumerate((0, 3, 6)):
        for column, j in enumerate((0, 3, 6)):
            cells = np.s_[4 * row : 4 * row + 3, 4 * column : 4 * column + 3]
            close(image.z[cells], matrices[i, j].abs() / matrices[i].abs().max())
            close(image.customdata[cells], matrices[i, j].abs())
    assert np.isnan(image.z[3]).all()
    assert np.isnan(image.z[:, 7]).all()
    assert image.y[5] == "matrix of block i = 4, κ = 2"
    assert image.x[10] == "frames of block j = 7, κ′ = 3"
    assert len(set(image.x)) == len(image.x) == 11  # or Plotly would merge columns
    assert figure.layout.yaxis.autorange == "reversed"


def test_the_scale_of_the_grid_is_the_top_singular_value():
    """At j = i the matrix is S_i, so that the largest of row i is σ₁(J_i)."""
    jacobians = [random(4, 4, seed=seed).double() for seed in range(3)]
    svds = [torch.linalg.svd(jacobian) for jacobian in jacobians]
    matrices = torch.stack([torch.stack([u.T @ j @ v.T for u, _, v in svds]) for j in jacobians])
    image = plotting.coupling_grid(matrices).data[0]
    for i, (_, s, _) in enumerate(svds):
        close(image.customdata[5 * i, 5 * i] / image.z[5 * i, 5 * i], s[0])


def test_the_grid_can_be_signed_scaled_and_named():
    options = {"absolute": False, "symbol": "V_jᵀ J_i U_j", "scale": torch.full((7,), 2.0)}
    figure = plotting.coupling_grid(GRIDS["trained"], **options)
    close(figure.data[0].z[:3, :3], GRIDS["trained"][0, 0] / 2)
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-1, 1)
    assert "V<sub>j</sub>ᵀ J<sub>i</sub> U<sub>j</sub>" in figure.layout.coloraxis.colorbar.title.text
    static = plotting.coupling_grid(GRIDS["trained"], backend="matplotlib", **options)
    assert any("Vⱼᵀ Jᵢ Uⱼ" in axis.get_xlabel() for axis in static.axes)


def test_the_grid_chooses_at_most_six_blocks_evenly():
    figure = plotting.coupling_grid({"deep": random(16, 16, 2, 2), "few": random(3, 3, 2, 2)})
    assert list(figure.layout.xaxis.ticktext) == ["1", "4", "7", "10", "13", "16"]
    assert list(figure.layout.xaxis2.ticktext) == ["1", "2", "3"]


def test_a_dead_block_is_a_row_of_zeros():
    matrices = GRIDS["trained"].clone()
    matrices[2] = 0
    image = plotting.coupling_grid(matrices, blocks=[3]).data[0]
    assert (image.z == 0).all()


@pytest.mark.parametrize("name", ["grid", "scores"])
def test_heat_maps_are_the_same_in_matplotlib(name):
    figure, static = draw(CASES[name]), draw(CASES[name], "matplotlib")
    for trace, axis, title in zip(figure.data, static.axes, NAMES, strict=False):
        close(axis.images[0].get_array().filled(math.nan), trace.z)
        assert axis.get_title().startswith(title)
        assert (axis.images[0].norm.vmin, axis.images[0].norm.vmax) == (-1 if name == "scores" else 0, 1)


def test_scores_are_drawn_with_their_mean_over_other_blocks():
    scores = torch.tensor([[1.0, 0.5, -0.25], [0.25, 1.0, 0.0], [-0.5, 0.0, 1.0]])
    figure = plotting.score_matrix({"a": scores, "b": -scores, "c": torch.eye(2) - 1e-5}, label="coupling")
    close(figure.data[0].z, scores)
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-1, 1)
    middle = [colour for place, colour in figure.layout.coloraxis.colorscale if place == 0.5]
    assert middle == ["#ffffff"]
    titles = [note.text for note in figure.layout.annotations]
    assert titles == [
        f"{name}<br>mean over i ≠ j: {mean}" for name, mean in zip("abc", ("0.00", "0.00", "0.00"), strict=True)
    ]
    scores[0, 1] = -1.0
    (note,) = plotting.score_matrix({"a": scores}).layout.annotations
    assert note.text.endswith(f"{MINUS}0.25")
    assert figure.layout.coloraxis.colorbar.title.text == "coupling"


def test_incomparable_pairs_are_grey_and_say_so():
    scores = torch.full((4, 4), 0.5)
    scores[:2, 2:] = scores[2:, :2] = math.nan
    figure = plotting.score_matrix({"two stages": scores})
    shown, hidden = figure.data
    assert (np.isnan(shown.z) == ~np.isnan(hidden.z)).all()
    assert (np.array(hidden.text) == "×").sum() == 8
    assert "not comparable" in hidden.hovertemplate
    assert "mean over i ≠ j: 0.50" in figure.layout.annotations[0].text
    static = plotting.score_matrix({"two stages": scores}, backend="matplotlib")
    assert static.axes[0].patch.get_hatch()
    assert static.axes[0].images[0].get_array().mask.sum() == 8
    alone = plotting.score_matrix({"": torch.ones(1, 1)})
    assert alone.layout.annotations[0].text == "no comparable pair"


# ---- images


def pictures(figure, rows, columns):
    """Traces, or images of Matplotlib, as name of the row → those of its columns."""
    drawn = list(figure.data if isinstance(figure, go.Figure) else figure.axes[0].images)
    assert len(drawn) == len(rows) * len(columns)
    return {name: drawn[place * len(columns) :][: len(columns)] for place, name in enumerate(rows)}


def edges(trace):
    """Left, right, top, bottom of the image, and the side of its pixels."""
    (h, w), left, top = trace.z.shape, trace.x0 - trace.dx / 2, trace.y0 - trace.dy / 2
    assert trace.dx == trace.dy
    return np.array([left, left + w * trace.dx, top, top + h * trace.dy])


def test_each_image_is_relative_to_its_own_largest_entry():
    figure = draw(CASES["images"])
    for name, traces in pictures(figure, IMAGES, STAGES).items():
        for trace, title, values in zip(traces, STAGES, IMAGES[name], strict=True):
            close(trace.z, values / values.abs().max())
            close(trace.customdata[..., 0], values)
            assert trace.name == f"{name}, {title}"
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-1, 1)
    assert (0.5, "#ffffff") in figure.layout.coloraxis.colorscale
    assert figure.layout.coloraxis.colorbar.title.text == "relative to the largest entry"
    assert draw(CASES["images"], label="v_i").layout.coloraxis.colorbar.title.text == "v<sub>i</sub>"


def test_pointing_at_a_pixel_says_which_it_is_and_its_value():
    trace = pictures(draw(CASES["images"]), IMAGES, STAGES)["digits, v_1"][3]
    tip = trace.hovertemplate
    assert tip.startswith("digits, v<sub>1</sub><br>x<sub>i</sub><br>pixel in row %{customdata[1]}, column %{custom")
    assert "value %{customdata[0]:.3g}<br>relative %{z:.2f}" in tip
    close(trace.customdata[2, 5], [IMAGES["digits, v_1"][3, 2, 5], 3, 6])  # counted from 1
    assert trace.coloraxis == "coloraxis"


def test_images_stand_in_their_row_and_column_with_square_pixels_and_a_frame():
    figure = draw(CASES["images"])
    frames = iter(figure.layout.shapes)
    for y, (name, traces) in enumerate(pictures(figure, IMAGES, STAGES).items()):
        for x, trace in enumerate(traces):
            left, right, top, bottom = edges(trace)
            close([(left + right) / 2, (top + bottom) / 2], [x, y])
            assert 0.9 < max(right - left, bottom - top) < 1, name
            frame = next(frames)
            close([frame.x0, frame.x1, frame.y0, frame.y1], [left, right, top, bottom])
    assert next(frames, None) is None
    across, down = figure.layout.xaxis, figure.layout.yaxis
    assert (down.scaleanchor, across.constrain, down.constrain) == ("x", "domain", "domain")
    assert (list(across.range), list(down.range)) == ([-0.5, 3.5], [2.5, -0.5])  # rows downwards
    assert (across.ticks, down.ticks, across.side) == ("", "", "top")


def test_names_stand_beside_the_rows_and_titles_above_the_columns():
    figure = draw(CASES["images"])
    assert list(figure.layout.xaxis.ticktext) == ["image", "block 1", "block 3", "x<sub>i</sub>"]
    assert list(figure.layout.yaxis.ticktext) == ["digits, v<sub>1</sub>", "blobs", "no skip"]
    long = {"right singular vector": torch.ones(7, 2, 2)}
    titles = ["after the last block", *"abcdef"]
    wrapped = plotting.image_grid(long, columns=titles)
    assert list(wrapped.layout.yaxis.ticktext) == ["right singular<br>vector"]
    assert wrapped.layout.xaxis.ticktext[0] == "after the<br>last block"
    assert wrapped.layout.margin.t > figure.layout.margin.t
    static = plotting.image_grid(long, columns=titles, backend="matplotlib")
    assert static.axes[0].get_yticklabels()[0].get_text() == "right singular\nvector"


@pytest.mark.parametrize(("rows", "columns", "side"), [(1, 1, 120), (4, 6, 98), (6, 7, 84)])
def test_the_height_of_images_fits_a_page(rows, columns, side):
    given = {str(row): torch.ones(columns, 2, 2) for row in range(rows)}
    layout = plotting.image_grid(given, columns=range(columns)).layout
    assert layout.height - layout.margin.t - layout.margin.b == rows * side
    assert layout.coloraxis.colorbar.ypad == 0  # or the colour bar of one row takes the room of the images


def test_images_are_the_same_in_matplotlib():
    figure, static = draw(CASES["images"]), draw(CASES["images"], "matplotlib")
    axis, bar = static.axes
    drawn = pictures(static, IMAGES, STAGES)
    for name, traces in pictures(figure, IMAGES, STAGES).items():
        for trace, image in zip(traces, drawn[name], strict=True):
            close(image.get_array().filled(math.nan), trace.z)
            close(image.get_extent(), edges(trace)[[0, 1, 3, 2]])
            assert (image.norm.vmin, image.norm.vmax) == (-1, 1)
            assert min(image.cmap(0.5)) > 0.99  # white
    assert len(axis.patches) == 12
    assert [text.get_text() for text in axis.get_xticklabels()] == ["image", "block 1", "block 3", "xᵢ"]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["digits, v$_{1}$", "blobs", "no skip"]
    assert axis.xaxis.get_ticks_position() == "top"
    assert axis.get_aspect() == 1
    assert (axis.get_xlim(), axis.get_ylim()) == ((-0.5, 3.5), (2.5, -0.5))
    assert bar.get_xlabel() == "relative to the largest entry"


def test_images_of_nan_are_blank_and_pixels_of_nan_grey():
    values = random(3, 4, 4)
    values[0], values[1, 2, 3], values[1, 0, 0], values[2] = math.nan, math.nan, math.inf, 0.0
    figure = plotting.image_grid({"a": values}, columns="xyz")
    blank, holed, zeros = figure.data
    assert np.isnan(blank.z).all()
    assert np.argwhere(np.isnan(holed.z)).tolist() == [[0, 0], [2, 3]]
    assert np.nanmax(np.abs(holed.z)) == 1
    assert (zeros.z == 0).all()
    assert all(trace.hoverongaps is False for trace in figure.data)
    assert [(s.layer, s.fillcolor, round(s.x0)) for s in figure.layout.shapes] == [
        ("below", _palette.UNKNOWN, 1),
        (None, None, 1),
        (None, None, 2),
    ]
    static = plotting.image_grid({"a": values}, columns="xyz", backend="matplotlib").axes[0]
    assert [image.get_array().mask.sum() for image in static.images] == [16, 2, 0]
    assert [image.cmap.get_bad()[3] for image in static.images[:2]] == [0, 1]
    assert to_hex(static.images[1].cmap.get_bad()) == _palette.UNKNOWN
    assert len(static.patches) == 2
    for backend in ("plotly", "matplotlib"):
        plotting.image_grid({"a": values[:1]}, columns="x", backend=backend)  # nothing but a blank


def test_images_that_do_not_fit_their_columns_are_refused():
    fix = "Pass one image without channels for each of columns"
    for shape in ((3, 8, 8), (2, 1, 8, 8), (8, 8), (2, 0, 8)):
        given = {"fits": torch.zeros(2, 8, 8), "a": torch.zeros(shape)}
        text = f"image_grid: panel 'a' must have shape (2, h, w); got {shape}. {fix}"
        refused(text, plotting.image_grid, given, columns=["x", "y"])
    refused("columns must have a title for at least one column; got none.", plotting.image_grid, IMAGES, columns=[])


# ---- singular values


def test_spectra_are_medians_and_quartiles_of_each_block():
    given = sigmas()
    figure = plotting.spectra({"trained": given["trained"]}, 3)
    shown = given["trained"] / given["trained"][..., :1]
    for block, colour in enumerate(plotting.depth_colours(4)):
        trace = named(figure, f"block {block + 1}")
        close(trace.x, np.arange(1, 7))
        close(trace.y, np.median(shown[:, block], axis=0))
        close(trace.customdata, np.percentile(shown[:, block], [25, 75], axis=0).T)
        assert trace.line.color == colour
    (mark,) = figure.layout.shapes
    assert mark.x0 == mark.x1 == 3.5
    assert any("C = 3" in note.text for note in figure.layout.annotations)
    assert figure.layout.yaxis.type == "log"


def test_spectra_can_be_absolute_and_are_the_same_in_matplotlib():
    given = sigmas()
    figure = plotting.spectra(given, 3, relative=False)
    static = plotting.spectra(given, 3, relative=False, backend="matplotlib")
    blocks = [trace for trace in figure.data if trace.name]
    close(blocks[0].y, np.median(given["trained"][:, 0], axis=0))
    lines = [line for axis in static.axes[:3] for line in axis.lines if line.get_label().startswith("block")]
    for trace, line in zip(blocks, lines, strict=True):
        close(trace.y, line.get_ydata())
        assert trace.line.color == line.get_color()
    assert "σ<sub>κ</sub>" in figure.layout.yaxis.title.text
    assert static.axes[0].get_yscale() == "log"


def test_small_and_dead_singular_values_are_clipped_left_out_and_said():
    values = sigmas()["trained"]
    values[:, 0, 4:] = 1e-9
    values[0, 1] = 0  # one input's second block is dead
    values[:, 2] = 0  # the third block is dead for all
    figure = plotting.spectra({"a": values}, 3)
    first, second, third = (named(figure, f"block {block}") for block in (1, 2, 3))
    close(first.y[4:], [1e-6, 1e-6])
    close(second.y, np.median(values[1:, 1] / values[1:, 1, :1], axis=0))
    assert np.isnan(third.y).all()
    assert "dead at 1 inputs" in second.hovertemplate
    notes = "; ".join(note.text for note in figure.layout.annotations)
    assert "values below 10⁻⁶ are drawn at 10⁻⁶" in notes
    assert "a: 6 dead (input, block) pairs left out" in notes
    static = plotting.spectra({"a": values}, 3, backend="matplotlib")
    static.draw_without_rendering()
    assert "below 10⁻⁶" in static.get_supxlabel()
    plain = "; ".join(note.text for note in plotting.spectra({"a": sigmas()["trained"]}, 3).layout.annotations)
    assert "10⁻⁶" not in plain
    assert "dead" not in plain


def test_inverse_singular_values_are_means_deviations_and_fits():
    figure = plotting.inverse_singular_values(TOPS, fits=FITS)
    points = {trace.legendgroup: trace for trace in figure.data if trace.mode == "markers"}
    for name, values in TOPS.items():
        close(points[name].x, [1, 2, 3, 4])
        close(points[name].y, (1 / values).mean(0))
        close(points[name].error_y.array, (1 / values).std(0, correction=0))
    fitted = {trace.legendgroup: trace for trace in figure.data if trace.mode == "lines"}
    assert set(fitted) == {"trained", "no skip"}
    close(fitted["trained"].y, 1.25 * np.arange(1, 5) - 0.5)
    assert points["trained"].name == f"trained: 1/σ₁ = {MINUS}0.50 + 1.25 ℓ, R² = 0.99"
    assert points["no skip"].name == f"no skip: 1/σ₁ = 2.00 {MINUS} 0.03 ℓ, R² = 0.10"
    assert points["untrained"].name == "untrained"


def test_inverse_singular_values_are_the_same_in_matplotlib():
    figure = plotting.inverse_singular_values(TOPS, fits=FITS)
    static = plotting.inverse_singular_values(TOPS, fits=FITS, backend="matplotlib")
    assert legend(static) == [trace.name for trace in figure.data if trace.mode == "markers"]
    drawn = [container.lines[0].get_ydata() for container in static.axes[0].containers]
    for trace, values in zip([trace for trace in figure.data if trace.mode == "markers"], drawn, strict=True):
        close(trace.y, values)


def test_dead_blocks_are_left_out_and_counted():
    tops = TOPS["trained"].clone()
    tops[0, 1] = 0
    tops[:, 3] = 0
    trace = plotting.inverse_singular_values({"a": tops}).data[0]
    close(trace.y[1], (1 / tops[1:, 1]).mean())
    assert np.isnan(trace.y[3])
    assert trace.customdata[:, 1].tolist() == [0, 1, 0, 5]
    assert trace.name == "a, 6 of 20 dead left out"
    assert "left out as dead" in trace.hovertemplate
    static = plotting.inverse_singular_values({"a": tops}, backend="matplotlib")
    static.draw_without_rendering()
    assert legend(static) == ["a, 6 of 20 dead left out"]


def test_depth_law_is_log_log_with_the_slope_through_the_centre():
    figure = draw(CASES["law"])
    trained, line, wide = figure.data
    values = LAW["trained"][1]
    close(trained.x, [4, 8, 16])
    close(trained.y, values.mean(0))
    close(trained.error_y.array, values.std(0, correction=0))
    close(wide.y, [0.5, 0.25])
    assert trained.name == f"trained: slope {MINUS}1.02 ± 0.05 s.e."
    log_x, log_y = np.log(line.x), np.log(line.y)
    close(np.diff(log_y) / np.diff(log_x), [-1.02] * 2)
    close(log_y.mean(), np.log(trained.y).mean())
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"
    static = draw(CASES["law"], "matplotlib").axes[0]
    assert static.get_xscale() == static.get_yscale() == "log"
    assert [tick.get_text() for tick in static.get_xticklabels()] == ["4", "8", "16"]
    close(static.containers[0].lines[0].get_ydata(), trained.y)


# ---- lines and bars


def test_curves_are_means_with_a_band_of_one_deviation():
    figure = draw(CASES["curves"])
    values = LINES["trained"][1]
    mean, sd = values.mean(0), values.std(0, correction=0)
    line = named(figure, "trained (±1 sd, 4 seeds)")
    close(line.x, [1, 2, 3])
    close(line.y, mean)
    close(line.customdata, torch.stack([mean - sd, mean + sd], 1))
    close(named(figure, "trained, band").y, torch.cat([mean + sd, (mean - sd).flip(0)]))
    close(named(figure, "loss").y, [3, math.nan, 1])
    (level,) = figure.layout.shapes
    assert level.y0 == level.y1 == 0.5
    assert level.line.dash == "dash"
    assert [note.text for note in figure.layout.annotations if note.text.strip()] == ["null: 0.5"]


def test_curves_are_the_same_in_matplotlib():
    figure, static = draw(CASES["curves"]), draw(CASES["curves"], "matplotlib")
    axis = static.axes[0]
    close(axis.lines[0].get_ydata(), figure.data[1].y)
    close(axis.lines[1].get_ydata(), [3, math.nan, 1])
    assert legend(static) == ["trained (±1 sd, 4 seeds)", "loss"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("epoch", "loss")


def test_repeats_that_are_nan_do_not_count():
    values = torch.tensor([[1.0, 2.0, math.nan], [3.0, math.nan, math.nan]])
    figure = plotting.curves({"a": ([1, 2, 3], values)}, x_label="x", y_label="y", band="inputs")
    close(named(figure, "a (±1 sd, 2 inputs)").y, [2, 2, math.nan])
    assert np.isfinite(named(figure, "a, band").y).all()


def test_on_a_logarithmic_axis_mean_and_band_are_geometric():
    given = {"a": ([1, 10], torch.tensor([[1.0, 4.0], [100.0, 4.0]]))}
    figure = plotting.curves(given, x_label="x", y_label="y", log_x=True, log_y=True)
    line = figure.data[1]
    close(line.y, [10, 4])
    close(line.customdata, [[1, 100], [4, 4]])
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"
    static = plotting.curves(given, x_label="x", y_label="y", log_x=True, log_y=True, backend="matplotlib")
    assert static.axes[0].get_xscale() == static.axes[0].get_yscale() == "log"


def test_curve_panels_have_their_own_axis_and_one_legend():
    panels = {
        "loss": {"train": ([1, 2], [3.0, 1.0])},
        "accuracy": {"train": ([1, 2], [0.1, 0.9]), "test": ([1], [0.5])},
    }
    options = {"x_label": "epoch", "reference": {"accuracy": {"chance": 0.1}}}
    figure = plotting.curve_panels(panels, **options)
    assert [axis.title.text for axis in figure.select_yaxes()] == ["loss", "accuracy"]
    assert [(trace.name, trace.yaxis, trace.showlegend) for trace in figure.data] == [
        ("train", "y", True),
        ("train", "y2", False),
        ("test", "y2", True),
    ]
    assert figure.data[0].line.color == figure.data[1].line.color != figure.data[2].line.color
    assert "accuracy" in figure.data[1].hovertemplate
    assert figure.layout.shapes[0].yref == "y2"
    static = plotting.curve_panels(panels, **options, backend="matplotlib")
    assert [axis.get_ylabel() for axis in static.axes] == ["loss", "accuracy"]
    assert legend(static) == ["train", "test"]
    close(static.axes[1].lines[0].get_ydata(), [0.1, 0.9])


def test_bars_have_the_heights_given():
    given = {"a": ([0, 1, 2], [1.0, 2.0, 1.0]), "b": ([0, 1, 2], torch.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]))}
    figure = plotting.bars(given, x_label="length", y_label="share")
    close(named(figure, "a").y, [1, 2, 1])
    close(named(figure, "b").error_y.array, [1, 0, 1])
    axis = plotting.bars(given, x_label="length", y_label="share", backend="matplotlib").axes[0]
    heights = [[bar.get_height() for bar in group] for group in axis.containers if hasattr(group, "patches")]
    close(heights, [[1, 2, 1], [1, 1, 1]])
    edges = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in axis.patches)
    assert all(right <= left + 1e-9 for (_, right), (left, _) in itertools.pairwise(edges))  # none covers another


# ---- texts


def test_subscripts_are_of_single_letters():
    assert _theme.as_html("U_jᵀ J_i V_j, U_jᵀJ_iV_j, σ_κ") == (
        "U<sub>j</sub>ᵀ J<sub>i</sub> V<sub>j</sub>, U<sub>j</sub>ᵀJ<sub>i</sub>V<sub>j</sub>, σ<sub>κ</sub>"
    )
    assert _theme.as_unicode("J_i, h_ℓ") == "Jᵢ, h$_{ℓ}$"
    assert _theme.as_html("train_accuracy") == "train_accuracy"


def test_ticks_of_a_logarithmic_axis():
    places, texts = _theme.log_ticks(np.array([0.2, math.nan, 1.5]))
    assert dict(zip(texts, places, strict=True)) == pytest.approx(
        {"0.1": 0.1, "0.2": 0.2, "0.5": 0.5, "1": 1, "2": 2, "5": 5, "10": 10, "20": 20, "50": 50}
    )
    places, texts = _theme.log_ticks(np.array([1e-5, 30.0]))
    assert texts == ["10⁻⁵", "10⁻⁴", "10⁻³", "10⁻²", "0.1", "1", "10", "100"]
    assert len(_theme.log_ticks(np.array([1e-30, 1e30]))[0]) <= 12
    assert _theme.log_ticks(np.array([math.nan]))[1] == ["1"]


# ---- what is refused


def refused(text, function, *arguments, **options):
    with pytest.raises(ValueError, match=re.escape(text)):
        function(*arguments, **options)


def test_shapes_that_do_not_fit_are_refused_with_the_fix():
    flat = torch.zeros(6, 3)
    refused(
        "trajectories: panel 'a' must have shape (n, L+1, 2 or 3); got (6, 3). Trace.project(2) or Trace.project",
        plotting.trajectories,
        {"a": flat},
        LABELS,
    )
    refused(
        "must have shape (n, L+1, 2 or 3); got (0, 3, 2)", plotting.trajectories, {"a": torch.zeros(0, 3, 2)}, LABELS
    )
    mixed = {"a": torch.zeros(6, 3, 2), "b": torch.zeros(6, 3, 3)}
    refused("panels must be all 2-D or all 3-D", plotting.trajectories, mixed, LABELS)
    refused(
        "labels must have shape (5,), one per input of panel 'a'; got (6,). Pass the labels of the traced inputs",
        plotting.trajectories,
        {"a": torch.zeros(5, 3, 2)},
        LABELS,
    )
    refused(
        "class_names must name classes 0..7; got 2 names", plotting.trajectories, states(), LABELS, class_names="ab"
    )
    refused(
        "panel '3' must have shape (n, L+1, 2); got (6, 3, 3)",
        plotting.trajectories_over_training,
        {3: torch.zeros(6, 3, 3)},
        LABELS,
    )
    refused(
        "coupling_grid: panel '' must have shape (L, L, k, k); got (2, 3, 4, 4). coupling_matrices(",
        plotting.coupling_grid,
        torch.zeros(2, 3, 4, 4),
    )
    refused(
        "score_matrix: panel 'a' must have shape (L, L); got (9, 5, 5). Average over inputs first",
        plotting.score_matrix,
        {"a": torch.zeros(9, 5, 5)},
    )
    refused(
        "spectra: panel 'a' must have shape (n, L, r); got (6, 3). report.singular_values",
        plotting.spectra,
        {"a": flat},
        3,
    )
    refused(
        "inverse_singular_values: panel 'a' must have shape (n, L); got (1, 6, 3). Pass report.singular_values",
        plotting.inverse_singular_values,
        {"a": flat[None]},
    )
    refused(
        "series 'a' needs x (t,) and y (t,) or (repeats, t); got (2,) and (2, 3). Transpose y",
        plotting.curves,
        {"a": ([1, 2], torch.zeros(2, 3))},
        x_label="x",
        y_label="y",
    )
    refused("series 'a' must be a pair (x, y); got list", plotting.bars, {"a": [1, 2, 3]}, x_label="x", y_label="y")


def test_values_out_of_range_are_refused():
    refused("blocks must lie in 1..7 of panel ''; got [0, 8]", plotting.coupling_grid, GRIDS["trained"], blocks=[0, 8])
    refused("blocks must lie in 1..7", plotting.coupling_grid, GRIDS["trained"], blocks=[])
    refused(
        "scale must have shape (7,), one per block; got (2,)",
        plotting.coupling_grid,
        GRIDS["trained"],
        scale=torch.ones(2),
    )
    refused("num_classes must be at least 1; got 0", plotting.spectra, sigmas(), 0)
    refused(
        "fits must map one of ['a'] to (slope, intercept, r2); got 'b'",
        plotting.inverse_singular_values,
        {"a": torch.ones(2, 3)},
        fits={"b": (1, 2, 3)},
    )
    refused("to (slope, standard error); got 'a': (1.0,)", plotting.depth_law, {"a": ([4], [1.0])}, fits={"a": (1,)})
    refused("'a' has values ≤ 0, which a logarithmic axis cannot show", plotting.depth_law, {"a": ([4], [0.0])})
    refused("Series 'a' has values ≤ 0", plotting.curves, {"a": ([0, 1], [1, 1])}, x_label="", y_label="", log_x=True)
    refused(
        "reference names ['b']; the panels are ['a']",
        plotting.curve_panels,
        {"a": {"s": ([1], [1])}},
        x_label="",
        reference={"b": {}},
    )


def test_no_panel_at_all_is_refused(case):
    function, arguments, options = case
    for nothing in ({}, torch.zeros(3, 3, 3)):
        if function is plotting.coupling_grid and isinstance(nothing, torch.Tensor):
            continue  # takes one tensor without a name
        with pytest.raises(ValueError, match="expected a mapping"):
            function(nothing, *arguments[1:], **options)


def test_the_json_of_plotly_is_json(case):
    assert set(json.loads(draw(case).to_json())) <= {"data", "layout", "frames"}
