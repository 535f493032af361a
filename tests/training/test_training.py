"""The training loop: its arithmetic, its order, and what survives a kill."""

import copy
import dataclasses
import json
import math
import os
import signal
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import KEPT, NET, RECIPE, train_until_killed
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close

import resalign_utils.training as training
from resalign_utils import (
    Checkpoint,
    ImageData,
    Monitor,
    ResNetConfig,
    TrainConfig,
    accuracy,
    build_model,
    train,
)
from resalign_utils.training import learning_rate, write_atomically


def numbered(n):
    """n images whose one pixel is their number."""
    x, y = torch.arange(n).reshape(n, 1, 1, 1).float(), torch.arange(n) % 2
    return ImageData.from_tensors(x, y, x[:2], y[:2], name="numbered", normalize=False, num_classes=2)


class Recorder(nn.Module):
    """A linear classifier that notes which images it was trained on, batch by batch."""

    def __init__(self):
        super().__init__()
        self.linear, self.batches = nn.Linear(1, 2), []

    def forward(self, x):
        if self.training:
            self.batches.append([int(number) for number in x.flatten()])
        return self.linear(x.flatten(1))


def batches_of(n, **recipe):
    model = Recorder()
    train(model, numbered(n), TrainConfig(lr=0.0, **recipe))
    return model.batches


def equal_states(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# It learns


def test_network_learns_the_digits(digits):
    model = build_model(ResNetConfig(2, 32), digits)
    history = train(model, digits, TrainConfig(epochs=30))
    assert history.test_accuracy[-1] > 0.95
    assert history.loss[-1] < 0.2 < history.loss[0]
    assert history.epochs == 30
    assert not model.training


def test_zero_epochs_leave_the_weights(blobs):
    model = build_model(NET, blobs)
    assert train(model, blobs, TrainConfig(epochs=0)).epochs == 0
    for trained, built in zip(model.parameters(), build_model(NET, blobs).parameters(), strict=True):
        assert torch.equal(trained, built)
    assert not model.training


def test_accuracy_is_the_share_of_hits_whatever_the_chunk():
    x, y = torch.eye(4)[[0, 1, 2, 3, 0]], torch.tensor([0, 1, 0, 0, 0])
    assert accuracy(nn.Identity(), x, y) == pytest.approx(3 / 5)
    assert accuracy(nn.Identity(), x, y, chunk=2) == pytest.approx(3 / 5)


def test_accuracy_is_that_of_the_network_in_eval_mode_and_leaves_every_mode(blobs):
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(6), nn.Dropout(0.9), nn.Linear(6, 3))
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = accuracy(model, blobs.train_x, blobs.train_y)
    assert [module.training for module in model.modules()] == [True, True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    logits = blobs.train_x.flatten(1) / math.sqrt(1 + 1e-5) @ model[3].weight.T + model[3].bias
    assert found == pytest.approx(float((logits.argmax(1) == blobs.train_y).double().mean()))


LABELS = torch.tensor([0, 1, 2, 3])


@pytest.mark.parametrize(
    ("model", "change", "text"),
    [
        (nn.Identity(), {"y": LABELS[:, None]}, r"labels \(4,\) of integers, .*; got \(4, 1\) of torch.int64"),
        (nn.Identity(), {"y": torch.eye(4)}, r"labels \(4,\) of integers, .*; got \(4, 4\) of torch.float32"),
        (nn.Identity(), {"y": LABELS[:3]}, r"labels \(4,\) of integers, .*; got \(3,\)"),
        (nn.Identity(), {"y": LABELS.double()}, r"labels \(4,\) of integers, .* of torch.float64"),
        (nn.Identity(), {"x": torch.eye(4)[:0], "y": LABELS[:0]}, r"labels \(0,\) of integers, .*at least one"),
        (nn.Identity(), {"y": LABELS.numpy()}, r"y as a torch tensor; got ndarray. Use torch.as_tensor"),
        (nn.Identity(), {"x": [1, 2]}, r"x as a torch tensor; got list. Use torch.as_tensor"),
        (nn.Identity(), {"chunk": 0}, r"chunk must be at least 1; got 0"),
        (nn.Identity(), {"y": LABELS + 1}, r"Labels must lie in 0\.\.3, for the model has 4 logits; got 1\.\.4"),
        (nn.Identity(), {"y": LABELS - 1}, r"Labels must lie in 0\.\.3, .*; got -1\.\.2"),
        (nn.Unflatten(1, (4, 1)), {}, r"one tensor of logits \(4, C\) for 4 inputs; got \(4, 4, 1\)"),
        (nn.Flatten(0, 0), {"x": torch.zeros(4)}, r"one tensor of logits \(4, C\) for 4 inputs; got \(4,\)"),
    ],
)
def test_accuracy_refuses_what_would_be_another_number(model, change, text):
    with pytest.raises(ValueError, match=text):
        accuracy(model, **({"x": torch.eye(4), "y": LABELS} | change))


def test_accuracy_of_nan_is_refused():
    with pytest.raises(FloatingPointError, match="The logits hold NaN, so none is the largest"):
        accuracy(nn.Identity(), torch.eye(4) / 0, LABELS)


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8])
def test_accuracy_takes_labels_of_any_integers(kind):
    assert accuracy(nn.Identity(), torch.eye(4), LABELS.to(kind)) == 1.0


