"""Grids of matrices, scores and images: each entry where it belongs, on its scale."""

import math
import re

import numpy as np
import pytest
import torch
from figures import GRIDS, IMAGES, STAGES, close, draw, random

from resalign_utils import plotting

MINUS = "−"


def refused(text, function, *arguments, **options):
    with pytest.raises(ValueError, match=re.escape(text)):
        function(*arguments, **options)


# ---- matrices and scores


def test_the_grid_shows_the_entries_relative_to_the_largest_of_their_row():
    matrices = GRIDS["trained"][:3, :3]
    (image,) = plotting.coupling_grid(matrices).data
    assert image.z.shape == (11, 11)  # 3 blocks of 3 cells, 2 gaps
    for i in range(3):
        for j in range(3):
            cells = np.s_[4 * i : 4 * i + 3, 4 * j : 4 * j + 3]
            close(image.z[cells], matrices[i, j].abs() / matrices[i].abs().max())
            close(image.customdata[cells], matrices[i, j].abs())
    assert np.isnan(image.z[3]).all()
    assert np.isnan(image.z[:, 7]).all()
    assert image.y[5] == "2, vector 2"
    assert len(set(image.x)) == len(image.x) == 11  # or Plotly would merge columns
    assert "matrix of block i = %{y}<br>frames of block j = %{x}" in image.hovertemplate
    assert draw("grid").layout.yaxis.autorange == "reversed"


def test_the_scale_of_the_grid_is_the_top_singular_value():
    """At j = i the matrix is S_i, so that the largest of row i is σ₁(J_i)."""
    jacobians = [random(4, 4, seed=seed).double() for seed in range(3)]
    svds = [torch.linalg.svd(jacobian) for jacobian in jacobians]
    matrices = torch.stack([torch.stack([u.T @ j @ v.T for u, _, v in svds]) for j in jacobians])
    image = plotting.coupling_grid(matrices).data[0]
    for i, (_, s, _) in enumerate(svds):
        close(image.customdata[5 * i, 5 * i] / image.z[5 * i, 5 * i], s[0])


def test_the_grid_names_its_matrices_and_chooses_at_most_six_blocks_evenly():
    figure = plotting.coupling_grid({"deep": random(16, 16, 2, 2), "few": random(3, 3, 2, 2)}, symbol="V_jᵀ J_i U_j")
    assert list(figure.layout.xaxis.ticktext) == ["1", "4", "7", "10", "13", "16"]
    assert list(figure.layout.xaxis2.ticktext) == ["1", "2", "3"]
    assert "V<sub>j</sub>ᵀ J<sub>i</sub> U<sub>j</sub>" in figure.layout.coloraxis.colorbar.title.text
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 1)


def test_a_dead_block_is_a_row_of_zeros():
    matrices = GRIDS["trained"][:3, :3].clone()
    matrices[1] = 0
    image = plotting.coupling_grid(matrices).data[0]
    assert np.nanmax(image.z[4:7]) == 0
    assert np.nanmax(image.z[:3]) == 1


def test_scores_are_drawn_with_their_mean_over_other_blocks():
    scores = torch.tensor([[1.0, 0.5, -0.25], [0.25, 1.0, 0.0], [-0.5, 0.0, 1.0]])
    figure = plotting.score_matrix({"a": scores, "b": -scores, "c": torch.eye(2) - 1e-5}, label="score_i")
    close(figure.data[0].z, scores)
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-1, 1)
    middle = [colour for place, colour in figure.layout.coloraxis.colorscale if place == 0.5]
    assert middle == ["rgb(247,247,247)"]
    assert [title.text for title in figure.layout.annotations] == [f"{n}<br>mean over i ≠ j: 0" for n in "abc"]
    scores[0, 1] = -1.0
    (title,) = plotting.score_matrix({"a": scores}).layout.annotations
    assert title.text.endswith(f"{MINUS}0.25")
    assert figure.layout.coloraxis.colorbar.title.text == "score<sub>i</sub>"


def test_incomparable_pairs_are_grey_and_it_is_said():
    scores = torch.full((4, 4), 0.5)
    scores[:2, 2:] = scores[2:, :2] = math.nan
    figure = plotting.score_matrix({"two stages": scores})
    assert (np.isnan(figure.data[0].z) == np.isnan(scores.numpy())).all()
    assert figure.layout.plot_bgcolor == "#bdbdbd"
    assert figure.layout.coloraxis.colorbar.title.text == "coupling<br>grey: different shapes, not comparable"
    assert "grey" not in draw("scores").layout.coloraxis.colorbar.title.text
    assert "mean over i ≠ j: 0.5" in figure.layout.annotations[0].text
    assert plotting.score_matrix({"": torch.ones(1, 1)}).layout.annotations[0].text == "no comparable pair"


def test_matrices_that_do_not_fit_are_refused():
    text = "coupling_grid: panel '' must have shape (L, L, k, k); got (2, 3, 4, 4). coupling_matrices("
    refused(text, plotting.coupling_grid, torch.zeros(2, 3, 4, 4))
    for shape in ((3, 3, 4, 5), (3, 3), (3, 3, 4)):
        refused(f"(L, L, k, k); got {shape}", plotting.coupling_grid, torch.zeros(shape))
    text = "score_matrix: panel 'a' must have shape (L, L); got (9, 5, 5). Average over inputs first"
    refused(text, plotting.score_matrix, {"a": torch.zeros(9, 5, 5)})


