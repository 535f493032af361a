"""Path lengths, against paper and pencil and against a recursion of its own in fractions."""

import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import walks
from contracts import randomised
from hypothesis import given
from hypothesis import strategies as st
from slopes import Wired, slopes_of
from torch import nn
from torch.testing import assert_close
from torchvision.models import resnet18

from resalign_utils import ResNetConfig, average_path_length, build_model, linearize, path_length_distribution
from resalign_utils.linearization._paths import slope_weights

FLAT = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(1))
TOKENS = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(2))


def mean(law):
    return float(law @ torch.arange(len(law), dtype=law.dtype))


def variance(law):
    lengths = torch.arange(len(law), dtype=law.dtype)
    return float(law @ (lengths - mean(law)) ** 2)


def law_of(wire, x, **parts):
    """The law, and that NAPL is its mean."""
    torch.manual_seed(0)
    model = Wired(wire, **parts).eval()
    law = path_length_distribution(model, x)
    assert average_path_length(model, x) == pytest.approx(mean(law))
    assert float(law.sum()) == pytest.approx(1)
    return pytest.approx(law.tolist()) if law.tolist() != [1.0] else [1.0]


# Paper and pencil


@pytest.mark.parametrize(("skip", "length"), [(False, 11.0), (True, 8.5)])
@pytest.mark.parametrize("kind", ["fc", "conv", "conv_down"])
def test_paper_and_pencil(pictures, kind, skip, length):
    """Stem, then five two-layer blocks: 1 + 5 · 2, or with skips 1 + 5 · (½ + 1)."""
    model = build_model(ResNetConfig(5, 4, kind, skip=skip), pictures)
    assert average_path_length(model) == length
    law = path_length_distribution(model)
    binomial = np.array([1, 5, 10, 10, 5, 1]) / 32
    expected = np.zeros(12)
    expected[6:] = binomial if skip else np.eye(6)[5]
    assert_close(law, torch.from_numpy(expected))
    assert model.training


def test_one_unit_beside_each_skip_is_the_binomial_law():
    class Ensemble(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(7))

        def forward(self, h):
            for layer in self.layers:
                h = h + torch.relu(layer(h))
            return h

    model = Ensemble()
    expected = torch.distributions.Binomial(7, torch.tensor(0.5, dtype=torch.float64)).log_prob(torch.arange(8)).exp()
    assert_close(path_length_distribution(model), expected, check_dtype=False)
    assert average_path_length(model) == 3.5


def test_linear_layers_are_not_there():
    model = linearize(nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU()))
    slopes_of(model)[0].weight.data.fill_(1.0)
    assert path_length_distribution(model).tolist() == [0.0, 1.0]
    slopes_of(model)[1].weight.data.fill_(1.0)
    assert path_length_distribution(model).tolist() == [1.0]
    assert average_path_length(model) == 0.0
    slopes_of(model)[1].weight.data[0] = 0.999  # close to 1 is not linear
    assert average_path_length(model) == 0.25


@pytest.mark.parametrize("kind", ["fc", "conv"])
def test_channels_that_are_linear_in_every_block_are_remembered(digits, kind):
    """Eight blocks whose same half of the channels is linear. A walk that forgot its channel would have variance 3.75.

    Outside of the branches the walk keeps its channel while it takes skips. Between two branches lie G skips, the last
    block before the stem included; R runs of one channel, in which all units count or none does.
    """
    model = linearize(build_model(ResNetConfig(8, 16, kind), digits))
    for slopes in slopes_of(model):
        slopes.weight.data[:8] = 1.0
    law = path_length_distribution(model)
    expected = np.zeros(18)
    for branches in range(2**8):  # from the output back: bit set where the branch is taken
        lengths, run = np.ones(1), 0
        for block in range(8):
            run += 1  # the outer unit, in the channel of the run
            if branches >> block & 1:
                lengths = np.convolve(lengths, np.eye(run + 1)[0] / 2 + np.eye(run + 1)[run] / 2)
                lengths, run = np.convolve(lengths, [0.5, 0.5]), 0  # the inner unit, in a channel of its own
        run += 1  # the stem's
        lengths = np.convolve(lengths, np.eye(run + 1)[0] / 2 + np.eye(run + 1)[run] / 2)
        expected[: len(lengths)] += lengths / 2**8
    assert_close(law, torch.from_numpy(expected)[: len(law)])
    assert variance(law) == pytest.approx(7.251953125)
    assert mean(law) == pytest.approx(average_path_length(model)) == 6.5