def test_untrained_network_is_measured_with_the_statistics_of_the_training_images(blobs):
    model = build_model(NET, blobs)
    train(model, blobs, TrainConfig(epochs=0))
    h = model.stem[:3](blobs.train_x)  # Flatten, Linear, batch norm
    assert_close(h.mean(0), torch.zeros(8), rtol=0, atol=1e-5)
    assert_close(h.var(0), torch.ones(8), rtol=0, atol=1e-3)


# Its arithmetic


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        ("one_cycle", {0: 0, 0.05: 0.5, 0.1: 1, 0.325: (1 + math.sqrt(0.5)) / 2, 0.55: 0.5, 1 - 1e-9: 0}),
        ("cosine", {0: 1, 1 / 3: 0.75, 0.5: 0.5, 1 - 1e-9: 0}),
        ("step", {0: 1, 0.33: 1, 0.34: 0.1, 0.66: 0.1, 0.67: 0.01, 0.999: 0.01}),
        ("constant", {0: 1, 0.5: 1, 0.999: 1}),
    ],
)
def test_schedule_at_known_points(schedule, points):
    config = TrainConfig(lr=0.3, schedule=schedule)
    for progress, share in points.items():
        assert learning_rate(config, progress) == pytest.approx(0.3 * share, abs=1e-12)


