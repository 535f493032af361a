"""The program of chapter 19: regularisers do what their names say, and networks are compared as its text says."""

import json
import math
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

import resalign_utils as ra
from experiments import regularizers
from experiments.counterfactuals import BASE, changed, decay_times
from experiments.regularizers import EARLY, PLAIN, Mixed, Part, Setting, Shifted, Smoothed, at_equal_loss, at_loss


@pytest.fixture
def part():
    return regularizers.parts("tiny")["networks"]


class Fixed(nn.Module):
    """The same logits for every batch of four, and what came in."""

    def __init__(self):
        super().__init__()
        self.seen, self.logits = [], torch.randn(4, 3, generator=torch.Generator().manual_seed(0))

    def forward(self, x):
        self.seen.append(x)
        return self.logits


X = torch.arange(4.0)[:, None, None, None] + torch.zeros(4, 2, 3, 5)
Y = torch.tensor([0, 1, 2, 1])


def test_smoothed_labels_put_a_share_on_every_class():
    model = Fixed()
    target = 0.7 * nn.functional.one_hot(Y, 3) + 0.3 / 3
    expected = -(target * model.logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(Smoothed(0.3)(model, X, Y), expected)


def test_mixup_mixes_images_and_labels_alike():
    model = Fixed()
    torch.manual_seed(3)
    loss = Mixed(0.2)(model, X, Y)
    torch.manual_seed(3)
    share = float(torch.distributions.Beta(0.2, 0.2).sample())
    other = torch.randperm(4)
    torch.testing.assert_close(model.seen[0][:, 0, 0, 0], share * torch.arange(4.0) + (1 - share) * other.float())
    soft = share * nn.functional.one_hot(Y, 3) + (1 - share) * nn.functional.one_hot(Y[other], 3)
    torch.testing.assert_close(loss, -(soft * model.logits.log_softmax(1)).sum(1).mean())
    assert 0 < share < 1
    assert other.tolist() != [0, 1, 2, 3]


def test_an_image_is_shifted_as_a_whole_and_background_comes_in():
    x = torch.arange(1.0, 1 + 2 * 2 * 3 * 4).reshape(2, 2, 3, 4)
    here = torch.ones(2, 2, dtype=torch.int64)
    torch.testing.assert_close(regularizers.shifted(x, here, 1), x)
    offsets = torch.tensor([[0, 2], [1, 0]])  # the first a row down; the second a row up and a column to the right
    moved = regularizers.shifted(x, offsets, 1)
    torch.testing.assert_close(moved[0, :, 1:], x[0, :, :-1])
    torch.testing.assert_close(moved[1, :, :-1, 1:], x[1, :, 1:, :-1])
    assert (moved[0, :, 0] == 1).all()
    assert (moved[1, :, -1] == 1).all()
    assert (moved[1, :, :, 0] == 1).all()


def test_all_nine_shifts_come():
    x = torch.zeros(1, 1, 3, 3)
    x[0, 0, 1, 1] = 1
    seen = set()
    torch.manual_seed(0)

    def model(images):
        seen.add(int(images[0].flatten().argmax()))
        return torch.zeros(1, 2)

    for _ in range(200):
        Shifted(1)(model, x, torch.zeros(1, dtype=torch.int64))
    assert seen == set(range(9))


def layers_of(name, scale_part):
    setting = next(setting for setting in scale_part.settings(0) if setting.name == name)
    data = ra.load_data(**asdict(setting.config.data))
    return regularizers.built(setting, data), data


@pytest.mark.parametrize("kind", ["networks", "convolutional"])
def test_networks_hold_what_they_are_named_after(kind):
    part = regularizers.parts("tiny")[kind]
    counts = {}
    for name in ("none", *part.regularisers):
        model, data = layers_of(name, part)
        modules = [*model.modules()]
        kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.Dropout)
        counts[name] = [sum(isinstance(module, kind) for module in modules) for kind in kinds]
        counts[name].append(sum(hasattr(module, "parametrizations") for module in modules))
        assert len(ra.trace(model.eval(), data.sample(1)[0]).residuals) == 2
    if kind == "networks":  # stem and two layers in each of two blocks
        assert counts["none"] == counts["mixup"] == [5, 0, 0, 0, 0]
        assert counts["dropout"] == [5, 0, 0, 2, 0]
        assert counts["group norm"] == counts["layer norm"] == [0, 0, 5, 0, 0]
        assert counts["weight norm"] == [0, 0, 0, 0, 5]
        assert counts["no norm"] == [0] * 5
    else:  # pre-activation: two a block, and one before the head
        assert counts["none"] == counts["stochastic depth"] == [0] * 5
        assert counts["batch norm"] == [0, 5, 0, 0, 0]
        assert counts["group norm"] == [0, 0, 5, 0, 0]
        assert counts["dropout"] == [0, 0, 0, 2, 0]