def test_plain_network_is_poisson_binomial(pictures):
    model = linearize(build_model(ResNetConfig(3, 8, "conv", skip=False), pictures))
    torch.manual_seed(0)
    expected = torch.ones(1, dtype=torch.float64)
    for slopes in slopes_of(model):
        slopes.weight.data = (torch.rand(8) < 0.5).float()
        share = float((slopes.weight != 1).double().mean())
        parts = torch.tensor([1 - share, share], dtype=torch.float64)
        expected = torch.from_numpy(np.convolve(expected, parts))
    law = path_length_distribution(model)
    assert_close(law, expected[: len(law)])


# Against the recursion in fractions


@st.composite
def networks(draw):
    torch.manual_seed(0)
    nodes = [walks.start(4)]
    for _ in range(draw(st.integers(3, 12))):
        i = draw(st.integers(max(0, len(nodes) - 3), len(nodes) - 1))
        nodes.append(draw(st.sampled_from(_PIECES))(draw, nodes, i))
    if draw(st.booleans()):
        nodes.append(walks.flattened(nodes, len(nodes) - 1, 16))
        nodes.append(walks.connected(nodes, len(nodes) - 1, 3))
    return walks.Net(nodes).eval()


def _prelu(draw, nodes, i):
    size = nodes[i].channels
    return walks.prelu(nodes, i, draw(st.lists(st.integers(0, 1), min_size=size, max_size=size)))


def _conv(draw, nodes, i):
    groups = draw(st.sampled_from([g for g in (1, 2, nodes[i].channels) if nodes[i].channels % g == 0]))
    return walks.conv(nodes, i, groups if groups > 2 else draw(st.sampled_from([4, 8])), groups)


def _sum(draw, nodes, i):
    fitting = [j for j, node in enumerate(nodes) if node.channels == nodes[i].channels]
    # a sum is made of terms that are no sums, else it depends on whether an inner one is read elsewhere
    plain = [j for j in fitting if len(nodes[j].sources) < 2] or [0]
    terms = draw(st.lists(st.sampled_from(plain), min_size=2, max_size=3))
    return walks.added(nodes, *terms) if len(fitting) > 1 else walks.relu(nodes, i)


def _concatenation(draw, nodes, i):
    j = draw(st.integers(0, len(nodes) - 1))
    return walks.joined(nodes, i, j) if nodes[i].channels + nodes[j].channels <= 16 else walks.relu(nodes, i)


def _half(draw, nodes, i):
    return walks.half(nodes, i, draw(st.integers(0, 1))) if nodes[i].channels % 2 == 0 else walks.relu(nodes, i)


def _shuffle(draw, nodes, i):
    return walks.shuffled(nodes, i, 2) if nodes[i].channels % 2 == 0 else walks.relu(nodes, i)


def _kept(draw, nodes, i):
    size = nodes[i].channels
    layers = [nn.BatchNorm2d(size), nn.MaxPool2d(3, 1, 1), nn.GroupNorm(1, size), nn.Dropout(), nn.ZeroPad2d(0)]
    return walks.kept(nodes, i, draw(st.sampled_from(layers)))


_PIECES = (_prelu, _prelu, _prelu, _conv, _conv, _sum, _sum, _concatenation, _half, _shuffle, _kept)


