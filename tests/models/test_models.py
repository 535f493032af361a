"""The networks do what their configuration says."""

import dataclasses

import numpy as np
import pytest
import torch
from contracts import convolve, randomised
from torch import nn
from torch.testing import assert_close

from resalign_utils import ImageData, ResidualBlock, ResNetConfig, build_model, trace
from resalign_utils.residuals import is_residual_block

ORDERS = [(activation, norm) for activation in ("post", "pre") for norm in (True, False)]
KINDS = ["fc", "conv", "conv_down"]


@pytest.fixture
def images(kind, blobs, pictures):
    return blobs if kind == "fc" else pictures


def layer(module, h, stride=1):
    """One layer in NumPy, from its definition."""
    match module:
        case nn.Flatten():
            return h.reshape(len(h), -1)
        case nn.ReLU():
            return np.maximum(h, 0)
        case nn.Linear():
            return h @ module.weight.detach().numpy().T + shift(module)
        case nn.Conv2d():
            return convolve(h, module.weight.detach().numpy(), stride) + np.reshape(shift(module), (-1, 1, 1))
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            parts = module.running_mean, module.running_var, module.weight.detach(), module.bias.detach()
            mean, var, weight, bias = (part.numpy().reshape(-1, *[1] * (h.ndim - 2)) for part in parts)
            return (h - mean) / np.sqrt(var + module.eps) * weight + bias


def shift(module):
    return 0.0 if module.bias is None else module.bias.detach().numpy()


def branch_by_hand(block, h, config, stride):
    """F(h), the order of the layers written out."""
    names = {
        ("post", True): "W N R W N",
        ("post", False): "W R W",
        ("pre", True): "N R W N R W",
        ("pre", False): "R W R W",
    }
    fc = config.kind == "fc"
    kinds = {"W": nn.Linear if fc else nn.Conv2d, "N": nn.BatchNorm1d if fc else nn.BatchNorm2d, "R": nn.ReLU}
    expected = [kinds[name] for name in names[config.activation, config.norm].split()]
    assert [type(module) for module in block.branch] == expected
    first = next(module for module in block.branch if is_linear(module))
    for module in block.branch:
        h = layer(module, h, stride if module is first else 1)
    return h


def skip_by_hand(block, h, config, factor, downsamples):
    """λPh: P exists where the block downsamples and has a skip."""
    assert (block.project is not None) == (downsamples and factor != 0)
    if factor == 0:
        return 0.0
    if downsamples:
        convolution, *norm = block.project
        assert convolution.weight.shape[2:] == (1, 1)
        assert convolution.bias is None
        assert len(norm) == (config.norm and config.activation == "post")
        h = layer(convolution, h, stride=2)
        h = layer(norm[0], h) if norm else h
    return factor * h


@pytest.mark.parametrize("kind", [*KINDS, "cifar"])
@pytest.mark.parametrize(("activation", "norm"), ORDERS)
@pytest.mark.parametrize("skip", [True, False, 0.5, (0.0, 1.0, -2.0), (-2.0, 0.0, 1.0)])
def test_forward_equals_the_formula_written_by_hand(images, kind, activation, norm, skip):
    config = ResNetConfig(depth=3, width=8, kind=kind, skip=skip, activation=activation, norm=norm)
    model = randomised(build_model(config, images))
    h = images.test_x.double().numpy()
    first, *rest = model.stem[1:] if kind == "fc" else model.stem
    h = layer(first, h.reshape(20, 6) if kind == "fc" else h)
    if activation == "post":
        h = np.maximum(layer(rest[0], h) if norm else h, 0)
    factors = {True: (1, 1, 1), False: (0, 0, 0), 0.5: (0.5, 0.5, 0.5)}.get(skip, skip)
    for index, (block, factor) in enumerate(zip(model.blocks, factors, strict=True)):
        downsamples = index in {"conv_down": (1,), "cifar": (1, 2)}.get(kind, ())  # 3 // 2; every stage but the first
        f = branch_by_hand(block, h, config, 2 if downsamples else 1)
        z = skip_by_hand(block, h, config, factor, downsamples) + f
        h = np.maximum(z, 0) if activation == "post" else z
    if activation == "pre":
        h = np.maximum(layer(model.head[0], h) if norm else h, 0)
    logits = layer(model.head[-1], h if kind == "fc" else h.mean((2, 3)))
    assert_close(model(images.test_x.double()), torch.from_numpy(logits), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("activation", "norm"), ORDERS)