def test_layer_norm_is_layer_norm(part):
    model, _ = layers_of("layer norm", part)
    h = torch.randn(3, 16)
    norm = next(module for module in model.modules() if isinstance(module, nn.GroupNorm))
    torch.testing.assert_close(norm(h), nn.functional.layer_norm(h, (16,)))


def test_weight_norm_leaves_the_initial_function_as_it_is(part):
    (with_norm, data), (without, _) = (layers_of(name, part) for name in ("weight norm", "no norm"))
    torch.testing.assert_close(with_norm(data.test_x), without(data.test_x))


def test_bases_lie_where_they_are_said_to():
    for scale in ("small", "paper"):
        for part in regularizers.parts(scale).values():
            for setting in part.settings(0):
                time = decay_times(setting.config, part.images)[-1]
                wanted = part.bases.get(setting.base)
                assert wanted is None or time == pytest.approx(wanted, rel=0.01)
    small = regularizers.parts("small")["networks"]
    above = next(setting for setting in small.settings(0) if setting.base == "above")
    assert above.config == changed(BASE, train={"epochs": 100, "weight_decay": 0.02})  # chapter 9's, in half the time


def course(losses, alignments):
    return {"train_loss": losses, "alignment": alignments}


def test_alignment_is_read_where_the_course_last_passed_a_loss():
    falls = course([1.0, 0.1, 0.01], [0.0, 0.2, 0.6])
    assert at_loss(falls, 0.1) == pytest.approx(0.2)
    assert at_loss(falls, math.sqrt(0.001)) == pytest.approx(0.4)
    assert at_loss(falls, 0.005) is None
    again = course([1.0, 0.1, 0.5, 0.01], [0.0, 0.2, 0.3, 0.7])
    assert at_loss(again, 0.3) == pytest.approx(0.3 + 0.4 * math.log(0.3 / 0.5) / math.log(0.01 / 0.5))
    assert at_loss(again, 0.3, first=True) == pytest.approx(0.2 * math.log(0.3) / math.log(0.1))
    assert at_loss(course([1.0, 0.1, 0.1], [0.0, 0.2, 0.3]), 0.1) == pytest.approx(0.3)


def test_at_equal_loss_the_one_that_ends_lower_is_taken_on_its_way():
    base = {"train_loss": 0.01, "course": course([1.0, 0.1, 0.01], [0.0, 0.2, 0.6])}
    other = {"train_loss": 0.1, "course": course([2.0, 0.1], [0.0, 0.9])}
    assert at_equal_loss(other, base) == {"loss": 0.1, "regularised": 0.9, "base": 0.2, "first_pass": 0.2}
    assert at_equal_loss(base, other) == {"loss": 0.1, "regularised": 0.2, "base": 0.9, "first_pass": 0.2}
    never = {"train_loss": 3.0, "course": course([4.0, 3.0], [0.0, 0.5])}
    assert at_equal_loss(never, base) == {"loss": 3.0, "regularised": 0.5, "base": None, "first_pass": None}


