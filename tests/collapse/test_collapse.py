"""Neural Collapse of features whose numbers are known on paper, against other libraries, and of whole networks."""

import math
from dataclasses import astuple

import numpy as np
import pandas as pd
import pytest
import torch
from contracts import randomised
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestCentroid
from torch import nn
from torch.testing import assert_close
from torchvision.models import resnet18

from resalign_utils import ResNetConfig, build_model, collapse_by_layer, neural_collapse, residual_branch, trace
from resalign_utils.collapse import _features, _network
from resalign_utils.models import ResNet

# Three classes in the plane. Means (2, 0), (−1, 1), (−1, −1), whose mean is 0; Σ_B = diag(2, 2/3).
# Covariances diag(1, 0), diag(0, 1/4) and 0: Σ_W = diag(1/3, 1/12).
PLANE = torch.tensor([[3, 0], [1, 0], [-1, 1.5], [-1, 0.5], [-1, -1], [-1, -1]], dtype=torch.float64)
PLANE_LABELS = torch.tensor([0, 0, 1, 1, 2, 2])
PLANE_MEANS = torch.tensor([[2.0, 0], [-1, 1], [-1, -1]], dtype=torch.float64)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthogonal(size, seed=0):
    return torch.linalg.qr(normal(size, size, seed=seed))[0]


def simplex(classes, dim, seed=0):
    """The vertices (C, d) of a simplex of unit vectors, in a random orientation."""
    corners = torch.eye(classes, dtype=torch.float64) - 1 / classes
    return corners @ orthogonal(dim, seed)[:classes] * math.sqrt(classes / (classes - 1))