def softmax_regression(data, config, w, b):
    """Five numbers of arithmetic a step, written out in NumPy: full-batch SGD with momentum, decay and clipping."""
    x, y = data.train_x.flatten(1).numpy(), np.eye(data.num_classes)[data.train_y.numpy()]
    velocity = [0.0, 0.0]
    for epoch in range(config.epochs):
        rate = learning_rate(config, (epoch + 0.5) / config.epochs)
        z = x @ w.T + b
        p = np.exp(z - z.max(1, keepdims=True))
        error = (p / p.sum(1, keepdims=True) - y) / len(x)
        gradients = [error.T @ x, error.sum(0)]
        if config.clip is not None:
            size = np.sqrt(sum((g**2).sum() for g in gradients))
            gradients = [g * min(1.0, config.clip / size) for g in gradients]
        gradients = [g + config.weight_decay * p for g, p in zip(gradients, (w, b), strict=True)]
        velocity = [config.momentum * v + g for v, g in zip(velocity, gradients, strict=True)]
        w, b = w - rate * velocity[0], b - rate * velocity[1]
    return w, b


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("schedule", ["one_cycle", "step"])
def test_steps_equal_those_written_by_hand(blobs, clip, momentum, schedule):
    """Schedule, momentum, clipping before the weight decay, which falls on the bias too."""
    data = dataclasses.replace(blobs, train_x=blobs.train_x.double(), test_x=blobs.test_x.double())
    config = TrainConfig(
        epochs=12, lr=0.5, weight_decay=0.1, momentum=momentum, clip=clip, schedule=schedule, batch_size=99
    )
    linear = nn.Linear(6, 3).double()
    nn.init.constant_(linear.bias, 2.0)
    start = linear.weight.detach().numpy().copy(), linear.bias.detach().numpy().copy()
    w, b = softmax_regression(data, config, *start)
    train(nn.Sequential(nn.Flatten(), linear), data, config)
    assert_close(linear.weight.detach(), torch.from_numpy(w), rtol=1e-4, atol=1e-6)
    assert_close(linear.bias.detach(), torch.from_numpy(b), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_first_step_of_adam_equals_that_written_by_hand(blobs, optimizer):
    """The first step of Adam moves every weight by lr · g / (|g| + ε); the decay is in g, or beside it."""
    config = TrainConfig(
        epochs=1, lr=0.01, weight_decay=0.1, clip=None, schedule="constant", batch_size=99, optimizer=optimizer
    )
    data = dataclasses.replace(blobs, train_x=blobs.train_x.double(), test_x=blobs.test_x.double())
    linear = nn.Linear(6, 3).double()
    start = linear.weight.detach().clone()
    logits = data.train_x.flatten(1) @ start.T + linear.bias.detach()
    error = (logits.softmax(1) - torch.eye(3, dtype=torch.float64)[data.train_y]) / len(data.train_y)
    gradient = error.T @ data.train_x.flatten(1)
    train(nn.Sequential(nn.Flatten(), linear), data, config)
    if optimizer == "adam":
        gradient, kept = gradient + 0.1 * start, start
    else:
        kept = start * (1 - 0.01 * 0.1)
    assert_close(linear.weight.detach(), kept - 0.01 * gradient / (gradient.abs() + 1e-8), rtol=1e-6, atol=1e-9)


def test_weight_decay_falls_on_batch_norm_too(blobs):
    model = build_model(NET, blobs)
    norm = model.blocks[0].branch[1]
    train(model, blobs, TrainConfig(epochs=1, batch_size=99, weight_decay=1e3, lr=1e-3, clip=1e-9, schedule="constant"))
    assert_close(norm.weight.detach(), torch.zeros(8), rtol=0, atol=1e-5)  # 1 − lr · decay = 0


# Its order


@given(st.integers(3, 60), st.integers(3, 70))
def test_batches_cover_all_images_evenly_and_none_comes_alone(n, batch_size):
    batches = batches_of(n, epochs=1, batch_size=batch_size)
    sizes = [len(batch) for batch in batches]
    assert sorted(chain(*batches)) == list(range(n))
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) > 1
    assert len(batches) == math.ceil(n / batch_size)


def test_order_depends_on_seed_and_epoch_alone():
    recipe = {"epochs": 3, "batch_size": 5}
    torch.manual_seed(0)
    one = batches_of(20, seed=4, **recipe)
    torch.manual_seed(1)
    assert batches_of(20, seed=4, **recipe) == one
    assert batches_of(20, seed=4, epochs=5, batch_size=5)[:12] == one  # a longer training begins alike
    assert batches_of(20, seed=5, **recipe) != one
    epochs = [list(chain(*one[start : start + 4])) for start in (0, 4, 8)]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert list(chain(*batches_of(20, seed=3, **recipe)[4:8])) not in epochs  # no stream of one seed is the next one's


def test_training_leaves_the_global_random_state(blobs):
    before = torch.get_rng_state()
    train(build_model(NET, blobs), blobs, TrainConfig(epochs=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_trainings_with_the_same_seed_are_equal_bit_for_bit(blobs):
    one, two, other = (build_model(NET, blobs) for _ in range(3))
    histories = [train(one, blobs, RECIPE), train(two, blobs, RECIPE)]
    train(other, blobs, dataclasses.replace(RECIPE, seed=2))
    assert equal_states(one, two)
    assert histories[0] == histories[1]
    assert not equal_states(one, other)


# What it tells


def test_history_holds_one_plain_entry_an_epoch(blobs):
    history = train(build_model(NET, blobs), blobs, RECIPE, monitors=[Monitor("one", lambda model, data: 1.5)])
    again = training.History(**json.loads(json.dumps(dataclasses.asdict(history))))
    assert again == history
    columns = (history.loss, history.train_accuracy, history.test_accuracy, history.lr, history.terminal)
    assert {len(column) for column in columns} == {9}
    last = learning_rate(RECIPE, (8 + 2.5 / 3) / 9)  # the middle of the last of three steps
    assert history.lr[-1] == pytest.approx(last)


def test_terminal_phase_begins_when_the_training_error_first_vanishes(blobs, monkeypatch):
    train_and_test = iter([0.5, 0.9, 1.0, 0.9, 0.75, 0.8, 1.0, 0.9])
    monkeypatch.setattr(training._loop, "accuracy", lambda *_: next(train_and_test))
    history = train(build_model(NET, blobs), blobs, TrainConfig(epochs=4))
    assert history.train_accuracy == [0.5, 1.0, 0.75, 1.0]
    assert history.terminal == [False, True, True, True]


@pytest.mark.parametrize(
    ("when", "epochs"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"every": 3}, [0, 3, 6, 7]),
        ({"epochs": (2, 7)}, [2, 7]),
        ({"every": 99}, [0, 7]),
    ],
)
def test_monitors_are_called_before_at_their_epochs_and_after_the_last(blobs, when, epochs):
    seen = []

    def measure(model, data):
        assert not model.training
        assert not torch.is_grad_enabled()
        assert data is blobs
        seen.append(float(model.head[-1].weight.sum()))
        return len(seen)

    history = train(build_model(NET, blobs), blobs, TrainConfig(epochs=7), monitors=[Monitor("count", measure, **when)])
    assert history.monitors == {"count": [[epoch, i + 1] for i, epoch in enumerate(epochs)]}
    assert len(set(seen)) == len(epochs)  # of the network as it was then


