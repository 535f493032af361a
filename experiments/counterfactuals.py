"""The counterfactuals of chapters 9 and 10: one factor changed at a time, and the map over three of them.

python -m experiments.counterfactuals digits          fully-connected networks on the digits, every factor alone
python -m experiments.counterfactuals rank            the number of classes once more, at twice the weight decay
python -m experiments.counterfactuals map             alignment over weight decay, depth and skip
python -m experiments.counterfactuals convolutional   the skip by degrees on convolutional networks
python -m experiments.counterfactuals fashion_mnist   the main factors on Fashion-MNIST, which RESALIGN_DATA must hold
python -m experiments.counterfactuals course          alignment on its way, up to four times the base's decay time
python -m experiments.counterfactuals exercises       what the exercises of chapters 9 and 10 ask

Each writes ``results/counterfactuals_<name>.json``. RESALIGN_PROCESSES (2) networks are trained at a time; all are kept
as every run is, so that an interrupted command goes on where it was.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import resalign_utils as ra
from resalign_utils.runs import CHECKPOINT, Recipe, get_or_make, read_json, write_json
from resalign_utils.training import learning_rate

from ._record import Row, made_with, record, rounded, seeded, swept

Setting = tuple[Row, ra.RunConfig]

SCORES = ("alignment", "line_shape_score", "step_cv", "rank_drop", "depth_slope", "top_singular_value", "dead_share")

# Post-activation with batch norm, and the highest learning rate at which its twin without skips trains at eight blocks.
BASE = ra.RunConfig("digits", ra.ResNetConfig(8, 64), ra.TrainConfig(lr=0.4))
IMAGES = 1437  # training images of the digits

# Trains with and without skips: no batch norm, looks-linear initialisation, momentum.
PAIR = ra.RunConfig(
    "digits", ra.ResNetConfig(8, 64, norm=False, init="looks_linear"), ra.TrainConfig(lr=0.1, momentum=0.9)
)
CONVOLUTIONAL = ra.RunConfig(
    "digits",
    ra.ResNetConfig(8, 16, kind="conv", activation="pre", norm=False, init="looks_linear"),
    ra.TrainConfig(epochs=60, lr=0.1, momentum=0.9, weight_decay=5e-3),
)
FASHION_MNIST = ra.RunConfig(
    ra.DataConfig("fashion_mnist", per_class=600), ra.ResNetConfig(8, 64), ra.TrainConfig(epochs=50, lr=0.4)
)


def digits() -> list[Row]:
    """Every factor alone, three seeds a level."""
    settings = [setting for factor in FACTORS for setting in factor()]
    return swept(settings, scores) + swept(list(course()), course_of)


def rank() -> list[Row]:
    """The number of classes at twice the base's weight decay: directions that the loss does not need decay further."""
    strong = changed(BASE, train={"weight_decay": 2 * BASE.train.weight_decay})
    return swept(list(levels("classes", {c: of_classes(strong, c) for c in (2, 4, 6, 8, 10)})), scores)


def convolutional() -> list[Row]:
    """The skip by degrees on convolutional networks, three seeds a level."""
    return swept(list(_skip_factors(CONVOLUTIONAL, (0.0, 0.5, 1.0))), scores)


def fashion_mnist() -> list[Row]:
    """Skip, weight decay and classes: fully-connected networks, 6,000 images of Fashion-MNIST, three seeds a level."""
    settings = [*_skip_factors(FASHION_MNIST, (0.0, 0.25, 0.5, 0.75, 1.0)), *_decays_and_classes(FASHION_MNIST)]
    return swept(settings, scores)


def grid() -> list[Row]:
    """The map: weight decay × depth × skip, three seeds a cell; the first of them with what its panels show."""
    settings = [
        setting
        for depth in (2, 4, 8, 16, 32)
        for decay in (0.0, 1e-3, 2e-3, 5e-3, 1e-2)
        for skip in (True, False)
        for setting in seeded(
            {"depth": depth, "weight_decay": decay, "skip": skip},
            changed(PAIR, model={"depth": depth, "skip": skip}, train={"weight_decay": decay}),
        )
    ]
    return swept(settings, cell)