# ---- images


def pictures(figure):
    """Name of the row → the traces of its columns."""
    assert len(figure.data) == len(IMAGES) * len(STAGES)
    return {name: figure.data[place * len(STAGES) :][: len(STAGES)] for place, name in enumerate(IMAGES)}


def test_each_image_is_relative_to_its_own_largest_entry():
    figure = draw("images")
    for name, traces in pictures(figure).items():
        for trace, title, values in zip(traces, STAGES, IMAGES[name], strict=True):
            close(trace.z, values / values.abs().max())
            close(trace.customdata[..., 0], values)
            assert trace.name == f"{name}, {title}"
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-1, 1)
    assert figure.layout.coloraxis.colorbar.title.text == "relative to the largest entry"
    assert draw("images", label="v_i").layout.coloraxis.colorbar.title.text == "v<sub>i</sub>"


def test_pointing_at_a_pixel_says_which_it_is_and_its_value():
    trace = pictures(draw("images"))["digits, v_1"][3]
    tip = trace.hovertemplate
    assert tip.startswith("digits, v<sub>1</sub><br>x<sub>i</sub><br>pixel in row %{customdata[1]}, column %{custom")
    assert "value %{customdata[0]:" in tip
    close(trace.customdata[2, 5], [IMAGES["digits, v_1"][3, 2, 5], 3, 6])  # counted from 1


def test_images_stand_in_their_row_and_column_with_square_pixels_and_a_frame():
    figure = draw("images")
    frames = iter(figure.layout.shapes)
    for y, (name, traces) in enumerate(pictures(figure).items()):
        for x, trace in enumerate(traces):
            assert trace.dx == trace.dy
            (h, w), left, top = trace.z.shape, trace.x0 - trace.dx / 2, trace.y0 - trace.dy / 2
            right, bottom = left + w * trace.dx, top + h * trace.dy
            close([(left + right) / 2, (top + bottom) / 2], [x, y], atol=1e-9)
            assert 0.9 < max(right - left, bottom - top) < 1, name
            frame = next(frames)
            close([frame.x0, frame.x1, frame.y0, frame.y1], [left, right, top, bottom])
    across, down = figure.layout.xaxis, figure.layout.yaxis
    assert (down.scaleanchor, across.constrain, down.constrain) == ("x", "domain", "domain")
    assert (list(across.range), list(down.range)) == ([-0.5, 3.5], [2.5, -0.5])  # rows downwards


def test_names_stand_beside_the_rows_and_titles_above_the_columns():
    figure = draw("images")
    assert list(figure.layout.xaxis.ticktext) == ["image", "block 1", "block 3", "x<sub>i</sub>"]
    assert list(figure.layout.yaxis.ticktext) == ["digits, v<sub>1</sub>", "blobs", "no skip"]
    long = plotting.image_grid(
        {"right singular vector": torch.ones(7, 2, 2)}, columns=["after the last block", *"abcdef"]
    )
    assert list(long.layout.yaxis.ticktext) == ["right singular<br>vector"]
    assert long.layout.xaxis.ticktext[0] == "after the<br>last block"
    assert long.layout.margin.t > figure.layout.margin.t


@pytest.mark.parametrize(("rows", "columns", "side"), [(1, 1, 120), (4, 6, 98), (6, 7, 84)])
def test_the_height_of_images_fits_a_page(rows, columns, side):
    given = {str(row): torch.ones(columns, 2, 2) for row in range(rows)}
    layout = plotting.image_grid(given, columns=range(columns)).layout
    assert layout.height - layout.margin.t - layout.margin.b == rows * side
    assert layout.coloraxis.colorbar.ypad == 0  # or the colour bar of one row takes the room of the images


def test_images_of_nan_are_blank():
    values = random(3, 4, 4)
    values[0], values[1, 2, 3], values[1, 0, 0], values[2] = math.nan, math.nan, math.inf, 0.0
    figure = plotting.image_grid({"a": values}, columns="xyz")
    blank, holed, zeros = figure.data
    assert np.isnan(blank.z).all()
    assert np.argwhere(np.isnan(holed.z)).tolist() == [[0, 0], [2, 3]]
    assert np.nanmax(np.abs(holed.z)) == 1
    assert (zeros.z == 0).all()
    assert [round(shape.x0) for shape in figure.layout.shapes] == [1, 2]  # frames
    plotting.image_grid({"a": values[:1]}, columns="x")  # nothing but a blank


def test_images_that_do_not_fit_their_columns_are_refused():
    fix = "Pass one image without channels for each of columns"
    for shape in ((3, 8, 8), (2, 1, 8, 8), (8, 8), (2, 0, 8)):
        given = {"fits": torch.zeros(2, 8, 8), "a": torch.zeros(shape)}
        text = f"image_grid: panel 'a' must have shape (2, h, w); got {shape}. {fix}"
        refused(text, plotting.image_grid, given, columns=["x", "y"])
    refused("columns must have a title for at least one column; got none.", plotting.image_grid, IMAGES, columns=[])
