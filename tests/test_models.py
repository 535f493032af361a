"""The networks do what their configuration says."""

import dataclasses

import numpy as np
import pytest
import torch
from contracts import randomised
from torch import nn
from torch.testing import assert_close

from resalign_utils import ResidualBlock, ResNetConfig, build_model

KINDS = [(activation, norm) for activation in ("post", "pre") for norm in (True, False)]


def layer(module, h):
    """One layer in NumPy, from its definition."""
    match module:
        case nn.Flatten():
            return h.reshape(len(h), -1)
        case nn.ReLU():
            return np.maximum(h, 0)
        case nn.Linear():
            shift = 0 if module.bias is None else module.bias.detach().numpy()
            return h @ module.weight.detach().numpy().T + shift
        case nn.BatchNorm1d():
            mean, var = module.running_mean.numpy(), module.running_var.numpy()
            scaled = (h - mean) / np.sqrt(var + module.eps)
            return scaled * module.weight.detach().numpy() + module.bias.detach().numpy()


def branch_by_hand(block, h, activation, norm):
    """F(h), the order of the layers written out."""
    names = {
        ("post", True): "W N R W N",
        ("post", False): "W R W",
        ("pre", True): "N R W N R W",
        ("pre", False): "R W R W",
    }
    kinds = {"W": nn.Linear, "N": nn.BatchNorm1d, "R": nn.ReLU}
    expected = [kinds[name] for name in names[activation, norm].split()]
    assert [type(module) for module in block.branch] == expected
    for module in block.branch:
        h = layer(module, h)
    return h


@pytest.mark.parametrize(("activation", "norm"), KINDS)
@pytest.mark.parametrize("skip", [True, False, 0.5, (0.0, 1.0, -2.0)])
def test_forward_equals_the_formula_written_by_hand(blobs, activation, norm, skip):
    config = ResNetConfig(depth=3, width=8, skip=skip, activation=activation, norm=norm)
    model = randomised(build_model(config, blobs))
    h = blobs.test_x.double().numpy().reshape(20, 6)
    h = layer(model.stem[1], h)
    if activation == "post":
        h = np.maximum(layer(model.stem[2], h) if norm else h, 0)
    factors = {True: (1, 1, 1), False: (0, 0, 0), 0.5: (0.5, 0.5, 0.5)}.get(skip, skip)
    for block, factor in zip(model.blocks, factors, strict=True):
        z = factor * h + branch_by_hand(block, h, activation, norm)
        h = np.maximum(z, 0) if activation == "post" else z
    if activation == "pre":
        h = np.maximum(layer(model.head[0], h) if norm else h, 0)
    logits = layer(model.head[-1], h)
    assert_close(model(blobs.test_x.double()), torch.from_numpy(logits), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("activation", "norm"), KINDS)
def test_shapes_are_those_of_the_configuration(blobs, activation, norm):
    model = build_model(ResNetConfig(5, 8, activation=activation, norm=norm), blobs)
    h = model.stem(blobs.test_x)
    assert h.shape == (20, 8)
    assert len(model.blocks) == 5
    assert all(block(h).shape == (20, 8) for block in model.blocks)
    assert model(blobs.test_x).shape == (20, blobs.num_classes)
    assert model.training
    assert all((module.bias is None) == norm for block in model.blocks for module in block.branch if is_linear(module))
    assert model.head[-1].bias is not None  # no norm after the classifier


def is_linear(module):
    return isinstance(module, nn.Linear)


def test_model_takes_device_and_dtype_from_the_data(blobs):
    tensors = {key: getattr(blobs, key).double().to("meta") for key in ("train_x", "test_x")}
    model = build_model(ResNetConfig(2, 8), dataclasses.replace(blobs, **tensors))
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert {p.dtype for p in model.parameters()} == {torch.float64}


def test_factors_of_the_skips():
    assert ResNetConfig(3, 8).skip_factors == (1.0, 1.0, 1.0)
    assert ResNetConfig(3, 8, skip=False).skip_factors == (0.0, 0.0, 0.0)
    assert ResNetConfig(3, 8, skip=0.5).skip_factors == (0.5, 0.5, 0.5)
    listed = ResNetConfig(3, 8, skip=[1, 0, 0.5])
    assert listed.skip_factors == (1.0, 0.0, 0.5)
    assert hash(listed) == hash(ResNetConfig(3, 8, skip=(1, 0, 0.5)))


# Initialisation


def layers_of(model):
    """Stem, first and second layers of the blocks, head."""
    first, second = zip(*[[m for m in block.branch if is_linear(m)] for block in model.blocks], strict=True)
    return model.stem[1], first, second, model.head[-1]


@pytest.mark.parametrize(("activation", "norm"), KINDS)
def test_kaiming_weights_have_variance_two_over_fan_out(digits, activation, norm):
    config = ResNetConfig(4, 256, skip=False, activation=activation, norm=norm)
    stem, first, second, head = layers_of(build_model(config, digits))
    for linear, fan_out in [(stem, 256), *((w, 256) for w in first + second), (head, 10)]:
        assert float(linear.weight.detach().var()) == pytest.approx(2 / fan_out, rel=0.08 if linear is head else 0.03)
        assert abs(float(linear.weight.detach().mean())) < 0.02 * fan_out**-0.5 * 5
        assert linear.bias is None or (linear.bias == 0).all()