def followed() -> list[Row]:
    """Does alignment stay once decay has brought it? Its course over the decay time S.

    Written before it was measured. Rows of three seeds hint at a fall: alignment 0.75 after 400 epochs, 0.68 after 800.
    Here are 8 and 16 blocks at a weight decay of 0.02, 420 epochs, so that S ends near 20. Five seeds were planned for
    both; of 16 blocks three were trained.

    - *It falls*, where in each of the seeds the last alignment is below the highest one before by 0.02 or more.
    - *Blocks leave*, where in each seed fewer blocks go together (:func:`together`) at the end than at the most before.
    - *The first ones leave*, where from the time of the highest mean alignment to the end, in each seed, the mean
      coupling with all others falls by more in the first quarter of the blocks than in the last one.
    - *S decides*, where these courses and the recorded one of 8 blocks, decay 0.01 and 800 epochs, at the same S and so
      at different learning rates, differ by less than 0.1.
    """
    start, rows = time.perf_counter(), []
    for labels, config in courses():
        rows.append(labels | follow(config))
        passed, seed = time.perf_counter() - start, config.train.seed
        print(f"{len(rows)} {passed:.0f} s | {labels} seed {seed} | {rows[-1]['alignment']}", flush=True)
    return rows


def exercises() -> list[Row]:
    """What the exercises of chapters 9 and 10 ask, three seeds each; written before it was measured.

    - *skip*: one of 1.25 against the base. How does coupling go over distance, and how do the states grow?
    - *half the decay*, in 400 epochs: S is that of the base, so its alignment is predicted, to 0.05.
    - *classes* 3, 5, 8 and 9: is the larger of the two falls around C = 4 behind the third singular value again?
    """
    four = replace(of_classes(BASE, 4), data=replace(BASE.data, classes=(3, 5, 8, 9)))
    asked = {
        "base": BASE,
        "skip 1.25": changed(BASE, model={"skip": 1.25}),
        "half the decay, 400 epochs": changed(BASE, train={"epochs": 400, "weight_decay": 5e-3}),
        "classes 3, 5, 8, 9": four,
    }
    return swept([each for name, config in asked.items() for each in seeded({"asked": name}, config)], with_states)


TIMES = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0, 15.0, 18.0, 20.0)
TOGETHER = 0.5


def courses() -> list[Setting]:
    """What is followed: 8 blocks, five seeds, and 16 blocks, three; the seeds outermost."""
    return [
        setting
        for seed in range(5)
        for depth in ((8, 16) if seed < 3 else (8,))
        for setting in seeded(
            {"blocks": depth, "weight_decay": 2e-2},
            changed(BASE, model={"depth": depth}, train={"epochs": 420, "weight_decay": 2e-2}),
            [seed],
        )
    ]