def test_monitors_of_one_name_are_refused(blobs):
    one = Monitor("one", lambda model, data: 1)
    with pytest.raises(ValueError, match="monitors of different names, for their values are kept by name; got one, a"):
        train(build_model(NET, blobs), blobs, RECIPE, monitors=[one, Monitor("a", one.measure), one])


@pytest.mark.parametrize("value", [torch.ones(2), np.float32(1), {1, 2}])
def test_monitor_that_json_cannot_hold_is_refused_before_the_training(blobs, value):
    steps = []
    model = build_model(NET, blobs)
    model.register_forward_pre_hook(lambda module, args: steps.append(module.training))
    with pytest.raises(TypeError, match=rf"'odd' returned a {type(value).__name__} that JSON cannot hold .*float\(val"):
        train(model, blobs, TrainConfig(epochs=1), monitors=[Monitor("odd", lambda model, data: value)])
    assert sum(steps) <= 3  # the statistics of batch norm


@pytest.mark.parametrize(
    ("head", "text"),
    [
        (nn.Linear(6, 2), r"Labels must lie in 0\.\.1, for the model has 2 logits; got 0\.\.2"),
        (nn.Unflatten(1, (6, 1)), r"one tensor of logits \(1, C\) for 1 inputs; got \(1, 6, 1\)"),
    ],
)
def test_model_without_a_logit_for_each_class_is_refused(blobs, head, text):
    with pytest.raises(ValueError, match=text):
        train(nn.Sequential(nn.Flatten(), head, nn.PReLU()), blobs, RECIPE)


# Kill and resume


@pytest.fixture
def checkpoint(tmp_path):
    return Checkpoint(tmp_path / "run" / "checkpoint.safetensors", every=2, snapshots=KEPT)


@pytest.mark.parametrize("moment", ["in a step", "in writing a checkpoint"])
def test_killed_training_resumes_to_the_same_weights_bit_for_bit(blobs, tmp_path, checkpoint, spawn, moment):
    names = ("train_x", "train_y", "test_x", "test_y")
    save_file({name: getattr(blobs, name) for name in names}, tmp_path / "data.safetensors")
    data = ImageData.from_tensors(**load_file(tmp_path / "data.safetensors"), name="blobs", normalize=False)
    child = spawn(train_until_killed, tmp_path / "data.safetensors", checkpoint.path, moment)
    whole, resumed = (build_model(NET, data, seed=RECIPE.seed) for _ in range(2))
    expected = train(whole, data, RECIPE)
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    steps = []
    resumed.register_forward_pre_hook(lambda module, args: steps.append(module.training))
    history = train(resumed, data, RECIPE, checkpoint=checkpoint)
    assert sum(steps) == 3 * 5  # it went on after the fourth epoch
    assert equal_states(resumed, whole)
    assert history == expected
    kept = load_file(checkpoint.snapshot_path(9))
    assert all(torch.equal(kept[name], value) for name, value in whole.state_dict().items())


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_interrupted_adam_goes_on_with_its_moments(blobs, checkpoint, optimizer):
    recipe = TrainConfig(epochs=7, lr=0.01, optimizer=optimizer, seed=3)
    whole, resumed = (build_model(NET, blobs, seed=3) for _ in range(2))
    expected = train(whole, blobs, recipe)

    def interrupt(model, data):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(resumed, blobs, recipe, checkpoint=checkpoint, monitors=[Monitor("stop", interrupt, epochs=(5,))])
    resumed = build_model(NET, blobs, seed=9)
    assert train(resumed, blobs, recipe, checkpoint=checkpoint) == expected
    assert equal_states(resumed, whole)