@given(networks())
def test_law_mean_and_weights_are_those_of_all_walks(model):
    x = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = model.law()
    law = path_length_distribution(model, x)
    assert_close(law, torch.tensor([float(expected.get(n, 0)) for n in range(max(expected) + 1)], dtype=torch.float64))
    napl = float(sum(length * probability for length, probability in expected.items()))
    assert average_path_length(model, x) == pytest.approx(napl) == pytest.approx(mean(law))
    weights = slope_weights(model, x)
    slopes = {name: m.weight for name, m in model.named_modules() if isinstance(m, nn.PReLU)}
    parts = [float(weight[slopes[name] != 1].sum()) for name, weight in weights.items()]
    assert sum(parts) + _relus(model, x) == pytest.approx(napl)


def _relus(model, x):
    """What the ReLUs add: NAPL with all slopes at 1."""
    before = [slopes.weight.data for slopes in slopes_of(model)]
    for slopes in slopes_of(model):
        slopes.weight.data = torch.ones_like(slopes.weight)
    length = average_path_length(model, x)
    for slopes, weight in zip(slopes_of(model), before, strict=True):
        slopes.weight.data = weight
    return length


def test_weight_of_a_unit_is_what_napl_loses_with_it():
    """A slice after the slopes: only two of four channels are ever passed, and one of them twice as often."""

    def wire(m, x):
        h = m.slopes(x)
        return torch.cat([h[:, :2], h[:, :1].relu()], 1)

    model = Wired(wire, slopes=nn.PReLU(4, init=0.0))
    (weights,) = slope_weights(model, FLAT).values()
    assert weights.tolist() == pytest.approx([2 / 3, 1 / 3, 0, 0])
    before = average_path_length(model, FLAT)
    assert before == pytest.approx(4 / 3)
    for unit in range(4):
        model.slopes.weight.data = torch.eye(4)[unit]
        assert average_path_length(model, FLAT) == pytest.approx(before - float(weights[unit]))


def test_weights_of_a_module_that_is_called_twice_add_up(pictures):
    model = Wired(lambda m, x: m.slopes(m.layer(m.slopes(x))) + x, slopes=nn.PReLU(4, init=0.0), layer=nn.Linear(4, 4))
    assert slope_weights(model, FLAT)["slopes"].tolist() == [0.25] * 4  # ½ twice, over four units
    weights = slope_weights(linearize(build_model(ResNetConfig(3, 4, "conv"), pictures), "layer"))
    assert [float(weight) for weight in weights.values()] == [1.0, 0.5, 1.0, 0.5, 1.0, 0.5, 1.0]
    assert slope_weights(nn.Linear(4, 4)) == {}


# What counts

MODULES = [
    nn.CELU(), nn.ELU(inplace=True), nn.GELU(), nn.Hardshrink(), nn.Hardsigmoid(), nn.Hardswish(), nn.Hardtanh(),
    nn.LeakyReLU(inplace=True), nn.LogSigmoid(), nn.Mish(), nn.ReLU(), nn.ReLU6(inplace=True), nn.RReLU(), nn.SELU(),
    nn.Sigmoid(), nn.SiLU(), nn.Softplus(), nn.Softshrink(), nn.Softsign(), nn.Tanh(), nn.Tanhshrink(),
    nn.Threshold(0.1, 0.2), nn.PReLU(), nn.GLU(1),
]  # fmt: skip
FUNCTIONS = [
    torch.relu, F.relu, F.relu6, F.celu, F.elu, F.gelu, F.hardshrink, F.hardsigmoid, F.hardswish, F.hardtanh,
    F.leaky_relu, F.logsigmoid, F.mish, F.rrelu, F.selu, F.sigmoid, torch.sigmoid, F.silu, F.softplus, F.softshrink,
    F.softsign, F.tanh, torch.tanh, F.tanhshrink, F.glu, torch.abs, torch.exp, torch.expm1, torch.square, torch.sin,
    torch.cos, torch.erf, torch.atan, torch.sign, torch.special.expit, abs,
]  # fmt: skip
WIRES = [
    lambda m, h: F.relu(h, inplace=True),
    lambda m, h: F.elu_(h * 1),
    lambda m, h: torch.relu_(h * 1),
    lambda m, h: F.threshold(h, 0.1, 2.0),
    lambda m, h: h.clamp(min=0),
    lambda m, h: torch.clamp(h, -1, 1),
    lambda m, h: (h * 1).clamp_(0),
    lambda m, h: h.relu().neg(),
    lambda m, h: h.tanh(),
    lambda m, h: h.sigmoid(),
    lambda m, h: h.abs(),
    lambda m, h: h.exp(),
    lambda m, h: h**2,
    lambda m, h: 2**h,
    lambda m, h: h.pow(3),
    lambda m, h: h * h,
    lambda m, h: torch.mul(h, other=h),
    lambda m, h: 1 / (3 + h.detach()),
    lambda m, h: torch.div(h, 0.5, rounding_mode="floor"),
    lambda m, h: torch.maximum(h, torch.zeros(1)),
    lambda m, h: F.prelu(h, m.slope),
    lambda m, h: torch.prelu(h, m.slope),
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: type(module).__name__)
def test_every_activation_module_is_one_unit(module):
    assert law_of(lambda m, x: m.act(m.layer(x)), FLAT, act=module, layer=nn.Linear(4, 4)) == [0, 1]


