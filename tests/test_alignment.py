"""Scores of networks whose answer is known on paper."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import resalign_utils as ra
from resalign_utils.alignment import _measure
from resalign_utils.models import ResidualBlock, ResNet

DIM = 12


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def orthogonal(size, seed):
    return torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(seed)))[0]


def affine(weight, bias=None):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone())
    return layer


def chain(*branches, classes=3, dim=DIM):
    """Pre-activation network h ← h + F_ℓ(h) on vectors."""
    blocks = [ResidualBlock(branch, skip=1.0, post=False) for branch in branches]
    return ResNet(nn.Identity(), blocks, nn.Linear(dim, classes)).eval()


def inputs(n=4, seed=0, dim=DIM):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def matrix(left, values, right):
    """U diag(σ) Vᵀ from the first columns of two orthogonal matrices."""
    k = len(values)
    return left[:, :k] * torch.as_tensor(values) @ right[:, :k].T


# RA2: couplings


def test_equal_jacobians_are_perfectly_aligned():
    u, v = orthogonal(DIM, 1), orthogonal(DIM, 2)
    report = ra.measure_alignment(
        chain(*[affine(matrix(u, [3.0, 2.0, 1.0], v))] * 1, affine(matrix(u, [0.3, 0.2, 0.1], v))), inputs()
    )
    torch.testing.assert_close(report.coupling, torch.ones(4, 2, 2))
    torch.testing.assert_close(report.alignment, torch.ones(4))


def test_coupling_is_of_matrix_i_in_frames_of_j():
    u, v = orthogonal(DIM, 1), orthogonal(DIM, 2)
    wide, narrow = matrix(u, [3.0, 2.0, 1.0], v), matrix(u, [5.0], v)
    report = ra.measure_alignment(chain(affine(wide), affine(narrow)), inputs(1), k=1)
    assert report.coupling[0, 0, 1] == pytest.approx(1.0)  # u₁ᵀ wide v₁ = 3 = σ₁
    report = ra.measure_alignment(chain(affine(wide), affine(matrix(u[:, 1:], [5.0], v[:, 1:]))), inputs(1), k=1)
    assert report.coupling[0, 0, 1] == pytest.approx(2 / 3)  # the narrow block's frame holds wide's second vector
    assert report.coupling[0, 1, 0] == pytest.approx(0.0)


def test_reversed_frames_are_coupled_but_not_in_order():
    u, v = orthogonal(DIM, 1), orthogonal(DIM, 2)
    forward, backward = matrix(u, [3.0, 2.0, 1.0], v), matrix(u, [1.0, 2.0, 3.0], v)
    report = ra.measure_alignment(chain(affine(forward), affine(backward)), inputs())
    torch.testing.assert_close(report.coupling, torch.ones(4, 2, 2))
    # ‖diag(1,2,3) − diag(3,2,1)‖ / ‖diag(3,2,1)‖ = √8/√14
    expected = torch.full((4, 2, 2), 1 - math.sqrt(8 / 14))
    expected[:, [0, 1], [0, 1]] = 1.0
    torch.testing.assert_close(report.coupling_ordered, expected)


def test_opposite_jacobians_couple_negatively():
    u, v = orthogonal(DIM, 1), orthogonal(DIM, 2)
    j = matrix(u, [3.0, 2.0, 1.0], v)
    report = ra.measure_alignment(chain(affine(j), affine(-j)), inputs())
    torch.testing.assert_close(report.alignment, -torch.ones(4))
    torch.testing.assert_close(report.coupling_ordered[:, 0, 1], -torch.ones(4))


def test_left_and_right_are_judged_apart_from_depth():
    u, v = orthogonal(DIM, 1), orthogonal(DIM, 2)
    apart = ra.measure_alignment(chain(*[affine(matrix(u, [3.0, 2.0, 1.0], v)) for _ in range(3)]), inputs())
    torch.testing.assert_close(apart.alignment, torch.ones(4))
    cosines = (u[:, :3] * v[:, :3]).sum(0)
    torch.testing.assert_close(apart.left_right, cosines.expand(4, 3, 3))
    together = ra.measure_alignment(chain(*[affine(matrix(u, [3.0, 2.0, 1.0], u)) for _ in range(3)]), inputs())
    torch.testing.assert_close(together.left_right, torch.ones(4, 3, 3))
    torch.testing.assert_close(together.coupling_mixed, torch.ones(4, 3, 3))


def test_independent_random_jacobians_give_the_null_value():
    report = ra.measure_alignment(chain(*[affine(orthogonal(64, seed)) for seed in range(8)], dim=64), inputs(dim=64))
    assert report.alignment.abs().max() < 0.05
    assert report.summary()["alignment_ordered"] < 0.05


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(2, 5), st.integers(1, DIM))
def test_bounds_hold_for_any_network(seed, depth, k):
    generator = torch.Generator().manual_seed(seed)
    branches = [
        affine(torch.randn(DIM, DIM, generator=generator), torch.randn(DIM, generator=generator)) for _ in range(depth)
    ]
    report = ra.measure_alignment(chain(*branches), inputs(2, seed), k=k)
    for name in ("coupling", "coupling_mixed", "left_right"):
        assert getattr(report, name).abs().max() <= 1 + 1e-9, name
    assert report.coupling_ordered.max() <= 1 + 1e-9
    assert report.coupling_ordered.min() >= -1 - 1e-9
    assert (report.line_shape_score >= 1 - 1e-9).all()
    assert (report.step_cv >= 0).all()
    assert ((report.rank_energy >= 0) & (report.rank_energy <= 1)).all()
    assert ((report.rank_drop >= 0) & (report.rank_drop <= 1)).all()
    torch.testing.assert_close(report.coupling.diagonal(dim1=1, dim2=2), torch.ones(2, depth))


# RA1: lines and steps


@pytest.mark.parametrize("depth", [2, 4, 9])
def test_orthogonal_steps_have_line_shape_root_depth(depth):
    axes = orthogonal(DIM, 3)
    steps = [affine(torch.zeros(DIM, DIM), 2.0 * axes[i]) for i in range(depth)]
    report = ra.measure_alignment(chain(*steps), inputs())
    torch.testing.assert_close(report.line_shape_score, torch.full((4,), math.sqrt(depth)))
    torch.testing.assert_close(report.step_cv, torch.zeros(4))


def test_steps_on_a_line_score_one_and_their_lengths_show_in_step_cv():
    axis = orthogonal(DIM, 3)[0]
    report = ra.measure_alignment(chain(*[affine(torch.zeros(DIM, DIM), s * axis) for s in (1.0, 3.0)]), inputs())
    torch.testing.assert_close(report.line_shape_score, torch.ones(4))
    torch.testing.assert_close(report.step_cv, torch.full((4,), 0.5))  # sd 1, mean 2, ddof 0


def test_steps_that_cancel_score_infinity():
    axis = orthogonal(DIM, 3)[0]
    steps = torch.stack([axis, -axis])[None]
    assert ra.line_shape_score(steps).item() > 1e12


# RA4 and lemma 2: equal steps decide how 1/σ₁ grows


def equal_steps(cosine, shift, depth=8):
    """F_ℓ(h) = s_ℓ u vᵀh + b u with |step| = 1, of which the share ``shift`` comes from b; uᵀv = cosine."""
    axes = orthogonal(DIM, 4)
    v = axes[0]
    u = cosine * axes[0] + math.sqrt(1 - cosine**2) * axes[1]
    start = 2.0 * v + axes[2]
    branches = []
    for block in range(depth):
        s = (1 - shift) / (2.0 + block * cosine)
        branches.append(affine(s * torch.outer(u, v), shift * u))
    return chain(*branches), start[None]


@pytest.mark.parametrize("cosine", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("shift", [0.0, 0.25])
def test_slope_is_cosine_over_linear_share(cosine, shift):
    model, start = equal_steps(cosine, shift)
    report = ra.measure_alignment(model, start, k=1)
    torch.testing.assert_close(report.line_shape_score, torch.ones(1))
    torch.testing.assert_close(report.step_cv, torch.zeros(1), atol=1e-9, rtol=0)
    torch.testing.assert_close(report.affine_share, torch.full((1, 8), shift))
    assert report.depth_fit.slope == pytest.approx(cosine / (1 - shift))
    assert report.depth_fit.r2 == pytest.approx(1.0)
    intercept = (2.0 - cosine) / (1 - shift)  # 1/σ₁ at ℓ = 0
    assert report.fit_depth(start=4).intercept == pytest.approx(intercept)
    torch.testing.assert_close(report.left_right[..., 0], torch.full((1, 8), cosine))


def test_depth_fit_is_averaged_over_inputs():
    report = ra.measure_alignment(*equal_steps(0.7, 0.0), k=1)
    twice = ra.measure_alignment(equal_steps(0.7, 0.0)[0], equal_steps(0.7, 0.0)[1].repeat(2, 1), k=1)
    assert twice.depth_fit == pytest.approx(report.depth_fit)
    assert twice.depth_fits().shape == (2, 3)


# RA3: rank


def test_rank_scores_count_classes():
    u, v = orthogonal(DIM, 1), orthogonal(DIM, 2)
    report = ra.measure_alignment(
        chain(affine(matrix(u, [4.0, 2.0, 2.0, 1.0], v)), affine(matrix(u, [1.0, 1.0], v))), inputs()
    )
    assert report.num_classes == 3
    torch.testing.assert_close(report.rank_energy, torch.tensor([24 / 25, 1.0]).expand(4, 2))
    torch.testing.assert_close(report.rank_drop, torch.tensor([1 / 4, 0.0]).expand(4, 2), atol=1e-12, rtol=0)
    assert report.singular_values.shape == (4, 2, 8)  # min(d, max(k, C + 5))


# dead blocks, still steps, incomparable blocks


def test_dead_block_is_flagged_and_scores_zero():
    u, v = orthogonal(DIM, 1), orthogonal(DIM, 2)
    alive = affine(matrix(u, [3.0, 2.0, 1.0], v))
    report = ra.measure_alignment(chain(alive, affine(torch.zeros(DIM, DIM)), alive, alive), inputs())
    assert report.dead.tolist() == [[False, True, False, False]] * 4
    assert report.still.tolist() == [[False, True, False, False]] * 4
    assert (report.coupling[:, 1] == 0).all()
    assert (report.coupling_ordered[:, 1] == 0).all()
    for name in ("coupling", "coupling_ordered", "coupling_mixed", "rank_drop", "rank_energy", "affine_share"):
        assert torch.isfinite(getattr(report, name)).all(), name
    assert (report.left_right[:, 1] == 0).all()
    assert math.isfinite(report.depth_fit.slope)
    assert report.summary()["dead_share"] == 0.25


def test_network_that_does_not_move_has_defined_scores():
    report = ra.measure_alignment(chain(*[affine(torch.zeros(DIM, DIM)) for _ in range(3)]), inputs())
    assert (report.line_shape_score == 0).all()
    assert (report.step_cv == 0).all()
    assert (report.alignment == 0).all()
    assert report.still.all()
    assert report.dead.all()
    assert math.isnan(report.depth_fit.slope)


def test_pairs_of_different_shapes_are_not_compared():
    class Down(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = affine(torch.randn(6, DIM, generator=torch.Generator().manual_seed(5)))

        def forward(self, h):
            return self.f(h)

    ra.residual_branch.register(Down, lambda block: block.f)
    u, v, small = orthogonal(DIM, 1), orthogonal(DIM, 2), orthogonal(6, 3)
    blocks = [ResidualBlock(affine(matrix(u, [3.0, 2.0, 1.0], v)), 1.0, post=False) for _ in range(2)]
    blocks += [Down()]
    blocks += [ResidualBlock(affine(matrix(small, [3.0, 2.0, 1.0], small)), 1.0, post=False) for _ in range(2)]
    report = ra.measure_alignment(ResNet(nn.Identity(), blocks, nn.Linear(6, 3)).eval(), inputs())
    same = torch.block_diag(torch.ones(2, 2), torch.ones(1, 1), torch.ones(2, 2)).bool()
    assert torch.equal(report.comparable, same)
    assert report.coupling[:, ~same].isnan().all()
    torch.testing.assert_close(report.coupling[:, same], torch.ones(4, 9))
    assert report.left_right[:, 2].isnan().all()
    assert report.coupling_mixed[:, 2].isnan().all()
    torch.testing.assert_close(report.alignment, torch.ones(4))
    runs = [slice(0, 2), slice(3, 5)]
    path = ra.trace(ResNet(nn.Identity(), blocks, nn.Linear(6, 3)).eval(), inputs())
    expected = torch.stack(
        [ra.line_shape_score(torch.stack([r.step for r in path.residuals[run]], 1)) for run in runs]
    ).mean(0)
    torch.testing.assert_close(report.line_shape_score, expected)


def test_one_block_has_no_alignment_and_no_fit():
    report = ra.measure_alignment(chain(affine(orthogonal(DIM, 1))), inputs())
    assert report.alignment.isnan().all()
    assert math.isnan(report.depth_fit.slope)


# the way it is computed


def test_chunks_of_inputs_give_the_same_report(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    model = chain(*[nn.Sequential(affine(torch.randn(DIM, DIM, generator=generator)), nn.Tanh()) for _ in range(3)])
    whole = ra.measure_alignment(model, inputs(7))
    monkeypatch.setattr(_measure, "MEMORY_BUDGET", 4 * 3 * DIM * DIM * 8 // 2)  # two inputs at a time
    parts = ra.measure_alignment(model, inputs(7))
    for name in ("coupling", "singular_values", "affine_share", "alignment", "rank_energy"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))


def test_coupling_matrices_are_what_the_scores_are_traces_of():
    generator = torch.Generator().manual_seed(0)
    model = chain(*[nn.Sequential(affine(torch.randn(DIM, DIM, generator=generator)), nn.Tanh()) for _ in range(3)])
    report, path = ra.measure_alignment(model, inputs()), ra.trace(model, inputs())
    sums = report.singular_values[..., :3].sum(-1)[..., None]
    for mixed, name in ((False, "coupling"), (True, "coupling_mixed")):
        matrices = ra.coupling_matrices(path, 3, mixed=mixed)
        assert matrices.shape == (4, 3, 3, 3, 3)
        traces = matrices.diagonal(dim1=-2, dim2=-1).sum(-1)
        torch.testing.assert_close(traces / sums, getattr(report, name))


def test_jacobian_svd_reconstructs_the_blocks():
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(DIM, DIM, generator=generator) for _ in range(2)]
    for svd, weight in zip(
        ra.jacobian_svd(ra.trace(chain(*map(affine, weights)), inputs()), DIM), weights, strict=True
    ):
        assert svd.U.shape == (4, DIM, DIM)
        rebuilt = svd.U.mT * svd.S[:, None] @ svd.V
        torch.testing.assert_close(rebuilt, weight.expand(4, DIM, DIM))
        torch.testing.assert_close(svd.squared_norm, weight.square().sum().expand(4))


def test_summary_and_frame_hold_the_scores():
    generator = torch.Generator().manual_seed(0)
    model = chain(*[nn.Sequential(affine(torch.randn(DIM, DIM, generator=generator)), nn.Tanh()) for _ in range(3)])
    report = ra.measure_alignment(model, inputs())
    summary, frame = report.summary(), report.to_frame()
    assert summary["alignment"] == pytest.approx(report.alignment.mean().item())
    assert summary["alignment_sd"] == pytest.approx(report.alignment.std(correction=0).item())
    assert summary["depth_slope"] == pytest.approx(report.depth_fit.slope)
    assert len(frame) == 12
    row = frame[(frame.input == 2) & (frame.block == 3)].iloc[0]
    assert row.top_singular_value == pytest.approx(report.singular_values[2, 2, 0].item())
    assert row.rank_drop == pytest.approx(report.rank_drop[2, 2].item())


@pytest.mark.parametrize("k", [0, -1, DIM + 1, 2.0])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(ValueError, match=r"k must be a whole number from 1 to min\(12, 12\) = 12; got"):
        ra.measure_alignment(chain(affine(orthogonal(DIM, 1))), inputs(), k=k)


def test_start_of_the_fit_is_checked():
    report = ra.measure_alignment(*equal_steps(0.7, 0.0), k=1)
    with pytest.raises(ValueError, match=r"start must lie in 1\.\.6, to leave three of 8 blocks; got 7"):
        report.fit_depth(7)


def test_output_without_classes_needs_a_number():
    model = chain(affine(orthogonal(DIM, 1)), affine(orthogonal(DIM, 2)))
    model.head = nn.Unflatten(1, (3, 4))
    with pytest.raises(ValueError, match=r"shape \(4, 3, 4\); expected logits \(n, C\)\. Give num_classes="):
        ra.measure_alignment(model, inputs())
    assert ra.measure_alignment(model, inputs(), num_classes=4).num_classes == 4


def test_jacobian_too_large_to_form_is_refused():
    path = ra.trace(chain(affine(orthogonal(DIM, 1))), inputs(1))
    residual = path.residuals[0]
    huge = torch.empty(1).expand(1, 10**5)  # no memory behind it
    huge = ra.Residual(1, "wide", residual.branch, huge, huge, True)
    with pytest.raises(MemoryError, match=r"block 1 \('wide'\) has 100000 × 100000 entries, \d+ GiB; up to 4 GiB"):
        ra.residual_jacobians(huge)


@pytest.mark.parametrize(
    ("values", "digits", "text"),
    [([1.0, 3.0], 1, "2.0 ± 1.0"), ([0.1234], 3, "0.123"), ([-0.0001, -0.0002], 3, "0.000 ± 0.000")],
)
def test_plus_minus(values, digits, text):
    assert ra.plus_minus(values, digits) == text


def test_compare_puts_means_over_seeds_side_by_side():
    u, v = orthogonal(DIM, 1), orthogonal(DIM, 2)
    aligned = ra.measure_alignment(chain(*[affine(matrix(u, [3.0, 2.0, 1.0], v)) for _ in range(3)]), inputs())
    opposite = ra.measure_alignment(chain(affine(matrix(u, [3.0], v)), affine(-matrix(u, [3.0], v))), inputs(), k=1)
    table = ra.compare({"one": [aligned], "two": [aligned, opposite]}, ["alignment", "rank_drop"])
    assert table.loc["one", "alignment"] == "1.000"
    assert table.loc["two", "alignment"] == "0.000 ± 1.000"
    assert list(table.columns) == ["alignment", "rank_drop"]
