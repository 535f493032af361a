"""The two ages of alignment: after it has come, alignment falls. When, which blocks, and why?

python -m experiments.two_ages networks         fully-connected networks: three depths, with and without batch norm
python -m experiments.two_ages convolutional    is the picture of chapter 8 a case of it?
python -m experiments.two_ages paper            the larger settings, for a GPU; rows are printed, none is recorded

The first two write ``results/two_ages.json`` and ``results/two_ages_convolutional.json``, a row as soon as it is there.
Everything is kept as runs are, so that an interrupted command goes on where it was. Cost: about 15 and 2 minutes of one
core; the two commands can run at a time. On a GPU such small networks are no faster; ``paper`` has what a GPU would
add, networks of width 256 on 6,000 images of Fashion-MNIST (RESALIGN_DATA), an estimated 4 minutes each on one card.

Asked, and written before it was measured
=========================================
One network of each norm, of seed 90, was looked at before; it is not recorded. It led to (e) of 6, to 8, and to the
second half of 5. Before the first recorded row the plan was cut: the last two of five seeds went to its end.
Time ended before all that is planned here was trained: SEEDS has what is recorded (of the constant rate one seed, not
three), and of 9 one seed. After the rows: S = 30.0 against 30.2 is no control of the schedule, since the rate is at
7 % of its highest at the first already; the chapter compares with the constant rate at S = 25, where rates are equal.

Networks of 4, 8 and 16 blocks of 64 units, post-activation, on the digits, three seeds of each, and two more of 8 and
of 4 blocks (the last are missing if time ends), followed to a decay time of S = 30: *batch norm*, that of chapter 9 at
a weight decay of 0.03; *no norm*, the recipe of chapter 12 at 0.012. *Constant rate* is the first one of 8 blocks with
a learning rate that stays: the control that tells S from the end of the schedule; in the others the last two times
differ in hardly more than that end (S = 30.0 and 30.2). *Small epsilon* is the first one of 8 blocks with ε = 1e-10 in
its batch norms in place of 1e-5. Both have three seeds. The *top* is the time of the highest alignment of a network,
the *end* the last time. "In each" is of all seeds; intervals are Student's, 95 %, over seeds, of differences in one
network or between networks of one seed.

1. *It falls*, where in each network of a kind the end is below the top by 0.02 or more.
2. *The schedule is not the cause*, if networks at a constant rate fall as well.
3. *The first ones leave*, where in each network the mean coupling with all others falls by more in the first quarter of
   the blocks than in the last one; *fewer take part*, where the participation ratio of the leading eigenvector of the
   coupling matrix (``taking_part``) falls in each, with an interval of end − top below −0.5 blocks.
4. *They leave for another frame*, if at the end the mean coupling of the first quarter is higher in the moving frame of
   chapter 6 than in the given one, with an interval above 0.1.
5. *They are idle*, if at the end cutting the branch of any one block of the first quarter costs less than 0.01 of
   test accuracy, in each network. *The first one is needed and the others are not*, if cutting the first block costs
   more than 0.1, and cutting any one other block less than 0.01, in each.
6. *Which premise fails?* Chapter 12's model has equal, symmetric, aligned blocks at its minima. Its premises: (a) all
   blocks stay in the product, share ``dead`` 0; (b) branches are linear, ``affine_share`` 0; (c) a block has one
   Jacobian, ``input_dependence`` 0 (the ReLU's pattern); (d) the gradient vanishes, ``imbalance`` 0. (e) Behind a batch
   norm it cannot, but for its ε: the *hold* of the norm, v/(v + ε), is 1 if a block does not depend on the size of its
   weights, as chapter 10 says of such blocks. Another number is no premise, for the theorem allows it: the head's
   singular values are unequal. A premise *fails late* if, in the mean over the first quarter of the blocks, it moves
   away from the model's value (the hold: from 1) from top to end in each network of 8 and of 16 blocks with batch norm.
   It is *a candidate for the cause* if it does not do so in each of the networks without norm, provided that these do
   not fall; if these fall as well, it must do so in them too. The conclusions, the spread of σ_1 and ``left_right``,
   are reported beside.
7. *Does alignment tell which blocks can go?* The branches of m blocks are cut: those of least mean coupling first, or
   of most; or of least ‖F(h)‖/‖h‖; or of the highest cosine of input and output; or by chance (20 draws); or, as the
   bound, greedily by measured accuracy. All criteria see training images only. The score is the test accuracy, mean
   over m = 1..L/2, paired over seeds. *Yes* for the least, or for the most coupling, if at the end, with 8 blocks and
   batch norm, the intervals of its differences to magnitude, to cosine and to chance are all above 0. In the network
   looked at before, several criteria lose nothing up to L/2; the mean over m = 1..L−1 is reported beside.
8. *The ε of the norm is the cause*, if no network with the small one falls by the rule of 1; *a part of it*, if they
   fall by less than their twins of the same seed, with an interval of the difference above 0.02.
9. *Convolutional networks are a case of it*, if in each of three seeds of chapter 8's post-activation network the mean
   coupling of the first quarter of the blocks has been at 0.3 or more and is lower by 0.1 at the end; they are *none*
   within the training of that chapter (S = 7.2), if it never reached 0.3.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

import resalign_utils as ra
from resalign_utils.models import ResNet
from resalign_utils.runs import CHECKPOINT, Recipe, get_or_make, read_json, write_json

from ._record import Row, made_with, record, rounded, seeded
from ._two_ages_blocks import imbalance, profile, pruned, steps_of, taking_part
from .counterfactuals import BASE, IMAGES, Setting, changed, decay_times, summarised, together

TIMES = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.5, 15.0, 20.0, 25.0, 30.0)
SCORES = ("alignment", "line_shape_score", "step_cv", "rank_drop")
MEASURED = 1  # raise it when what is measured changes

NORM = changed(BASE, train={"epochs": 420, "weight_decay": 3e-2})
KINDS = {
    "batch norm": NORM,
    "no norm": ra.RunConfig(
        "digits",
        ra.ResNetConfig(8, 64, norm=False),
        ra.TrainConfig(epochs=420, lr=0.1, momentum=0.9, weight_decay=1.2e-2),
    ),
}
CONSTANT = changed(NORM, train={"schedule": "constant", "lr": NORM.train.lr / 2})
FAMILIES = KINDS | {"small epsilon": NORM, "constant rate": CONSTANT}
SEEDS = {  # of what was trained: (kind, blocks) → number of seeds
    ("batch norm", 8): 3,
    ("no norm", 8): 3,
    ("small epsilon", 8): 3,
    ("constant rate", 8): 1,
    ("batch norm", 16): 2,
    ("no norm", 16): 1,
    ("batch norm", 4): 3,
}
CONVOLUTIONAL = ra.RunConfig(
    "digits",
    ra.ResNetConfig(8, 16, kind="conv"),
    ra.TrainConfig(epochs=40, lr=0.1, momentum=0.9, weight_decay=3e-2),
)
EPSILONS = {"small epsilon": 1e-10}  # of the batch norms, by the kind of network; 1e-5 in all others
PAPER = replace(
    changed(NORM, model={"width": 256}, train={"epochs": 100}), data=ra.DataConfig("fashion_mnist", per_class=600)
)


def networks() -> list[Setting]:
    """What was trained, the seeds outermost; of what was planned, seeds are missing where time ended."""
    return [
        setting
        for seed in range(max(SEEDS.values()))
        for (kind, depth), count in SEEDS.items()
        if seed < count
        for setting in _at_depth(kind, FAMILIES[kind], depth, seed)
    ]


def _at_depth(kind: str, config: ra.RunConfig, depth: int, seed: int) -> list[Setting]:
    deep = changed(config, model={"depth": depth})
    return seeded(_labels(kind, deep), deep, [seed])


def _labels(kind: str, config: ra.RunConfig) -> Row:
    return {"kind": kind, "blocks": config.model.depth}


def convolutional() -> list[Setting]:
    """Chapter 8's post-activation network, one seed; three were planned."""
    return seeded(_labels("convolutional", CONVOLUTIONAL), CONVOLUTIONAL, [0])