def test_every_activation_of_torch_is_counted_or_refused():
    known = {type(module).__name__ for module in MODULES} | {"Softmax", "Softmax2d", "LogSoftmax", "Softmin"}
    assert set(nn.modules.activation.__all__) - known == {"MultiheadAttention"}


@pytest.mark.parametrize("wire", [*FUNCTIONS, *WIRES])
def test_every_elementwise_function_is_one_unit(wire):
    parts = {"slope": nn.Parameter(torch.zeros(1)), "layer": nn.Linear(4, 4)}
    if wire in WIRES:
        assert law_of(lambda m, x: wire(m, m.layer(x)), FLAT, **parts) == [0, 1]
    else:
        assert law_of(lambda m, x: wire(m.layer(x)), FLAT, **parts) == [0, 1]


@pytest.mark.parametrize("wire", [lambda m, h: F.prelu(h, m.slopes), lambda m, h: torch.prelu(h, m.slopes)])
def test_slopes_of_a_function_are_read(wire):
    assert law_of(wire, FLAT, slopes=nn.Parameter(torch.tensor([1.0, 0.5, 0.0, 1.0]))) == [0.5, 0.5]


@pytest.mark.parametrize(
    "wire",
    [
        lambda m, x: m.norm(m.pool(x)),
        lambda m, x: F.interpolate(F.avg_pool2d(x, 2), scale_factor=2),
        lambda m, x: F.layer_norm(x, (6,)).softmax(1),
        lambda m, x: -(x.double().float() * m.scale / 3 - 1).contiguous(),
        lambda m, x: (2 - x).mean(axis=(2, 3)).log_softmax(1),
        lambda m, x: F.dropout(x, 0.5, m.training).amax(-1),
        lambda m, x: m.deep(x).flatten(1),
        lambda m, x: F.normalize(x) @ m.square,
        lambda m, x: torch.zeros_like(x) + x.view(x.size(0), x.shape[1], -1).reshape(x.shape),
    ],
)
def test_what_is_linear_or_counts_as_linear(wire):
    parts = {"norm": nn.BatchNorm2d(4), "pool": nn.MaxPool2d(2), "scale": nn.Parameter(torch.ones(4, 1, 1))}
    parts |= {"deep": nn.Sequential(nn.ZeroPad2d(1), nn.Dropout2d(), nn.LPPool2d(2, 2)), "square": torch.ones(6, 6)}
    assert law_of(wire, IMAGES, **parts) == [1.0]


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        (lambda m, x: torch.add(x, other=torch.relu(x), alpha=2), [1 / 2, 1 / 2]),
        (lambda m, x: torch.add(input=x, other=torch.relu(x)), [1 / 2, 1 / 2]),
        (lambda m, x: x - torch.relu(x), [1 / 2, 1 / 2]),
        (lambda m, x: torch.sub(x, other=torch.relu(x)), [1 / 2, 1 / 2]),
        (lambda m, x: x + x.relu() + 1, [1 / 2, 1 / 2]),
        (lambda m, x: x + 1 + x.relu() + x.tanh().tanh(), [1 / 3, 1 / 3, 1 / 3]),
        (lambda m, x: x + (x.relu() + x.tanh().tanh()), [1 / 3, 1 / 3, 1 / 3]),
        (lambda m, x: sum([x, x.relu(), x.tanh().tanh()]), [1 / 3, 1 / 3, 1 / 3]),
        (lambda m, x: torch.stack([x, x.relu(), x.tanh().tanh()]).sum(0), [1 / 3, 1 / 3, 1 / 3]),
        (lambda m, x: torch.stack([x, x.relu()], dim=-1).mean(dim=-1), [1 / 2, 1 / 2]),
        (lambda m, x: torch.sum(torch.stack([x, x.relu()], 1), dim=[1]), [1 / 2, 1 / 2]),
        # the inner sum is read twice: a term of its own
        (lambda m, x: (lambda a: a + a.relu())(x + x.relu()), [1 / 4, 1 / 2, 1 / 4]),
        (lambda m, x: (lambda a: a.add_(a.relu()))(x * 2), [1 / 2, 1 / 2]),
        (lambda m, x: x + x, [1.0]),
    ],
)
def test_each_term_of_a_sum_has_the_same_probability(wire, expected):
    assert law_of(wire, FLAT) == expected


