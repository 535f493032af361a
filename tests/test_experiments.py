"""The programs of ``experiments/``: what is recorded is what they list, and their settings are what they say."""

import json
from dataclasses import asdict, replace

import pytest
import torch

import resalign_utils as ra
from experiments import (
    _record,
    attention,
    bridge,
    cifar,
    collapse,
    counterfactuals,
    linearization,
    screening,
    small_and_unbalanced,
    theory,
)
from experiments.counterfactuals import BASE, FACTORS, IMAGES, changed, levels, of_classes, same_steps
from resalign_utils.training import learning_rate

STEPS = 200 * 12  # of the base


def as_json(value):
    return json.loads(json.dumps(value))


def listed(program, part, monkeypatch):
    """The labels and configurations that one part would train."""
    settings = []
    monkeypatch.setattr(program, "swept", lambda some, measure: settings.extend(some) or [])
    getattr(program, part)()
    return settings


@pytest.mark.parametrize(
    ("program", "part", "name"),
    [
        (counterfactuals, "digits", "counterfactuals_digits"),
        (collapse, "everything", "collapse"),
        (counterfactuals, "rank", "counterfactuals_rank"),
        (counterfactuals, "grid", "counterfactuals_map"),
        (counterfactuals, "convolutional", "counterfactuals_convolutional"),
        (counterfactuals, "fashion_mnist", "counterfactuals_fashion_mnist"),
        (collapse, "decays", "collapse_decays"),
        (counterfactuals, "exercises", "counterfactuals_exercises"),
        (small_and_unbalanced, "everything", "small_and_unbalanced"),
        (small_and_unbalanced, "batches", "small_and_unbalanced_batches"),
        (small_and_unbalanced, "exercises", "small_and_unbalanced_exercises"),
        (theory, "everything", "theory"),
    ],
)
def test_recorded_rows_are_the_settings_that_the_program_lists(program, part, name, monkeypatch):
    settings, frame = listed(program, part, monkeypatch), ra.recorded(name)
    assert len(settings) == len(frame)
    for (labels, config), row in zip(settings, frame.to_dict("records"), strict=True):
        assert {key: row[key] for key in labels} == as_json(labels)
        assert row["config"] == as_json(asdict(config))
        assert frame.attrs["provenances"][row["provenance"]]["data"]


