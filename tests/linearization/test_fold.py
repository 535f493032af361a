"""Folding merges what is linear, only that, and only where the function stays the same."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from contracts import randomised
from hypothesis import assume, given
from hypothesis import strategies as st
from slopes import Wired
from torch import nn
from torch.testing import assert_close
from torchvision.models import resnet18

from resalign_utils import ResNetConfig, build_model
from resalign_utils.linearization import fold, linearize

EXACT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(autouse=True)
def _weights_are_the_same_every_time():
    torch.manual_seed(0)


def pictures(*shape, n=3):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def calls(model):
    """What the folded model calls, in order."""
    return [
        type(model.get_submodule(node.target)).__name__ if node.op == "call_module" else node.name
        for node in model.graph.nodes
        if node.op not in ("placeholder", "output", "get_attr")
    ]


def check(model, x, expected):
    """Fold a float64 model, compare the function and what is left of the model; return the folded one."""
    model = randomised(model)
    folded = fold(model)
    assert_close(folded(x), model(x), **EXACT)
    assert calls(folded) == expected
    return folded


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


# Rule 1: what does nothing


@pytest.mark.parametrize(
    "nothing", [nn.Identity(), nn.Dropout(0.9), nn.AlphaDropout(0.9), nn.PReLU(4, init=1.0), nn.PReLU(init=1.0)]
)
def test_what_returns_its_input_is_dropped(nothing):
    check(nn.Sequential(nn.ReLU(), nothing, nn.Tanh()), pictures(4), ["ReLU", "Tanh"])


def test_dropout_over_channels_is_dropped_wherever_it_is_called():
    shared = Wired(lambda m, x: m.drop(m.tanh(m.drop(x))), drop=nn.Dropout2d(0.9), tanh=nn.Tanh())
    check(shared, pictures(4, 5, 5), ["Tanh"])


@pytest.mark.parametrize("slopes", [[1.0, 1.0, 0.999], [0.0, 1.0, 1.0], [0.25, 0.25, 0.25]])
def test_prelu_with_one_slope_beside_1_stays(slopes):
    prelu = nn.PReLU(3)
    prelu.weight.data = torch.tensor(slopes)
    check(nn.Sequential(prelu, nn.Tanh()), pictures(3), ["PReLU", "Tanh"])


# Rule 2: batch norm, and factors


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.Conv2d(4, 6, (3, 1), bias=False),
        nn.Conv2d(4, 6, 3, groups=2, dilation=2, padding="same"),
        nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"),
    ],
)
@pytest.mark.parametrize("learned", [True, False])
def test_batch_norm_goes_into_any_convolution(layer, learned):
    norm = nn.BatchNorm2d(6, eps=0.1, affine=learned)
    if not learned:
        norm.running_mean, norm.running_var = torch.randn(6), torch.rand(6) + 0.5
        model = nn.Sequential(layer, norm).double().eval()
        folded = fold(model)
        x = pictures(4, 9, 9)
        assert_close(folded(x), model(x), **EXACT)
        assert calls(folded) == ["Conv2d"]
    else:
        folded = check(nn.Sequential(layer, norm), pictures(4, 9, 9), ["Conv2d"])
    assert parameters(folded) == layer.weight.numel() + 6


@pytest.mark.parametrize("bias", [True, False])
def test_batch_norm_goes_into_a_linear_layer(bias):
    check(nn.Sequential(nn.Linear(4, 6, bias=bias), nn.BatchNorm1d(6)), pictures(4), ["Linear"])


@pytest.mark.parametrize("factor", [-2.0, 0.0, 3])
def test_factor_goes_into_the_layer_before_it(factor):
    for wire in (lambda m, x: factor * m.layer(x), lambda m, x: torch.mul(m.layer(x), factor)):
        check(Wired(wire, layer=nn.Linear(4, 6)), pictures(4), ["Linear"])
        check(Wired(wire, layer=nn.Conv2d(4, 6, 3, bias=False)), pictures(4, 5, 5), ["Conv2d"])


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ([nn.ReLU(), nn.BatchNorm2d(4)], (4, 5, 5)),  # nothing to merge it with
        ([nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(8), nn.ReLU()], (4, 5, 5)),
        ([nn.BatchNorm2d(20), nn.BatchNorm2d(20)], (20, 5, 5)),  # as one 1×1 convolution they would be larger
        ([nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)], (4, 5, 5)),  # its shift is not zero around the image
        ([nn.Linear(5, 6), nn.BatchNorm1d(4)], (4, 5)),  # normalises the places of a sequence
        ([nn.Linear(5, 4), nn.BatchNorm2d(4)], (4, 3, 5)),  # the same of images
        ([nn.Linear(5, 4), nn.Conv2d(4, 4, 1)], (4, 3, 5)),
        ([nn.ConvTranspose2d(4, 6, 1), nn.BatchNorm2d(6)], (4, 5, 5)),  # has no rule
    ],
)
def test_layers_stay_where_they_cannot_be_merged(layers, shape):
    folded = check(nn.Sequential(*layers), pictures(*shape), [type(layer).__name__ for layer in layers])
    norms = [(i, layer) for i, layer in enumerate(layers) if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    assert folded.meta["left"] == [f"{i} ({type(layer).__name__})" for i, layer in norms]


class Named(nn.BatchNorm2d):
    """Of another name, and the same function."""


class Own(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).abs()


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), (4, 7)),
        (nn.Conv3d(4, 6, 3, padding=1), nn.BatchNorm3d(6), (4, 5, 5, 5)),
        (nn.Conv2d(4, 6, 3), Named(6), (4, 5, 5)),
        (nn.Conv2d(4, 6, 3, groups=2), nn.SyncBatchNorm(6), (4, 5, 5)),
        (nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6, momentum=None), (4, 5, 5)),
    ],
)
def test_every_kind_of_batch_norm_goes_into_its_convolution(layer, norm, shape):
    folded = check(nn.Sequential(layer, norm, nn.ReLU()), pictures(*shape), [type(layer).__name__, "ReLU"])
    assert folded.meta["left"] == []


def test_batch_norms_that_are_left_are_named():
    def wire(m, x):
        h = F.batch_norm(m.conv(x), m.norm.running_mean, m.norm.running_var)
        return m.norm(h) + m.own(m.other(x))

    parts = {"conv": nn.Conv2d(4, 4, 1), "other": nn.Conv2d(4, 4, 1), "norm": nn.BatchNorm2d(4), "own": Own(4)}
    model = randomised(Wired(wire, **parts))
    x = pictures(4, 5, 5)
    folded = fold(model, x)
    assert_close(folded(x), model(x), **EXACT)
    assert folded.meta["left"] == ["norm (batch_norm)", "norm (BatchNorm2d)", "own (Own)"]
    assert copy.deepcopy(folded).meta["left"] == folded.meta["left"]


def test_batch_norm_without_statistics_is_not_linear_and_stays():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, track_running_stats=False)).double().eval()
    folded, x = fold(model), pictures(4, n=8)
    assert_close(folded(x), model(x), **EXACT)
    assert calls(folded) == ["Linear", "BatchNorm1d"]


# Rule 3: one after the other

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
strides = st.tuples(st.integers(1, 2), st.integers(1, 2))


@given(k1=pairs, k2=pairs, s1=strides, s2=strides, p1=st.integers(0, 2), sides=st.tuples(*[st.integers(9, 12)] * 2))
def test_convolutions_merge_if_the_second_has_no_padding(k1, k2, s1, s2, p1, sides):
    first, second = nn.Conv2d(2, 12, k1, s1, p1), nn.Conv2d(12, 2, k2, s2)
    folded = check(nn.Sequential(first, second), pictures(2, *sides), ["Conv2d"])
    (merged,) = (module for module in folded.modules() if isinstance(module, nn.Conv2d))
    assert merged.stride == (s1[0] * s2[0], s1[1] * s2[1])
    assert merged.padding == (p1, p1)
    assert merged.kernel_size == tuple(a + (b - 1) * s for a, b, s in zip(k1, k2, s1, strict=True))


@given(k1=st.sampled_from([1, 2, 3]), s1=st.integers(1, 2), p1=st.integers(0, 1), p2=pairs, bias=st.booleans())
def test_convolutions_with_padding_merge_only_after_a_bare_one_by_one(k1, s1, p1, p2, bias):
    first, second = nn.Conv2d(2, 12, k1, s1, p1, bias=bias), nn.Conv2d(12, 3, 3, 2, p2)
    bare = (k1, s1, p1, bias) == (1, 1, 0, False)
    check(nn.Sequential(first, second), pictures(2, 8, 9), ["Conv2d"] if bare else ["Conv2d", "Conv2d"])


@pytest.mark.parametrize(
    "special", [{"groups": 2}, {"dilation": 2}, {"padding": 1, "padding_mode": "reflect"}, {"padding": "valid"}]
)
def test_special_convolutions_are_left_alone(special):
    layers = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, **special), nn.Conv2d(4, 4, 1)
    check(nn.Sequential(*layers), pictures(4, 7, 7), ["Conv2d"] * 3)


@pytest.mark.parametrize("biases", [(True, True), (True, False), (False, True), (False, False)])
def test_linear_layers_merge_to_the_product_of_their_matrices(biases):
    first, second = nn.Linear(5, 6, bias=biases[0]), nn.Linear(6, 4, bias=biases[1])
    folded = check(nn.Sequential(first, second), pictures(5), ["Linear"])
    (merged,) = (module for module in folded.modules() if isinstance(module, nn.Linear))
    assert_close(merged.weight, second.weight @ first.weight, **EXACT)
    assert (merged.bias is None) == (not any(biases))


def test_batch_norm_before_a_linear_layer_goes_into_it():
    check(nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 4), nn.BatchNorm1d(4)), pictures(6), ["Linear"])
    check(nn.Sequential(nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3)), pictures(6, 5, 5), ["Conv2d"])


@pytest.mark.parametrize(
    ("layers", "shape", "left"),
    [
        ([nn.Linear(20, 3), nn.Linear(3, 20)], (20,), 2),  # a bottleneck: 143 numbers against 420
        ([nn.Linear(20, 20), nn.Linear(20, 3), nn.Linear(3, 20), nn.Linear(20, 20)], (20,), 2),
        ([nn.Linear(20, 3), nn.Linear(3, 9), nn.Linear(9, 2)], (20,), 1),  # 3 → 9 → 2 becomes 3 → 2 first
        ([nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)], (4, 7, 7), 2),  # 18 taps against 25
        ([nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1)], (4, 7, 7), 1),
        ([nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3)], (4, 7, 7), 1),
    ],
)
def test_layers_merge_only_if_that_takes_no_more_numbers(layers, shape, left):
    folded = check(nn.Sequential(*layers), pictures(*shape), [type(layers[0]).__name__] * left)
    assert parameters(folded) <= parameters(nn.Sequential(*layers))


# Rule 4: side by side


@given(
    k=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    p=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    stride=st.integers(1, 3),
    sides=st.tuples(*[st.integers(6, 9)] * 2),
    biases=st.tuples(st.booleans(), st.booleans()),
)
def test_convolutions_that_are_added_merge_if_they_see_the_same_places(k, p, stride, sides, biases):
    one, other = (nn.Conv2d(2, 3, *args, bias=bias) for *args, bias in zip(k, [stride] * 2, p, biases, strict=True))
    x = pictures(2, *sides)
    assume(one(x.float()).shape == other(x.float()).shape)
    same = 2 * p[0] - k[0] == 2 * p[1] - k[1]  # else they start at different pixels, or one sees pixels more
    model = Wired(lambda m, x: m.one(x) + m.other(x), one=one, other=other)
    check(model, x, ["Conv2d"] if same else ["Conv2d", "Conv2d", "add"])


def test_convolutions_of_one_size_and_different_strides_are_left():
    model = Wired(lambda m, x: m.a(x) + m.b(x), a=nn.Conv2d(2, 2, 1, 3), b=nn.Conv2d(2, 2, 3, 2, padding=1))
    check(model, pictures(2, 4, 4), ["Conv2d", "Conv2d", "add"])


def test_crossed_kernels_whose_hull_is_larger_are_left():
    row, column = nn.Conv2d(2, 2, (1, 5), padding=(0, 2)), nn.Conv2d(2, 2, (5, 1), padding=(2, 0))
    model = Wired(lambda m, x: m.row(x) + m.column(x), row=row, column=column)
    check(model, pictures(2, 7, 7), ["Conv2d", "Conv2d", "add"])  # 10 taps against 25


@pytest.mark.parametrize(
    ("factor", "wire"),
    [
        (1.0, lambda m, x: m.layer(x) + x),
        (1.0, lambda m, x: torch.add(x, m.layer(x))),
        (-0.5, lambda m, x: m.layer(x) + x * -0.5),
        (2.0, lambda m, x: 2 * x + m.layer(x)),
    ],
)
def test_skip_around_a_linear_layer_is_added_to_its_matrix(factor, wire):
    layer = nn.Linear(4, 4)
    folded = check(Wired(wire, layer=layer), pictures(4), ["Linear"])
    assert_close(folded.layer.weight, layer.weight + factor * torch.eye(4, dtype=torch.float64), **EXACT)
    check(Wired(wire, layer=nn.Conv2d(4, 4, 3, padding=1, bias=False)), pictures(4, 5, 5), ["Conv2d"])


def test_skip_that_is_broadcast_or_goes_around_a_change_of_size_is_left():
    wire = lambda m, x: m.layer(x) + x  # noqa: E731
    check(Wired(wire, layer=nn.Linear(1, 4)), pictures(1), ["Linear", "add"])
    check(Wired(wire, layer=nn.Linear(4, 1)), pictures(4), ["Linear", "add"])
    check(Wired(wire, layer=nn.Conv2d(2, 2, 3)), pictures(2, 3, 3), ["Conv2d", "add"])


@pytest.mark.parametrize(
    ("wire", "left"),
    [
        (lambda m, x: m.a(x) + x + m.tanh(x), ["Linear", "Tanh", "add_1"]),
        (lambda m, x: m.a(x) + m.b(x + 1), ["Linear", "add", "Linear", "add_1"]),  # different inputs
        (lambda m, x: (lambda a: a + a)(m.a(x)), ["Linear", "add"]),
        (lambda m, x: m.a(x) * m.b(x), ["Linear", "Linear", "mul"]),
        (lambda m, x: x + x, ["add"]),
        (lambda m, x: 2 * x + x, ["mul", "add"]),
        (lambda m, x: torch.add(m.a(x), x, alpha=2), ["Linear", "add"]),
        (lambda m, x: m.a(x) + 1.0, ["Linear", "add"]),
        (lambda m, x: (lambda a: m.tanh(a) + (a + x))(m.a(x)), ["Linear", "Tanh", "add", "add_1"]),  # a is used twice
    ],
)
def test_sums_of_other_things_are_left(wire, left):
    check(Wired(wire, a=nn.Linear(4, 4), b=nn.Linear(4, 4), tanh=nn.Tanh()), pictures(4), left)


# What is left alone


class OnesOwn(nn.Linear):
    def forward(self, x):
        return super().forward(x).abs()


def hooked(layer):
    layer.register_forward_hook(lambda module, args, output: output.abs())
    return layer


@pytest.mark.parametrize(
    ("wire", "left"),
    [
        (lambda m, x: m.b(m.b(x)), ["Linear", "Linear"]),
        (lambda m, x: m.a(m.b(x)) + m.b(m.tanh(x)), ["Linear", "Linear", "Tanh", "Linear", "add"]),
        (lambda m, x: (lambda h: m.b(h) * m.tanh(h))(m.a(x)), ["Linear", "Linear", "Tanh", "mul"]),  # h is used twice
        (lambda m, x: F.linear(m.b(m.a(x)), m.b.weight), ["Linear", "Linear", "linear"]),  # tied weights
        (lambda m, x: m.own(m.a(m.b(x))), ["Linear", "linear", "abs_1"]),
        (lambda m, x: m.b(m.hooked(m.a(x))), ["Linear", "Linear", "Linear"]),
        (lambda m, x: m.b(F.prelu(m.a(x), m.one)), ["Linear", "prelu", "Linear"]),
    ],
)
def test_what_is_shared_hooked_or_called_as_a_function_is_left(wire, left):
    parts = {name: nn.Linear(4, 4) for name in ("a", "b")}
    parts |= {"tanh": nn.Tanh(), "own": OnesOwn(4, 4), "hooked": hooked(nn.Linear(4, 4))}
    check(Wired(wire, **parts, one=nn.Parameter(torch.ones(1))), pictures(4), left)


def test_layer_whose_weight_is_computed_is_left():
    computed = nn.utils.parametrizations.orthogonal(nn.Linear(4, 4))
    left = ["Linear", "ParametrizedLinear", "BatchNorm1d"]
    check(nn.Sequential(nn.Linear(4, 4), computed, nn.BatchNorm1d(4)), pictures(4), left)


@pytest.mark.parametrize(
    "functional",
    [
        lambda h: F.relu(h, True),
        lambda h: h.relu_(),
        lambda h: torch.relu_(h),
        lambda h: torch.mul(torch.sign(h), h, out=h),
    ],
)
@pytest.mark.parametrize("first", [nn.Tanh(), nn.Linear(4, 4)])
def test_what_is_written_over_keeps_its_readers_in_order(functional, first):
    def drop(m, x):  # without the copy that the PReLU makes, `h` would be overwritten
        h = m.first(x)
        return functional(m.one(h)) + h

    def merge(m, x):  # the two layers read different values
        h = m.first(x)
        a = m.a(h)
        functional(h)
        return m.b(h) + a

    def into_the_skip(m, x):
        h = m.first(x)
        return h.add_(m.a(h)) * h

    def through_a_view(m, x):
        h = m.first(x)
        return functional(m.one(h).flatten(1)) + h

    for wire in (drop, merge, into_the_skip, through_a_view):
        model = randomised(Wired(wire, a=nn.Linear(4, 4), b=nn.Linear(4, 4), first=first, one=nn.PReLU(init=1.0)))
        x = pictures(4)
        with torch.no_grad():  # which out= asks for
            assert_close(fold(model)(x), model(x), **EXACT)


def test_sum_that_writes_over_the_branch_alone_is_merged():
    def wire(m, x):
        out = m.norm(m.conv(x))
        out += x
        return m.relu(m.one(out))

    parts = {"conv": nn.Conv2d(3, 3, 3, padding=1), "norm": nn.BatchNorm2d(3), "relu": nn.ReLU(inplace=True)}
    check(Wired(wire, **parts, one=nn.PReLU(3, init=1.0)), pictures(3, 5, 5), ["Conv2d", "ReLU"])


def test_inputs_of_the_caller_are_not_written_over():
    x = pictures(4)
    before = x.clone()
    fold(nn.Sequential(nn.PReLU(init=1.0), nn.ReLU(inplace=True)).double(), x)(x)
    assert torch.equal(x, before)
    fold(nn.Sequential(nn.ReLU(inplace=True)), x)  # the model itself writes over its input
    assert torch.equal(x, before)


# Whole networks

ALL = [
    {"kind": kind, "skip": skip, "activation": activation}
    for kind in ("fc", "conv", "conv_down")
    for skip in (True, False, (0.5, 0.0, 1.0))
    for activation in ("post", "pre")
]


def with_slopes_of_one(model):
    linear = linearize(model)
    for module in linear.modules():
        if isinstance(module, nn.PReLU):
            nn.init.ones_(module.weight)
    return linear


@pytest.mark.parametrize("choice", [*ALL, {"kind": "repvgg"}, {"kind": "repvgg", "skip": (1.0, 0.0, 1.0)}])
@pytest.mark.parametrize("linear", [False, True])
def test_our_networks_fold_to_the_same_function(digits, choice, linear):
    model = randomised(build_model(ResNetConfig(3, 12, **choice), digits))
    model = with_slopes_of_one(model) if linear else model
    x = digits.test_x[:10].double()
    folded = fold(model, x, tolerance=1e-11)
    assert_close(folded(x), model(x), **EXACT)
    assert parameters(folded) < parameters(model)
    found = calls(folded)
    if linear:
        assert not {"PReLU", "ReLU"} & set(found)
    elif choice.get("activation") != "pre":
        assert not any(name.startswith("BatchNorm") for name in found)
    if linear and choice["kind"] == "fc":
        assert found == ["Flatten", "Linear"]
        assert parameters(folded) == 64 * 10 + 10
        y = digits.test_x[10:20].double()
        assert_close(folded(2 * x - 3 * y), 2 * model(x) - 3 * model(y) + 2 * model(torch.zeros_like(x)), **EXACT)


@pytest.mark.parametrize("skip", [True, False])
def test_trained_repvgg_is_a_plain_stack(digits, skip):
    depth, width = 5, 8
    model = build_model(ResNetConfig(depth, width, "repvgg", skip=skip), digits)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for batch in range(5):
        rows = slice(64 * batch, 64 * (batch + 1))
        optimizer.zero_grad()
        F.cross_entropy(model(digits.train_x[rows]), digits.train_y[rows]).backward()
        optimizer.step()
    x = digits.test_x[:100]
    folded = fold(model, x)
    assert model.training  # the original is as it was
    expected = model.eval()(x).detach()
    assert float((folded(x).detach() - expected).abs().max() / expected.abs().max()) < 1e-5
    assert calls(folded) == ["Conv2d", "ReLU"] * (depth + 1) + ["AdaptiveAvgPool2d", "Flatten", "Linear"]
    stem, blocks, head = width * 25 + width, depth * (9 * width**2 + width), 10 * width + 10
    assert parameters(folded) == stem + blocks + head
    branches = depth * (9 * width**2 + width**2 + 2 * width * (3 if skip else 2))
    assert parameters(model) == width * 25 + 2 * width + branches + head


def test_resnet18_folds_its_batch_norms():
    model = randomised(resnet18(num_classes=5))
    x = pictures(3, 40, 40)
    folded = fold(model, x, tolerance=1e-11)
    assert not any("BatchNorm" in name for name in calls(folded))
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert parameters(folded) == sum(c.weight.numel() + c.out_channels for c in convolutions) + 512 * 5 + 5
    linear = fold(with_slopes_of_one(model), x, tolerance=1e-11)
    # a sum whose branch is two padded convolutions stays; the stem's maximum is all that is not linear
    assert [name for name in calls(linear) if name not in ("Conv2d", "add")][:1] == ["MaxPool2d"]
    assert not {"ReLU", "PReLU"} & set(calls(linear))


def test_folding_twice_changes_nothing(digits):
    once = fold(randomised(build_model(ResNetConfig(3, 8, "conv_down"), digits)))
    twice = fold(once)
    assert calls(twice) == calls(once)
    for one, two in zip(once.parameters(), twice.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.usefixtures("random_state_untouched")
def test_original_and_random_state_are_left_as_they_were(digits):
    model = build_model(ResNetConfig(2, 8, "repvgg"), digits).train()
    before = copy.deepcopy(model.state_dict())
    folded = fold(model, digits.test_x[:10])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not any(module.training for module in folded.modules())
    assert not {id(p) for p in folded.parameters()} & {id(p) for p in model.parameters()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_folded_model_has_the_dtype_of_the_model_and_is_rounded_once(dtype):
    layers = [nn.Linear(8, 8) for _ in range(12)]
    model = nn.Sequential(*layers).to(dtype)
    folded = fold(model)
    assert {parameter.dtype for parameter in folded.parameters()} == {dtype}
    product = torch.eye(8, dtype=torch.float64)
    for layer in layers:
        product = layer.weight.detach().double() @ product
    (merged,) = folded.children()
    assert_close(merged.weight.double(), product.to(dtype).double(), rtol=torch.finfo(dtype).eps, atol=1e-15)


def test_model_without_weights_is_folded_too():
    assert calls(fold(nn.Sequential(nn.Identity(), nn.Tanh()), pictures(4))) == ["Tanh"]


# Errors


def test_difference_above_the_tolerance_is_an_error_that_says_how_large():
    class Deceitful(nn.Module):  # computes something else in the graph than outside of it
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(x) if isinstance(x, torch.fx.Proxy) else 1.25 * self.layer(x)

    x = pictures(4).float()
    with pytest.raises(RuntimeError, match=r"differ from the original's by 2\.0e-01 of the largest, more than toler"):
        fold(Deceitful(), x)
    fold(Deceitful(), x, tolerance=0.21)
    fold(Deceitful())  # without x there is no check


@torch.no_grad()
def test_rounding_of_float32_is_no_error():
    """Means that nearly cancel: in float32 the folded network is off by more than 1e-5, as the network itself is."""
    layers = [part for _ in range(5) for part in (nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())]
    model, x = randomised(nn.Sequential(*layers)).float(), pictures(8, 6, 6).float()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            norm.running_mean += 300
            norm.bias += 300 * scale
    folded = fold(model, x)
    expected = model(x)
    assert float((folded(x) - expected).abs().max() / expected.abs().max()) > 1e-5
    assert_close(fold(model.double())(x.double()), model(x.double()), **EXACT)


def test_outputs_that_are_all_zero_agree():
    head = nn.Linear(4, 3)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    fold(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), head), pictures(4).float())


def test_memory_format_is_that_of_the_model():
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3)
    for memory_format in (torch.channels_last, torch.contiguous_format):
        model = randomised(nn.Sequential(*layers)).to(memory_format=memory_format)
        folded = fold(model, pictures(3, 8, 8))
        assert {p.is_contiguous(memory_format=memory_format) for p in folded.parameters() if p.dim() == 4} == {True}


def test_model_that_cannot_be_evaluated_in_float64_is_refused_with_x():
    model = Wired(lambda m, x: m.a(x) @ torch.ones(4, 4), a=nn.Linear(4, 4))
    fold(model)
    with pytest.raises(ValueError, match=r"Wired cannot take inputs of shape \(3, 4\) in float64, in which the"):
        fold(model, pictures(4).float())


def test_outputs_that_are_not_numbers_do_not_agree():
    x = torch.full((2, 4), math.nan)
    with pytest.raises(RuntimeError, match="by nan of the largest, more than tolerance=1e-09, though both"):
        fold(nn.Sequential(nn.Linear(4, 4)), x)


def test_model_that_cannot_be_traced_is_refused():
    model = Wired(lambda m, x: m.a(x) if x.sum() > 0 else x, a=nn.Linear(4, 4))
    with pytest.raises(ValueError, match=r"torch\.fx cannot trace Wired .*TraceError.*give a part of the model"):
        fold(model)


def test_model_of_two_dtypes_is_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4).double())
    expected = r"one dtype on one device; got torch.float32 on cpu, torch.float64 on cpu. Convert it: model.to"
    with pytest.raises(ValueError, match=expected):
        fold(model)


def test_model_that_returns_several_tensors_is_folded_but_not_compared():
    model = Wired(lambda m, x: (m.a(x), x), a=nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))
    assert calls(fold(model)) == ["Linear"]
    with pytest.raises(TypeError, match=r"compares one tensor; the model returned tuple\. Fold without x"):
        fold(model, pictures(4).float())