@pytest.mark.parametrize("dimension", [1, -1, -3, 2, 3])
def test_concatenations_along_any_dimension(dimension):
    wire = lambda m, x: torch.cat([x, x.relu(), x.relu().tanh()[:, :, :, :3].repeat(1, 1, 1, 2)], dimension)  # noqa: E731
    assert law_of(wire, IMAGES) == [1 / 3, 1 / 3, 1 / 3]


def test_concatenation_is_left_in_proportion_to_its_channels():
    parts = {"wide": nn.Linear(4, 3), "narrow": nn.Linear(4, 1)}
    wire = lambda m, x: torch.cat([m.wide(x).relu().relu(), m.narrow(x)], 1)  # noqa: E731
    assert law_of(wire, FLAT, **parts) == [0.25, 0, 0.75]
    assert average_path_length(Wired(wire, **parts)) == pytest.approx(1.5)  # without x: (n, 4)


def test_constants_have_no_paths():
    """Coordinates, a token: a walk that may go on to any channel goes to one that comes from the input."""
    token, coordinates = nn.Parameter(torch.ones(1, 4)), nn.Parameter(torch.ones(1, 2, 6, 6))

    def classified(m, x):
        return m.layer(torch.cat([x.relu(), m.token.expand(x.shape[0], -1)], 1))

    def placed(m, x):
        return m.grouped(m.slopes(torch.cat([m.coordinates.expand(x.shape[0], 2, 6, 6), x], 1)))

    assert law_of(classified, FLAT, layer=nn.Linear(8, 4), token=token) == [0, 1]
    slopes = nn.PReLU(6)
    slopes.weight.data = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    parts = {"slopes": slopes, "grouped": nn.Conv2d(6, 2, 1, groups=2), "coordinates": coordinates}
    # first group: constants, and the nonlinear channel 2; second: linear, nonlinear, linear
    assert law_of(placed, IMAGES, **parts) == [1 / 3, 2 / 3]


def test_identity_padded_with_zero_channels_is_a_skip_of_the_first_alone():
    """Option A of He et al. 2016: the channels that the skip does not have are reached by the branch only."""
    wire = lambda m, x: F.pad(x, (0, 0, 0, 0, 2, 2)) + m.wider(x).relu()  # noqa: E731
    assert law_of(wire, IMAGES, wider=nn.Conv2d(4, 8, 1)) == [0.25, 0.75]