def clouds(counts=(7, 7, 7, 7), dim=9, seed=0, noise=0.6):
    """Features and labels of classes of these sizes, in mixed order, and a head (W, b)."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    features = normal(len(counts), dim, seed=seed)[labels] + noise * normal(len(labels), dim, seed=seed + 1)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return features[order], labels[order], normal(len(counts), dim, seed=seed + 2), normal(len(counts), seed=seed + 3)


def values(collapse):
    """NC1–NC4 as one tensor, without those that are None."""
    return torch.tensor([value for value in astuple(collapse) if value is not None], dtype=torch.float64)


# Known on paper


@pytest.mark.parametrize(("classes", "dim"), [(2, 2), (3, 3), (10, 10), (10, 64)])
@pytest.mark.parametrize("counts", ["equal", "unequal"])
def test_a_simplex_is_full_collapse_wherever_it_lies(classes, dim, counts):
    means = simplex(classes, dim)
    labels = torch.arange(classes).repeat_interleave(torch.arange(classes) + 1 if counts == "unequal" else 3)
    features = 5 * means[labels] + normal(dim)
    shift = -(5 * means @ means.T).diagonal() / 2 - means @ normal(dim)
    found = neural_collapse(features, labels, means, shift)
    assert max(found.nc1, found.nc2_norm, found.nc2_angle, found.nc3) < 1e-14
    assert found.nc4 == 0


def test_two_classes_on_a_line():
    # at ±1 with deviations ±a along the line: Σ_W = a², Σ_B = 1; those across it do not count
    features = torch.tensor([[1.5, 0], [0.5, 0], [1, 9], [1, -9], [-0.5, 0], [-1.5, 0], [-1, 4], [-1, -4]]).double()
    found = neural_collapse(features, torch.arange(8) // 4)
    assert found.nc1 == pytest.approx(0.5**2 / 2 / 2)
    assert (found.nc2_norm, found.nc2_angle, found.nc3, found.nc4) == (0, 0, None, None)


def test_three_classes_in_the_plane():
    bias = torch.tensor([0.0, 2.5, 0.0]).double()  # draws both samples of class 2 to class 1, by 2.5 against 2
    found = neural_collapse(PLANE + 7, PLANE_LABELS, PLANE_MEANS, bias - PLANE_MEANS.sum(1) * 7)
    assert found.nc1 == pytest.approx((1 / 3 / 2 + 1 / 12 / (2 / 3)) / 3)
    # norms 2, √2, √2: sd = (2 − √2) √2 / 3, mean = (2 + 2√2) / 3
    assert found.nc2_norm == pytest.approx((math.sqrt(2) - 1) ** 2)
    # cosines −1/√2, −1/√2, 0
    assert found.nc2_angle == pytest.approx((math.sqrt(2) - 0.5) / 3)
    assert found.nc3 == pytest.approx(0)
    assert found.nc4 == pytest.approx(2 / 6)


@pytest.mark.parametrize(
    ("head", "expected"),
    [(3 * PLANE_MEANS, 0), (-PLANE_MEANS, 4), (PLANE_MEANS @ torch.tensor([[0.0, 1], [-1, 0]]).double(), 2)],
    ids=["same", "opposite", "turned by a right angle"],
)
def test_nc3_of_known_heads(head, expected):
    found = neural_collapse(PLANE, PLANE_LABELS, head)
    assert found.nc3 == pytest.approx(expected, abs=1e-12)


def test_classes_count_equally_whatever_their_sizes():
    more = torch.cat([PLANE, *[PLANE[:2]] * 5]), torch.cat([PLANE_LABELS, *[PLANE_LABELS[:2]] * 5])
    once, found = (neural_collapse(*given, PLANE_MEANS) for given in ((PLANE, PLANE_LABELS), more))
    assert (once.nc1, once.nc2_norm, once.nc2_angle) == pytest.approx((found.nc1, found.nc2_norm, found.nc2_angle))


def test_nc4_is_of_the_decisions_that_are_given():
    decisions = torch.tensor([0, 1, 1, 1, 2, 0])
    assert neural_collapse(PLANE, PLANE_LABELS, decisions=decisions).nc4 == pytest.approx(2 / 6)
    found = neural_collapse(PLANE, PLANE_LABELS, PLANE_MEANS, decisions=decisions)  # they come before the head's
    assert (found.nc3, found.nc4) == pytest.approx((0, 2 / 6))


# Against other libraries


@pytest.mark.parametrize("counts", [(7, 7, 7, 7), (3, 12, 1, 8, 5)])
def test_nc1_is_the_trace_with_numpys_pseudo_inverse(counts):
    features, labels, *_ = clouds(counts)
    x, y = features.numpy(), labels.numpy()
    within = np.mean([np.cov(x[y == c].T, ddof=0) for c in range(len(counts))], 0)
    between = np.cov(np.stack([x[y == c].mean(0) for c in range(len(counts))]).T, ddof=0)
    expected = np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / len(counts)
    assert neural_collapse(features, labels).nc1 == pytest.approx(expected)


@pytest.mark.parametrize("dim", [1, 2, 9])
def test_nc4_is_of_scikit_learns_nearest_centroid(dim):
    features, labels, *_ = clouds((40, 10, 30, 20), dim, noise=2)
    nearest = NearestCentroid().fit(features.numpy(), labels.numpy()).predict(features.numpy())
    expected = (nearest != labels.numpy()).mean()
    assert 0.2 < expected < 0.9
    assert neural_collapse(features, labels, decisions=labels).nc4 == pytest.approx(expected)


# Invariances


@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 8), st.floats(0.01, 100))
def test_turning_scaling_and_shifting_change_nothing(seed, classes, dim, scale):
    features, labels, weight, bias = clouds((4,) * classes, dim, seed)
    turn, shift = orthogonal(dim, seed), normal(dim, seed=seed + 9)
    moved = scale * (features @ turn) + shift
    head = weight @ turn / scale
    found = neural_collapse(moved, labels, head, bias - head @ shift)
    assert_close(values(found), values(neural_collapse(features, labels, weight, bias)), rtol=1e-8, atol=1e-10)


@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 8))
def test_bounds_hold_for_any_features(seed, classes, dim):
    found = neural_collapse(*clouds((3,) * classes, dim, seed))
    assert found.nc1 >= 0
    assert 0 <= found.nc2_norm < math.sqrt(classes - 1) + 1e-9
    assert 0 <= found.nc2_angle <= classes / (classes - 1) + 1e-9
    assert 0 <= found.nc3 <= 4
    assert 0 <= found.nc4 <= 1


def test_order_of_samples_and_size_of_parts_do_not_matter(monkeypatch):
    given = clouds((9, 4, 6))
    whole = values(neural_collapse(*given))
    monkeypatch.setattr(_features, "ROWS", 4)
    order = torch.randperm(19, generator=torch.Generator().manual_seed(1))
    assert_close(values(neural_collapse(given[0][order], given[1][order], *given[2:])), whole)


def test_float32_features_far_from_the_origin_are_measured_in_float64():
    features, labels, weight, bias = clouds()
    features = (features + 1000).float()
    exact = neural_collapse(features.double(), labels, weight, bias)
    found = neural_collapse(features, labels, weight.float(), bias.float())
    assert_close(values(found)[:3], values(exact)[:3], rtol=1e-12, atol=0)


@pytest.mark.parametrize("exponents", [(664, 0, 664), (-664, 0, -664), (0, 664, 0), (-1020, -1020, -3), (1015, 900, 0)])
def test_no_number_depends_on_the_unit_of_features_or_weights(exponents):
    """Powers of two of 1e±200 and beyond, whose squares are no float64."""
    features, labels, weight, bias = clouds()
    of_features, of_weight, of_bias = exponents
    exact = neural_collapse(features, labels, weight)
    found = neural_collapse(features * 2.0**of_features, labels, weight * 2.0**of_weight)
    assert_close(values(found), values(exact), rtol=1e-12, atol=0)
    decided = neural_collapse(features * 2.0**of_features, labels, weight * 2.0**of_weight, bias * 2.0**of_bias).nc4
    if of_features + of_weight == of_bias:
        assert decided == neural_collapse(features, labels, weight, bias).nc4
    elif of_features + of_weight < -1074:  # beside it the logits are nothing
        assert decided == neural_collapse(features, labels, decisions=bias.argmax().expand(len(labels))).nc4
    else:
        assert decided == exact.nc4


def test_features_of_which_a_later_part_is_larger_are_measured_in_one_unit(monkeypatch):
    monkeypatch.setattr(_features, "ROWS", 5)
    features, labels, weight, _ = clouds()
    features = features * torch.logspace(-3, 3, len(labels), 10, dtype=torch.float64)[:, None]
    exact = neural_collapse(features, labels, weight)
    for order in (torch.arange(len(labels)), torch.arange(len(labels)).flip(0)):
        found = neural_collapse(features[order] * 2.0**900, labels[order], weight)
        assert_close(values(found), values(exact), rtol=1e-11, atol=0)


def test_a_head_of_zeros_has_no_nc3():
    found = neural_collapse(PLANE, PLANE_LABELS, torch.zeros(3, 2))
    assert math.isnan(found.nc3)
    assert found.nc1 == neural_collapse(PLANE, PLANE_LABELS).nc1


KINDS = {
    "uint8": PLANE_LABELS.to(torch.uint8),
    "int32 of NumPy": PLANE_LABELS.int().numpy(),
    "uint16 of NumPy": PLANE_LABELS.numpy().astype(np.uint16),
    "reversed view": PLANE_LABELS.flip(0).numpy()[::-1],
    "read-only": np.frombuffer(PLANE_LABELS.numpy().tobytes(), np.int64),
    "list": PLANE_LABELS.tolist(),
    "series in another order": pd.Series(PLANE_LABELS.numpy(), index=[5, 4, 3, 2, 1, 0]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_labels_and_decisions_of_any_whole_numbers_are_taken(kind):
    decisions = torch.tensor([0, 1, 1, 1, 2, 0])
    expected = neural_collapse(PLANE, PLANE_LABELS, decisions=PLANE_LABELS)
    assert neural_collapse(PLANE, KINDS[kind], decisions=KINDS[kind]) == expected
    assert neural_collapse(PLANE, KINDS[kind], decisions=decisions.tolist()).nc4 == pytest.approx(2 / 6)


@pytest.mark.parametrize("kind", [torch.Tensor.numpy, torch.Tensor.tolist])
def test_features_and_heads_may_be_arrays_and_lists(kind):
    features, labels, weight, bias = clouds()
    expected = neural_collapse(features, labels, weight, bias)
    assert neural_collapse(kind(features), kind(labels), kind(weight), kind(bias)) == expected


# Edges


def test_more_classes_than_dimensions():
    # means 0, 1, 5 on a line: one eigenpair, Σ_B = (4 + 1 + 9) / 3, Σ_W = 1
    features = torch.tensor([-1.0, 1, 0, 2, 4, 6]).double()[:, None]
    found = neural_collapse(features, PLANE_LABELS)
    assert found.nc1 == pytest.approx(1 / (14 / 3) / 3)
    # cosines of −2, −1, 3: +1, −1, −1
    assert found.nc2_angle == pytest.approx((1.5 + 0.5 + 0.5) / 3)


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_two_means_that_coincide_make_nc1_infinite(noise):
    means = torch.tensor([[1.0, 0], [1, 0], [-1, 2]]).double()
    features = means.repeat_interleave(2, 0) + noise * torch.tensor([[0.1, 0.3], [-0.1, -0.3]]).double().repeat(3, 1)
    found = neural_collapse(features / 3, PLANE_LABELS)
    assert found.nc1 == math.inf
    assert found.nc2_angle == pytest.approx((1.5 + 0.5 + 0.5) / 3)


@pytest.mark.parametrize("features", [torch.zeros(6, 4), torch.full((6, 4), 0.1), PLANE[[0, 1, 0, 1, 0, 1]]])
def test_where_all_means_coincide_there_is_no_geometry(features):
    found = neural_collapse(features, PLANE_LABELS, torch.ones(3, features.shape[1]))
    assert found.nc1 == math.inf
    assert all(math.isnan(value) for value in (found.nc2_norm, found.nc2_angle, found.nc3))
    assert neural_collapse(features, PLANE_LABELS).nc3 is None


def test_a_mean_at_the_centre_is_orthogonal_to_all():
    means = torch.tensor([[0.1, 0.2], [0.4, 0.2], [-0.2, 0.2]]).double()  # the first in the middle, up to rounding
    found = neural_collapse(means.repeat_interleave(2, 0), PLANE_LABELS)
    assert found.nc2_angle == pytest.approx((0.5 + 0.5 + 0.5) / 3)  # cosines 0, 0, −1


# Refusals


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"features": PLANE[:, :, None]}, r"features \(n, d\) of floating point; got \(6, 2, 1\)"),
        ({"features": PLANE.long()}, r"Expected features .* of torch.int64. Pool or flatten"),
        ({"labels": PLANE_LABELS[:5]}, r"Expected labels \(6,\) of integers.*got \(5,\)"),
        ({"labels": PLANE_LABELS.double()}, r"Expected labels .* of torch.float64"),
        ({"labels": PLANE_LABELS == 0}, r"Expected labels .* of torch.bool"),
        ({"features": PLANE[:0], "labels": PLANE_LABELS[:0]}, r"Expected labels \(0,\) .* at least one"),
        ({"decisions": PLANE_LABELS[:5]}, r"Expected decisions \(6,\) of integers"),
        ({"labels": torch.zeros(6, dtype=torch.int64)}, r"two classes or more; got 1"),
        ({"labels": PLANE_LABELS - 1}, r"Labels must lie in 0..1; got -1..1"),
        ({"num_classes": 2}, r"Labels must lie in 0..1; got 0..2"),
        ({"num_classes": 5}, r"Class 3, 4 of 5 has no samples.*relabel"),
        ({"labels": PLANE_LABELS * 2}, r"Class 1, 3 of 5 has no samples"),
        ({"head_weight": PLANE_MEANS, "num_classes": 4}, r"head_weight \(C, d\) = \(4, 2\); got \(3, 2\)"),
        ({"head_weight": PLANE_MEANS.T}, r"head_weight \(C, d\) = \(2, 2\); got \(2, 3\)"),
        ({"head_weight": PLANE_MEANS, "head_bias": PLANE[0]}, r"head_bias \(C,\) = \(3,\); got \(2,\)"),
        ({"head_bias": PLANE[0]}, r"needs its head_weight"),
        ({"head_weight": PLANE_MEANS / 0}, r"head_weight holds NaN or infinite values. The training diverged"),
        ({"head_weight": PLANE_MEANS, "head_bias": PLANE_MEANS[:, 1] / 0}, r"head_bias holds NaN or infinite values"),
        ({"num_classes": 3.5}, r"num_classes must be a whole number; got 3.5"),
        ({"labels": ["a"] * 6}, r"Expected labels as a tensor or an array of numbers; got list: can't convert"),
        ({"labels": None}, r"Expected labels as a tensor or an array of numbers; got NoneType"),
        ({"features": [[1.0], [1.0, 2.0]]}, r"Expected features as a tensor or an array of numbers; got list"),
        ({"labels": np.zeros((6, 1), int)}, r"Expected labels \(6,\) of integers.*got \(6, 1\) of torch.int64"),
        ({"features": PLANE / 0}, r"NaN or infinite values"),
        ({"features": PLANE.where(PLANE != 3, math.nan)}, r"NaN or infinite values"),
    ],
)
def test_what_does_not_fit_is_refused(changes, text):
    with pytest.raises(ValueError, match=text):
        neural_collapse(**({"features": PLANE, "labels": PLANE_LABELS} | changes))


# Whole networks


@pytest.fixture
def small(blobs):
    """A network of three blocks in float64, with its inputs and labels."""
    return randomised(build_model(ResNetConfig(3, 8), blobs)), blobs.train_x.double(), blobs.train_y


@pytest.mark.parametrize("chunk", [1, np.int64(7), 1000])
def test_every_state_and_the_last_features_are_measured(small, chunk):
    model, x, y = small
    found = collapse_by_layer(model, x, y, chunk=chunk)
    assert list(found) == ["h_0", "h_1", "h_2", "h_3", "features"]
    h = model.stem(x)
    for depth in range(4):
        expected = neural_collapse(h, y, decisions=model(x).argmax(1))
        assert_close(values(found[f"h_{depth}"]), values(expected))
        assert found[f"h_{depth}"].nc3 is None
        h = model.blocks[depth](h) if depth < 3 else h
    classifier = model.head[-1]
    assert_close(values(found["features"]), values(neural_collapse(h, y, classifier.weight, classifier.bias)))


def test_last_features_are_what_the_classifier_reads(blobs):
    model = randomised(build_model(ResNetConfig(2, 8, activation="pre"), blobs))  # its head begins with norm and ReLU
    x, y = blobs.train_x.double(), blobs.train_y
    found = collapse_by_layer(model, x, y)
    features = model.head[:-1](trace(model, x).states[-1])
    expected = neural_collapse(features, y, model.head[-1].weight, model.head[-1].bias)
    assert_close(values(found["features"]), values(expected))
    assert found["features"].nc1 != pytest.approx(found["h_2"].nc1)


@pytest.mark.parametrize(("maps", "vectors"), [("pool", lambda h: h.mean((2, 3))), ("flatten", lambda h: h.flatten(1))])
def test_maps_are_pooled_or_flattened(pictures, maps, vectors):
    model = randomised(build_model(ResNetConfig(2, 4, kind="conv_down"), pictures))
    x, y = pictures.train_x.double(), pictures.train_y
    found = collapse_by_layer(model, x, y, maps=maps, chunk=20)
    for name, state in zip(("h_0", "h_1", "h_2"), trace(model, x).states, strict=True):
        assert found[name].nc1 == pytest.approx(neural_collapse(vectors(state), y).nc1)
    assert collapse_by_layer(model, x, y)["features"] == found["features"] or maps == "flatten"


class Adds(nn.Module):
    """h + f(h) of states of any shape; what f holds says where it looks for channels."""

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, h):
        return h + self.f(h)


residual_branch.register(Adds, lambda block: block.f)


class Pooled(nn.Module):
    """Makes states of ``shape`` of an image, lets blocks add to them, pools over ``space``, classifies."""

    def __init__(self, shape, space, f):
        super().__init__()
        self.shape, self.space = shape, space
        self.blocks = nn.Sequential(Adds(f()), Adds(f()))
        self.head = nn.Linear(math.prod(shape) // math.prod(shape[d - 1] for d in space), 3)

    def forward(self, x):
        return self.head(self.blocks(x.reshape(-1, *self.shape)).mean(self.space))


def projected(d):
    return lambda: nn.Sequential(nn.Linear(d, d), nn.Tanh())


STATES = {  # shape of a state, its dimensions that are space, what a block adds
    "tokens": ((5, 14), (1,), projected(14)),
    "as many tokens as channels": ((6, 6), (1,), lambda: nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6), nn.Tanh())),
    "tokens of a recurrent layer": ((5, 14), (1,), lambda: Recurrent(14)),
    "convolution in one dimension": ((14, 5), (2,), lambda: nn.Sequential(nn.Conv1d(14, 14, 3, padding=1), nn.Tanh())),
    "convolution, as long as wide": ((6, 6), (2,), lambda: nn.Sequential(nn.BatchNorm1d(6), nn.Conv1d(6, 6, 1))),
    "maps": ((2, 5, 7), (2, 3), lambda: nn.Conv2d(2, 2, 3, padding=1)),
    "maps of layers without widths": ((2, 5, 7), (2, 3), nn.Tanh),
    "maps of functions, whose places are as many as a layer is wide": ((6, 8, 8), (2, 3), lambda: Functional(6)),
    "maps of layer norms over all": ((2, 5, 7), (2, 3), lambda: nn.LayerNorm((2, 5, 7))),
    "channels last": ((5, 7, 2), (1, 2), projected(2)),
    "groups": ((4, 5, 7), (2, 3), lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.Tanh())),
    "attention": ((5, 14), (1,), lambda: Attention(14)),
}


class Attention(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.mix = nn.MultiheadAttention(d, 2, batch_first=True)

    def forward(self, h):
        return self.mix(h, h, h, need_weights=False)[0]


class Recurrent(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.layer = nn.GRU(d, d, batch_first=True)

    def forward(self, h):
        return self.layer(h)[0]


class Functional(nn.Module):
    """A convolution of c channels called as a function, and a layer whose width is that of other tensors."""

    def __init__(self, c):
        super().__init__()
        self.weight, self.gate = nn.Parameter(normal(c, c, 3, 3)), nn.Linear(c, 8)

    def forward(self, h):
        f = nn.functional.conv2d(h, self.weight, padding=1)
        return f * self.gate(f.mean((2, 3))).mean(1)[:, None, None, None]


@pytest.mark.parametrize("kind", STATES)
def test_states_are_pooled_over_tokens_or_space_and_never_over_channels(kind):
    shape, space, f = STATES[kind]
    torch.manual_seed(0)
    model, y = Pooled(shape, space, f).double().eval(), np.arange(30) % 3
    x = normal(3, math.prod(shape), seed=4)[y] + normal(30, math.prod(shape))
    named = "channels_last" if space[0] == 1 else "channels_first"
    for maps in ("pool", named):
        found = collapse_by_layer(model, x, y, maps=maps, chunk=7)
        for name, state in zip(("h_0", "h_1", "h_2"), trace(model, x).states, strict=True):
            pooled = state.numpy().mean(space)
            assert found[name].nc1 == pytest.approx(neural_collapse(pooled, y).nc1, rel=1e-10)
        assert found["h_2"].nc1 == pytest.approx(found["features"].nc1)  # the classifier reads the pooled last state


class Both(nn.Module):
    """A convolution over a state's channels, and a layer over its last dimension."""

    def __init__(self, convolution, layer):
        super().__init__()
        self.convolution, self.layer = convolution, layer

    def forward(self, h):
        return self.convolution(h) + self.layer(h)


