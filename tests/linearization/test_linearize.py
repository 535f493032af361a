"""A linearised copy is the same function, with slopes where they belong."""

import pytest
import torch
import torch.nn.functional as F
from contracts import randomised
from slopes import Wired, slopes_of, superposition_error
from torch import nn
from torch.nn.utils import prune
from torch.testing import assert_close
from torchvision.models import resnet18

from resalign_utils import ResNetConfig, average_path_length, build_model, fold, linearize, path_length_distribution


class Functional(nn.Module):
    """ReLU as a function and as a method, and one module that is called twice behind different numbers of channels."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.relu = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 1), nn.ReLU(inplace=True)
        self.norm, self.last = nn.BatchNorm2d(6), nn.Linear(6, 3)

    def forward(self, x):
        x = self.relu(self.first(x))
        x = self.relu(self.norm(self.second(x)))
        x = F.relu(x - 1) + 0.5 * x.relu()
        return self.last(x.mean((2, 3)))


@pytest.mark.parametrize("granularity", ["channel", "layer"])
@pytest.mark.parametrize("kind", ["fc", "conv", "conv_down"])
@pytest.mark.parametrize("activation", ["post", "pre"])
@pytest.mark.parametrize("skip", [True, False, (0.5, 0.0, 1.0)])
def test_copy_is_the_same_function_with_a_slope_per_channel_or_layer(pictures, granularity, kind, activation, skip):
    model = randomised(build_model(ResNetConfig(3, 4, kind, skip=skip, activation=activation), pictures))
    copy, x = linearize(model, granularity), pictures.test_x.double()
    assert type(copy) is type(model)
    assert not copy.training
    assert_close(copy(x), model(x), atol=1e-12, rtol=0)
    counts = [len(slope.weight) for slope in slopes_of(copy)]
    wide = [4, 4, 4, 8, 8, 8, 8] if kind == "conv_down" else [4] * 7
    if kind == "conv_down" and activation == "pre":  # the ReLUs before the layer that doubles the channels are small
        wide = [4, 4, 4, 8, 8, 8, 8]
    assert counts == (wide if granularity == "channel" else [1] * 7)
    assert all((slope.weight == 0).all() and slope.weight.dtype == torch.float64 for slope in slopes_of(copy))
    assert not slopes_of(model)
    assert linearize(model.train(), granularity).training


@pytest.mark.parametrize("granularity", ["channel", "layer"])
def test_functional_and_repeated_relus_get_slopes_of_their_own(granularity):
    model, x = randomised(Functional()), torch.randn(5, 1, 6, 6, dtype=torch.float64)
    expected = model(x.clone())
    copy = linearize(model, granularity)
    assert_close(copy(x.clone()), expected, atol=1e-12, rtol=0)
    assert [len(slope.weight) for slope in slopes_of(copy)] == ([4, 6, 6, 6] if granularity == "channel" else [1] * 4)
    for slope in slopes_of(copy):
        slope.weight.data.fill_(1.0)
    assert superposition_error(copy, x) < 1e-12
    assert superposition_error(model, x) > 1e-3


def test_torchvision_network_is_the_same_function():
    torch.manual_seed(0)
    model, x = resnet18(num_classes=10).eval(), torch.randn(2, 3, 64, 64)
    copy = linearize(model)
    assert_close(copy(x), model(x), atol=1e-6, rtol=0)
    assert sum(len(slope.weight) for slope in slopes_of(copy)) == 64 * 5 + 128 * 4 + 256 * 4 + 512 * 4
    assert not [name for name, module in copy.named_modules() if isinstance(module, nn.ReLU)]


def test_channels_that_the_layers_do_not_tell_are_asked_for():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.ReLU(), nn.Linear(32, 3))
    for granularity, count in (("channel", 32), ("layer", 1)):
        with pytest.raises(ValueError, match=r"What Sequential takes is not known .* Give an example input, x="):
            linearize(model, granularity)
        copy = linearize(model, granularity, x=torch.zeros(1, 1, 6, 6))
        assert [len(slope.weight) for slope in slopes_of(copy)] == [count]


def inplace(name):
    def wire(m, x):
        h = m.first(x)
        if name == "after a sum":
            h = h + m.second(h)
        match name:
            case "method":
                h.relu_()
            case "module":
                m.relu(h)
            case _:
                F.relu(h, inplace=True)
        return h + m.second(h) if name == "before a sum" else h

    return Wired(wire, first=nn.Linear(4, 4), second=nn.Linear(4, 4), relu=nn.ReLU(inplace=True))


@pytest.mark.parametrize("name", ["function", "method", "module", "before a sum", "after a sum"])
@pytest.mark.parametrize("granularity", ["channel", "layer"])
def test_relu_that_only_writes_over_its_input_is_seen(name, granularity):
    torch.manual_seed(0)
    model, x = inplace(name).double(), torch.randn(5, 4, dtype=torch.float64)
    copy = linearize(model, granularity)
    assert_close(copy(x), model(x), atol=0, rtol=0)
    (slopes,) = slopes_of(copy)
    slopes.weight.data.fill_(1.0)
    assert superposition_error(copy, x) < 1e-12 < 1e-3 < superposition_error(model, x)


def test_arguments_with_a_default_keep_it():
    class Optional(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x, y=None, scale=2.0):
            h = torch.relu(self.layer(x) * scale)
            return h if y is None else h - y

    model, x = Optional(), torch.randn(3, 4)
    copy = linearize(model)
    assert torch.equal(copy(x), model(x))
    with pytest.raises(AssertionError, match="y has been specialized to have value None"):
        copy(x, x)


def images(*layers):
    return nn.Sequential(nn.Conv2d(3, 4, 3), *layers), (3, 8, 8)


CHANNELS_FIRST = [
    images(nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.Dropout2d(), nn.ReLU()),
    images(nn.LayerNorm((4, 6, 6)), nn.ReLU()),
    images(nn.Flatten(2), nn.BatchNorm1d(4), nn.ReLU()),
    (Wired(lambda m, x: torch.cat([x * 2, m.conv(x).tanh()], 1).relu(), conv=nn.Conv2d(3, 1, 1)), (3, 8, 8)),
    (Wired(lambda m, x: torch.chunk(m.conv(x), 2, 1)[0].relu() + x.relu(), conv=nn.Conv2d(3, 6, 1)), (3, 8, 8)),
    (nn.Sequential(nn.Linear(5, 32), nn.Unflatten(1, (4, 8)), nn.Conv1d(4, 4, 1), nn.ReLU()), (5,)),
    (nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.ReLU()), (5,)),
]


def indexed(index):
    return Wired(lambda m, x: m.conv(x)[index].relu(), conv=nn.Conv2d(3, 4, 1))


DIMENSION_1_IS_INDEXED = [
    (slice(None), 0), (..., 0, slice(None), slice(None)), (slice(None), 0, slice(None), None),
    (slice(None), None), (slice(None), 2, None), 0, (slice(None), slice(None), [0], [1]),
]  # fmt: skip
CHANNELS_ARE_KEPT = [
    slice(1, None), (slice(None), slice(1, 4)), (..., 0), (slice(None), slice(0, 3), 0), (..., None), ...,
    (slice(None), slice(0, 3), slice(None), 0, None),
]  # fmt: skip


@pytest.mark.parametrize("index", CHANNELS_ARE_KEPT)
def test_slopes_per_channel_where_an_index_leaves_the_channels(index):
    model, x = indexed(index), torch.randn(2, 3, 6, 6)
    copy = linearize(model, x=x)
    assert torch.equal(copy(x), model(x))
    assert [len(slopes.weight) for slopes in slopes_of(copy)] == [model(x).shape[1]]


@pytest.mark.parametrize(("model", "shape"), CHANNELS_FIRST)
def test_slopes_per_channel_where_channels_are_in_dimension_1(model, shape):
    copy = linearize(model, x=torch.randn(2, *shape))
    assert {len(slope.weight) for slope in slopes_of(copy)} <= {3, 4}


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU()), (4, 4)),  # a PReLU with four slopes would take the places
        (nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Dropout(), nn.ReLU()), (7, 4)),
        (nn.Sequential(nn.ReLU()), (7, 4)),
        (Wired(lambda m, x: m.conv(x).permute(0, 2, 3, 1).relu(), conv=nn.Conv2d(3, 3, 1)), (3, 3, 3)),
        (Wired(lambda m, x: m.conv(x).transpose(1, 2).relu(), conv=nn.Conv1d(3, 3, 1)), (3, 3)),
        *[(indexed(index), (3, 6, 6)) for index in DIMENSION_1_IS_INDEXED],
    ],
)
def test_slopes_per_channel_are_refused_for_tokens(model, shape):
    model, x = model.eval(), torch.randn(2, *shape)
    expected = r"is a ReLU of a tensor \(n, .* dimension 1 is not known to be the channels; .* Use granularity="
    with pytest.raises(ValueError, match=expected):
        linearize(model, x=x)
    copy = linearize(model, "layer", x=x)
    assert torch.equal(copy(x), model(x))


class NormAndReLU(nn.BatchNorm2d):
    """As timm has it: traced, since it does not call the batch norm's own forward pass."""

    def forward(self, x):
        return F.relu(F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias), inplace=True)