def test_channels_that_move_are_followed():
    half = nn.PReLU(4)
    half.weight.data = torch.tensor([0.0, 0.0, 1.0, 1.0])
    again = nn.PReLU(8)
    again.weight.data = torch.tensor([0.0, 1.0] * 4)
    rows = nn.PReLU(6)
    rows.weight.data = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    parts = {"some": half, "again": again, "rows": rows, "mix": nn.Linear(4, 4), "shuffle": nn.PixelShuffle(2)}
    both = [0.5, 0, 0.5]
    assert law_of(lambda m, x: m.some(m.some(x)), IMAGES, **parts) == both
    assert law_of(lambda m, x: m.some(m.some(x).flip(1)), IMAGES, **parts) == [0, 1]
    swapped = lambda h: (lambda parts: torch.cat([parts[1], parts[0]], 1))(h.split(2, 1))  # noqa: E731
    assert law_of(lambda m, x: m.some(swapped(m.some(x))), IMAGES, **parts) == [0, 1]
    assert law_of(lambda m, x: m.some(x).chunk(2, 1)[1], IMAGES, **parts) == [1.0]
    chosen = torch.tensor([0, 2, 3])
    assert law_of(lambda m, x: m.some(x).index_select(1, chosen), IMAGES, **parts) == [2 / 3, 1 / 3]
    assert law_of(lambda m, x: m.some(x)[:, chosen, ::2, 1:], IMAGES, **parts) == [2 / 3, 1 / 3]
    assert law_of(lambda m, x: m.some(x).flatten(1), IMAGES, **parts) == [0.5, 0.5]
    assert law_of(lambda m, x: m.some(m.some(x).reshape(x.shape[0], 4, -1)), IMAGES, **parts) == both
    assert law_of(lambda m, x: m.some(x.flatten(2)).unflatten(2, (6, 6)), IMAGES, **parts) == [0.5, 0.5]
    # 4 channels as 1 of twice the side; then the walk may be in any of the four
    assert law_of(lambda m, x: m.shuffle(m.some(x)), IMAGES, **parts) == [0.5, 0.5]
    # channels last, mixed, and back; the skip keeps its channel
    last = lambda m, h: m.mix(h.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # noqa: E731
    assert law_of(lambda m, x: m.some(last(m, m.some(x))), IMAGES, **parts) == [0.25, 0.5, 0.25]
    assert law_of(lambda m, x: (lambda h: m.some(last(m, h) + h))(m.some(x)), IMAGES, **parts) == [3 / 8, 2 / 8, 3 / 8]
    # a PReLU belongs to dimension 1, which is the rows here
    assert law_of(lambda m, x: m.rows(x.permute(0, 2, 3, 1)), IMAGES, **parts) == [1 / 6, 5 / 6]
    assert law_of(lambda m, x: m.rows(x.transpose(1, 2)).transpose(1, 2), IMAGES, **parts) == [1 / 6, 5 / 6]


def test_gated_unit_is_reached_from_both_halves():
    half = nn.PReLU(4)
    half.weight.data = torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert law_of(lambda m, x: m.glu(m.some(x)), IMAGES, glu=nn.GLU(1), some=half) == [0, 0.5, 0.5]
    assert law_of(lambda m, x: F.glu(m.some(x), 1), FLAT, some=half) == [0, 0.5, 0.5]


def test_tokens_keep_their_place_in_a_fully_connected_layer():
    slopes = nn.PReLU(5)
    slopes.weight.data = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0])
    wire = lambda m, x: m.slopes(m.layer(m.slopes(x)))  # noqa: E731
    assert law_of(wire, TOKENS, slopes=slopes, layer=nn.Linear(4, 4)) == [0.4, 0, 0.6]


def test_what_is_written_over_is_read_as_written():
    def statement(m, x):
        h = m.layer(x)
        F.relu(h, inplace=True)
        return h

    def method(m, x):
        h = m.layer(x)
        before = m.layer(h)
        h.relu_()
        return before + h

    def module(m, x):
        h = m.layer(x)
        m.relu(h)
        return h.tanh()

    parts = {"layer": nn.Linear(4, 4), "relu": nn.ReLU(inplace=True)}
    assert law_of(statement, FLAT, **parts) == [0, 1]
    assert law_of(method, FLAT, **parts) == [0.5, 0.5]
    assert law_of(module, FLAT, **parts) == [0, 0, 1]


