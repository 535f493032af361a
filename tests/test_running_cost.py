"""experiments/running_cost.py: what it lists is recorded, and it counts what a hand counts."""

import pytest
import torch
from torch import nn

import resalign_utils as ra
from experiments import running_cost
from resalign_utils.runs import RECIPE_VERSIONS


def test_recorded_rows_are_the_networks_that_the_program_lists():
    rows = ra.recorded("running_cost")
    digits = rows[rows.family == "digits"]
    listed = {("untouched", None, seed) for seed in running_cost.SEEDS} | {
        (way, target, seed)
        for way in ("channel", "layer", "direct")
        for target in running_cost.TARGETS
        for seed in running_cost.SEEDS
    }
    targets = [None if target != target else target for target in digits.target]
    assert sorted(zip(digits.way, targets, digits.seed, strict=True), key=str) == sorted(listed, key=str)
    images = rows[rows.family == "convolutional"]
    known = ra.recorded("linearization_plain")
    known = known[known.target.isna() | known.target.isin(running_cost.RECORDED)]
    assert sorted(images.accuracy) == sorted(known.accuracy)
    assert all(rows.attrs["provenances"][number]["data"] for number in rows.provenance)
    timed = rows[rows.seed == 0]
    assert timed.milliseconds.notna().all()
    assert timed.folded_milliseconds.notna().all()


def test_flops_are_two_for_each_number_of_a_matrix():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3))
    assert running_cost.flops(model, torch.zeros(7, 3, 2, 2)) == 2 * (12 * 5 + 5 * 3)
    image = nn.Conv2d(1, 4, 3, padding=1)
    assert running_cost.flops(image, torch.zeros(2, 1, 6, 6)) == 2 * 36 * 9 * 4


def test_units_are_made_linear_as_recorded(blobs):
    plain = ra.build_model(ra.ResNetConfig(2, 4, kind="conv", skip=False), blobs).eval()
    model = ra.linearize(plain, "channel", x=blobs.train_x[:2])
    shares = [1.0, 0.5, 0.0, 0.25, 0.0]
    running_cost.make_linear(model, shares)
    slopes = [module.weight for module in model.modules() if isinstance(module, nn.PReLU)]
    assert [float((slope != 1).float().mean()) for slope in slopes] == shares
    assert ra.average_path_length(model) == pytest.approx(sum(shares))


def test_a_network_that_was_trained_directly_is_kept_and_has_the_folded_ones_shape(blobs, monkeypatch):
    monkeypatch.setattr(running_cost, "WIDTH", 6)
    monkeypatch.setattr(running_cost, "EPOCHS", 1)
    monkeypatch.setattr(running_cost, "MORE", 1)
    model, made = running_cost.direct(blobs, 2, seed=1)
    assert [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)] == [
        (6, 6),
        (6, 6),
        (6, 3),
    ]
    assert made["data"] == blobs.checksum()
    monkeypatch.setattr(ra, "train", None)  # would fail if it were called
    again, _ = running_cost.direct(blobs, 2, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    monkeypatch.setitem(RECIPE_VERSIONS, "training", 99)
    with pytest.raises(TypeError):
        running_cost.direct(blobs, 2, seed=1)