@pytest.mark.parametrize("maps", ["channels_first", "channels_last"])
@pytest.mark.parametrize(
    ("shape", "f", "told"),
    [
        ((6, 8), lambda: Both(nn.Conv1d(6, 6, 1), nn.Linear(8, 8)), "Conv1d .* in dimension 1 and Linear in the last"),
        ((6, 8, 8), lambda: Both(nn.Conv2d(6, 6, 1), nn.LayerNorm(8)), "Conv2d .* dimension 1 and LayerNorm in the l"),
        ((6, 8), nn.Tanh, "no layer that reads or writes it tells which dimension holds its channels"),
        ((6, 8), lambda: nn.Sequential(nn.Tanh(), nn.Linear(8, 8)), "no layer that reads or writes it tells"),
    ],
)
def test_states_that_could_be_either_are_refused_until_it_is_said(shape, f, told, maps):
    places = tuple(range(2, len(shape) + 1))
    model = randomised(Pooled(shape, places, f))
    x, y = normal(30, math.prod(shape)), torch.arange(30) % 3
    text = rf"h_0 is \('n', {', '.join(map(str, shape))}\), and {told}.*Say where they are: maps='channels_first' pools"
    with pytest.raises(ValueError, match=text):
        collapse_by_layer(model, x, y)
    found = collapse_by_layer(model, x, y, maps=maps)
    space = places if maps == "channels_first" else tuple(d - 1 for d in places)
    expected = neural_collapse(trace(model, x).states[1].mean(space), y)
    assert found["h_1"].nc1 == pytest.approx(expected.nc1)