def test_arguments_with_a_default_are_at_it():
    class Optional(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x, y=None, scale=2.0, mode="twice", *rest, deep=True, **more):
            h = torch.relu(self.layer(x) * scale)
            h = torch.relu(h) if deep and mode == "twice" else h
            return h if y is None else h + y

    assert path_length_distribution(Optional()).tolist() == [0, 0, 1]


# Foreign networks, and how long it takes


def test_resnet18_and_time_for_a_wide_and_deep_network():
    assert average_path_length(resnet18()) == 1 + 8 * 1.5
    blocks = [(nn.PReLU(2048, init=0.0), nn.PReLU(2048, init=0.0)) for _ in range(25)]
    for number, slopes in enumerate(sum(blocks, ())):
        slopes.weight.data[number % 3 :: 3] = 1.0

    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.ModuleList(pair) for pair in blocks)

        def forward(self, h):
            for inner, outer in self.layers:
                h = outer(h + inner(h))
            return h

    begin = time.process_time()
    law = path_length_distribution(Deep(), torch.zeros(1, 2048))
    assert time.process_time() - begin < 2.0  # it takes about 0.4 s
    assert mean(law) == pytest.approx(average_path_length(Deep(), torch.zeros(1, 2048)))


# Refused


@pytest.mark.parametrize(
    ("wire", "x", "name"),
    [
        (lambda m, x: m.gru(x)[0], TOKENS, r"'gru' \(GRU\) has no rule for path lengths: it is not known to be linear"),
        (lambda m, x: m.encoder(x), TOKENS, r"\(TransformerEncoderLayer\) has no rule"),
        (lambda m, x: m.attention(x, x, x)[0], TOKENS, r"\(MultiheadAttention\) has no rule"),
        (lambda m, x: F.scaled_dot_product_attention(x, x, x), TOKENS, r"\(scaled_dot_product_attention\) has no rule"),
        (
            lambda m, x: x @ x.transpose(1, 2),
            TOKENS,
            r"\(matmul\) merges 2 tensors\. Path lengths are defined for",
        ),
        (lambda m, x: x.relu() * x.sigmoid(), FLAT, r"'mul' \(mul\) merges 2 tensors\. .* this operation\.$"),
        (lambda m, x: x / x.tanh(), FLAT, r"'truediv' \(truediv\) merges 2 tensors"),
        (lambda m, x: torch.maximum(x, x.tanh()), FLAT, r"\(maximum\) merges 2 tensors"),
        (
            lambda m, x: torch.where(x > 0, x, 0),
            FLAT,
            r"'gt' \(gt\) has no rule .* write it with layers that have",
        ),
        (lambda m, x: x.max(1)[0], FLAT, r"\(max\) has no rule"),
        (lambda m, x: torch.einsum("ni,io->no", x, m.square), FLAT, r"\(einsum\) has no rule"),
        (lambda m, x: F.linear(m.square, x), FLAT, r"\(linear\) takes what comes from the input as a parameter"),
        (lambda m, x: torch.cat([x, x.relu()], 0), FLAT, r"\(cat\) moves dimension 0, the inputs of a batch"),
        (lambda m, x: torch.stack([x, x.relu()]), FLAT, r"\(stack\) moves dimension 0"),
        (lambda m, x: torch.stack([x, x.relu()], 1).sum(2), FLAT, r"'stack' \(stack\) may only be summed over the dim"),
        (lambda m, x: m.slopes(x).T.relu().T, FLAT, r"\(getattr\) moves dimension 0"),
        (  # an older torch.fx does not come as far
            lambda m, x: torch.cat(m.slopes(x).chunk(2, 1)[1:], 1),
            FLAT,
            r"\(getitem\) returns several tensors|torch\.fx cannot trace Wired \(TypeError: cat\(\) received",
        ),
        (lambda m, x: x.mean(), FLAT, r"\(mean\) reduces dimension 0"),
        (lambda m, x: m.slopes(x) * m.cube[:, :1], FLAT, r"\(mul\) changes the number of dimensions\. Reshape"),
        (lambda m, x: m.slopes(x)[:, None] + x, FLAT, r"adds tensors with different numbers of dimensions"),
        (
            lambda m, x: m.pool(x),
            FLAT.abs(),
            r"\(ConstantPad1d\) turns \(4,\) into \(6,\); only places may change",
        ),
        (lambda m, x: m.slopes(x) @ m.cube, FLAT[:, None].repeat(1, 4, 1), r"no rule for matrices of more than two"),
        (lambda m, x: m.hooked(x), FLAT, r"'hooked' \(Linear\) carries a hook, which may change .* Remove the hook"),
        (lambda m, x: m.own(x), IMAGES, r"'own' \(Own\) has no rule"),
        (lambda m, x: x.long().float(), FLAT, r"\(long\) has no rule"),
        (lambda m, x: x.to(torch.int).relu(), FLAT, r"\(to\) returns no tensor of real numbers"),
        (
            lambda m, x: x + torch.randn_like(x),
            FLAT,
            r"another function: its output differs by .* Look for rand",
        ),
        (lambda m, x: m.aliased(x), FLAT, r"The graph that torch\.fx makes of Wired is another function.*second name"),
    ],
)
def test_what_has_no_rule_is_refused_by_name(wire, x, name):
    class Own(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x).abs()

    def aliased(h):
        h = h * 1
        before = h
        h += 1
        return before.relu()

    torch.manual_seed(0)
    hooked = nn.Linear(4, 4)
    hooked.register_forward_hook(lambda module, args, output: output.abs())
    slopes = nn.PReLU(4)
    slopes.weight.data[0] = 1.0
    parts = {
        "gru": nn.GRU(4, 4, batch_first=True), "encoder": nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
        "attention": nn.MultiheadAttention(4, 2, batch_first=True), "hooked": hooked, "own": Own(4), "aliased": aliased,
        "square": torch.ones(4, 4), "cube": torch.ones(1, 4, 4), "slopes": slopes, "pool": nn.ConstantPad1d(1, 0.0),
    }  # fmt: skip
    model = Wired(wire, **parts).eval()
    for function in (average_path_length, path_length_distribution):
        with pytest.raises(ValueError, match=name):
            function(model, x)


