"""Slopes, path lengths and post-training, against paper and pencil."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from contracts import randomised
from torch import nn
from torch.testing import assert_close
from torchvision.models import densenet121, resnet18

from resalign_utils import (
    Checkpoint,
    LinearizationConfig,
    ResNetConfig,
    TrainConfig,
    average_path_length,
    build_model,
    linearize,
    path_length_distribution,
    post_train,
    train,
)
from resalign_utils.linearization._paths import slope_weights
from resalign_utils.linearization._post_train import _Penalised

RECIPE = TrainConfig(epochs=6, lr=0.05, momentum=0.9, weight_decay=5e-4, batch_size=16)


def slopes_of(model):
    return [module for module in model.modules() if isinstance(module, nn.PReLU)]


def with_slopes(model, seed=0, linear=0.5):
    """Slopes drawn at random, about a share ``linear`` of them exactly 1."""
    generator = torch.Generator().manual_seed(seed)
    for module in slopes_of(model):
        draw = torch.rand(2, len(module.weight), generator=generator)
        module.weight.data = torch.where(draw[0] < linear, torch.ones(()), draw[1] * 0.9).to(module.weight.dtype)
    return model


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


# linearize


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


def superposition_error(model, x):
    """Largest deviation from f(a x + (1 − a) y) = a f(x) + (1 − a) f(y), which only affine functions satisfy."""
    y, a = x.flip(0), 0.3
    return float((model(a * x + (1 - a) * y) - a * model(x) - (1 - a) * model(y)).abs().max().detach())


def test_channels_that_the_layers_do_not_tell_are_asked_for():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.ReLU(), nn.Linear(32, 3))
    with pytest.raises(ValueError, match=r"number of channels at '_1'.* is not known .* example input, x="):
        linearize(model)
    copy = linearize(model, x=torch.zeros(1, 1, 6, 6))
    assert [len(slope.weight) for slope in slopes_of(copy)] == [32]
    assert [len(slope.weight) for slope in slopes_of(linearize(model, "layer"))] == [1]


@pytest.mark.parametrize(
    ("model", "granularity", "text"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "unit", r"'channel' or 'layer'; got 'unit'"),
        (nn.Sequential(nn.Linear(2, 2), nn.GELU()), "channel", r"Sequential calls no ReLU"),
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


# Path lengths


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


def test_law_of_a_partly_linear_network_is_that_of_all_its_walks(pictures):
    """All choices, branch or skip and nonlinear or linear channel, are written out."""
    model = with_slopes(linearize(build_model(ResNetConfig(3, 8, "conv"), pictures)))
    p = [float((slope.weight != 1).double().mean()) for slope in slopes_of(model)]
    assert 0 < min(p) < max(p) < 1
    stem, inner, outer = p[0], p[1::2], p[2::2]
    passed = [stem, *[q / 2 for q in inner], *outer]  # the branch is taken with probability ½
    law = np.zeros(8)
    for units in itertools.product((0, 1), repeat=7):
        law[sum(units)] += np.prod([q if unit else 1 - q for q, unit in zip(passed, units, strict=True)])
    assert_close(path_length_distribution(model), torch.from_numpy(law))
    assert average_path_length(model) == pytest.approx(float(law @ np.arange(8)))
    weights = slope_weights(model)
    assert [*weights.values()] == [1.0, 0.5, 1.0, 0.5, 1.0, 0.5, 1.0]
    assert sum(w * q for w, q in zip(weights.values(), p, strict=True)) == pytest.approx(average_path_length(model))


def test_linear_layers_are_not_there():
    model = linearize(nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU()))
    slopes_of(model)[0].weight.data.fill_(1.0)
    assert path_length_distribution(model).tolist() == [0.0, 1.0]
    slopes_of(model)[1].weight.data.fill_(1.0)
    assert path_length_distribution(model).tolist() == [1.0]
    assert average_path_length(model) == 0.0
    slopes_of(model)[1].weight.data[0] = 0.999  # close to 1 is not linear
    assert average_path_length(model) == 0.25


def test_what_counts_and_what_does_not():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(1, 2, 1), nn.GELU(), nn.MaxPool2d(2), nn.BatchNorm2d(2), nn.Dropout())

        def forward(self, x):
            x = torch.tanh(self.layers(x)).sigmoid()
            x = F.silu(x.view(x.size(0), x.shape[1], -1))
            return torch.softmax(x.mean(2), 1)

    assert average_path_length(Mixed()) == 4.0  # GELU, tanh, sigmoid, SiLU


def test_concatenation_is_left_in_proportion_to_its_channels():
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide, self.narrow = nn.Linear(5, 3), nn.Linear(5, 1)

        def forward(self, x):
            return torch.cat([torch.relu(torch.relu(self.wide(x))), self.narrow(x)], 1)

    assert average_path_length(Dense(), torch.zeros(1, 5)) == pytest.approx(1.5)
    assert path_length_distribution(Dense(), torch.zeros(1, 5)).tolist() == pytest.approx([0.25, 0, 0.75])
    for function in (average_path_length, path_length_distribution):
        with pytest.raises(ValueError, match=r"concatenates tensors of unknown size.*example input, x="):
            function(Dense())


def test_foreign_networks():
    assert average_path_length(resnet18()) == 1 + 8 * 1.5
    model, x = densenet121(), torch.zeros(1, 3, 32, 32)
    law = path_length_distribution(model, x)
    assert float(law.sum()) == pytest.approx(1)
    assert float(law @ torch.arange(len(law), dtype=law.dtype)) == pytest.approx(average_path_length(model, x))


def test_other_merges_and_other_faces_are_refused():
    class Gate(nn.Module):
        def forward(self, x):
            return torch.relu(x) * torch.sigmoid(x)

    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    with pytest.raises(ValueError, match=r"'mul' .* merges 2 tensors\. Path lengths are defined for sums"):
        average_path_length(Gate())
    with pytest.raises(ValueError, match=r"one tensor to one tensor; got 2 inputs and 1 outputs"):
        path_length_distribution(Two())


# Post-training


@pytest.fixture(scope="module")
def trained(pictures):
    model = build_model(ResNetConfig(3, 4, "conv", skip=False), pictures)
    train(model, pictures, replace(RECIPE, epochs=30))
    return model


def test_copy_equals_the_original_and_without_penalty_stays_as_accurate(trained, pictures):
    copy = linearize(trained)
    assert_close(copy(pictures.test_x), trained(pictures.test_x), atol=1e-6, rtol=0)
    history = post_train(copy, pictures, LinearizationConfig(omega=0.0, train=RECIPE))
    assert history.napl == [7.0] * 7
    assert history.omega == [0.0] * 7
    assert len(history.accuracy) == len(history.slopes) == history.history.epochs + 1 == 7
    assert history.accuracy[-1] >= history.accuracy[0] == 1.0
    assert any(slope != 0 for layer in history.slopes[-1].values() for slope in layer)  # the slopes learn


@pytest.mark.parametrize("granularity", ["channel", "layer"])
@pytest.mark.parametrize("skip", [True, False])
def test_strong_penalty_leaves_an_affine_function(pictures, granularity, skip):
    model = linearize(build_model(ResNetConfig(3, 4, "conv", skip=skip), pictures), granularity)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    history = post_train(model, pictures, LinearizationConfig(omega=300.0, train=RECIPE))
    assert history.napl[0] == (5.5 if skip else 7.0)
    assert history.napl[-1] == average_path_length(model) == 0.0
    assert all((slope.weight == 1).all() for slope in slopes_of(model))
    assert {share for layer in history.linear_share[-1:] for share in layer.values()} == {1.0}
    model = model.double()
    x = pictures.test_x.double()
    assert superposition_error(model, x) < 1e-10 < 1e-3 < float(model(x).std().detach())
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name].to(value))}
    assert changed == set(before)  # weights, slopes and batch norm's statistics


@pytest.mark.parametrize(
    ("granularity", "target", "reached"),
    [("channel", 2.0, 2.0), ("channel", 0.3, 0.5), ("layer", 3.0, 3.0), ("layer", 2.5, 3.0), ("layer", 0.0, 0.0)],
)
@pytest.mark.parametrize("ramp", ["steered", "constant"])
def test_linearising_stops_at_the_target(trained, pictures, granularity, target, reached, ramp):
    """Four channels a layer: NAPL moves in steps of ¼, and of 1 layer-wise."""
    omega = 1.0 if ramp == "steered" else 300.0
    config = LinearizationConfig(omega=omega, ramp=ramp, target=target, train=replace(RECIPE, epochs=30, batch_size=8))
    history = post_train(linearize(trained, granularity), pictures, config)
    assert history.napl[-1] == pytest.approx(reached)
    assert history.omega[-1] == 0.0
    if ramp == "steered":  # never ahead of the plan
        plan = [target + (7 - target) * max(0.0, 1 - epoch / 15) for epoch in range(31)]
        assert all(napl >= planned - 1e-6 for napl, planned in zip(history.napl, plan, strict=True))
        assert len(set(history.napl)) >= 4


def test_target_is_met_where_a_unit_is_no_binary_fraction(blobs):
    """Three units a layer: 5 − ⅓ − … must come to 1 in spite of rounding."""
    model = linearize(build_model(ResNetConfig(2, 3, skip=False), blobs))
    config = LinearizationConfig(omega=300.0, target=1.0, train=replace(RECIPE, epochs=20))
    history = post_train(model, blobs, config)
    assert history.napl[-1] == pytest.approx(1.0)
    assert history.omega[-1] == 0.0


def test_linear_ramp_starts_from_zero_and_ends_at_omega(trained, pictures):
    config = LinearizationConfig(omega=40.0, ramp="linear", train=RECIPE)
    wrapped = _Penalised(linearize(trained), pictures, config)
    assert float(wrapped.penalty(0.0).detach()) == 0.0
    assert float(wrapped.penalty(0.5).detach()) == pytest.approx(20.0)  # all slopes are 0


def test_penalty_is_the_mean_over_all_units(trained, pictures):
    model = with_slopes(linearize(trained), linear=0.3)
    wrapped = _Penalised(model, pictures, LinearizationConfig(omega=3.0))
    penalty = wrapped.penalty(0.5)
    slopes = np.concatenate([slope.weight.detach().numpy() for slope in slopes_of(model)]).astype(float)
    assert float(penalty.detach()) == pytest.approx(3 * np.mean(np.abs(1 - slopes) ** 0.5), rel=1e-6)
    penalty.backward()
    gradient = np.concatenate([slope.weight.grad.numpy() for slope in slopes_of(model)])
    with np.errstate(divide="ignore"):
        expected = np.where(slopes == 1, 0, -3 * 0.5 * np.abs(1 - slopes) ** -0.5 / len(slopes))
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)


def test_slopes_near_one_or_past_it_are_frozen_nearest_first(trained, pictures):
    model = linearize(trained)
    first = slopes_of(model)[0].weight.data
    wrapped = _Penalised(model, pictures, LinearizationConfig(target=6.5))
    wrapped.penalty(0.5)
    first.copy_(torch.tensor([1.2, 0.993, 0.98, 1.004]))
    wrapped.after_step(0.5)  # room for two of three
    assert first.tolist() == pytest.approx([1.2, 1.0, 0.98, 1.0])
    assert (first == 1).tolist() == [False, True, False, True]
    wrapped.penalty(0.5)
    first += 0.3  # whatever momentum does
    wrapped.after_step(0.5)
    assert (first == 1).tolist() == [False, True, False, True]


@pytest.mark.parametrize(("room", "chosen"), [(0.2, set()), (0.3, {"outer"}), (0.4, {"outer", "inner"})])
def test_the_nearest_unit_is_waited_for_although_one_inside_a_branch_would_fit(pictures, room, chosen):
    """Four channels: a unit of an outer ReLU is ¼ of NAPL, one inside a branch ⅛."""
    model = linearize(build_model(ResNetConfig(2, 4, "conv"), pictures))
    wrapped = _Penalised(model, pictures, LinearizationConfig(ramp="steered", target=0.0, steer=1.0))
    block = model.blocks[0]
    block.outer.weight.data[0], block.branch[2].weight.data[0] = 0.9, 0.8
    wrapped.penalty(room / wrapped.start).backward()  # the plan is lower by this room
    pushed = {"outer": block.outer.weight.grad, "inner": block.branch[2].weight.grad}
    assert {name for name, gradient in pushed.items() if gradient[0] != 0} == chosen
    assert sum(int((slope.weight.grad != 0).sum()) for slope in slopes_of(model)) == len(chosen)


def test_at_the_target_whatever_fits_may_go(pictures):
    model = linearize(build_model(ResNetConfig(2, 4, "conv"), pictures))
    config = LinearizationConfig(ramp="steered", target=3.8, steer=0.5)  # NAPL is 4, and ⅛ fits, ¼ does not
    wrapped, block = _Penalised(model, pictures, config), model.blocks[0]
    block.outer.weight.data[0], block.branch[2].weight.data[0] = 0.9, 0.8
    wrapped.penalty(0.9).backward()
    assert (block.outer.weight.grad == 0).all()
    assert (block.branch[2].weight.grad != 0).tolist() == [True, False, False, False]


def test_interrupted_post_training_goes_on_where_it_was(trained, pictures, tmp_path):
    config = LinearizationConfig(omega=1.0, ramp="steered", target=2.0, train=replace(RECIPE, epochs=20))
    whole = linearize(trained)
    expected = post_train(whole, pictures, config)
    checkpoint = Checkpoint(tmp_path / "state.safetensors", every=1)
    killed, batches = linearize(trained), []

    def stop(module, arguments):
        batches.append(1)
        if len(batches) == 60:
            raise KeyboardInterrupt

    handle = killed.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        post_train(killed, pictures, config, checkpoint=checkpoint)
    handle.remove()
    resumed = linearize(trained)
    assert post_train(resumed, pictures, config, checkpoint=checkpoint) == expected
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    with pytest.raises(ValueError, match=r"training with other regularizer\."):
        post_train(linearize(trained), pictures, replace(config, target=3.0), checkpoint=checkpoint)


def test_model_without_slopes_is_refused(trained, pictures):
    with pytest.raises(ValueError, match=r"ResNet has no PReLU between input and output\. Call linearize\(model\)"):
        post_train(trained, pictures, LinearizationConfig())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"ramp": "cosine"}, r"'constant', 'linear', 'steered'; got 'cosine'"),
        ({"omega": -1.0}, r"omega must be at least 0 and finite; got -1\.0"),
        ({"omega": float("inf")}, r"omega must be at least 0 and finite; got inf"),
        ({"ramp": "steered"}, r"needs a target NAPL and a positive omega .* target=None, omega=1\.0"),
        ({"ramp": "steered", "target": 1.0, "omega": 0.0}, r"target=1\.0, omega=0\.0"),
        ({"target": -1.0}, r"target must be at least 0, or None; got -1\.0"),
        ({"steer": 0.0}, r"steer must lie in \(0, 1\]; got 0\.0"),
        ({"tolerance": 1.5}, r"tolerance must lie in \(0, 1\]; got 1\.5"),
    ],
)
def test_config_refuses(arguments, text):
    with pytest.raises(ValueError, match=text):
        LinearizationConfig(**arguments)