def test_states_that_do_not_have_the_inputs_first_are_refused(small, monkeypatch):
    """As of a transformer that takes its sequence first."""

    def turned(model, x):
        path = trace(model, x)
        return [state.T for state in path.states], path.logits

    monkeypatch.setattr(_network, "trace_states", turned)
    model, x, y = small
    with pytest.raises(ValueError, match=r"states whose rows are the 47 inputs; h_0 is \(8, 47\)"):
        collapse_by_layer(model, x, y)


def test_torchvisions_networks_are_known():
    model, y = randomised(resnet18(num_classes=3)), torch.arange(9) % 3
    x = normal(9, 3, 32, 32)
    found = collapse_by_layer(model, x, y, chunk=4)
    assert list(found) == [*(f"h_{depth}" for depth in range(9)), "features"]
    pooled = trace(model, x).states[-1].mean((2, 3))
    assert_close(values(found["features"]), values(neural_collapse(pooled, y, model.fc.weight, model.fc.bias)))
    assert found["h_8"].nc1 == pytest.approx(found["features"].nc1)  # the classifier reads the pooled last state


def test_no_more_than_a_chunk_passes_and_no_hook_stays(small):
    model, x, y = small
    sizes = []
    model.stem.register_forward_hook(lambda _, args, out: sizes.append(len(out)))
    collapse_by_layer(model, x, y, chunk=20)
    assert sizes[-6:] == [20, 20, 7] * 2
    assert max(sizes[:-6]) <= 4  # a trace of the first input, alone and beside others
    with pytest.raises(ValueError, match="NaN"):
        collapse_by_layer(model, x.where(torch.arange(47)[:, None, None, None] < 40, math.nan), y, chunk=20)
    assert not any(
        module._forward_hooks or module._forward_pre_hooks for module in model.modules() if module != model.stem
    )