def test_memory_with_two_names_is_refused():
    def wire(m, x):
        h = m.layer(x)
        h.view(-1, 2, 2).relu_()
        return h

    with pytest.raises(
        ValueError, match=r"'relu_' \(relu_\) works in place on memory that 'layer' shares, which 'output'"
    ):
        average_path_length(Wired(wire, layer=nn.Linear(4, 4)))


def test_inputs_that_are_not_known_or_do_not_fit_are_asked_for():
    with pytest.raises(ValueError, match=r"What Tanh takes is not known from its first layer\. Give an example input"):
        average_path_length(nn.Tanh())
    digits = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 2))
    with pytest.raises(ValueError, match=r"What Sequential takes is not known"):
        average_path_length(digits)
    assert average_path_length(digits, torch.zeros(1, 1, 5, 5)) == 1.0
    with pytest.raises(
        ValueError, match=r"Sequential cannot take inputs of shape \(2, 1, 6, 6\), torch\.float32 on cpu"
    ):
        average_path_length(digits, torch.zeros(1, 1, 6, 6))


def test_several_inputs_or_outputs_are_refused():
    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    with pytest.raises(ValueError, match=r"Two cannot take inputs"):
        path_length_distribution(Two(), FLAT)
    with pytest.raises(ValueError, match=r"one tensor to one tensor; got 1 inputs and 2 outputs"):
        path_length_distribution(Wired(lambda m, x: (x.relu(), x.tanh())), FLAT)


@pytest.mark.usefixtures("random_state_untouched")
def test_model_input_and_random_state_are_left_as_they_were():
    with torch.random.fork_rng():
        model = randomised(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 4))).train()
    x = FLAT.double()
    before = x.clone()
    average_path_length(model, x)
    average_path_length(nn.Sequential(nn.ReLU(inplace=True), model).float())
    assert model.training
    assert torch.equal(x, before)
