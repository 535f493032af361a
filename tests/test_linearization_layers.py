"""experiments/linearization_layers.py: what it lists is recorded, test images choose nothing, and costs are as said."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import resalign_utils as ra
from experiments import linearization_layers as program
from resalign_utils.records import results_folder

SMALL = ra.TrainConfig(epochs=2, lr=0.1)
RECORDED = [name for name in program.PARTS if (results_folder() / f"linearization_layers_{name}.json").exists()]


@pytest.fixture
def part(blobs, monkeypatch):
    """Three layers of four units, 3 validation images of each of three classes."""
    base = ra.RunConfig("digits", ra.ResNetConfig(1, 4, skip=False), SMALL)
    monkeypatch.setattr(ra, "load_data", lambda *_, **__: blobs)
    post = ra.TrainConfig(epochs=10, lr=0.05, momentum=0.9, batch_size=8)
    return program.Part(base, 3, post, program.OMEGA, sweep={"channel": (300.0,)}, stopped={"layer": 9.0})


def test_what_chooses_is_held_out_of_each_class_and_is_not_the_test_images(part, blobs):
    given = program.images(part)
    x, y = given.validation
    assert torch.bincount(y).tolist() == [3, 3, 3]
    assert len(given.data.train_y) == len(blobs.train_y) - 9
    together = torch.cat([given.data.train_x, x]).flatten(1)
    assert len(torch.unique(together, dim=0)) == len(blobs.train_y)  # every image once
    assert torch.equal(given.test[0], blobs.test_x)
    assert all(any(torch.equal(one, other) for other in x) for one in given.data.test_x)  # trainings see no test image
    with pytest.raises(ValueError, match=r"Expected more than 16 images of class 0; got 16\."):
        program.images(replace(part, held_out=16))


def test_each_layer_is_kept_in_turn_and_validation_chooses(part):
    given = program.images(part)
    rows = [*program.compared(part, 5, given)]
    assert [row["way"] for row in rows] == [
        *("untouched", "channel", "kept", "kept", "kept", "layer", "channel", "layer", "scratch"),
        *("layer at equal cost", "wide"),
    ]
    turns = [row for row in rows if row["way"] == "kept"]
    assert [row["surviving"] for row in turns] == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    (chosen,) = [row for row in turns if row["chosen"]]
    assert chosen["validation_accuracy"] == max(row["validation_accuracy"] for row in turns)
    assert [row["napl"] for row in rows[1:8]] == [1.0] * 5 + [0.0] * 2
    spread, equal, wide = rows[1], rows[-2], rows[-1]
    assert equal["folded_flops"] == spread["folded_flops"]
    assert equal["napl"] == sum(share > 0 for share in spread["surviving"])
    assert wide["folded_flops"] >= spread["folded_flops"]
    assert wide["folded_parameters"] >= spread["folded_parameters"]
    assert rows[-3]["folded_parameters"] == turns[0]["folded_parameters"] - 1  # but for the slope
    other = [*program.other_recipes(part, 5, given)]
    assert [row["way"] for row in other] == ["channel, constant", "layer, stopped"]
    assert other[1]["napl"] == 1.0


def test_networks_are_kept_and_not_trained_again(part, monkeypatch):
    given = program.images(part)
    rows = [*program.compared(part, 5, given)]
    for name in ("train", "post_train"):
        monkeypatch.setattr(ra, name, None)  # would fail if it were called
    assert [*program.compared(part, 5, given)] == rows
    with pytest.raises(TypeError):
        next(program.compared(part, 6, given))


def test_of_a_residual_network_the_layers_that_every_path_passes_are_kept(blobs):
    model = ra.linearize(ra.build_model(ra.ResNetConfig(2, 4), blobs), "layer")
    names = program.layers_of(model, blobs.train_x)
    assert list(names) == [1, 3, 5]
    assert all("branch" not in name for name in names.values())


def test_cifar_can_be_asked_for(monkeypatch):
    """Tiny images in its shape, and a tiny network: the settings fit together."""
    y = torch.arange(30) % 3
    x = torch.randn(30, 3, 32, 32, generator=torch.Generator().manual_seed(0)) + y[:, None, None, None]
    tiny = ra.ImageData.from_tensors(x, y, x, y, name="cifar10")
    monkeypatch.setattr(ra, "load_data", lambda *_, **__: tiny)
    whole = program.PARTS["cifar10"]
    post = replace(whole.post, epochs=10, batch_size=4)
    base = replace(whole.base, train=SMALL, model=replace(whole.base.model, depth=1, width=4))
    monkeypatch.setitem(program.PARTS, "cifar10", replace(whole, base=base, held_out=2, post=post, layers=(1, 3)))
    written = {}
    monkeypatch.setattr(program, "record", lambda name, _, rows: written.update({name: rows}))
    program.measure_part("cifar10", (0,))
    (rows,) = written.values()
    candidates = [row for row in rows if "chosen" in row]
    assert [(row["way"], row["layer"]) for row in candidates] == [("layer", None), ("kept", 1), ("kept", 3)]
    assert sum(row["chosen"] for row in candidates) == 1
    assert {row["napl"] for row in rows if row["way"] in ("kept", "channel")} <= {0.0, 1.0}


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_rows_are_what_the_program_lists(name):
    part, frame = program.PARTS[name], ra.recorded(f"linearization_layers_{name}")
    assert all(frame.attrs["provenances"][number]["data"] for number in frame.provenance)
    for seed, rows in frame.groupby("seed"):
        assert seed in part.seeds
        config = program.asdict(part.base.with_seed(int(seed)))
        assert all(
            row["train"] == config["train"] and row["data"]["name"] == config["data"]["name"] for row in rows.config
        )
        turns = rows[rows.way == "kept"]
        candidates = rows[rows.chosen.notna()]
        (chosen,) = candidates.index[candidates.chosen.astype(bool)]
        assert candidates.validation_accuracy[chosen] == candidates.validation_accuracy.max()
        assert len(candidates) == len(turns) + bool(part.layers)
        assert not part.layers or set(turns.layer) == set(part.layers)
        steered = rows[rows.way.isin(["channel", "layer"])]
        assert sorted(steered.target) == ([0.0, 0.0, 1.0, 1.0] if part.affine else [1.0, 1.0])
        assert all(abs(steered.napl - steered.target) < 0.07)
        assert all(abs(turns.napl - 1) < 1e-9)


def test_the_first_page_says_how_many_seeds_are_recorded():
    page = (Path(__file__).resolve().parents[1] / "book" / "intro.md").read_text(encoding="utf-8")
    for part, scale in (("fashion_mnist", "Fashion-MNIST"), ("digits", "digits")):
        (said,) = re.findall(rf"::fair_{part}`[^{{]*{{strength}}`recorded, (\d+) seeds, {scale}`", page)
        assert int(said) == ra.recorded(f"linearization_layers_{part}").seed.nunique()
