"""Which regularisers bring alignment, which take it, at equal training loss? For chapter 19.

python -m experiments.regularizers networks           two bases, every regulariser alone, five seeds
python -m experiments.regularizers convolutional      one base of small convolutional networks, five seeds
python -m experiments.regularizers ladder             the fully-connected base at other weight decays, five seeds
python -m experiments.regularizers --scale paper      all on all of Fashion-MNIST, wider and deeper; wants a GPU

write ``results/regularizers.json``, ``..._convolutional.json`` and ``..._ladder.json``; at another scale its name is
part of the file's. Each training is kept with what was measured on the way, so that an interrupted command goes on
where it was, and the file is written after each seed. RESALIGN_SEEDS (0-4) says which: "0" for a first look, "90" for a
trial. Without a name all three run: about 20, 12 and 3 minutes of one CPU core, of which a network takes 10 to 25
seconds (the recorded ones took 50 to 131 each on a loaded machine). What a GPU would add is ``--scale paper``: 16
blocks of 256 units, or of 64 channels, 60,000 images, bases of the same decay times, and convolutional networks at two
bases and with two kinds of norm besides; by the number of steps, 23,450 a network, about 3 minutes a network and 9
hours in all on one card. That estimate was not tested; ``--scale tiny`` runs the same code in seconds.

QUESTIONS, WRITTEN BEFORE THE ROWS

A base is a network without any of these regularisers at one decay time S: below the threshold of chapter 9 (S = 0.96)
and above it (S = 4.8), in 100 epochs: half those of chapter 9 at twice the weight decay, for time, and so at the same
S. To each base one regulariser is added, and nothing else changes: the same seeds, steps, learning rate and weight
decay. All are measured at five test images of each class.

- *Equal epochs*: alignment at the end, the regularised network less its base, paired by seed.
- *Equal loss*: the training loss is the plain cross-entropy on the training images in eval mode, whatever was
  minimised. Of the two networks of a pair the one that ends at the lower loss is taken where its course last passed the
  loss at which the other ends, with alignment interpolated linearly in the logarithm of the loss
  (:func:`at_equal_loss`). The *last* pass, since losses jump while the learning rate is high, and since at the first
  one hardly anything has been trained; the first is recorded, too. Where a course never passes that loss, the pair has
  no value.
- A regulariser **brings** alignment to a base if both differences have an interval above +0.05, **takes** it if both
  have one below −0.05; else no difference is shown. If only one of the two says so, that is said.
- Intervals are of Student's t over the five seeds, and simultaneous for all comparisons of one file by Bonferroni's
  correction: each at 1 − 0.05/m, m the number of regularisers times the number of bases (early stopping included). No
  correction is needed for asking two things of each, since both must hold.
- *Control*: the untrained twin of every kind of network; its alignment must be within 0.03 of zero.

Early stopping has no network of its own: it is the base's course, looked at where it is measured, and ended at the
first point with a training accuracy of 1, or at the point with the highest accuracy on a validation part (the test
images that are not measured), the first one of equals. At equal loss it is the base by construction, so only the
comparison with the base's end is made, and it can "take" by that alone.

*Ladder*: a course passes a high loss while the learning rate is high and nothing has settled. So beside the two
comparisons it is told by how much a regularised network differs from what weight decay alone, to the end of its
schedule, gives at the same final loss, interpolated alike between the bases and the ladder of that seed, where these
have the loss. This decides nothing.

Convolutional networks take four times as long and are measured at two images of each class. They are asked at one base
only (S = 1.8, that of chapter 9, in half its epochs), and without other norms, for this base has none. A lower base
was left out for time.

*What was run*: of the plan, the upper base with all its regularisers, five seeds. The lower base, the ladder and the
convolutional networks were not, for want of time; the intervals keep the m of both bases, 22. With 11 no verdict
changes. "No difference is shown" means none beyond 0.05 in both comparisons: smaller ones are shown. Six of the nine
end at a higher loss than the base, which is then read earlier, and this raises each of these differences: for them
equal loss is a weak control of "brings". Chapter 19 says what chapter 10's rows tell of the lower base. The order of
the bases was changed before the first row, so that the upper one would be whole.

Known before: chapter 10 has, in 200 epochs and three seeds, no norm (alignment 0.94 against 0.63) and stochastic depth
(0.69) at the S of the upper base; these two are not new. Seed 90, which is not among the rows, was a trial of whether
everything trains, at the upper base; that its losses jump is why the last pass is taken.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import resalign_utils as ra
from resalign_utils.runs import CHECKPOINT, Recipe, get_or_make, read_json, write_json
from resalign_utils.training import Objective

from ._record import Row, made_with, record, rounded
from .counterfactuals import SCORES, changed, decay_times

BELOW, ABOVE = 0.96, 4.8  # decay times of the two bases
LADDER = 1.5, 2.4, 9.6
EARLY = ("early stopping, fitted", "early stopping, validated")


@dataclass(frozen=True)
class Smoothed:
    """Cross-entropy with smoothed labels (Szegedy et al. 2016, section 7)."""

    amount: float

    @property
    def recipe(self) -> Row:
        """Name and amount."""
        return {"name": "label smoothing"} | asdict(self)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The loss of a batch."""
        return F.cross_entropy(model(x), y, label_smoothing=self.amount)