class Untraceable(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


def test_relu_inside_of_a_batch_norm_is_seen_or_the_module_is_refused():
    model, x = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), NormAndReLU(4))), torch.randn(2, 3, 6, 6).double()
    copy = linearize(model)
    assert torch.equal(copy(x), model(x))
    assert [len(slopes.weight) for slopes in slopes_of(copy)] == [4]
    assert average_path_length(model) == 1.0
    assert fold(model, x).meta["left"] == ["1 (batch_norm)"]


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (Untraceable(4), (4, 3, 3)),
        (nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), (5, 4)),
        (nn.RNN(4, 4, nonlinearity="relu", batch_first=True), (5, 4)),
    ],
)
def test_modules_that_may_hide_a_relu_are_refused(module, shape):
    wire = lambda m, x: m.module(x.relu())  # noqa: E731
    expected = rf"'module' \({type(module).__name__}\) is one module to torch\.fx, which cannot see"
    with pytest.raises(ValueError, match=expected):
        linearize(Wired(wire, module=module), "layer", x=torch.randn(2, *shape))


def test_relu_of_constants_has_no_slopes():
    """The position bias of Swin v2 is a network of its own, of coordinates."""
    wire = lambda m, x: m.relu(m.layer(x)) + m.relu(m.layer(m.coordinates))  # noqa: E731
    model = Wired(wire, layer=nn.Linear(4, 4), coordinates=nn.Parameter(-torch.ones(1, 4)), relu=nn.ReLU())
    (slopes,) = slopes_of(copy := linearize(model))
    slopes.weight.data.fill_(1.0)
    x = torch.randn(3, 4)
    assert torch.equal(copy(x), model.layer(x) + model.relu(model.layer(model.coordinates)))


