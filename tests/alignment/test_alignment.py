"""Scores of networks whose answer is known on paper."""

import math

import numpy as np
import pytest
import torch
from contracts import MatrixBatch, check_svd, matrix_with, randomised
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import resalign_utils as ra
from resalign_utils.alignment import _svd
from resalign_utils.alignment._scores import trajectory_scores
from resalign_utils.models import ResidualBlock, ResNet
from resalign_utils.svd import SVDOptions, decompose

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
    assert report.rank.tolist() == [[3, 0, 3, 3]] * 4
    assert report.left_right[:, 1].isnan().all()
    assert math.isfinite(report.summary()["left_right"])
    assert math.isfinite(report.depth_fit.slope)
    assert report.summary()["dead_share"] == 0.25


def test_nearly_dead_block_is_left_out_of_the_depth_fit_but_is_still_coupled():
    u, v = orthogonal(DIM, 1), orthogonal(DIM, 2)
    alive = [affine(matrix(u, [1 / depth, 0.5 / depth, 0.2 / depth], v)) for depth in (1, 2, 4, 5)]
    nearly = affine(matrix(u, [1e-5, 1e-6, 1e-7], v))
    report = ra.measure_alignment(chain(*alive[:2], nearly, *alive[2:]), inputs(), k=3, tol=1e-8)
    assert report.dead.tolist() == [[False, False, True, False, False]] * 4
    assert report.depth_fit.slope == pytest.approx(1.0, abs=1e-9)
    torch.testing.assert_close(report.coupling, torch.ones(4, 5, 5))
    # just above the threshold it counts
    report = ra.measure_alignment(chain(*alive[:2], affine(matrix(u, [1e-3, 1e-4, 1e-5], v)), *alive[2:]), inputs())
    assert not report.dead.any()


@pytest.mark.parametrize("method", ["dense", "krylov"])
def test_vectors_behind_the_rank_do_not_reach_the_couplings(method):
    """Two blocks of rank 2 of which one has noise of 1e-9 behind it: what the noise looks like must not matter."""
    u, v = orthogonal(DIM, 1), orthogonal(DIM, 2)
    first = matrix(u, [3.0, 1.0], v)
    reports = [
        ra.measure_alignment(
            chain(affine(first), affine(first + 1e-9 * orthogonal(DIM, seed)), affine(matrix(u, [2.0, 1.5, 0.5], v))),
            inputs(), k=3, method=method, tol=1e-6,
        )
        for seed in (7, 8)
    ]  # fmt: skip
    for report in reports:
        assert report.rank.tolist() == [[2, 2, 3]] * 4
        assert report.left_right[:, :2, 2].isnan().all()
        assert torch.isfinite(report.left_right[:, 2]).all()
        assert torch.isfinite(report.coupling).all()
        # of the third's three directions the first two's frames hold two; the denominator keeps k = 3
        torch.testing.assert_close(report.coupling[:, 2, 0], torch.full((4,), 3.5 / 4), rtol=0, atol=1e-6)
    for name in ("coupling", "coupling_ordered", "coupling_mixed"):
        torch.testing.assert_close(getattr(reports[0], name), getattr(reports[1], name), rtol=0, atol=1e-7)


def test_k_decides_how_much_is_computed_where_there_are_many_classes():
    model = ResNet(nn.Identity(), [ResidualBlock(affine(orthogonal(40, i)), 1.0, post=False) for i in (1, 2)],
                   nn.Linear(40, 30)).eval()  # fmt: skip
    report = ra.measure_alignment(model, inputs(dim=40))
    assert report.k == 10
    assert report.singular_values.shape[2] == 10
    assert report.rank_drop.isnan().all()
    assert report.rank_energy.isnan().all()
    assert set(report.missing) == {"rank_drop", "rank_energy"}
    assert "With 30 classes it needs 31 singular values, and 10 were computed" in report.missing["rank_drop"]
    assert "measure_alignment(..., rank=31)" in report.missing["rank_drop"]
    assert math.isnan(report.summary()["rank_energy"])
    asked = ra.measure_alignment(model, inputs(dim=40), k=3, rank=31)
    assert asked.missing == {}
    torch.testing.assert_close(asked.rank_drop, torch.ones(4, 2))
    torch.testing.assert_close(asked.rank_energy, torch.full((4, 2), 30 / 40))
    for rank in (2, 41):
        with pytest.raises(ValueError, match=rf"rank must lie in k..40 = 3..40; got {rank}"):
            ra.measure_alignment(model, inputs(dim=40), k=3, rank=rank)


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

    ra.residual_branch.register(Down, lambda block: (block.f, None, None))
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