@dataclass(frozen=True)
class Mixed:
    """Mixup: images and labels of a batch mixed with those of a permuted one, λ from Beta(α, α) (Zhang et al. 2018)."""

    alpha: float

    @property
    def recipe(self) -> Row:
        """Name and α."""
        return {"name": "mixup"} | asdict(self)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The loss of a batch."""
        share = float(torch.distributions.Beta(self.alpha, self.alpha).sample())
        other = torch.randperm(len(y)).to(y.device)
        logits = model(share * x + (1 - share) * x[other])
        return share * F.cross_entropy(logits, y) + (1 - share) * F.cross_entropy(logits, y[other])


@dataclass(frozen=True)
class Shifted:
    """Every image shifted by up to so many pixels each way, drawn uniformly; what comes in is background."""

    pixels: int

    @property
    def recipe(self) -> Row:
        """Name and pixels."""
        return {"name": "shifts"} | asdict(self)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The loss of a batch."""
        return F.cross_entropy(model(shifted(x, torch.randint(2 * self.pixels + 1, (2, len(x))), self.pixels)), y)


def shifted(x: Tensor, offsets: Tensor, pixels: int) -> Tensor:
    """Crops of the padded images (b, c, h, w) at ``offsets`` (2, b) in 0..2·pixels; ``pixels`` leaves an image as is.

    The padding is the smallest value of the batch, which in images of digits and clothes is the background.
    """
    padded = F.pad(x, (pixels,) * 4, value=float(x.min()))
    down, right = offsets.to(x.device)
    rows = down[:, None] + torch.arange(x.shape[2], device=x.device)  # (b, h)
    columns = right[:, None] + torch.arange(x.shape[3], device=x.device)  # (b, w)
    images = torch.arange(len(x), device=x.device)[:, None, None]
    return padded[images, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def with_dropout(model: ra.ResNet, share: float = 0.2) -> None:
    """Dropout before the last layer of each branch, where wide residual networks have it (Zagoruyko & Komodakis)."""
    for block in model.blocks:
        layers = [*block.get_submodule("branch").children()]
        last = max(place for place, layer in enumerate(layers) if isinstance(layer, nn.Linear | nn.Conv2d))
        block.branch = nn.Sequential(*layers[:last], nn.Dropout(share), *layers[last:])


def with_group_norm(model: ra.ResNet, size: int | None = None) -> None:
    """Norm over groups of ``size`` features or channels in place of each batch norm; over all it is layer norm."""
    for parent in [*model.modules()]:
        for name, child in [*parent.named_children()]:
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                features = child.num_features
                norm = nn.GroupNorm(features // (size or features), features)
                setattr(parent, name, norm.to(child.weight.device))


def with_weight_norm(model: ra.ResNet) -> None:
    """Each layer of stem and branches as length times direction, row by row (Salimans & Kingma 2016)."""
    for part in (model.stem, model.blocks):
        for layer in part.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                weight_norm(layer)


LAYERS: dict[str, Callable[[ra.ResNet], None]] = {
    "dropout": with_dropout,
    "layer norm": with_group_norm,
    "group norm": partial(with_group_norm, size=8),
    "weight norm": with_weight_norm,
}


@dataclass(frozen=True)
class Regularised:
    """One change of a base: of its architecture, of its layers (a name of LAYERS), or of the loss of its batches."""

    model: Row = field(default_factory=dict)
    layers: str | None = None
    objective: Objective | None = None


PLAIN = Regularised()
COMMON = {
    "dropout": Regularised(layers="dropout"),
    "label smoothing": Regularised(objective=Smoothed(0.1)),
    "mixup": Regularised(objective=Mixed(0.2)),
    "shifted images": Regularised(objective=Shifted(1)),
    "stochastic depth": Regularised({"stochastic_depth": 0.5}),
}
NORMS = {
    "layer norm": Regularised(layers="layer norm"),
    "group norm": Regularised(layers="group norm"),
    "weight norm": Regularised({"norm": False}, layers="weight norm"),
    "no norm": Regularised({"norm": False}),
}
CONVOLUTIONAL_NORMS = {
    "batch norm": Regularised({"norm": True}),
    "group norm": Regularised({"norm": True}, layers="group norm"),
}


@dataclass(frozen=True)
class Setting:
    """One network: base and regulariser by name, what is changed, and its run."""

    base: str
    name: str
    change: Regularised
    config: ra.RunConfig

    @property
    def labels(self) -> Row:
        """What a row is called."""
        return {"base": self.base, "regularizer": self.name}


@dataclass(frozen=True)
class Part:
    """What one file holds: a run, the decay times of its bases, and the regularisers of each."""

    run: ra.RunConfig
    images: int  # of the training set
    regularisers: dict[str, Regularised]
    bases: dict[str, float]
    per_class: int = 5  # test images that are measured
    every: tuple[int, int] = (8, 20)  # epochs between two measurements, of a base and of the others

    def decaying(self, time: float, seed: int) -> ra.RunConfig:
        """The run with the weight decay that gives it this decay time."""
        unit = decay_times(changed(self.run, train={"weight_decay": 1.0}), self.images)[-1]
        return changed(self.run, train={"weight_decay": float(f"{time / unit:.3g}"), "seed": seed})

    def epochs(self, setting: Setting) -> list[int]:
        """After which epochs this network is measured: a base, in which losses are looked up, more often."""
        last, every = setting.config.train.epochs, self.every[setting.name != "none"]
        return sorted({*range(0, last, every), last})

    def settings(self, seed: int) -> Iterator[Setting]:
        """The networks of one seed: of each base itself and every regulariser."""
        for base, decay_time in self.bases.items():
            config = self.decaying(decay_time, seed)
            for name, change in {"none": PLAIN, **self.regularisers}.items():
                yield Setting(base, name, change, changed(config, model=change.model))


TWO = {"above": ABOVE, "below": BELOW}
FULLY_CONNECTED = ra.RunConfig("digits", ra.ResNetConfig(8, 64), ra.TrainConfig(epochs=100, lr=0.4))
CONVOLUTIONAL = ra.RunConfig(
    "digits",
    ra.ResNetConfig(8, 16, kind="conv", activation="pre", norm=False, init="looks_linear"),
    ra.TrainConfig(epochs=30, lr=0.1, momentum=0.9),
)
DIGITS = 1437
LARGE = ra.TrainConfig(epochs=50, lr=0.4)


def parts(scale: str) -> dict[str, Part]:
    """The parts of the experiment; "tiny" shows in seconds that the program runs."""
    fully = Part(FULLY_CONNECTED, DIGITS, COMMON | NORMS, TWO)
    convolutional = Part(CONVOLUTIONAL, DIGITS, COMMON, {"above": 1.8}, per_class=2, every=(3, 10))
    if scale == "paper":
        data, images = ra.DataConfig("fashion_mnist"), 60_000
        fully = replace(fully, run=ra.RunConfig(data, ra.ResNetConfig(16, 256), LARGE), images=images, every=(2, 4))
        model = replace(CONVOLUTIONAL.model, depth=16, width=64)
        train = replace(CONVOLUTIONAL.train, epochs=50)
        more = COMMON | CONVOLUTIONAL_NORMS
        run = ra.RunConfig(data, model, train)
        convolutional = replace(convolutional, run=run, images=images, regularisers=more, bases=TWO)
    if scale == "tiny":
        data, images = ra.DataConfig("digits", per_class=12), 120
        fully = replace(fully, run=replace(of_size(FULLY_CONNECTED, 2, 16), data=data), images=images, every=(1, 1))
        run = replace(of_size(CONVOLUTIONAL, 2, 16), data=data)
        convolutional = replace(convolutional, run=run, images=images, regularisers=COMMON | CONVOLUTIONAL_NORMS)
    ladder = replace(fully, regularisers={}, bases={f"S = {rung:g}": rung for rung in LADDER})
    return {"networks": fully, "convolutional": convolutional, "ladder": ladder}


def of_size(run: ra.RunConfig, blocks: int, width: int, epochs: int = 2) -> ra.RunConfig:
    """The run at another depth, width and length."""
    return changed(run, model={"depth": blocks, "width": width}, train={"epochs": epochs})


def built(setting: Setting, data: ra.ImageData) -> ra.ResNet:
    """The network with its initial weights and its regulariser."""
    model = ra.build_model(setting.config.model, data, seed=setting.config.train.seed)
    if setting.change.layers is not None:
        LAYERS[setting.change.layers](model)
    return model


def measured(model: nn.Module, data: ra.ImageData, per_class: int) -> Row:
    """Loss and accuracies, and the scores at so many test images of each class."""
    x, _ = data.sample(per_class)
    rest = held_out(data, per_class)
    summary = ra.measure_alignment(model, x).summary()
    row = {name: rounded(torch.tensor(summary[name]), 4) for name in SCORES}
    row["train_loss"] = rounded(F.cross_entropy(model(data.train_x), data.train_y), 4)
    for name, images, labels in (
        ("train_accuracy", data.train_x, data.train_y),
        ("test_accuracy", data.test_x, data.test_y),
        ("validation_accuracy", data.test_x[rest], data.test_y[rest]),
    ):
        row[name] = round(ra.accuracy(model, images, labels), 5)
    return row


def held_out(data: ra.ImageData, per_class: int) -> Tensor:
    """The test images (n,) that are not measured, as a mask."""
    mask = torch.ones_like(data.test_y, dtype=torch.bool)
    for label in range(data.num_classes):
        mask[(data.test_y == label).nonzero().flatten()[:per_class]] = False
    return mask


def row_of(part: Part, setting: Setting, device: str = "cpu") -> Row:
    """Train, measure on the way and at the end; kept, and an interrupted training goes on from its last checkpoint."""
    config, change = setting.config, setting.change
    data = ra.load_data(**asdict(config.data), device=device)
    objective = None if change.objective is None else change.objective.recipe
    epochs = part.epochs(setting)
    recipe = Recipe(
        name=f"regularised-{config.data.name}-{config.model.kind}{config.model.depth}",
        config=asdict(config)
        | {"layers": change.layers, "objective": objective, "epochs": epochs, "per_class": part.per_class},
        stages=("data", "models", "training"),
        files=("history.json",),
    )

    def make(folder: Path) -> None:
        model = built(setting, data)
        monitor = ra.Monitor("course", partial(measured, per_class=part.per_class), epochs=tuple(epochs))
        kept = ra.Checkpoint(folder / CHECKPOINT, every=50)
        history = ra.train(model, data, config.train, monitors=[monitor], checkpoint=kept, objective=change.objective)
        write_json(folder / "history.json", asdict(history))

    kept = get_or_make(recipe, make, data=data)
    history = ra.History(**read_json(kept.folder / "history.json"))
    return labelled(part, setting, [value for _, value in history.monitors["course"]], epochs, objective) | {
        "terminal_from": next((epoch for epoch, done in enumerate(history.terminal, 1) if done), None),
        "seconds": kept.provenance["seconds"],
        "provenance": made_with(kept.provenance),
    }


def labelled(part: Part, setting: Setting, course: list[Row], epochs: list[int], objective: Row | None) -> Row:
    """A row: its names, its configuration, the scores at the end and untrained, and the course, column by column."""
    config, change = setting.config, setting.change
    passed = decay_times(config, part.images)
    untrained = {name: course[0][name] for name in ("alignment", "line_shape_score", "rank_drop")}
    columns: Row = {"epochs": epochs, "decay_times": [round(passed[epoch], 4) for epoch in epochs]}
    columns |= {name: [each[name] for each in course] for name in course[0]}
    row: Row = setting.labels | {"config": asdict(config), "layers": change.layers, "objective": objective}
    row |= {"seed": config.train.seed, "inputs": part.per_class * 10, "decay_time": columns["decay_times"][-1]}
    return row | course[-1] | {"untrained": untrained, "course": columns}


def stopped(base: Row) -> list[Row]:
    """The two early stoppings of a base, rows of scores at the epoch where each ends, without a course of their own."""
    course = base["course"]
    fitted = next((place for place, value in enumerate(course["train_accuracy"]) if value == 1.0), -1)
    best = course["validation_accuracy"].index(max(course["validation_accuracy"]))
    rows = []
    for name, place in zip(EARLY, (fitted, best), strict=True):
        row = {key: value for key, value in base.items() if key not in ("course", "equal_loss")}
        row |= {key: values[place] for key, values in course.items() if key in base}
        stop = {"epoch": course["epochs"][place], "decay_time": course["decay_times"][place]}
        rows.append(row | {"regularizer": name} | stop)
    return rows


def at_loss(course: Row, loss: float, *, first: bool = False) -> float | None:
    """Alignment where the course last (or first) passed this training loss, linear in its logarithm; None: never."""
    losses, alignments = course["train_loss"], course["alignment"]
    places = range(len(losses) - 1)
    for place in places if first else reversed(places):
        before, after = losses[place], losses[place + 1]
        if min(before, after) <= loss <= max(before, after):
            way = 1.0 if before == after else math.log(loss / before) / math.log(after / before)
            return float(alignments[place] + way * (alignments[place + 1] - alignments[place]))
    return None


def at_equal_loss(row: Row, base: Row) -> Row:
    """Loss at which a network and its base are compared, the higher of both final ones, and each one's alignment."""
    loss = max(row["train_loss"], base["train_loss"])
    sides = {"regularised": at_loss(row["course"], loss), "base": at_loss(base["course"], loss)}
    lower = base if row["train_loss"] > base["train_loss"] else row
    sides["first_pass"] = at_loss(lower["course"], loss, first=True)  # of the one that was taken on its way
    return {"loss": loss} | {name: None if a is None else round(a, 5) for name, a in sides.items()}


def of_base(part: Part, base: str, seed: int, device: str = "cpu") -> Iterator[Row]:
    """All rows of one base and seed: the base, its early stoppings, and each regulariser."""
    first, *others = (setting for setting in part.settings(seed) if setting.base == base)
    yield (plain := row_of(part, first, device))
    if others:
        yield from stopped(plain)
    for setting in others:
        row = row_of(part, setting, device)
        yield row | {"equal_loss": at_equal_loss(row, plain)}


def run(name: str, scale: str, seeds: Sequence[int]) -> None:
    """Train and measure one part, base after base and of each seed after seed, and write its file after each seed."""
    part, device = parts(scale)[name], "cuda" if torch.cuda.is_available() else "cpu"
    start, rows = time.perf_counter(), []
    apart = (name if name != "networks" else "", scale if scale != "small" else "")
    written = "_".join(["regularizers", *filter(None, apart)])
    for base, seed in product(part.bases, seeds):
        for row in of_base(part, base, seed, device):
            rows.append(row)
            told = f"{row['base']}, {row['regularizer']}, seed {seed}"
            numbers = f"{row['train_loss']:.2g} {row['train_accuracy']:.3f} {row['test_accuracy']:.3f}"
            passed = time.perf_counter() - start
            print(f"{passed:.0f} s | {told} | {numbers} | {row['alignment']:.3f} | {row['seconds']} s", flush=True)
        command = f"python -m experiments.regularizers {name}" + ("" if scale == "small" else f" --scale {scale}")
        record(written, command, [copy.deepcopy(row) for row in rows])  # it changes them


def seeds_of(text: str) -> list[int]:
    """ "0-4" as 0, 1, 2, 3, 4; "90" as itself."""
    first, _, last = text.partition("-")
    return [*range(int(first), int(last or first) + 1)]


def asked(arguments: Sequence[str] | None = None) -> Any:
    """What the command line asks for."""
    known = [*parts("small")]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", default=known, help=f"of {', '.join(known)}; all")
    parser.add_argument("--scale", choices=("tiny", "small", "paper"), default="small")
    found = parser.parse_args(arguments)
    if unknown := set(found.parts) - set(known):
        parser.error(f"expected parts of {', '.join(known)}; got {', '.join(sorted(unknown))}")
    return found


if __name__ == "__main__":
    wanted = asked()
    for chosen in wanted.parts:
        run(chosen, wanted.scale, seeds_of(os.environ.get("RESALIGN_SEEDS", "0-4")))