def test_a_network_that_never_leaves_its_start_does_not_collapse(small):
    model, x, y = small
    nn.init.zeros_(model.stem[1].weight)  # the same state for every input
    found = collapse_by_layer(model, x, y)
    assert found["h_0"].nc1 == math.inf
    assert math.isnan(found["h_0"].nc2_norm)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m, x, y: collapse_by_layer(m.train(), x, y), r"in train mode"),
        (lambda m, x, y: collapse_by_layer(m, x, y[:-1]), r"Expected labels \(47,\) of integers.*got \(46,\)"),
        (lambda m, x, y: collapse_by_layer(m, x[:0], y[:0]), r"at least one"),
        (lambda m, x, y: collapse_by_layer(m, x, y % 2), r"Class 2 of 3 has no samples"),
        (lambda m, x, y: collapse_by_layer(m, x, y + 1), r"Labels must lie in 0..2; got 1..3"),
        (lambda m, x, y: collapse_by_layer(m, x, y, maps="mean"), r"maps must be one of pool, .*, flatten; got 'mean'"),
        (
            lambda m, x, y: collapse_by_layer(m, x.numpy(), y),
            r"inputs x as a torch tensor; got ndarray. Use torch.as_t",
        ),
        (lambda m, x, y: collapse_by_layer(m, x, y, chunk=0), r"chunk must be a whole number of at least 1; got 0"),
        (lambda m, x, y: collapse_by_layer(m, x, y, chunk=2.5), r"chunk must be a whole number of at .*; got 2.5"),
    ],
)
def test_what_a_network_cannot_be_measured_with(small, change, text):
    with pytest.raises(ValueError, match=text):
        change(*small)


def test_a_network_must_end_in_a_linear_layer(small):
    model, x, y = small
    blocks, classifier = list(model.blocks), model.head[-1]
    for head in (nn.Sequential(classifier, nn.LogSoftmax(1)), nn.Flatten()):
        odd = ResNet(model.stem, blocks, head).eval()
        with pytest.raises(ValueError, match=r"output is that of an nn.Linear.*ResNet has \d such layers and none"):
            collapse_by_layer(odd, x, y)