FIELDS = (
    "line_shape_score", "step_cv", "singular_values", "coupling", "coupling_ordered", "coupling_mixed", "left_right",
    "rank_drop", "affine_share", "alignment", "dead", "still", "comparable",
)  # fmt: skip


def tanh_chain(depth=3, dim=DIM):
    generator = torch.Generator().manual_seed(0)
    layers = [nn.Sequential(affine(torch.randn(dim, dim, generator=generator)), nn.Tanh()) for _ in range(depth)]
    return chain(*layers, dim=dim)


def built(pictures, **config):
    """A small network of ours in float64, with random biases and statistics, and three images."""
    model = randomised(ra.build_model(ra.ResNetConfig(**config), pictures, seed=1))
    return model, pictures.test_x[:3].double()


@pytest.mark.parametrize("method", ["dense", "krylov"])
def test_chunks_of_inputs_give_the_same_report(monkeypatch, method):
    model, x, how = tanh_chain(2), inputs(5), {"method": method, "tol": 1e-12}
    path = ra.trace(model, x)

    def sizes(memory):
        monkeypatch.setattr(_svd, "WORKING_MEMORY", memory)
        return [len(part[0].input) for _, part in _svd.split(path.residuals, 8, SVDOptions(method))]

    whole, matrices, svds = (
        ra.measure_alignment(model, x, **how),
        ra.coupling_matrices(path, 3, **how),
        ra.jacobian_svd(path, 3, **how),
    )
    one, two = 1, next(2**power for power in range(40) if sizes(2**power)[0] >= 2)
    assert sizes(2**40) == [5]
    assert sizes(one) == [1] * 5
    assert sum(sizes(two)) == 5
    assert 2 <= sizes(two)[0] < 5
    for memory in (one, two):
        monkeypatch.setattr(_svd, "WORKING_MEMORY", memory)
        parts = ra.measure_alignment(model, x, **how)
        for name in (*FIELDS, "residuals", "rank_energy", "rank_energy_error"):
            torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=0, atol=1e-10)
        torch.testing.assert_close(ra.coupling_matrices(path, 3, **how), matrices, rtol=0, atol=1e-10)
        for part, svd in zip(ra.jacobian_svd(path, 3, **how), svds, strict=True):
            for name in ("U", "S", "V", "residuals", "squared_norm", "squared_norm_error"):
                torch.testing.assert_close(getattr(part, name), getattr(svd, name), rtol=0, atol=1e-10)
            assert (part.matvecs, part.method) == (svd.matvecs, method)


@pytest.mark.parametrize("method", ["dense", "krylov"])
def test_chunks_bound_how_much_is_held_for_all_blocks(method):
    """All blocks' matrices, or their frames, of one chunk fit the working memory, and are not far from filling it."""
    state = torch.empty(1).expand(5000, 1000)  # no memory behind it

    def size(depth, k):
        residuals = [ra.Residual(index, "wide", torch.sin, state, state, True, None) for index in range(1, depth + 1)]
        return len(next(_svd.split(residuals, k, SVDOptions(method)))[1][0].input)

    for depth, k in [(1, 10), (10, 10), (40, 10), (10, 40)]:
        held = depth * (1000 * 1000 if method == "dense" else 2 * k * 1000) * 8
        assert 2**30 / 50 <= size(depth, k) * held <= 2**30
    assert size(40, 10) < size(10, 10) < size(1, 10)