@pytest.mark.parametrize("count", [2, 3, 4, 6, 8, 10])
def test_fewer_classes_take_about_as_many_steps(count):
    config = of_classes(BASE, count)
    data = ra.load_data("digits", classes=config.data.classes)
    steps = config.train.epochs * -(-len(data.train_y) // config.train.batch_size)
    assert 0.93 * STEPS <= steps <= 1.25 * STEPS


@pytest.mark.parametrize("images", [50, 200, 800, 1437])
def test_fewer_images_take_as_many_steps(images):
    steps = same_steps(images) * -(-images // BASE.train.batch_size)
    assert STEPS - 13 < steps <= STEPS


def test_the_base_has_all_digits_and_the_steps_that_are_said():
    assert len(ra.load_data("digits").train_y) == IMAGES
    assert BASE.train.epochs * -(-IMAGES // BASE.train.batch_size) == STEPS
    assert same_steps(IMAGES) == BASE.train.epochs


def test_levels_marked_as_base_are_the_base():
    marked = [config for factor in FACTORS for labels, config in factor() if labels["base"]]
    assert len(marked) >= 3 * 8
    same = BASE, of_classes(BASE, 10), changed(BASE, model={"skip": 1.0})  # all classes by name; the skip by its factor
    assert {replace(config, train=replace(config.train, seed=0)) for config in marked} == set(same)


def test_the_base_ends_at_the_decay_time_that_is_said():
    times = counterfactuals.decay_times(BASE)
    assert len(times) == 201
    assert times[0] == 0
    assert times[-1] == pytest.approx(4.8, abs=0.01)
    assert times[20] == pytest.approx(0.01 * 0.4 * 12 * 20 / 2)  # the warm-up, a straight line from zero
    momentum = changed(BASE, train={"lr": 0.04, "momentum": 0.9})
    assert counterfactuals.decay_times(momentum) == pytest.approx(times)
    assert counterfactuals.epochs_at((0.0, 0.48, 4.8, 9.0), BASE) == [0, 20, 200]


@pytest.mark.parametrize("blocks", [range(2), range(1, 4), range(4, 9), range(9)])
def test_blocks_go_together_where_each_two_are_coupled(blocks):
    coupling = torch.eye(9)
    coupling[blocks.start : blocks.stop, blocks.start : blocks.stop] = 0.6
    coupling[0, 8] = 0.9  # coupled one way only
    assert counterfactuals.together(coupling) == len(blocks)
    coupling[blocks.start, blocks.stop - 1] = 0.3  # the mean of both ways is below one half
    coupling[blocks.stop - 1, blocks.start] = 0.6
    assert counterfactuals.together(coupling) == len(blocks) - 1


def test_recorded_courses_are_what_the_program_lists():
    settings, frame = counterfactuals.courses(), ra.recorded("counterfactuals_course")
    assert len(settings) == len(frame)
    for (labels, config), row in zip(settings, frame.to_dict("records"), strict=True):
        assert {key: row[key] for key in labels} == labels
        assert row["config"] == as_json(asdict(config))
        assert row["epochs"] == counterfactuals.epochs_at(counterfactuals.TIMES, config)
        assert len(row["coupling"]) == len(row["alignment"]) == len(row["epochs"])
        assert frame.attrs["provenances"][row["provenance"]]["data"]


def test_unbalanced_sets_are_as_large_as_their_twins(monkeypatch):
    settings = listed(small_and_unbalanced, "everything", monkeypatch)
    sizes = {}
    for labels, config in settings:
        if "ratio" in labels:
            key = labels["ratio"], labels["skip"], config.train.seed
            sizes.setdefault(key, {})[labels["study"]] = config.data.per_class
    for (ratio, _, seed), studies in sizes.items():
        counts = studies["unbalanced"]
        rare = small_and_unbalanced.minority(seed)
        assert len(set(rare)) == 5
        assert {counts[c] for c in rare} == {round(135 / ratio)}
        assert {counts[c] for c in set(range(10)) - set(rare)} == {135}
        if ratio > 1:
            assert abs(sum(studies["balanced twin"]) - sum(counts)) < 10


def test_equal_batches_take_as_many_steps_at_the_same_decay_time():
    for labels, config in small_and_unbalanced.equal_batches():
        images = IMAGES if labels["images"] == "all" else 50
        steps = config.train.epochs * -(-images // config.train.batch_size)
        assert 0.99 * STEPS <= steps <= STEPS  # and lr, schedule and weight decay are the base's
        assert replace(config, data=BASE.data, train=BASE.train) == BASE
        same = {"epochs": 0, "batch_size": 1, "seed": 0}
        assert replace(config.train, **same) == replace(BASE.train, **same)


def test_a_weighted_training_gives_every_class_the_same_say():
    """On one batch that holds the whole set, the weighted loss is the mean over classes of their mean losses."""
    few = changed(BASE, model={"depth": 2, "width": 8}, train={"epochs": 1, "lr": 0.05, "weight_decay": 0.0})
    run = ra.load_or_train(replace(few, data=ra.DataConfig("digits", per_class=(9, 9, *(3,) * 8))))
    with torch.enable_grad():
        model = ra.build_model(few.model, run.data, seed=0).train()
        losses = torch.nn.functional.cross_entropy(model(run.data.train_x), run.data.train_y, reduction="none")
        torch.stack([losses[run.data.train_y == c].mean() for c in range(10)]).mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    trained = small_and_unbalanced.weighted(run)
    rate = learning_rate(few.train, 0.5)
    for before, after in zip(model.parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(after, before - rate * before.grad, rtol=1e-4, atol=1e-6)


def test_rows_are_measured_and_written_with_their_provenance(tmp_path, monkeypatch):
    monkeypatch.setattr(_record, "results_folder", lambda: tmp_path)
    small = changed(BASE, model={"depth": 2, "width": 8}, train={"epochs": 2})
    rows = _record.swept(list(levels("depth", {2: small})), counterfactuals.scores, processes=1)
    _record.record("written", "python -m experiments.written", rows)
    content = json.loads((tmp_path / "written.json").read_text())
    assert [row["seed"] for row in content["rows"]] == [0, 1, 2]
    assert len(content["provenances"]) == 1
    assert {row["provenance"] for row in content["rows"]} == {0}
    run = ra.load_or_train(small)
    report = ra.measure_alignment(run.model, run.data.sample(5)[0])
    assert content["rows"][0]["alignment"] == pytest.approx(float(report.alignment.mean()), abs=1e-4)
    assert content["rows"][0]["test_accuracy"] == pytest.approx(run.history.test_accuracy[-1], abs=1e-5)


def test_rounding_keeps_five_digits_and_says_what_is_not_a_number():
    values = torch.tensor([[0.123456789, float("nan")], [1e-9, -2.0]], dtype=torch.float64)
    assert _record.rounded(values) == [[0.12346, None], [1e-9, -2.0]]


def test_recall_is_of_each_class(blobs):
    class Constant(torch.nn.Module):
        def forward(self, x):
            return torch.tensor([0.0, 1.0, 0.0]).expand(len(x), 3)

    assert small_and_unbalanced.recall(Constant(), blobs).tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("part", linearization.PARTS)
def test_recorded_post_trainings_are_the_settings_that_the_program_lists(part):
    settings, frame = linearization.PARTS[part](), ra.recorded(f"linearization_{part}")
    assert len(settings) == len(frame)
    for setting, row in zip(settings, frame.to_dict("records"), strict=True):
        assert {key: None if row[key] != row[key] else row[key] for key in setting.labels} == setting.labels
        assert row["config"] == as_json(asdict(setting.base))
        assert row["linearization"] == as_json(asdict(setting.config))
        assert frame.attrs["provenances"][row["provenance"]]["data"]
        law = torch.tensor(row["law"], dtype=torch.float64)
        assert float(law @ torch.arange(len(law), dtype=law.dtype)) == pytest.approx(row["napl"], abs=0.01)
        if setting.target is not None:  # reached, as nearly as the units allow
            step = 1.0 if setting.granularity == "layer" else 1 / 16
            assert setting.target - 1e-9 <= row["napl"] < setting.target + step


def test_post_training_is_kept_and_not_done_again(monkeypatch):
    base = ra.RunConfig("digits", ra.ResNetConfig(2, 4, kind="conv", skip=False), ra.TrainConfig(epochs=1))
    setting = linearization.Setting("plain", base, "layer", 2.0, epochs=2)
    run = ra.load_or_train(base)
    model, row = linearization.linearized(setting, run)
    assert row["napl"] == ra.average_path_length(model) >= 2.0
    assert row["accuracy"] == pytest.approx(ra.accuracy(model, run.data.test_x, run.data.test_y), abs=1e-5)
    assert [len(row[key]) for key in ("napl_per_epoch", "accuracy_per_epoch", "omega_per_epoch")] == [3, 3, 3]
    assert len(row["surviving"]) == 5
    monkeypatch.setattr(ra, "post_train", None)  # would fail if it were called
    again, same = linearization.linearized(setting, run)
    assert same == row
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    with pytest.raises(TypeError):
        linearization.linearized(replace(setting, target=3.0), run)


def test_recorded_bridge_is_what_the_program_lists():
    settings, frame = bridge.settings(), ra.recorded("bridge")
    assert len(settings) == len(frame)
    for setting, row in zip(settings, frame.to_dict("records"), strict=True):
        assert setting.labels == {key: None if row[key] != row[key] else row[key] for key in setting.labels}
        assert row["config"] == as_json(asdict(setting.base))


def test_post_trainings_are_kept_apart_by_all_that_decides_them(monkeypatch):
    for part in linearization.PARTS.values():
        assert len({setting.recipe.key for setting in part()}) == len(part())
    setting = linearization.plain()[1]
    others = [replace(setting, epochs=9), replace(setting, base=setting.base.with_seed(7))]
    assert len({setting.recipe.key, *(other.recipe.key for other in others)}) == 3
    assert replace(setting, part="longer").recipe.key == setting.recipe.key  # the same network
    keys = {setting.recipe.key}
    for stage in ra.runs.RECIPE_VERSIONS:
        monkeypatch.setitem(ra.runs.RECIPE_VERSIONS, stage, 99)
        keys.add(setting.recipe.key)
    assert len(keys) == 5


def test_cifar_preset_has_the_decay_times_that_it_names():
    listed = cifar.settings()
    assert len(listed) == len({(str(labels), config.train.seed) for labels, config in listed}) == 72
    for labels, config in listed:
        assert counterfactuals.decay_times(config, cifar.IMAGES)[-1] == pytest.approx(labels["S"], rel=0.03)
        assert config.model.depth == {"ResNet-20": 9, "ResNet-56": 27}[labels["network"]]
    flops = cifar.hours("ResNet-56") * 3600 * cifar.SUSTAINED / (100 * cifar.IMAGES)  # of an image, both ways
    assert flops / 6 == pytest.approx(126e6, rel=0.03)  # multiply-adds of one way, as counted by others


def test_cifar_preset_measures_stages(tmp_path):
    run = ra.load_or_train(
        ra.RunConfig("digits", ra.ResNetConfig(6, 4, "cifar"), ra.TrainConfig(epochs=1)), root=tmp_path
    )
    row = cifar.scores(run)
    coupling = torch.tensor([[float("nan") if c is None else c for c in line] for line in row["coupling"]])
    assert coupling.shape == (6, 6)
    assert coupling[0, 2].isnan()
    # the first block of a stage changes the shape of the state and is compared with no other
    assert row["stages"][0] == pytest.approx(float((coupling[0, 1] + coupling[1, 0]) / 2), abs=2e-3)
    assert row["stages"][1:] == [None, None]


def test_twins_are_wanted_once_and_of_every_network_with_a_configuration():
    wanted = [screening.twin_key(as_json(asdict(config))) for config in screening.twins()]
    frame = ra.recorded_networks(*screening.FIT, *(name for names in screening.TEST.values() for name in names))
    assert len(wanted) == len(set(wanted))
    assert {screening.twin_key(config) for config in frame.config} == set(wanted)


def test_a_twin_is_the_network_before_its_training_that_other_programs_measured():
    rows = ra.recorded("counterfactuals_digits").query("factor == 'architecture' and seed == 1")
    for config, twin in zip(rows.config[:9:2], rows.untrained[:9:2], strict=True):
        parts = (ra.DataConfig(**config["data"]), ra.ResNetConfig(**config["model"]), ra.TrainConfig(**config["train"]))
        row = screening.untrained(ra.RunConfig(*parts))
        assert row["line_shape_score"] == pytest.approx(twin["line_shape_score"], rel=1e-3)


def test_recorded_twins_are_those_that_the_program_lists():
    recorded = [screening.twin_key(config) for config in ra.recorded("screening").config]
    assert recorded == [screening.twin_key(as_json(asdict(config))) for config in screening.twins()]


# Transformers


def test_transformers_are_trained_to_the_decay_time_that_is_said():
    for labels, config in [*attention.recorded(), *attention.controls(), *attention.more()]:
        passed = counterfactuals.decay_times(config, attention.images_of(config.data))
        assert passed[-1] == pytest.approx(labels["S"], rel=1e-4)
        assert config.train.optimizer == "adamw"


def test_no_transformer_is_listed_twice():
    every = [config for _, config in [*attention.recorded(), *attention.controls(), *attention.more()]]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize(("name", "part"), [("attention", "recorded"), ("attention_controls", "controls")])
def test_recorded_transformers_are_the_settings_that_the_program_lists(name, part):
    settings, frame = getattr(attention, part)(), ra.recorded(name)
    assert len(settings) == len(frame)
    for (labels, config), row in zip(settings, frame.to_dict("records"), strict=True):
        assert {key: row[key] for key in labels} == labels
        assert row["config"] == as_json(asdict(config))
        assert frame.attrs["provenances"][row["provenance"]]["data"]


def test_a_transformer_is_seen_by_kinds_and_whole():
    small = replace(
        attention.DIGITS,
        data=ra.DataConfig("digits", per_class=4),
        model=ra.TransformerConfig(3, 16, 4, 2),
        train=replace(attention.TRAIN, epochs=2),
    )
    row = attention.measured(ra.load_or_train(small))
    run = ra.load_or_train(small)
    report = ra.measure_alignment(run.model, run.data.sample(1)[0])
    kind = torch.arange(6) % 2
    mean = report.coupling.mean(0)
    apart = ~torch.eye(6, dtype=torch.bool)
    for name, pairs in (
        ("attention", (kind[:, None] + kind == 0) & apart),
        ("mlp", (kind[:, None] + kind == 2) & apart),
        ("across", kind[:, None] != kind),
    ):
        assert row["sequence"][name] == pytest.approx(float(mean[pairs].mean()), abs=1e-4)
    assert len(row["whole"]["top_singular_values"]) == 3
    assert row["untrained"].keys() == {"sequence", "per token", "token", "whole", "whole token"}
    assert (row["sequence"]["k"], row["per token"]["k"]) == (10, 40)
    several = ra.measure_alignment(run.model, run.data.sample(1)[0], k=40, rank=41)
    assert row["per token"]["across"] == pytest.approx(
        float(several.coupling.mean(0)[kind[:, None] != kind].mean()), abs=1e-4
    )
    drop = several.singular_values[..., 40] / several.singular_values[..., 0]
    assert row["per token"]["rank_drop"]["mlp"] == pytest.approx(float(drop[:, 1::2].mean()), abs=1e-4)
    again = ra.measure_alignment(run.untrained, run.data.sample(1)[0]).summary()
    assert row["untrained"]["sequence"]["alignment"] == pytest.approx(again["alignment"], abs=1e-4)
    plain = replace(small, model=replace(small.model, norm="post"))
    assert attention.measured(ra.load_or_train(plain)).keys() & {"whole", "token"} == {"token"}


def test_dead_sums_of_a_transformer_are_left_out():
    data = ra.load_data("digits")
    model, x = ra.build_model(ra.TransformerConfig(3, 16, 4, 2), data).eval(), data.sample(1)[0]
    live = ra.measure_alignment(model, x)
    with torch.no_grad():
        model.blocks[0].mlp.branch[3].weight.mul_(1e-6)
    report = ra.measure_alignment(model, x)
    row, mean = attention.seen(report), report.coupling.mean(0)
    assert row["dead"] == [0, 1, 0, 0, 0, 0]
    assert row["mlp"] == pytest.approx(float((mean[3, 5] + mean[5, 3]) / 2), abs=1e-4)
    assert row["rank_drop"]["mlp"] == pytest.approx(float(report.rank_drop[:, [3, 5]].mean()), abs=1e-4)
    assert row["coupling"][1] == [None] * 6
    whole = attention.seen(live)
    assert whole["dead"] == [0] * 6
    assert whole["alignment"] == pytest.approx(live.summary()["alignment"], abs=1e-4)


def test_a_line_through_inverse_singular_values():
    top = 1 / torch.tensor([[1.0, 3.0, 5.0], [2.0, 3.0, 4.0]])
    assert attention.line(top) == {"slope": 1.5, "r2": 1.0}
    nan = float("nan")
    top = 1 / torch.tensor([[1.0, nan, 5.0, 7.0], [2.0, 3.0, 4.0, nan]])
    assert attention.line(top) == {"slope": 1.5, "r2": 1.0}


def test_the_larger_networks_would_run(monkeypatch):
    """All of their code on one tiny network, digits in place of Fashion-MNIST."""
    labels, config = attention.paper(images=600, width=16, blocks=(2,), epochs=1)[-1]
    tiny = replace(config, data=ra.DataConfig("digits", per_class=6))
    assert attention.measured(ra.load_or_train(tiny))["sequence"]["attention"] is not None
    assert labels["study"] == "post"
    assert len(attention.paper()) == 80