def test_finished_training_is_not_done_again(blobs, checkpoint):
    one = build_model(NET, blobs)
    history = train(one, blobs, RECIPE, checkpoint=checkpoint)
    two = build_model(NET, blobs, seed=9)
    two.register_forward_pre_hook(lambda module, args: pytest.fail("trained") if module.training else None)
    assert train(two, blobs, RECIPE, checkpoint=checkpoint) == history
    assert equal_states(one, two)


def test_monitors_before_an_interruption_are_kept(blobs, checkpoint):
    def interrupt(model, data):
        raise KeyboardInterrupt

    count = Monitor("count", lambda model, data: 1, every=2)
    with pytest.raises(KeyboardInterrupt):
        train(
            build_model(NET, blobs),
            blobs,
            RECIPE,
            monitors=[count, Monitor("stop", interrupt, epochs=(5,))],
            checkpoint=checkpoint,
        )
    history = train(build_model(NET, blobs, seed=9), blobs, RECIPE, monitors=[count], checkpoint=checkpoint)
    assert history.monitors["count"] == [[epoch, 1] for epoch in (0, 2, 4, 6, 8, 9)]


def test_snapshots_are_the_weights_after_their_epochs(blobs, checkpoint):
    states = []
    monitor = Monitor("copy", lambda model, data: states.append({k: v.clone() for k, v in model.state_dict().items()}))
    train(build_model(NET, blobs), blobs, RECIPE, monitors=[monitor], checkpoint=checkpoint)
    assert checkpoint.snapshot_path(3).name == "epoch-000003.safetensors"
    assert sorted(path.name for path in checkpoint.snapshot_path(0).parent.iterdir()) == [
        f"epoch-00000{epoch}.safetensors" for epoch in (0, 3, 9)
    ]
    for epoch in (0, 3, 9):
        kept = load_file(checkpoint.snapshot_path(epoch))
        assert all(torch.equal(kept[name], value) for name, value in states[epoch].items())