def test_early_stopping_is_the_course_of_the_base_at_another_epoch():
    columns = {"epochs": [0, 8, 16, 24], "decay_times": [0.0, 0.1, 0.2, 0.3], "alignment": [0.0, 0.1, 0.2, 0.3]}
    columns |= {"train_accuracy": [0.1, 0.9, 1.0, 1.0], "validation_accuracy": [0.1, 0.9, 0.8, 0.9]}
    base = {"base": "above", "regularizer": "none", "alignment": 0.3, "decay_time": 0.3, "course": columns}
    fitted, validated = regularizers.stopped(base | {"train_accuracy": 1.0, "validation_accuracy": 0.9})
    assert (fitted["regularizer"], validated["regularizer"]) == EARLY
    assert (fitted["epoch"], fitted["alignment"], fitted["decay_time"]) == (16, 0.2, 0.2)
    assert (validated["epoch"], validated["alignment"], validated["train_accuracy"]) == (8, 0.1, 0.9)
    assert "course" not in fitted


def test_the_program_runs_at_its_smallest_and_does_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments._record.results_folder", lambda: tmp_path)
    arguments = regularizers.asked(["networks", "--scale", "tiny"])
    regularizers.run(*arguments.parts, arguments.scale, [0])
    rows = json.loads((tmp_path / "regularizers_tiny.json").read_text())["rows"]
    named = [(row["base"], row["regularizer"]) for row in rows]
    part = regularizers.parts("tiny")["networks"]
    assert len(set(named)) == len(named) == 2 * (len(part.regularisers) + 3)
    assert {name for _, name in named} == {"none", *EARLY, *part.regularisers}
    for row in rows:
        assert 0 <= row["train_accuracy"] <= 1 < row["course"]["train_loss"][0] if "course" in row else "epoch" in row
    setting = next(setting for setting in part.settings(0) if setting.name == "dropout")
    model = regularizers.built(setting, data := ra.load_data(**asdict(setting.config.data)))
    ra.train(model, data, setting.config.train)
    row = next(row for row in rows if row["regularizer"] == "dropout")
    assert row["course"]["alignment"][-1] == row["alignment"]
    with torch.no_grad():
        assert row["train_loss"] == regularizers.measured(model, data, 5)["train_loss"]
    monkeypatch.setattr(ra, "train", None)  # would fail if it were called
    again = regularizers.row_of(part, setting)
    assert again["train_loss"] == row["train_loss"]


def test_networks_are_kept_apart_by_all_that_decides_them(part, monkeypatch):
    recipes = []

    class Found(Exception):
        pass

    def note(recipe, make, data):
        recipes.append(recipe)
        raise Found

    monkeypatch.setattr(regularizers, "get_or_make", note)
    settings = [*part.settings(0), *part.settings(1)]
    for setting in settings:
        with pytest.raises(Found):
            regularizers.row_of(part, setting)
    assert len({recipe.key for recipe in recipes}) == len(settings)
    stronger = Setting("below", "none", replace(PLAIN, objective=Smoothed(0.2)), settings[0].config)
    with pytest.raises(Found):
        regularizers.row_of(part, stronger)
    assert recipes[-1].key not in {recipe.key for recipe in recipes[:-1]}


def test_parts_are_what_the_command_line_names():
    assert {*regularizers.parts("small")} == {*regularizers.asked([]).parts}
    assert regularizers.seeds_of("0-4") == [0, 1, 2, 3, 4]
    assert regularizers.seeds_of("90") == [90]
    assert all(isinstance(part, Part) for part in regularizers.parts("paper").values())


def test_recorded_rows_are_the_first_that_the_program_lists():
    frame, part = ra.recorded("regularizers"), regularizers.parts("small")["networks"]
    expected = []
    for base in part.bases:
        for seed in range(5):
            first, *others = (setting for setting in part.settings(seed) if setting.base == base)
            expected += [replace(first, name=name) for name in ("none", *EARLY)] + others
    assert len(frame) in (len(expected) // 2, len(expected))  # the upper base alone, or both
    for setting, row in zip(expected, frame.to_dict("records"), strict=False):
        assert {key: row[key] for key in setting.labels} == setting.labels
        assert row["config"] == as_json(asdict(setting.config))
        assert frame.attrs["provenances"][row["provenance"]]["data"]
        if setting.name not in ("none", *EARLY):
            plain = frame[(frame.base == row["base"]) & (frame.seed == row["seed"]) & (frame.regularizer == "none")]
            assert row["equal_loss"] == at_equal_loss(row, plain.iloc[0].to_dict())


def as_json(value):
    return json.loads(json.dumps(value))