@pytest.mark.parametrize("activation", ["post", "pre"])
def test_second_layer_is_scaled_only_with_a_skip_and_without_norm(blobs, activation):
    def build(**choice):
        return layers_of(build_model(ResNetConfig(4, 8, activation=activation, **choice), blobs))

    _, first, plain, _ = build(norm=False, skip=False)
    _, same, scaled, _ = build(norm=False, skip=(0.0, 1.0, 0.5, -1.0))
    for block, factor in enumerate([1.0, 0.5, 0.5, 0.5]):  # 1/√4
        assert_close(scaled[block].weight, factor * plain[block].weight, rtol=0, atol=0)
        assert_close(same[block].weight, first[block].weight, rtol=0, atol=0)
    for one, other in zip(build(skip=True)[2], build(skip=False)[2], strict=True):
        assert_close(one.weight, other.weight, rtol=0, atol=0)


@pytest.mark.parametrize("activation", ["post", "pre"])
def test_looks_linear_network_starts_as_a_linear_isometry_at_64_blocks(blobs, activation):
    config = ResNetConfig(64, 16, skip=False, activation=activation, norm=False, init="looks_linear")
    model = build_model(config, blobs).double()
    x, y = blobs.test_x[:10].double(), blobs.test_x[10:].double()
    assert_close(model(2 * x - 3 * y), 2 * model(x) - 3 * model(y), rtol=0, atol=1e-12)
    sizes = [model.stem(x).norm(dim=1)]
    h = model.stem(x)
    for block in model.blocks:
        h = block(h)
        sizes.append(h.norm(dim=1))
    mirrored = 1 if activation == "post" else 2**0.5  # [z⁺; z⁻], or [z; −z] before the ReLU
    for size in sizes:  # orthogonal to float32
        assert_close(size, mirrored * x.flatten(1).norm(dim=1), rtol=1e-4, atol=0)


def test_looks_linear_network_without_blocks_between_keeps_the_head_a_projection(blobs):
    model = build_model(ResNetConfig(1, 16, skip=False, norm=False, init="looks_linear"), blobs)
    w = model.head[-1].weight.detach()  # (3, 16) = [A, −A]
    assert_close(w[:, :8], -w[:, 8:], rtol=0, atol=0)
    assert_close(w[:, :8] @ w[:, :8].T, torch.eye(3))


@pytest.mark.parametrize("init", ["kaiming", "looks_linear"])
@pytest.mark.usefixtures("random_state_untouched")
def test_seed_alone_decides_the_weights_and_the_global_state_is_left(blobs, init):
    config = ResNetConfig(2, 8, init=init)
    one = build_model(config, blobs, seed=3).state_dict()
    with torch.random.fork_rng(devices=[]):
        torch.rand(7)
        two = build_model(config, blobs, seed=3).state_dict()
    other = build_model(config, blobs, seed=4).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["stem.1.weight"], other["stem.1.weight"])


# Stochastic depth


def test_drop_rates_grow_linearly_to_the_last_block(blobs):
    model = build_model(ResNetConfig(4, 8, stochastic_depth=0.4), blobs)
    assert [block.drop for block in model.blocks] == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_dropped_branches_have_the_expectation_of_the_whole_ones():
    torch.manual_seed(0)
    block = ResidualBlock(nn.Linear(3, 3), skip=1.0, post=False, drop=0.25).double()
    h = torch.randn(1, 3, dtype=torch.float64)
    with torch.no_grad():
        f, draws = block.branch(h), block.train()(h.expand(20000, 3))
        kept = (draws != h).any(1)
        assert_close(draws[~kept], h.expand(int((~kept).sum()), 3))
        assert_close(draws[kept], (h + f / 0.75).expand(int(kept.sum()), 3))
        assert float(kept.double().mean()) == pytest.approx(0.75, abs=0.01)  # three deviations
        assert_close(draws.mean(0, keepdim=True), block.eval()(h), rtol=0, atol=0.02 * float(f.abs().max()))


def test_stochastic_depth_is_off_in_eval_mode(blobs):
    drops, whole = (build_model(ResNetConfig(3, 8, stochastic_depth=p), blobs).eval() for p in (0.9, 0.0))
    assert_close(drops(blobs.test_x), whole(blobs.test_x), rtol=0, atol=0)


def test_printed_block_says_its_skip_and_outer_activation(blobs):
    text = str(build_model(ResNetConfig(1, 8, skip=0.5), blobs).blocks[0])
    assert "skip=0.5, outer=relu" in text


# Bad configurations


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"kind": "mlp"}, "kind must be one of 'fc'; got 'mlp'"),
        ({"activation": "relu"}, "activation must be one of 'post', 'pre'; got 'relu'"),
        ({"init": "zeros"}, "init must be one of 'kaiming', 'looks_linear'; got 'zeros'"),
        ({"depth": 0}, "depth must be a whole number of at least 1; got 0"),
        ({"depth": True}, "depth must be a whole number of at least 1; got True"),
        ({"width": 2.5}, "width must be a whole number of at least 1; got 2.5"),
        ({"stochastic_depth": 1.0}, r"stochastic_depth must lie in \[0, 1\); got 1.0"),
        ({"stochastic_depth": -0.1}, r"stochastic_depth must lie in \[0, 1\); got -0.1"),
        ({"stochastic_depth": float("nan")}, r"stochastic_depth must lie in \[0, 1\); got nan"),
        ({"init": "looks_linear", "width": 7}, "init='looks_linear' mirrors its units and needs an even width; got 7"),
        ({"skip": (1.0, 0.0)}, "skip has 2 factors; depth=3 needs as many"),
        ({"skip": float("nan")}, "skip must be True, False or finite factors; got nan"),
        ({"skip": (1.0, 1.0, float("inf"))}, "skip must be True, False or finite factors; got"),
    ],
)
def test_value_out_of_range_is_refused_with_what_is_allowed(choice, text):
    with pytest.raises(ValueError, match=text):
        ResNetConfig(**({"depth": 3, "width": 8} | choice))