class Shared(nn.Module):
    """All ways to hold one thing twice: a tied weight, a module in two places, a slope and a buffer of two modules."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.second.weight = self.first.weight
        self.again, self.norm, self.norm_again = self.second, nn.BatchNorm1d(6), nn.BatchNorm1d(6)
        self.slope, self.same_slope = nn.PReLU(6), nn.PReLU(6)
        self.same_slope.weight = self.slope.weight
        self.norm_again.running_mean = self.norm.running_mean
        self.register_buffer("whole", torch.arange(12.0))
        self.register_buffer("part", self.whole[3:7])

    def forward(self, x):
        h = self.slope(self.norm(self.first(x.flatten(1))))
        return self.head(self.again(self.same_slope(self.norm_again(self.second(h)))))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_shared_tensors_are_kept_and_resumed_bit_for_bit(blobs, checkpoint, optimizer):
    recipe = TrainConfig(epochs=9, lr=0.02, optimizer=optimizer)
    torch.manual_seed(0)
    whole = Shared()
    resumed = copy.deepcopy(whole)
    expected = train(whole, blobs, recipe)

    def interrupt(model, data):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(resumed, blobs, recipe, checkpoint=checkpoint, monitors=[Monitor("stop", interrupt, epochs=(7,))])
    resumed = Shared()
    assert train(resumed, blobs, recipe, checkpoint=checkpoint) == expected
    assert equal_states(resumed, whole)
    kept = load_file(checkpoint.snapshot_path(9))
    assert kept.keys() == whole.state_dict().keys()
    assert all(torch.equal(kept[name], value) for name, value in whole.state_dict().items())
    fresh = Shared()
    fresh.load_state_dict(kept)
    assert fresh.second.weight is fresh.first.weight
    assert_close(fresh(blobs.test_x), whole.train()(blobs.test_x), rtol=0, atol=0)


def test_state_that_is_no_tensor_is_refused_with_its_name(blobs, checkpoint):
    class Odd(Recorder):
        def get_extra_state(self):
            return {"seen": 3}

    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 1), Odd())
    with pytest.raises(ValueError, match=r"state is of tensors; entry .2\._extra_state. is of dict\. Keep"):
        train(
            model,
            dataclasses.replace(blobs, train_y=blobs.train_y % 2, test_y=blobs.test_y % 2),
            RECIPE,
            checkpoint=checkpoint,
        )


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip_a_weight(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def drop_the_history(path):
    save_file(load_file(path), path)


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        flip_a_weight,
        drop_the_history,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(np.random.default_rng(0).bytes(500)),
    ],
    ids=["truncated", "one bit", "no history", "empty", "random bytes"],
)
def test_damaged_checkpoint_is_refused_with_its_name(blobs, checkpoint, damage):
    train(build_model(NET, blobs), blobs, RECIPE, checkpoint=checkpoint)
    damage(checkpoint.path)
    with pytest.raises(OSError, match="is damaged or not a checkpoint of this package") as error:
        train(build_model(NET, blobs), blobs, RECIPE, checkpoint=checkpoint)
    assert str(checkpoint.path) in str(error.value)
    assert "Delete it to start again" in str(error.value)


def test_checkpoint_of_another_recipe_data_or_network_is_refused_with_its_name(blobs, checkpoint):
    train(build_model(NET, blobs), blobs, RECIPE, checkpoint=checkpoint)
    name = str(checkpoint.path)
    with pytest.raises(ValueError, match=r"written by a training with other clip, lr. Give the recipe") as error:
        train(build_model(NET, blobs), blobs, dataclasses.replace(RECIPE, lr=0.2, clip=None), checkpoint=checkpoint)
    assert name in str(error.value)
    other = dataclasses.replace(blobs, train_x=-blobs.train_x)
    with pytest.raises(ValueError, match="written by a training with other data") as error:
        train(build_model(NET, blobs), other, RECIPE, checkpoint=checkpoint)
    assert name in str(error.value)
    wider = dataclasses.replace(NET, width=10)
    with pytest.raises(ValueError, match="belongs to another network") as error:
        train(build_model(wider, blobs), blobs, RECIPE, checkpoint=checkpoint)
    assert name in str(error.value)


# What goes wrong


def test_unwritable_folder_is_named(blobs, tmp_path):
    (tmp_path / "file").write_text("")
    below = Checkpoint(tmp_path / "file" / "run" / "checkpoint.safetensors", every=1)
    with pytest.raises(OSError, match=r"Cannot write .*Give a folder that exists or can be made") as error:
        train(build_model(NET, blobs), blobs, RECIPE, checkpoint=below)
    assert str(below.path) in str(error.value)


def test_nan_images_stop_the_training_with_epoch_and_rate(blobs):
    spoiled = blobs.train_x.clone()
    spoiled[5] = math.nan
    text = r"The loss became nan in epoch 1 at learning rate .*lower lr \(now 0.1\), set clip \(now 1.0\), or check the"
    with pytest.raises(FloatingPointError, match=text):
        train(build_model(NET, blobs), dataclasses.replace(blobs, train_x=spoiled), RECIPE)


def test_diverging_training_is_stopped(blobs):
    config = TrainConfig(epochs=60, lr=1e6, momentum=0.9, clip=None, schedule="constant")
    with pytest.raises(FloatingPointError, match=r"The (loss|logits) became .* in epoch \d+ at learning rate 1e\+06"):
        train(build_model(ResNetConfig(2, 8, norm=False), blobs), blobs, config)


def test_last_step_that_leaves_nan_is_an_error_too(blobs):
    """The loss of that step was still finite: the accuracy of a network of NaN was 0.34."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    model[1].weight.register_hook(lambda gradient: gradient * math.nan)
    config = TrainConfig(epochs=1, batch_size=99, clip=None)
    with pytest.raises(FloatingPointError, match=r"The logits became NaN in epoch 1 at learning rate .*lower lr"):
        train(model, blobs, config)


def test_model_on_another_device_is_refused(blobs):
    text = r"the model is on meta, the data on cpu. Call data.to\(device\) or model.to\(device\)"
    with pytest.raises(ValueError, match=text):
        train(build_model(NET, blobs).to("meta"), blobs, RECIPE)