def test_shapes_are_those_of_the_configuration(images, kind, activation, norm):
    model = build_model(ResNetConfig(5, 8, kind, activation=activation, norm=norm), images)
    first, then = {"fc": ((8,), (8,)), "conv": ((8, 5, 7), (8, 5, 7)), "conv_down": ((8, 5, 7), (16, 3, 4))}[kind]
    shapes = [first] * 3 + [then] * 3  # h_0..h_5, block 5 // 2 counted from 0 is the third
    h = model.stem(images.test_x)
    assert h.shape == (20, *shapes[0])
    assert len(model.blocks) == 5
    for block, shape in zip(model.blocks, shapes[1:], strict=True):
        h = block(h)
        assert h.shape == (20, *shape)
    assert model(images.test_x).shape == (20, images.num_classes)
    assert model.training
    assert all((module.bias is None) == norm for block in model.blocks for module in block.branch if is_linear(module))
    assert (next(filter(is_linear, model.stem)).bias is None) == norm
    assert model.head[-1].bias is not None  # no norm after the classifier


@pytest.mark.parametrize(("depth", "parameters"), [(9, 269_722), (27, 853_018)])
def test_cifar_networks_are_resnet_20_and_56(depth, parameters):
    x = torch.randn(10, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    data = ImageData.from_tensors(x, torch.arange(10), x, torch.arange(10), name="ten")
    model = build_model(ResNetConfig(depth, 16, "cifar"), data)
    projections = 16 * 32 + 32 * 64 + 2 * (32 + 64)  # option B instead of A
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters + projections
    h, shapes = model.stem(x), []
    for block in model.blocks:
        h = block(h)
        shapes.append(tuple(h.shape[1:]))
    assert shapes == [shape for shape in ((16, 32, 32), (32, 16, 16), (64, 8, 8)) for _ in range(depth // 3)]


@pytest.mark.parametrize(("side", "stem", "last"), [(7, 7, 4), (8, 8, 4), (15, 15, 8), (16, 8, 4), (28, 14, 7)])
@pytest.mark.parametrize("skip", [True, False])
def test_large_images_are_halved_by_the_stem_and_odd_ones_are_rounded_up(side, stem, last, skip):
    x = torch.randn(3, 2, side, side + 1, generator=torch.Generator().manual_seed(0))
    data = ImageData.from_tensors(x, torch.arange(3), x, torch.arange(3), name="images")
    for kind, expected in (("conv", stem), ("conv_down", last)):
        model = build_model(ResNetConfig(2, 4, kind, skip=skip), data)
        h = model.stem(x)
        assert h.shape[2] == stem
        assert model.blocks[1](model.blocks[0](h)).shape[2] == expected
        assert model(x).shape == (3, 3)


def is_linear(module):
    return isinstance(module, nn.Linear | nn.Conv2d)


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


# RepVGG: one convolution per block, trained with three branches


@pytest.mark.parametrize("skip", [True, False, (0.0, 1.0, 0.0)])
def test_repvgg_equals_the_formula_written_by_hand(pictures, skip):
    config = ResNetConfig(3, 8, "repvgg", skip=skip)
    model = randomised(build_model(config, pictures))
    assert [type(module) for module in model.stem] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    h = pictures.test_x.double().numpy()
    for module in model.stem:
        h = layer(module, h)
    for block, factor in zip(model.blocks, config.skip_factors, strict=True):
        assert [module.kernel_size for module in (block.three[0], block.one[0])] == [(3, 3), (1, 1)]
        z = layer(block.three[1], layer(block.three[0], h)) + layer(block.one[1], layer(block.one[0], h))
        assert (block.identity is None) == (factor == 0)
        h = np.maximum(z + layer(block.identity, h) if factor else z, 0)
        assert h.shape == (20, 8, 5, 7)
    logits = layer(model.head[-1], h.mean((2, 3)))
    assert_close(model(pictures.test_x.double()), torch.from_numpy(logits), rtol=1e-12, atol=1e-12)


def test_repvgg_blocks_are_no_residual_blocks(pictures):
    model = build_model(ResNetConfig(2, 8, "repvgg"), pictures).eval()
    assert not any(is_residual_block(module) for module in model.modules())
    with pytest.raises(ValueError, match="No residual block found in ResNet"):
        trace(model, pictures.test_x)


def test_repvgg_kernels_are_kaiming_and_without_bias(digits):
    model = build_model(ResNetConfig(2, 128, "repvgg"), digits)
    for block in model.blocks:
        for convolution, fan_out in ((block.three[0], 128 * 9), (block.one[0], 128)):
            assert float(convolution.weight.detach().var()) == pytest.approx(2 / fan_out, rel=0.05)
            assert convolution.bias is None
    one, other = (build_model(ResNetConfig(2, 128, "repvgg"), digits, seed=seed) for seed in (0, 1))
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, one.state_dict()[name])
        assert weight.dim() < 2 or not torch.equal(weight, other.state_dict()[name])


# Initialisation


def layers_of(model):
    """Stem, first and second layers of the blocks, head."""
    first, second = zip(*[filter(is_linear, block.branch) for block in model.blocks], strict=True)
    return next(filter(is_linear, model.stem)), first, second, model.head[-1]


@pytest.mark.parametrize(("activation", "norm"), ORDERS)
def test_kaiming_weights_have_variance_two_over_fan_out(digits, activation, norm):
    config = ResNetConfig(4, 256, skip=False, activation=activation, norm=norm)
    stem, first, second, head = layers_of(build_model(config, digits))
    for linear, fan_out in [(stem, 256), *((w, 256) for w in first + second), (head, 10)]:
        assert float(linear.weight.detach().var()) == pytest.approx(2 / fan_out, rel=0.08 if linear is head else 0.03)
        assert abs(float(linear.weight.detach().mean())) < 0.02 * fan_out**-0.5 * 5
        assert linear.bias is None or (linear.bias == 0).all()


@pytest.mark.parametrize(("activation", "norm"), ORDERS)
def test_kaiming_kernels_have_variance_two_over_fan_out(digits, activation, norm):
    model = build_model(ResNetConfig(2, 128, "conv_down", skip=(0.0, 2.0), activation=activation, norm=norm), digits)
    stem, first, second, head = layers_of(model)
    scale = 1 if norm else 2**-0.5  # 1/√L in the block with a skip
    project = model.blocks[1].project[0]
    for kernel, fan_out, factor in [
        (stem, 128 * 25, 1),
        *[(first[0], 128 * 9, 1), (second[0], 128 * 9, 1), (first[1], 256 * 9, 1), (second[1], 256 * 9, scale)],
        *[(project, 256, 1), (head, 10, 1)],
    ]:
        variance = float(kernel.weight.detach().var())
        assert variance == pytest.approx(factor**2 * 2 / fan_out, rel=0.08 if kernel in (stem, head) else 0.03)
        assert kernel.bias is None or (kernel.bias == 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["post", "pre"])
def test_second_layer_is_scaled_only_with_a_skip_and_without_norm(images, kind, activation):
    def build(**choice):
        return layers_of(build_model(ResNetConfig(4, 8, kind, activation=activation, **choice), images))

    # block 2 of "conv_down" is the one that downsamples; with a skip it would draw P, and move all later draws
    _, first, plain, _ = build(norm=False, skip=False)
    _, same, scaled, _ = build(norm=False, skip=(-1.0, 0.5, 0.0, 1.0))
    for block, factor in enumerate([0.5, 0.5, 1.0, 0.5]):  # 1/√4
        assert_close(scaled[block].weight, factor * plain[block].weight, rtol=0, atol=0)
        assert_close(same[block].weight, first[block].weight, rtol=0, atol=0)
    for one, other in list(zip(build(skip=True)[2], build(skip=False)[2], strict=True))[:3]:
        assert_close(one.weight, other.weight, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["fc", "conv"])
@pytest.mark.parametrize("activation", ["post", "pre"])
def test_looks_linear_network_starts_as_a_linear_isometry_at_64_blocks(images, kind, activation):
    config = ResNetConfig(64, 16, kind, skip=False, activation=activation, norm=False, init="looks_linear")
    model = build_model(config, images).double()
    x, y = images.test_x[:10].double(), images.test_x[10:].double()
    assert_close(model(2 * x - 3 * y), 2 * model(x) - 3 * model(y), rtol=0, atol=1e-11)
    h = model.stem(x)
    sizes = [h.flatten(1).norm(dim=1)]
    for block in model.blocks:
        h = block(h)
        sizes.append(h.flatten(1).norm(dim=1))
    mirrored = 1 if activation == "post" else 2**0.5  # [z⁺; z⁻], or [z; −z] before the ReLU
    for size in sizes:  # orthogonal to float32
        assert_close(size, mirrored * x.flatten(1).norm(dim=1), rtol=1e-4, atol=0)


@pytest.mark.parametrize("activation", ["post", "pre"])
@pytest.mark.parametrize("skip", [True, False])
def test_looks_linear_network_that_downsamples_starts_linear(digits, activation, skip):
    config = ResNetConfig(5, 16, "conv_down", skip=skip, activation=activation, norm=False, init="looks_linear")
    model = build_model(config, digits).double()
    x, y = digits.test_x[:10].double(), digits.test_x[10:20].double()
    assert_close(model(2 * x - 3 * y), 2 * model(x) - 3 * model(y), rtol=0, atol=1e-11)
    h = model.blocks[1](model.blocks[0](model.stem(x)))
    z = h[:, :8] - h[:, 8:] if activation == "post" else h[:, :8]  # of [z⁺; z⁻] or [z; −z]
    seen, block = z[:, :, ::2, ::2], model.blocks[2]
    mapped = [block.branch(h)] + ([block.project(h)] if skip else [])
    for after, scale in zip(mapped, [5**-0.5 if skip else 1.0, 1.0], strict=False):  # [Az; −Az]
        assert_close(after[:, :16], -after[:, 16:], rtol=0, atol=1e-12)
        assert_close(after[:, :16].flatten(1).norm(dim=1), scale * seen.flatten(1).norm(dim=1), rtol=1e-5, atol=0)


def test_looks_linear_network_without_blocks_between_keeps_the_head_a_projection(blobs):
    model = build_model(ResNetConfig(1, 16, skip=False, norm=False, init="looks_linear"), blobs)
    w = model.head[-1].weight.detach()  # (3, 16) = [A, −A]
    assert_close(w[:, :8], -w[:, 8:], rtol=0, atol=0)
    assert_close(w[:, :8] @ w[:, :8].T, torch.eye(3))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("init", ["kaiming", "looks_linear"])
@pytest.mark.usefixtures("random_state_untouched")
def test_seed_alone_decides_the_weights_and_the_global_state_is_left(images, kind, init):
    config = ResNetConfig(2, 8, kind, init=init)
    one = build_model(config, images, seed=3).state_dict()
    with torch.random.fork_rng(devices=[]):
        torch.rand(7)
        two = build_model(config, images, seed=3).state_dict()
    other = build_model(config, images, seed=4).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    weights = [name for name in one if one[name].dim() > 1]
    assert len(weights) == 6 + (kind == "conv_down")
    assert not any(torch.equal(one[name], other[name]) for name in weights)


# Stochastic depth


@pytest.mark.parametrize("kind", KINDS)
def test_drop_rates_grow_linearly_to_the_last_block(images, kind):
    model = build_model(ResNetConfig(4, 8, kind, stochastic_depth=0.4), images)
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
    assert "skip=0.5" in text
    assert "(outer): ReLU()" in text


# Bad configurations


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"kind": "mlp"}, "kind must be one of 'fc', 'conv', 'conv_down', 'cifar', 'repvgg'; got 'mlp'"),
        ({"kind": "cifar", "depth": 4}, r"kind='cifar' has three stages of one size: depth must be 3, 6, 9, …; got 4"),
        ({"activation": "relu"}, "activation must be one of 'post', 'pre'; got 'relu'"),
        ({"init": "zeros"}, "init must be one of 'kaiming', 'looks_linear'; got 'zeros'"),
        ({"kind": "conv_down", "depth": 1}, "kind='conv_down' downsamples in a later block: depth must be ≥ 2; got 1"),
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
        ({"kind": "repvgg", "skip": 0.5}, r"BN\(h\) or has none: skip must be True, False or factors 0 and 1; got 0.5"),
        ({"kind": "repvgg", "skip": (1.0, 0.0, -1.0)}, r"skip must be .* factors 0 and 1; got \(1.0, 0.0, -1.0\)"),
        ({"kind": "repvgg", "activation": "pre"}, "kind='repvgg' needs activation='post'; got 'pre'. Take kind='conv'"),
        ({"kind": "repvgg", "norm": False}, "kind='repvgg' needs norm=True; got False"),
        ({"kind": "repvgg", "stochastic_depth": 0.1}, "kind='repvgg' needs stochastic_depth=0.0; got 0.1"),
        ({"kind": "repvgg", "init": "looks_linear"}, "kind='repvgg' needs init='kaiming'; got 'looks_linear'"),
    ],
)
def test_value_out_of_range_is_refused_with_what_is_allowed(choice, text):
    with pytest.raises(ValueError, match=text):
        ResNetConfig(**({"depth": 3, "width": 8} | choice))