def paper() -> list[Setting]:
    """What a GPU would add: width 256 on Fashion-MNIST, 8 and 16 blocks, three seeds, S = 30."""
    return [
        setting for seed in range(3) for depth in (8, 16) for setting in _at_depth("batch norm", PAPER, depth, seed)
    ]


def epochs_of(config: ra.RunConfig, images: int = IMAGES) -> list[int]:
    """The epochs after which S is nearest to each of TIMES, as far as the training goes, and the last one."""
    passed = decay_times(config, images)
    within = [at for at in TIMES if at <= passed[-1] + 0.01]
    nearest = {min(range(len(passed)), key=lambda epoch: abs(passed[epoch] - at)) for at in within}
    return sorted(nearest | {config.train.epochs})


def followed(labels: Row, config: ra.RunConfig, *, device: str = "cpu") -> Row:
    """The row of one network: trained, or taken from the store, and measured, or taken from there."""
    data = ra.load_data(device=device, **asdict(config.data))
    epochs = epochs_of(config, len(data.train_y))
    epsilon = EPSILONS.get(labels["kind"])
    settings = asdict(config) | {"epochs": epochs} | ({"epsilon": epsilon} if epsilon else {})
    stages, name = ("data", "models", "training"), f"ages-{config.data.name}-{config.model.kind}{config.model.depth}"
    files = ("history.json", *(f"snapshots/epoch-{epoch:06d}.safetensors" for epoch in epochs))
    kept = get_or_make(
        Recipe(name, settings, stages, files), lambda folder: _train(folder, config, data, epochs, epsilon), data=data
    )

    def measure(folder: Path) -> None:
        write_json(folder / "row.json", _row(kept.folder, config, data, epochs, epsilon))

    recipe = Recipe(f"{name}-measured", settings | {"measured": MEASURED}, stages, ("row.json",))
    row: Row = {"config": asdict(config), "seed": config.train.seed, "seconds": kept.provenance["seconds"]}
    row |= read_json(get_or_make(recipe, measure, data=data).folder / "row.json")
    return labels | row | {"provenance": made_with(kept.provenance)}