def test_old_file_stays_when_writing_fails(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(file):
        file.write_text("half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_atomically(path, lambda file: file.write_text("new"))
    assert path.read_text() == "new"


@pytest.mark.parametrize("failure", [OSError(28, "disk full"), SafetensorError("disk full")])
def test_full_disk_is_reported_with_the_file(tmp_path, failure):
    def fail(file):
        raise failure

    with pytest.raises(OSError, match=r"Cannot write .*weights: disk full. Give a folder"):
        write_atomically(tmp_path / "weights", fail)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"epochs": -1}, "epochs must be at least 0 and finite; got -1"),
        ({"epochs": 1.5}, "epochs must be a whole number; got 1.5"),
        ({"batch_size": 0}, "batch_size must be at least 1 and finite; got 0"),
        ({"batch_size": True}, "batch_size must be a whole number; got True"),
        ({"seed": 0.5}, "seed must be a whole number; got 0.5"),
        ({"lr": "0.1"}, "lr must be a number of Python; got '0.1'"),
        ({"lr": np.float32(0.1)}, r"lr must be a number of Python; got .*0\.1.*Use float\(lr\)"),
        ({"weight_decay": torch.tensor(0.1)}, r"weight_decay must be a number of Python; got tensor\(0\.1"),
        ({"clip": np.float32(1)}, r"clip must be a number of Python; got .*Use float\(clip\)"),
        ({"lr": -0.1}, "lr must be at least 0 and finite; got -0.1"),
        ({"lr": math.inf}, "lr must be at least 0 and finite; got inf"),
        ({"weight_decay": math.nan}, "weight_decay must be at least 0 and finite; got nan"),
        ({"momentum": -1}, "momentum must be at least 0 and finite; got -1"),
        ({"clip": 0}, "clip must be positive, or None for no clipping; got 0"),
        ({"optimizer": "lion"}, "optimizer must be one of sgd, adam, adamw; got 'lion'"),
        ({"optimizer": "adam", "momentum": 0.9}, "momentum belongs to SGD; got 0.9 with 'adam': leave it at 0"),
        ({"schedule": "linear"}, "schedule must be one of one_cycle, cosine, step, constant; got 'linear'"),
    ],
)
def test_value_out_of_range_is_refused_with_what_is_allowed(choice, text):
    with pytest.raises(ValueError, match=text):
        TrainConfig(**choice)


@pytest.mark.parametrize("make", [lambda every: Monitor("m", print, every), lambda every: Checkpoint("c", every)])
def test_every_is_at_least_one_epoch(make):
    with pytest.raises(ValueError, match="every must be at least 1 epoch; got 0"):
        make(0)


def test_written_files_have_the_users_usual_permissions(tmp_path):
    usual = tmp_path / "usual"
    usual.touch()
    training.write_atomically(tmp_path / "file", lambda file: file.write_text("x"))
    assert (tmp_path / "file").stat().st_mode == usual.stat().st_mode


# What surrounds the loop of a network that was trained before, or has slopes


def test_slopes_of_prelus_are_neither_decayed_nor_clipped():
    class Slopes(nn.Module):
        """A classifier whose loss pulls at the slope and at a weight with a gradient of 100 each."""

        def __init__(self):
            super().__init__()
            self.linear, self.slope, self.idle = nn.Linear(1, 2), nn.PReLU(init=0.5), nn.PReLU(init=0.25)

        def forward(self, x):
            return self.linear(self.slope(-x.flatten(1).abs() - 1))

    model, data = Slopes(), numbered(4)
    model.linear.weight.data = torch.tensor([[300.0], [-300.0]])
    before = model.slope.weight.item(), model.linear.weight.detach().clone()
    loss = nn.functional.cross_entropy(model(data.train_x), data.train_y)
    slope, weight = torch.autograd.grad(loss, [model.slope.weight, model.linear.weight])
    assert abs(float(slope)) > 10
    config = TrainConfig(epochs=1, lr=0.01, weight_decay=0.5, schedule="constant", clip=1e-6)
    train(model, data, config)
    assert model.slope.weight.item() == pytest.approx(before[0] - 0.01 * float(slope), rel=1e-5)
    assert_close(model.linear.weight.detach(), before[1] * (1 - 0.01 * 0.5), atol=1e-6, rtol=1e-6)
    assert float(weight.norm()) > 1e-2  # clipped to nothing
    assert model.idle.weight.item() == 0.25


