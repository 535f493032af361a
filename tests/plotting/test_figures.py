"""Every figure: what a reader and a notebook may rely on, whichever function draws it."""

import json
import re
import subprocess
import sys

import numpy as np
import plotly.graph_objects as go
import plotly.io
import pytest
import torch
from figures import CASES, LABELS, close, draw, note, random, states

from resalign_utils import plotting
from resalign_utils.plotting import _theme
from resalign_utils.plotting._colours import GRID, INK


@pytest.fixture(params=CASES)
def case(request):
    return request.param


def test_each_figure_is_plotlys_and_says_what_its_axes_are(case):
    figure = draw(case)
    assert isinstance(figure, go.Figure)
    assert 350 <= figure.layout.height <= 600 or case == "dots"
    assert set(json.loads(figure.to_json())) <= {"data", "layout", "frames"}
    assert "$" not in re.sub(r'"bdata":"[^"]*"', "", figure.to_json())  # no TeX, which Plotly leaves as it is
    if case not in (
        "images",
        "dots",
        "differences",
        "trajectories 3-D",
    ):  # whose names of rows, or of cubes, say what is drawn
        assert any(axis.title.text for axis in figure.select_xaxes())
        named_above = [title.text for title in figure.layout.annotations if title.text.strip()]
        assert next(figure.select_yaxes()).title.text or named_above


def test_the_height_can_be_chosen(case):
    assert draw(case, height=610).layout.height == 610


def test_drawing_again_gives_the_same_and_changes_nothing_global(case):
    before = (plotly.io.templates.default, plotly.io.renderers.default)
    assert draw(case).to_json() == draw(case).to_json()
    assert before == (plotly.io.templates.default, plotly.io.renderers.default)


def test_a_tensor_with_a_gradient_will_do(case):
    function, (first, *others), options = CASES[case]
    tracked = {k: v.clone().requires_grad_() if isinstance(v, torch.Tensor) else v for k, v in first.items()}
    assert function(tracked, *others, **options).to_json() == draw(case).to_json()


def test_no_panel_at_all_is_refused(case):
    function, (_, *others), options = CASES[case]
    for nothing in ({}, torch.zeros(3, 3, 3)):
        if function is plotting.coupling_grid and isinstance(nothing, torch.Tensor):
            continue  # takes one tensor without a name
        with pytest.raises(ValueError, match="expected a mapping"):
            function(nothing, *others, **options)


def test_ink_grid_and_paper_are_the_three_that_the_dark_theme_replaces(case):
    layout = draw(case).layout
    template = layout.template.layout
    assert (template.font.color, template.paper_bgcolor, template.xaxis.gridcolor) == (INK, "#ffffff", GRID)
    lines = [shape.line.color for shape in layout.shapes if shape.name]  # reference lines
    assert set(lines) <= {INK}
    assert '"#000' not in draw(case).to_json()


def test_no_name_in_a_legend_is_wider_than_a_phone(case):
    figure = draw(case)
    names = [trace.name or "" for trace in figure.data if trace.showlegend is not False]
    assert all(len(line) <= 46 for name in names for line in name.split("<br>"))


def test_no_note_is_wider_than_a_page(case):
    assert max(map(len, note(draw(case)).split("<br>"))) <= 84  # a narrow page breaks them again, by its own width


def test_importing_the_package_imports_no_plotting_library():
    libraries = "('matplotlib', 'plotly')"
    code = f"import sys, resalign_utils; resalign_utils.trace; print([m for m in {libraries} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_hundred_inputs_stay_below_the_size_limit():
    for dims in (2, 3):
        given = {name: random(100, 17, dims, seed=i) for i, name in enumerate(states())}
        assert len(plotting.trajectories(given, torch.arange(100) % 10).to_json()) < 250_000
    assert len(plotting.trajectories(states(), LABELS).to_json()) < 20_000


# ---- texts and axes


def test_subscripts_are_of_single_letters():
    assert _theme.as_html("U_jᵀ J_i V_j, U_jᵀJ_iV_j, σ_κ") == (
        "U<sub>j</sub>ᵀ J<sub>i</sub> V<sub>j</sub>, U<sub>j</sub>ᵀJ<sub>i</sub>V<sub>j</sub>, σ<sub>κ</sub>"
    )
    assert _theme.as_html("train_accuracy") == "train_accuracy"


def test_lines_are_broken_by_what_is_seen_of_them():
    assert _theme.wrapped("h<sub>0</sub> and h<sub>1</sub>", 10) == "h<sub>0</sub> and h<sub>1</sub>"
    assert _theme.wrapped("one two three<br>four", 8) == "one two<br>three<br>four"


def test_ticks_of_a_logarithmic_axis():
    def ticks(*values):
        axis = _theme.log_axis([np.array(values)])
        return dict(zip(axis["ticktext"], axis["tickvals"], strict=True))

    wanted = {"0.1": 0.1, "0.2": 0.2, "0.5": 0.5, "1": 1, "2": 2, "5": 5, "10": 10, "20": 20, "50": 50}
    assert ticks(0.2, np.nan, 1.5) == pytest.approx(wanted)
    assert list(ticks(1e-5, 30.0)) == ["10⁻⁵", "10⁻⁴", "10⁻³", "10⁻²", "0.1", "1", "10", "100"]
    assert len(ticks(1e-30, 1e30)) <= 12
    assert next(iter(ticks(np.nan))) == "1"


def test_an_axis_of_accuracies_ends_at_one():
    x, options = [1, 2], {"x_label": "x", "y_label": "accuracy"}
    close(plotting.curves({"a": (x, [0.5, 0.98])}, **options).layout.yaxis.range, [0.485, 1.015])
    close(plotting.curves({"a": (x, [0.5, 0.98])}, **options, reference={"chance": 0.1}).layout.yaxis.range[0], 0.073)
    band = plotting.curves({"a": (x, torch.tensor([[0.5, 1.0], [0.7, 0.94]]))}, **options)
    assert band.layout.yaxis.range[1] < 1.02  # though mean and deviation reach beyond it
    flat = plotting.curves({"a": (x, [1.0, 1.0])}, **options).layout.yaxis.range
    close(flat, [0.897, 1.003])  # no thousandth above 1 among the ticks
    for values in ([0.5, 0.7], [0.5, 1.2], [-0.5, 1.0]):
        assert plotting.curves({"a": (x, values)}, **options).layout.yaxis.range is None