def _built(config: ra.RunConfig, data: ra.ImageData, epsilon: float | None) -> ResNet:
    model = ra.build_model(config.model, data, seed=config.train.seed)
    for part in model.modules():
        if epsilon and isinstance(part, nn.BatchNorm1d):
            part.eps = epsilon
    return model


def _train(folder: Path, config: ra.RunConfig, data: ra.ImageData, epochs: list[int], epsilon: float | None) -> None:
    model = _built(config, data, epsilon)
    checkpoint = ra.Checkpoint(folder / CHECKPOINT, every=50, snapshots=tuple(epochs))
    write_json(folder / "history.json", asdict(ra.train(model, data, config.train, checkpoint=checkpoint)))


def _row(folder: Path, config: ra.RunConfig, data: ra.ImageData, epochs: list[int], epsilon: float | None) -> Row:
    history = ra.History(**read_json(folder / "history.json"))
    passed = decay_times(config, len(data.train_y))
    row: Row = {"epochs": epochs, "decay_times": [round(passed[epoch], 4) for epoch in epochs]}
    for name in ("train_accuracy", "test_accuracy"):
        row[name] = [round(getattr(history, name)[epoch - 1], 5) if epoch else None for epoch in epochs]
    models = [_at(folder, _built(config, data, epsilon), epoch) for epoch in epochs]
    x, _ = data.sample(3)
    measured = [on_the_way(model, x) for model in models]
    row |= {name: [values[name] for values in measured] for name in measured[0]}
    row["highest"] = max(range(len(epochs)), key=lambda index: row["alignment"][index])
    if config.model.kind == "fc":
        ages = {"top": models[row["highest"]], "end": models[-1]}
        row |= {age: of_age(model, config, data) for age, model in ages.items()}
    return row


def _at(folder: Path, model: ResNet, epoch: int) -> ResNet:
    path = ra.Checkpoint(folder / CHECKPOINT).snapshot_path(epoch)
    model.load_state_dict(load_file(path))
    return model.eval()


def on_the_way(model: ResNet, x: torch.Tensor) -> Row:
    """What is measured at each time, at the test images ``x``; couplings to two decimals."""
    report = ra.measure_alignment(model, x)
    coupling, summary = report.coupling.mean(0).cpu(), summarised(report)
    even, much = taking_part(coupling)
    values: dict[str, Any] = {name: summary[name] for name in SCORES} | {"together": together(coupling)}
    values |= {"taking_part": round(even, 3), "leading_eigenvalue": round(much, 3)}
    values["coupling"] = [[round(value, 2) for value in line] for line in coupling.tolist()]
    values["top_singular_values"] = rounded(report.singular_values[..., 0].mean(0), 3)
    found = steps_of(model, x)
    return values | {name: found[name] for name in ("step_share", "weight_norm", "norm_hold", "cosine", "magnitude")}


def of_age(model: ResNet, config: ra.RunConfig, data: ra.ImageData) -> Row:
    """What is measured at the top and at the end only."""
    x, _ = data.sample(3)
    return (
        profile(model, data, x)
        | imbalance(model, data, config.train.weight_decay)
        | {"pruned": pruned(model, data, config.train.seed)}
    )


def measured(name: str, settings: list[Setting]) -> None:
    """Follow all settings, and write the file anew after each row."""
    rows: list[Row] = []
    file = "two_ages" if name == "networks" else f"two_ages_{name}"
    for labels, config in settings:
        rows.append(followed(labels, config))
        last = rows[-1]
        print(f"{len(rows)}/{len(settings)} {labels} seed {last['seed']} | {last['alignment']}", flush=True)
        record(file, f"python -m experiments.two_ages {name}", copy.deepcopy(rows))


if __name__ == "__main__":
    asked = sys.argv[1:] or ["networks", "convolutional"]
    if asked == ["paper"]:
        for labels, config in paper():
            print(followed(labels, config, device="cuda" if torch.cuda.is_available() else "cpu"), flush=True)
    else:
        for part in asked:
            measured(part, {"networks": networks, "convolutional": convolutional}[part]())