NETWORKS = {
    "fully-connected": {"depth": 3, "width": 20},
    "pre-activation": {"depth": 3, "width": 20, "activation": "pre", "norm": False},
    "no skip": {"depth": 3, "width": 20, "skip": False},
    "convolutional": {"kind": "conv", "depth": 3, "width": 2},
    "downsampling": {"kind": "conv_down", "depth": 4, "width": 2},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_both_methods_give_the_same_report(pictures, name):
    model, x = built(pictures, **NETWORKS[name])
    dense = ra.measure_alignment(model, x, method="dense")
    krylov = ra.measure_alignment(model, x, method="krylov", tol=1e-12)
    for field in FIELDS:
        torch.testing.assert_close(getattr(krylov, field), getattr(dense, field), rtol=0, atol=1e-8, equal_nan=True)
    assert dense.residuals.max() < 1e-13
    assert (dense.rank_energy_error == 0).all()
    assert krylov.residuals.shape == krylov.singular_values.shape
    assert (krylov.residuals > 0).any()
    assert krylov.residuals.max() < 1e-11
    # the norm of what is not decomposed is estimated
    assert ((krylov.rank_energy_error > 0) | (krylov.singular_values[..., -1] < 1e-10)).all()
    assert ((krylov.rank_energy - dense.rank_energy).abs() <= 5 * krylov.rank_energy_error + 1e-12).all()
    assert (krylov.k, krylov.num_classes, krylov.block_names) == (dense.k, dense.num_classes, dense.block_names)


@pytest.mark.parametrize("name", NETWORKS)
def test_both_methods_give_the_same_triplets(pictures, name):
    path = ra.trace(*built(pictures, **NETWORKS[name]))
    ways = {way: ra.jacobian_svd(path, 5, method=way, tol=1e-12) for way in ("dense", "krylov")}
    for residual, dense, krylov in zip(path.residuals, ways["dense"], ways["krylov"], strict=True):
        assert krylov.U.shape == (3, 5, *residual.output.shape[1:])
        assert krylov.V.shape == (3, 5, *residual.input.shape[1:])
        assert krylov.S.shape == krylov.residuals.shape == (3, 5)
        for field in ("U", "S", "V"):
            torch.testing.assert_close(getattr(krylov, field), getattr(dense, field), rtol=0, atol=1e-8)
        formed = ra.residual_jacobians(residual)
        for row in range(3):
            triplets = krylov.U[row].flatten(1), krylov.S[row], krylov.V[row].flatten(1)
            check_svd(*triplets, formed[row], 5, tolerance=1e-11)
        torch.testing.assert_close(dense.squared_norm, formed.square().sum((1, 2)))
        assert ((krylov.squared_norm - dense.squared_norm).abs() <= 5 * krylov.squared_norm_error + 1e-12).all()
        assert (dense.squared_norm_error == 0).all()
        assert dense.residuals.max() < 1e-13
        assert (dense.method, krylov.method) == ("dense", "krylov")
        assert dense.matvecs == min(formed.shape[1:])
        assert krylov.matvecs >= 2 * 5


@pytest.mark.parametrize("method", ["dense", "krylov"])
def test_downsampling_block_is_rectangular_and_compared_with_none(pictures, method):
    model, x = built(pictures, **NETWORKS["downsampling"])
    report = ra.measure_alignment(model, x, method=method, tol=1e-12)
    shapes = [(r.input[0].numel(), r.output[0].numel()) for r in ra.trace(model, x).residuals]
    assert shapes == [(70, 70), (70, 70), (70, 48), (48, 48)]
    same = torch.tensor([[a == b for b in shapes] for a in shapes])
    assert torch.equal(report.comparable, same)
    for name in ("coupling", "coupling_ordered"):
        assert torch.equal(getattr(report, name).isnan(), ~same.expand(3, 4, 4))
    mixed = same.clone()
    mixed[2, 2] = False  # V and U of a rectangular matrix have different lengths
    assert torch.equal(report.coupling_mixed.isnan(), ~mixed.expand(3, 4, 4))
    assert report.left_right[:, 2].isnan().all()
    assert torch.isfinite(report.left_right[:, [0, 1, 3]]).all()
    for name in ("singular_values", "rank_energy", "rank_drop", "affine_share", "alignment", "residuals"):
        assert torch.isfinite(getattr(report, name)).all(), name


def test_dead_blocks_score_zero_by_krylov_too():
    u, v = orthogonal(DIM, 1), orthogonal(DIM, 2)
    alive, dead = affine(matrix(u, [3.0, 2.0, 1.0], v)), affine(torch.zeros(DIM, DIM), torch.ones(DIM))
    again = affine(alive.weight.detach())
    report = ra.measure_alignment(chain(alive, dead, again), inputs(), method="krylov", tol=1e-12)
    assert report.dead.tolist() == [[False, True, False]] * 4
    assert not report.still.any()
    assert (report.singular_values[:, 1] == 0).all()
    assert (report.residuals[:, 1] == 0).all()
    for name in ("coupling", "coupling_ordered", "coupling_mixed"):
        assert (getattr(report, name)[:, 1] == 0).all(), name
    for name in ("rank_drop", "rank_energy", "rank_energy_error", "affine_share"):
        assert (getattr(report, name)[:, 1] == 0).all(), name
    assert (report.rank[:, 1] == 0).all()
    assert report.left_right[:, 1].isnan().all()
    torch.testing.assert_close(report.coupling[:, [0, 0, 2, 2], [0, 2, 0, 2]], torch.ones(4, 4))


@pytest.mark.parametrize(
    "spectrum", [[1 - 0.02 * i for i in range(30)], [0.9**i for i in range(30)], [3.0, 2.0, *[0.1] * 28]]
)
def test_estimated_norm_is_unbiased_and_its_error_is_honest(spectrum):
    matrices = torch.stack([matrix_with(spectrum, 40, 30, seed) for seed in range(3)])
    true = torch.tensor(spectrum).square().sum() / spectrum[0] ** 2
    _, s, v = ra.dense_svd(matrices, 4)
    drawn = [_svd.stable_rank(MatrixBatch(matrices), s, v, [f"{seed} {i}" for i in range(3)]) for seed in range(400)]
    estimates, errors = (torch.stack(part) for part in zip(*drawn, strict=True))  # (400, n)
    assert (errors > 0).all()
    scores = (estimates - true) / errors
    # Student's t with 15 degrees of freedom has a deviation of 1.07; the mean of 400 has one of 0.05
    assert scores.mean(0).abs().max() < 0.3
    assert ((scores.std(0) > 0.9) & (scores.std(0) < 1.3)).all()
    assert ((estimates.mean(0) - true).abs() < 3 * estimates.std(0) / 20).all()


def test_norm_is_exact_where_the_rank_is_exhausted():
    matrices = matrix_with([3.0, 2.0, 1.0, *[0.0] * 9], 14, 12)[None]
    for k in (3, 5, 12):
        norm, error = _svd.stable_rank(MatrixBatch(matrices), *ra.dense_svd(matrices, k)[1:], ["0"])
        torch.testing.assert_close(norm, torch.tensor([14.0 / 9]))
        assert error.item() < 1e-25


def test_norm_costs_sixteen_products():
    operator = MatrixBatch(matrix_with([1.0] * 12, 12, 12)[None])
    _svd.stable_rank(operator, *ra.dense_svd(operator.matrices, 2)[1:], ["0"])
    assert operator.matvecs == 16


def test_warm_start_gives_the_same_and_saves_products_where_blocks_are_aligned():
    u, v = orthogonal(100, 1), orthogonal(100, 2)
    spectrum, scales = [0.97**i for i in range(100)], (1.0, 2.0, 0.5)
    path = ra.trace(chain(*[affine(scale * matrix(u, spectrum, v)) for scale in scales], dim=100), inputs(2, dim=100))
    cold, warm = (ra.jacobian_svd(path, 4, method="krylov", tol=1e-3, warm_start=start) for start in (False, True))
    for one, other, scale in zip(cold, warm, scales, strict=True):
        true = scale * torch.tensor(spectrum[:4]).expand(2, 4)
        for svd in (one, other):
            torch.testing.assert_close(svd.S, true, rtol=1e-3, atol=0)
            assert svd.residuals.max() <= 1e-3
    assert cold[0].matvecs == warm[0].matvecs
    assert warm[1].matvecs < cold[1].matvecs
    assert warm[2].matvecs < cold[2].matvecs


def test_warm_start_between_blocks_of_different_shapes_is_left_out(pictures):
    path = ra.trace(*built(pictures, **NETWORKS["downsampling"]))
    cold, warm = (ra.jacobian_svd(path, 4, method="krylov", tol=1e-11, warm_start=start) for start in (False, True))
    for one, other in zip(cold, warm, strict=True):
        for field in ("U", "S", "V"):
            torch.testing.assert_close(getattr(one, field), getattr(other, field), rtol=0, atol=1e-8)
    assert not torch.equal(cold[1].U, warm[1].U)
    assert torch.equal(cold[3].U, warm[3].U)  # the only one whose input has another shape than the block's before


def in_step(path, k, entries, monkeypatch):
    """Triplets with at most so many entries in step, and how many matrices each solve had."""
    solved, solve = [], _svd.decompose
    monkeypatch.setattr(_svd, "ENTRIES_IN_STEP", entries)
    monkeypatch.setattr(_svd, "decompose", lambda batch, *rest: solved.append(len(batch)) or solve(batch, *rest))
    svds = ra.jacobian_svd(path, k, method="krylov", tol=1e-11)
    monkeypatch.undo()
    return svds, solved


@pytest.mark.parametrize(("entries", "expected"), [(1, [2] * 5), (2 * 2 * 40, [4, 4, 2]), (2**15, [10])])
def test_small_blocks_of_one_shape_are_solved_in_step(entries, expected, monkeypatch):
    spectrum = [0.9**i for i in range(40)]
    blocks = [affine(s * matrix(orthogonal(40, s), spectrum, orthogonal(40, 9 + s))) for s in (1, 2, 3, 4, 5)]
    svds, solved = in_step(ra.trace(chain(*blocks, dim=40), inputs(2, dim=40)), 4, entries, monkeypatch)
    assert solved == expected
    for scale, svd in enumerate(svds, 1):
        assert svd.U.shape == svd.V.shape == (2, 4, 40)
        assert svd.residuals.max() <= 1e-11
        torch.testing.assert_close(svd.S, scale * torch.tensor(spectrum[:4]).expand(2, 4), rtol=1e-10, atol=0)
        truth = ra.dense_svd(scale * matrix(orthogonal(40, scale), spectrum, orthogonal(40, 9 + scale))[None], 4)
        torch.testing.assert_close(svd.V, truth[2].expand(2, 4, 40), rtol=0, atol=1e-8)


def test_blocks_of_other_shapes_are_not_solved_in_one_step(pictures, monkeypatch):
    path = ra.trace(*built(pictures, **NETWORKS["downsampling"]))
    svds, solved = in_step(path, 4, 2**15, monkeypatch)
    alone, each = in_step(path, 4, 1, monkeypatch)
    assert len(solved) < len(each) == len(path.residuals)
    for one, other in zip(svds, alone, strict=True):
        for field in ("U", "S", "V"):
            torch.testing.assert_close(getattr(one, field), getattr(other, field), rtol=0, atol=1e-8)


def test_triplets_that_have_not_converged_are_announced_with_the_block():
    model = tanh_chain()
    path = ra.trace(model, inputs(2))
    for ask in (
        lambda: ra.jacobian_svd(path, 3, method="krylov", tol=0),
        lambda: ra.measure_alignment(model, inputs(2), method="krylov", tol=0),
        lambda: ra.coupling_matrices(path, 3, method="krylov", tol=0),
    ):
        with pytest.warns(RuntimeWarning) as record:
            ask()
        texts = [str(warning.message) for warning in record]
        assert len(texts) == 3
        for block, text in enumerate(texts):
            assert f"singular triplets of block {block + 1} ('blocks.{block}') have not converged within" in text


@pytest.mark.parametrize("mixed", [False, True])
def test_coupling_matrices_are_the_same_by_both_methods(pictures, mixed):
    path = ra.trace(*built(pictures, **NETWORKS["convolutional"]))
    dense = ra.coupling_matrices(path, 4, mixed=mixed, method="dense")
    krylov = ra.coupling_matrices(path, 4, mixed=mixed, method="krylov", tol=1e-12)
    torch.testing.assert_close(krylov, dense, rtol=0, atol=1e-8)
    jacobians = torch.stack([ra.residual_jacobians(residual) for residual in path.residuals], 1)
    svds = ra.jacobian_svd(path, 4, method="dense")
    u, v = (torch.stack([getattr(svd, name).flatten(2) for svd in svds], 1) for name in "UV")
    left, right = (v, u) if mixed else (u, v)
    expected = torch.einsum("njam,nimd,njbd->nijab", left, jacobians, right)
    torch.testing.assert_close(dense, expected, rtol=0, atol=1e-10)


def test_seed_of_the_probes_matters_and_is_kept():
    model, x = tanh_chain(dim=40), inputs(2, dim=40)
    one, again, other = (
        ra.measure_alignment(model, x, method="krylov", tol=1e-10, seed=seed).rank_energy for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert (one != other).all()


def test_unknown_method_is_refused():
    path = ra.trace(tanh_chain(), inputs(2))
    with pytest.raises(ValueError, match="method must be 'auto', 'dense' or 'krylov'; got 'lanczos'"):
        ra.jacobian_svd(path, 3, method="lanczos")


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


DOORS = {
    "measure_alignment": lambda model, k: ra.measure_alignment(model, inputs(), k=k),
    "coupling_matrices": lambda model, k: ra.coupling_matrices(ra.trace(model, inputs()), k),
    "jacobian_svd": lambda model, k: ra.jacobian_svd(ra.trace(model, inputs()), k),
    "truncated_svd": lambda model, k: ra.truncated_svd(ra.JacobianOperator(model.blocks[0].branch, inputs(1)[0]), k),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("k", [0, -1, DIM + 1, 2.0, "3", True, np.True_, torch.tensor(True), torch.tensor(2.0)])
def test_k_out_of_range_is_refused(k, door):
    with pytest.raises(ValueError, match=r"k must be a whole number from 1 to min\(12, 12\) = 12; got"):
        DOORS[door](chain(affine(orthogonal(DIM, 1))), k)


@pytest.mark.parametrize("k", [np.int64(3), np.uint8(3), torch.tensor(3)])
def test_whole_numbers_of_any_kind_are_taken(k):
    model = tanh_chain()
    for ask in DOORS.values():
        found, expected = ask(model, k), ask(model, 3)
        if isinstance(found, list):
            found, expected = found[0], expected[0]
        for name in ("coupling", "singular_values", "S", "V"):
            if hasattr(found, name):
                assert torch.equal(getattr(found, name), getattr(expected, name))
    report = ra.measure_alignment(model, inputs(), k=k, rank=k + 1, num_classes=k)
    assert (report.k, report.num_classes, report.singular_values.shape[2]) == (3, 3, 4)
    assert type(report.k) is type(report.num_classes) is int


@pytest.mark.parametrize("classes", [0, -3, 2.0, "ten", True])
def test_numbers_of_classes_that_are_none_are_refused(classes):
    with pytest.raises(ValueError, match=rf"num_classes must be a whole number of at least 1; got {classes!r}. Leave"):
        ra.measure_alignment(chain(affine(orthogonal(DIM, 1))), inputs(), num_classes=classes)


def test_ranks_that_are_no_whole_numbers_are_refused():
    with pytest.raises(ValueError, match=r"rank must lie in k..12 = 3..12; got 5.0"):
        ra.measure_alignment(chain(affine(orthogonal(DIM, 1))), inputs(), rank=5.0)


@pytest.mark.parametrize("power", [-76, 76])
def test_scores_of_steps_do_not_depend_on_the_unit_of_the_states(power):
    """Of 1e-23 and of 1e23, whose squares are no float32."""
    weights = [matrix(orthogonal(DIM, i), [1.0, 0.8, 0.5, 0.3], orthogonal(DIM, i + 9)) for i in (1, 2, 3)]
    model, x = chain(*map(affine, weights), affine(torch.zeros(DIM, DIM))), inputs()
    exact = trajectory_scores(ra.trace(model, x).residuals)
    found = trajectory_scores(ra.trace(model.float(), x.float() * 2.0**power).residuals)
    for score, expected in zip(found[:2], exact[:2], strict=True):
        torch.testing.assert_close(score, expected.float(), rtol=1e-5, atol=0)
    assert found[2].tolist() == exact[2].tolist() == [[False, False, False, True]] * 4


@pytest.mark.parametrize("method", ["dense", "krylov"])
@pytest.mark.parametrize("power", [-76, 50])
def test_scores_of_jacobians_do_not_depend_on_their_size(power, method):
    weights = [matrix(orthogonal(DIM, i), [1.0, 0.8, 0.5, 0.3, 0.2, 0.1], orthogonal(DIM, i + 9)) for i in (1, 2)]
    weights = [weights[0], weights[0] + 0.1 * weights[1]]
    exact = ra.measure_alignment(chain(*map(affine, weights)), inputs(), k=3)
    expected = 2.0**power * exact.singular_values[:, 0, :6]  # behind these there is rounding
    model, x = chain(*(affine(w * 2.0**power) for w in weights)).float(), inputs().float()
    torch.set_default_dtype(torch.float32)
    found = ra.measure_alignment(model, x, k=3, method=method)
    torch.testing.assert_close(found.singular_values[:, 0, :6], expected.float(), rtol=1e-4, atol=0)
    assert (found.residuals > 0).any()
    for name in ("coupling", "coupling_ordered", "rank_energy", "rank_drop"):
        torch.testing.assert_close(getattr(found, name), getattr(exact, name).float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(90, 60), (60, 90)])
@pytest.mark.parametrize("power", [-76, 76])
def test_krylov_solves_in_the_unit_of_each_matrix(power, shape):
    """Two matrices of 1e-23 or 1e23 and one of size 1, float32, in one batch: the same triplets to the last bit."""
    spectrum = [0.9**i for i in range(60)]
    matrices = torch.stack([matrix_with(spectrum, *shape, seed) for seed in range(3)]).float()
    sizes = torch.tensor([2.0**power, 1.0, 2.0**power], dtype=torch.float32)
    options = SVDOptions("krylov", 1e-4)
    expected = decompose(MatrixBatch(matrices), 5, options)
    found = decompose(MatrixBatch(matrices * sizes[:, None, None]), 5, options)
    torch.testing.assert_close(expected.S, torch.tensor(spectrum[:5]).float().expand(3, 5), rtol=1e-5, atol=0)
    assert torch.equal(found.S, expected.S * sizes[:, None])
    for name in ("U", "V", "residuals"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("power", [-600, 600])
def test_stable_rank_is_of_any_unit(power):
    matrices = matrix_with([3.0, 2.0, 1.0, *[0.5] * 9], 14, 12)[None]
    _, s, v = ra.dense_svd(matrices, 4)
    expected = _svd.stable_rank(MatrixBatch(matrices), s, v, ["0"])
    found = _svd.stable_rank(MatrixBatch(matrices * 2.0**power), s * 2.0**power, v, ["0"])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_start_of_the_fit_is_checked():
    report = ra.measure_alignment(*equal_steps(0.7, 0.0), k=1)
    with pytest.raises(ValueError, match=r"start must lie in 1\.\.6, to leave three of 8 blocks; got 7"):
        report.fit_depth(7)


def test_output_without_classes_has_no_scores_of_them():
    model = chain(affine(orthogonal(DIM, 1)), affine(orthogonal(DIM, 2)))
    model.head = nn.Unflatten(1, (3, 4))
    report = ra.measure_alignment(model, inputs())
    assert (report.num_classes, report.k) == (None, 10)
    assert report.rank_energy.isnan().all()
    assert "no number of classes. Give num_classes=" in report.missing["rank_energy"]
    assert ra.measure_alignment(model, inputs(), num_classes=4).num_classes == 4


def test_jacobian_too_large_to_form_is_refused():
    path = ra.trace(chain(affine(orthogonal(DIM, 1))), inputs(1))
    residual = path.residuals[0]
    huge = torch.empty(1).expand(1, 10**5)  # no memory behind it
    huge = ra.Residual(1, "wide", residual.branch, huge, huge, True, None)
    with pytest.raises(MemoryError, match=r"block 1 \('wide'\) has 100000 × 100000 entries, \d+ GiB; up to 4 GiB"):
        ra.residual_jacobians(huge)


@pytest.mark.parametrize(
    ("values", "digits", "text"),
    [
        ([1.0, 3.0], 1, "2.0 ± 1.0"),
        ([0.1234], 3, "0.123"),
        ([-0.0001, -0.0002], 3, "0.000 ± 0.000"),
        ([13927.7, 15947.9], 2, "14,938 ± 1,010"),
        ([187.6, 289.3], 2, "238.4 ± 50.9"),
        ([2.0, 2.0], 2, "2.00 ± 0.00"),
        ([float("nan"), 1.0], 2, "1.00 ± 0.00"),
    ],
)
def test_plus_minus(values, digits, text):
    assert ra.plus_minus(values, digits) == text


def test_compare_puts_means_over_seeds_side_by_side():
    u, v = orthogonal(DIM, 1), orthogonal(DIM, 2)
    aligned = ra.measure_alignment(chain(*[affine(matrix(u, [3.0, 2.0, 1.0], v)) for _ in range(3)]), inputs())
    opposite = ra.measure_alignment(chain(affine(matrix(u, [3.0], v)), affine(-matrix(u, [3.0], v))), inputs(), k=1)
    table = ra.compare({"one": [aligned], "two": [aligned, opposite]}, ["alignment", "rank_drop"])
    assert table.loc["one", "alignment"] == "1.000"
    assert table.loc["two", "alignment"] == "0.00 ± 1.00"
    assert list(table.columns) == ["alignment", "rank_drop"]