def decay_times(config: ra.RunConfig, images: int = IMAGES) -> list[float]:
    """S after each epoch, 0 first: weight decay times the sum of the learning rates of all steps, over 1 − momentum."""
    train = config.train
    steps = -(-images // train.batch_size)
    total = train.epochs * steps
    rates = (learning_rate(train, (step + 0.5) / total) for step in range(total))
    sums = [0.0, *accumulate(rates)][::steps]
    return [train.weight_decay * value / (1 - train.momentum) for value in sums]


def epochs_at(times: Sequence[float], config: ra.RunConfig) -> list[int]:
    """The epochs after which S is nearest to each of these times, as far as the training goes."""
    passed = decay_times(config)
    within = [at for at in times if at <= passed[-1] + 0.01]
    return [min(range(len(passed)), key=lambda epoch: abs(passed[epoch] - at)) for at in within]


def follow(config: ra.RunConfig) -> Row:
    """The row of one course; it is kept, and an interrupted one goes on from its last checkpoint."""
    data = ra.load_data(**asdict(config.data))
    epochs = epochs_at(TIMES, config)
    recipe = Recipe(
        name=f"course-{config.data.name}-{config.model.depth}",
        config=asdict(config) | {"epochs": epochs, "measured": 1},
        stages=("data", "models", "training"),
        files=("history.json",),
    )

    def make(folder: Path) -> None:
        model = ra.build_model(config.model, data, seed=config.train.seed)
        monitor = ra.Monitor("course", on_the_way, epochs=tuple(epochs))
        kept = ra.Checkpoint(folder / CHECKPOINT, every=50)
        write_json(
            folder / "history.json", asdict(ra.train(model, data, config.train, monitors=[monitor], checkpoint=kept))
        )

    kept = get_or_make(recipe, make, data=data)
    history = ra.History(**read_json(kept.folder / "history.json"))
    measured = [value for _, value in history.monitors["course"]]
    passed = decay_times(config)
    row: Row = {"config": asdict(config), "seed": config.train.seed, "epochs": epochs}
    row |= {"decay_times": [round(passed[epoch], 4) for epoch in epochs], "seconds": kept.provenance["seconds"]}
    for name in ("train_accuracy", "test_accuracy"):
        row[name] = [round(getattr(history, name)[epoch - 1], 5) if epoch else None for epoch in epochs]
    row |= {name: [value[name] for value in measured] for name in measured[0]}
    return row | {"provenance": made_with(kept.provenance)}


def on_the_way(model: nn.Module, data: ra.ImageData) -> Row:
    """What is measured of a network in training, at five test images of each class; couplings to two decimals."""
    x, _ = data.sample(5)
    report = ra.measure_alignment(model, x)
    coupling = report.coupling.mean(0)
    return {name: summarised(report)[name] for name in ("alignment", "line_shape_score", "step_cv", "rank_drop")} | {
        "together": together(coupling),
        "coupling": [[round(value, 2) for value in line] for line in coupling.tolist()],
        "top_singular_values": rounded(report.singular_values[..., 0].mean(0), 3),
    }


def together(coupling: Tensor, least: float = TOGETHER) -> int:
    """Largest number of consecutive blocks of which each two have a coupling of at least ``least``, both ways' mean.

    Args:
        coupling: (L, L), the mean over inputs.
        least: of the coupling.
    """
    near = (coupling + coupling.T) / 2 >= least
    near.fill_diagonal_(True)
    count = len(near)
    runs = (
        stop - start
        for start in range(count)
        for stop in range(start + 1, count + 1)
        if near[start:stop, start:stop].all()
    )
    return max(runs)


def changed(config: ra.RunConfig, *, model: Row | None = None, train: Row | None = None) -> ra.RunConfig:
    """The same run with other fields."""
    return replace(config, model=replace(config.model, **model or {}), train=replace(config.train, **train or {}))


def levels(factor: str, configs: dict[Any, ra.RunConfig], base: Any = None) -> Iterator[Setting]:
    """Three seeds of each level of a factor."""
    for level, config in configs.items():
        yield from seeded({"factor": factor, "level": level, "base": level == base}, config)


def skip() -> Iterator[Setting]:
    """λ from 0 to 1; every second skip, or those of one half, removed."""
    on, off = (1.0,) * 4, (0.0,) * 4
    patterns = {
        "every second, odd": (1.0, 0.0) * 4,
        "every second, even": (0.0, 1.0) * 4,
        "first half": on + off,
        "last half": off + on,
    }
    factors = dict.fromkeys((0.0, 0.25, 0.5, 0.75, 1.0))
    yield from levels("skip factor", {f: changed(BASE, model={"skip": f}) for f in factors}, 1.0)
    yield from levels("skips kept", {name: changed(BASE, model={"skip": p}) for name, p in patterns.items()})


def weight_decay() -> Iterator[Setting]:
    """With and without skips."""
    for name, on in (("weight decay", True), ("weight decay, no skips", False)):
        decays = (0.0, 1e-4, 1e-3, 3e-3, 1e-2, 2e-2, 3e-2)
        configs = {w: changed(BASE, model={"skip": on}, train={"weight_decay": w}) for w in decays}
        yield from levels(name, configs, 1e-2 if on else None)


def length() -> Iterator[Setting]:
    """Epochs of a whole schedule, each its own training."""
    yield from levels(
        "epochs", {e: changed(BASE, train={"epochs": e}) for e in (5, 10, 20, 50, 100, 200, 400, 800)}, 200
    )


def shape() -> Iterator[Setting]:
    """Depth, and width."""
    yield from levels("depth", {d: changed(BASE, model={"depth": d}) for d in (2, 4, 8, 16, 32)}, 8)
    yield from levels("width", {w: changed(BASE, model={"width": w}) for w in (16, 32, 64, 128, 256)}, 64)


def classes() -> Iterator[Setting]:
    """The first C digits; about as many steps for each C, so more epochs for fewer images."""
    yield from levels("classes", {c: of_classes(BASE, c) for c in (2, 3, 4, 6, 8, 10)}, 10)


def of_classes(config: ra.RunConfig, count: int) -> ra.RunConfig:
    """The first ``count`` classes, in about as many steps as all ten."""
    longer = changed(config, train={"epochs": config.train.epochs * 10 // count})
    return replace(longer, data=replace(config.data, classes=tuple(range(count))))


def regularisers() -> Iterator[Setting]:
    """Stochastic depth; batch norm, and the order of activation, each at three weight decays."""
    drops = {p: changed(BASE, model={"stochastic_depth": p}) for p in (0.0, 0.2, 0.5, 0.8)}
    yield from levels("stochastic depth", drops, 0.0)
    for activation in ("post", "pre"):
        for norm in (True, False):
            name = f"{activation}-activation, {'batch norm' if norm else 'no norm'}"
            for decay in (1e-3, 3e-3, 1e-2):
                config = changed(BASE, model={"activation": activation, "norm": norm}, train={"weight_decay": decay})
                yield from levels("architecture", {f"{name}, {decay:g}": config}, "post-activation, batch norm, 0.01")


def optimizer() -> Iterator[Setting]:
    """SGD, with momentum at the same effective rate; Adam; AdamW, up to a decay that acts as long as SGD's."""
    trains: dict[str, Row] = {"SGD": {}, "SGD, momentum 0.9": {"lr": 0.04, "momentum": 0.9}}
    adam = {"lr": 1e-3, "optimizer": "adam"}
    trains |= {f"Adam, {w:g}": adam | {"weight_decay": w} for w in (1e-4, 1e-3, 1e-2)}
    trains |= {f"AdamW, {w:g}": adam | {"weight_decay": w, "optimizer": "adamw"} for w in (0.01, 0.1, 1.0, 4.0)}
    yield from levels("optimiser", {name: changed(BASE, train=train) for name, train in trains.items()}, "SGD")


def images() -> Iterator[Setting]:
    """Fewer training images, in as many steps; noise in their labels, at three weight decays."""
    amounts: dict[Any, ra.RunConfig] = {"all": BASE}
    for count in (5, 20, 80):
        fewer = replace(BASE, data=replace(BASE.data, per_class=count))
        amounts[count] = changed(fewer, train={"epochs": same_steps(10 * count)})
    yield from levels("images a class", amounts, "all")
    for noise in (0.0, 0.1, 0.2, 0.4, 1.0):
        for decay in (1e-3, 3e-3, 1e-2):
            noisy = replace(BASE, data=replace(BASE.data, label_noise=noise))
            config = changed(noisy, train={"weight_decay": decay})
            yield from levels(f"label noise, decay {decay:g}", {noise: config}, 0.0 if decay == 1e-2 else None)


def same_steps(images: int) -> int:
    """Epochs in which so few images give as many steps as all the base's."""
    steps = BASE.train.epochs * -(-IMAGES // BASE.train.batch_size)
    return steps // -(-images // BASE.train.batch_size)


def course() -> Iterator[Setting]:
    """One long training, of which the snapshots are measured."""
    for name, on in (("course", True), ("course, no skips", False)):
        yield from levels(name, {800: changed(BASE, model={"skip": on}, train={"epochs": 800})})


FACTORS = (skip, weight_decay, length, shape, classes, regularisers, optimizer, images)


def _skip_factors(base: ra.RunConfig, factors: tuple[float, ...]) -> Iterator[Setting]:
    yield from levels("skip factor", {f: changed(base, model={"skip": f}) for f in factors}, 1.0)


def _decays_and_classes(base: ra.RunConfig) -> Iterator[Setting]:
    decays = (1e-3, base.train.weight_decay)
    yield from levels("weight decay", {w: changed(base, train={"weight_decay": w}) for w in decays}, decays[1])
    plain = {w: changed(base, model={"skip": False}, train={"weight_decay": w}) for w in decays}
    yield from levels("weight decay, no skips", plain)
    yield from levels("classes", {c: of_classes(base, c) for c in (2, 10)}, 10)


def scores(run: ra.Run) -> Row:
    """Residual Alignment of the trained network and of its untrained twin, at five test images of each class."""
    x, _ = run.data.sample(5)
    report, null = ra.measure_alignment(run.model, x), ra.measure_alignment(run.untrained, x)
    row: Row = {"inputs": len(x)} | summarised(report)
    row["untrained"] = {name: summarised(null)[name] for name in ("alignment", "line_shape_score", "rank_drop")}
    row["coupling"] = rounded(report.coupling.mean(0), 3)
    row["singular_values"] = rounded(report.singular_values.mean(0), 3)
    return row


def with_states(run: ra.Run) -> Row:
    """The scores, and the mean length of each state from the stem's output on."""
    x, _ = run.data.sample(5)
    lengths = [state.flatten(1).norm(dim=1).mean() for state in ra.trace(run.model, x).states]
    return scores(run) | {"state_lengths": rounded(torch.stack(lengths), 4)}


def course_of(run: ra.Run) -> Row:
    """Scores after each epoch of which the weights are kept."""
    x, _ = run.data.sample(5)
    epochs = run.snapshot_epochs
    reports = [summarised(ra.measure_alignment(run.snapshot(epoch), x)) for epoch in epochs]
    columns = {name: [report[name] for report in reports] for name in SCORES}
    accuracies = [run.history.train_accuracy[epoch - 1] if epoch else None for epoch in epochs]
    return {"inputs": len(x), "epochs": epochs, "train_accuracies": accuracies} | {"course": columns}


def cell(run: ra.Run) -> Row:
    """A cell of the map, at three test images of each class; one trajectory a class."""
    x, y = run.data.sample(3)
    report = ra.measure_alignment(run.model, x)
    row: Row = {"inputs": len(x)} | summarised(report)
    if run.config.train.seed == 0:
        row["trajectories"] = rounded(ra.trace(run.model, x[::3]).project(), 4)
        row["labels"] = y[::3].tolist()
        row["singular_values"] = rounded(report.singular_values.mean(0), 3)
        row["coupling"] = rounded(report.coupling.mean(0), 3)
    return row


def summarised(report: ra.AlignmentReport) -> Row:
    """The means over inputs of the scores."""
    summary = report.summary()
    values = {name: summary[name] for name in SCORES}
    return {name: rounded(torch.tensor(value)) for name, value in values.items()}


if __name__ == "__main__":
    PARTS = {
        "digits": digits,
        "rank": rank,
        "map": grid,
        "convolutional": convolutional,
        "fashion_mnist": fashion_mnist,
        "course": followed,
        "exercises": exercises,
    }
    for part in sys.argv[1:] or PARTS:
        record(f"counterfactuals_{part}", f"python -m experiments.counterfactuals {part}", PARTS[part]())