def test_running_statistics_of_a_trained_network_are_kept(blobs):
    model = build_model(ResNetConfig(2, 8), blobs)
    train(model, blobs, TrainConfig(epochs=2))
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, blobs, TrainConfig(epochs=0))
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())
    fresh = build_model(ResNetConfig(2, 8), blobs)
    train(fresh, blobs, TrainConfig(epochs=0))
    assert not torch.equal(fresh.stem[2].running_mean, torch.zeros(8))


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def threads_in_training(data, **network):
    """How many threads a monitor finds before and after the first epoch."""
    seen = Monitor("threads", lambda model, data: torch.get_num_threads(), epochs=(0, 1))
    history = train(build_model(ResNetConfig(**network), data), data, TrainConfig(epochs=1), monitors=[seen])
    assert torch.get_num_threads() == 3
    return [number for _, number in history.monitors["threads"]]


@pytest.mark.usefixtures("three_threads")
def test_a_small_network_trains_on_one_thread_and_the_setting_returns(blobs):
    assert threads_in_training(blobs, depth=2, width=8) == [1, 1]
    assert threads_in_training(blobs, depth=2, width=1024) == [3, 3]  # 1.1e9 operations in a step of 128 images


@pytest.mark.usefixtures("three_threads")
def test_a_kernel_works_at_every_pixel(pictures, monkeypatch):
    monkeypatch.setattr("resalign_utils.training._threads.SMALL", 3e6)
    assert threads_in_training(pictures, kind="conv", depth=1, width=4) == [3, 3]  # 488 entries, each at 35 pixels
    assert threads_in_training(pictures, depth=1, width=8) == [1, 1]  # more entries, each used once


@pytest.mark.usefixtures("three_threads")
def test_threads_return_after_an_error_too(blobs):
    stop = Monitor("stop", lambda model, data: 1 / 0, epochs=(1,))
    with pytest.raises(ZeroDivisionError):
        train(build_model(ResNetConfig(2, 8), blobs), blobs, TrainConfig(epochs=1), monitors=[stop])
    assert torch.get_num_threads() == 3


class Scaled:
    """Cross-entropy times a factor; if it draws, after one draw from the global generator, which it notes."""

    def __init__(self, factor=1.0, draws=False):
        self.factor, self.draws, self.drawn, self.recipe = factor, draws, [], {"factor": factor}

    def __call__(self, model, x, y):
        assert model.training
        if self.draws:
            self.drawn.append(float(torch.rand(())))
        return self.factor * nn.functional.cross_entropy(model(x), y)


def test_objective_takes_the_place_of_the_cross_entropy(blobs):
    plain, doubled, same = (build_model(NET, blobs) for _ in range(3))
    config = TrainConfig(epochs=3, lr=0.02, weight_decay=0.0, clip=None)
    history = train(doubled, blobs, config, objective=Scaled(2.0))
    expected = train(plain, blobs, dataclasses.replace(config, lr=0.04))
    assert history.loss == pytest.approx([2 * loss for loss in expected.loss], rel=1e-4)
    for one, other in zip(doubled.parameters(), plain.parameters(), strict=True):
        assert_close(one, other, rtol=1e-3, atol=1e-5)
    once = train(same, blobs, config, objective=Scaled(1.0))
    assert once == train(build_model(NET, blobs), blobs, config)


def test_what_an_objective_draws_depends_on_seed_and_epoch_alone(blobs, random_state_untouched):
    whole, first, rest = (Scaled(draws=True) for _ in range(3))
    config = TrainConfig(epochs=4, schedule="constant")
    train(build_model(NET, blobs), blobs, config, objective=whole)
    train(build_model(NET, blobs), blobs, dataclasses.replace(config, epochs=2), objective=first)
    train(build_model(NET, blobs), blobs, dataclasses.replace(config, seed=1), objective=rest)
    half = len(whole.drawn) // 2
    assert first.drawn == whole.drawn[:half]
    assert len(set(whole.drawn)) == len(whole.drawn)
    assert not set(rest.drawn) & set(whole.drawn)


def test_checkpoint_of_another_objective_is_refused(blobs, checkpoint):
    train(build_model(NET, blobs), blobs, RECIPE, checkpoint=checkpoint, objective=Scaled(2.0))
    for other in (Scaled(3.0), None):
        with pytest.raises(ValueError, match=r"written by a training with other objective\."):
            train(build_model(NET, blobs), blobs, RECIPE, checkpoint=checkpoint, objective=other)