def test_copy_that_is_another_function_is_an_error():
    relu = nn.ReLU()
    relu.register_forward_hook(lambda module, arguments, output: output + 1)  # which the slopes do not inherit
    with pytest.raises(RuntimeError, match=r"The copy's outputs differ from the model's by .* Look for .* hooks"):
        linearize(nn.Sequential(nn.Linear(4, 4), relu))


def test_weights_that_a_hook_computes_are_named():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    prune.l1_unstructured(model[0], "weight", 0.5)
    expected = r"Sequential cannot be copied: .* at '0' \(L1Unstructured\); make them plain first, with .*prune\.remove"
    for function in (linearize, fold):
        with pytest.raises(ValueError, match=expected):
            function(model)
    assert average_path_length(model) == 1.0
    prune.remove(model[0], "weight")
    assert torch.equal(linearize(model)(torch.ones(2, 4)), model(torch.ones(2, 4)))


@pytest.mark.parametrize(
    ("model", "granularity", "text"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "unit", r"'channel' or 'layer'; got 'unit'"),
        (
            nn.Sequential(nn.Linear(2, 2), nn.ReLU6(), nn.Hardtanh()),
            "layer",
            r"no ReLU.* are ReLU6, Hardtanh;",
        ),
        (Wired(lambda m, x: F.gelu(m.layer(x)), layer=nn.Linear(2, 2)), "channel", r"Wired calls no ReLU.* gelu; exch"),
        (nn.Linear(2, 2), "channel", r"Linear calls no ReLU: .* It calls no other activation\."),
    ],
)
def test_linearize_refuses(model, granularity, text):
    with pytest.raises(ValueError, match=text):
        linearize(model, granularity)


def test_untraceable_model_is_refused_and_left_in_its_mode():
    class Branching(nn.Module):
        def forward(self, x):
            return torch.relu(x) if x.sum() > 0 else x

    model = Branching().train()
    for function in (linearize, average_path_length, path_length_distribution):
        with pytest.raises(
            ValueError, match=r"torch.fx cannot trace Branching .* control flow that depends on tensors"
        ):
            function(model)
    assert model.training
