"""Post-training moves slopes to 1, as far as it may."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from slopes import slopes_of, superposition_error, with_slopes
from torch import nn
from torch.testing import assert_close

from resalign_utils import (
    Checkpoint,
    LinearizationConfig,
    ResNetConfig,
    TrainConfig,
    average_path_length,
    build_model,
    linearize,
    post_train,
    train,
)
from resalign_utils.linearization._post_train import _Penalised

RECIPE = TrainConfig(epochs=6, lr=0.05, momentum=0.9, weight_decay=5e-4, batch_size=16)


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


def test_a_kept_layer_stays_whatever_its_slope_is(trained, pictures):
    names = [name for name, module in linearize(trained, "layer").named_modules() if isinstance(module, nn.PReLU)]
    config = LinearizationConfig(ramp="steered", target=1.0, train=replace(RECIPE, epochs=30, batch_size=8))
    for number in (0, 4):
        model = linearize(trained, "layer")
        history = post_train(model, pictures, config, keep=[names[number]])
        linear = [bool((slope.weight == 1).all()) for slope in slopes_of(model)]
        assert linear == [place != number for place in range(7)]
        assert history.napl[-1] == 1.0
        assert slopes_of(model)[number].weight.item() != 0  # the loss trains it
    wrapped = _Penalised(linearize(trained, "layer"), pictures, config, [names[2]])
    slopes = slopes_of(wrapped.model)
    wrapped.penalty(0.9)
    slopes[2].weight.data.fill_(0.999)
    wrapped.after_step(0.9)  # all others may go, and none is near
    assert [slope.weight.item() for slope in slopes] == pytest.approx([0, 0, 0.999, 0, 0, 0, 0])
    assert wrapped.recipe["keep"] == [names[2]]
    with pytest.raises(ValueError, match=r"keep must name PReLUs between input and output; got 'head'. There are '"):
        post_train(linearize(trained, "layer"), pictures, config, keep=["head"])


def test_below_what_is_kept_there_is_no_room(trained, pictures):
    model = linearize(trained, "layer")
    name = next(name for name, module in model.named_modules() if isinstance(module, nn.PReLU))
    recipe = replace(RECIPE, epochs=30, batch_size=8)
    history = post_train(model, pictures, LinearizationConfig(300.0, target=0.0, train=recipe), keep=[name])
    assert history.napl[-1] == 1.0
    assert history.omega[-1] == 0.0  # nothing is left that could go


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
