"""A fair test of variable depth: linear channels against a single layer that validation images choose.

python -m experiments.linearization_layers [digits] [fashion_mnist] [convolutional] [residual]

A trained network is post-trained until its average path length (NAPL) is 1. Channel-wise, the units that stay are
spread over its layers; layer-wise, one layer keeps all of its units. Which one, decides much, so here each layer is
kept in turn, and validation images, which no training sees, choose among them. Test images choose nothing. All
post-trainings start from the same network, take the same epochs and the same way down: a penalty that is steered, from
which the kept layer is left out. Channel-wise there is one network a seed and no choice, so what choosing gains is
layer-wise's alone.

*digits*: chapter 16's fully-connected network of 17 layers of ReLUs, on 1,137 of the training images; 300 choose.
*fashion_mnist*: the same network on 1,000 images; 1,000 others choose. *convolutional*: chapter 16's convolutional
network on the same images, with 2,000 test images; a training is ten times as dear there, so four layers are kept in
turn, 3, 7, 11 and 15, and the one that steering leaves is a fifth candidate; no network of NAPL 0. *residual*: the
fully-connected network with skips on the digits; the layers are those whose units count 1, the stem's and the outer
ones. Each writes ``results/linearization_layers_<part>.json`` after each seed,
the seeds outermost, and goes on where it was.

**Questions**, fixed before the first recorded row. All differences are paired by seed (its own first network, order
and post-trainings); "above 0" means that the 95 % interval over the seeds (Student's t) lies above 0, on test images
if nothing else is said, at NAPL 1. Each part answers for itself.

1. *Variable depth is better*, if channel-wise minus the best validated single layer is above 0; *worse*, if below.
2. *It fits better*, if the same difference on the training images is above 0.
3. *It is better beyond fit*, if the lead on test images minus the lead on training images is above 0 while 1 is a yes;
   *the lead shrinks*, if it is below 0. Else this is open.
4. *It is better than a shallow network*, if channel-wise minus a network of one layer of ReLUs of the same width,
   trained from scratch for all epochs of both trainings, is above 0.
5. *It is better at equal cost*, if channel-wise minus layer-wise with as many layers as channel-wise units stand in is
   above 0 (after folding these have the same matrices, so the same FLOPs), and likewise minus a network of one wide
   layer of ReLUs from scratch, with at least as many parameters and FLOPs as the folded channel-wise one.
6. *It is no matter of training alone*, if the lead in 1 minus channel-wise minus layer-wise at NAPL 0, where both are
   affine, is above 0.
7. *The old test was unfair*, if the best validated layer minus the one that the steering left is above 0.
8. *The recipe does not decide*, if with the paper's recipe, one ω all the way, the answer to 1 is the same:
   channel-wise networks within 0.2 of NAPL 1, the nearest a seed, minus the best validated layer. With fewer than five
   seeds that come so near, nothing is said. Beside it, one ω and a stop at NAPL 1. (Fashion-MNIST, five seeds; the
   values of ω enclose the fall of NAPL of a pilot, from 17 at ω = 100 to 0 at 113.)

The control of 1 is 6; that of the choice is the best layer by *test* images, which favours layer-wise without a right
to: if 1 holds against it too, no better way of choosing can change the answer.

**Recorded so far**: six seeds of *digits* and five of *fashion_mnist*, of the ten that were planned; the runs were
stopped when the time on a shared machine ended, not by what they showed. The answers were read once, with five and four
seeds, before the others were added until a set time: question 4 on the digits was not shown then. No row yet of
*convolutional*, of *residual* and of question 8. All seeds share one set of images, so the intervals cover
initialisation and order alone.

**What was changed after rows were there**, questions 1 to 7 not: Fashion-MNIST was to have 4,000 training images and
has 1,000; *convolutional* was to have 2,000 validation images, all test images, and all layers in turn. Both were cut
after a pilot on seed 90, when seeds 0 to 2 of *digits* were measured (0 to 3, when the layers became four) and none of
Fashion-MNIST. Question 8 was to be asked of the digits with all their seeds; when seeds 0 to 3 of *digits* and 0 of
*fashion_mnist* were measured, it was moved to Fashion-MNIST, cut to five seeds, and given other values of ω after a
pilot.

**Cost** of processor time: digits and fashion_mnist about ten minutes for ten seeds each, residual five, convolutional
four minutes a seed. What a GPU would add: ``python -m experiments.linearization_layers cifar10 --device cuda
--download``, a plain convolutional network of 32 channels on all of CIFAR-10 and all 17 layers in turn; about three
hours for ten seeds at 6 ms a step (an estimate).
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import resalign_utils as ra
from resalign_utils.linearization import Granularity
from resalign_utils.linearization._paths import slope_weights
from resalign_utils.runs import CHECKPOINT

from ._record import Row, record, rounded
from .running_cost import feed_forward, flops, kept

SEEDS = tuple(range(10))
SWEPT = 5  # seeds of the paper's recipe
NAPL = 1.0
WATCHED = 100  # validation images that are classified after each epoch; what is reported is of all of them

FC = ra.ResNetConfig(8, 64, skip=False)
CONV = ra.ResNetConfig(8, 16, kind="conv", skip=False)
LONG = ra.TrainConfig(epochs=60, lr=0.4)  # chapter 16's recipes for the fully-connected network
MORE = ra.TrainConfig(20, lr=0.02, momentum=0.9, weight_decay=5e-4)
SHORT = ra.TrainConfig(epochs=20, lr=0.1, momentum=0.9, weight_decay=5e-4)  # and for the convolutional one
FINE = ra.TrainConfig(epochs=8, lr=0.05, momentum=0.9, weight_decay=5e-4, batch_size=32)


@dataclass(frozen=True)
class Part:
    """One kind of network on one data set.

    Attributes:
        base: the first network; its ``per_class`` counts the held-out images too.
        held_out: validation images of each class.
        post: recipe of the post-training.
        omega: ω from which steering starts.
        layers: which are kept in turn, counted from 1, and the steered network is a candidate too; None: all whose
            units count 1.
        sweep: the paper's recipe, values of one ω all the way.
        stopped: one ω and a stop at NAPL 1.
        affine: whether both ways are taken to NAPL 0.
        direct: whether networks of fully-connected layers are trained from scratch.
        tested: so many test images count; None: all.
    """

    base: ra.RunConfig
    held_out: int
    post: ra.TrainConfig
    omega: dict[Granularity, float]
    layers: tuple[int, ...] | None = None
    sweep: dict[Granularity, tuple[float, ...]] = field(default_factory=dict)
    stopped: dict[Granularity, float] = field(default_factory=dict)
    affine: bool = True
    direct: bool = True
    tested: int | None = None
    seeds: tuple[int, ...] = SEEDS


OMEGA: dict[Granularity, float] = {"channel": 30.0, "layer": 1.0}

PARTS = {
    "digits": Part(ra.RunConfig("digits", FC, LONG), 30, MORE, OMEGA),
    "fashion_mnist": Part(
        ra.RunConfig(ra.DataConfig("fashion_mnist", per_class=200), FC, LONG), 100, MORE, OMEGA,
        sweep={"channel": (103.0, 104.0, 105.0, 106.0, 107.0, 108.0), "layer": (3.5, 4.0, 4.5, 5.0)},
        stopped={"channel": 120.0, "layer": 5.0},
    ),
    "convolutional": Part(
        ra.RunConfig(ra.DataConfig("fashion_mnist", per_class=200), CONV, SHORT),
        100,
        FINE,
        {"channel": 10.0, "layer": 10.0},
        layers=(3, 7, 11, 15),
        affine=False,
        direct=False,
        tested=2000,
        seeds=SEEDS[:5],
    ),
    "residual": Part(ra.RunConfig("digits", replace(FC, skip=True), LONG), 30, MORE, OMEGA, direct=False),
    "cifar10": Part(
        ra.RunConfig(
            "cifar10", replace(CONV, width=32), ra.TrainConfig(epochs=60, lr=0.1, momentum=0.9, weight_decay=5e-4)
        ),
        500,
        ra.TrainConfig(epochs=20, lr=0.05, momentum=0.9, weight_decay=5e-4),
        {"channel": 10.0, "layer": 10.0},
        direct=False,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Images:
    """What is trained on, what chooses, and what only counts at the end; ``data`` has validation images as its test."""

    data: ra.ImageData
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Way:
    """How a network comes to its length: by which units, to which NAPL, which layer is kept, at which constant ω."""

    name: str
    granularity: Granularity
    target: float | None
    layer: int | None = None
    omega: float | None = None

    @property
    def labels(self) -> Row:
        """What tells it from the others of its seed."""
        return {"way": self.name, "target": self.target, "layer": self.layer, "omega": self.omega}

    def config(self, part: Part, seed: int) -> ra.LinearizationConfig:
        """Penalty and recipe."""
        recipe = replace(part.post, seed=seed)
        if self.omega is not None:
            return ra.LinearizationConfig(self.omega, target=self.target, train=recipe)
        return ra.LinearizationConfig(part.omega[self.granularity], ramp="steered", target=self.target, train=recipe)


def images(part: Part, *, device: str = "cpu", download: bool = False) -> Images:
    """Hold out the last images of each class, in the order of the files; the same for all seeds."""
    whole = ra.load_data(**asdict(part.base.data), device=device, download=download)
    out = torch.zeros(len(whole.train_y), dtype=torch.bool, device=whole.train_y.device)
    for label in range(whole.num_classes):
        mine = (whole.train_y == label).nonzero().flatten()
        if len(mine) <= part.held_out:
            raise ValueError(f"Expected more than {part.held_out} images of class {label}; got {len(mine)}.")
        out[mine[-part.held_out :]] = True
    x, y = whole.train_x[out], whole.train_y[out]
    few = torch.arange(0, len(y), max(1, len(y) // WATCHED), device=y.device)
    data = replace(whole, train_x=whole.train_x[~out], train_y=whole.train_y[~out], test_x=x[few], test_y=y[few])
    return Images(data, (x, y), (whole.test_x[: part.tested], whole.test_y[: part.tested]))


def first(part: Part, seed: int, given: Images) -> tuple[nn.Module, Row]:
    """The network that all post-trainings of a seed start from, and its provenance."""
    config = part.base.with_seed(seed)
    model = ra.build_model(config.model, given.data, seed=seed)
    decides = {"base": asdict(config), "held_out": part.held_out}
    work = partial(_train, model, given.data, config.train)
    return model, kept("variable-depth-first", decides, model, given.data, work)


def _train(model: nn.Module, data: ra.ImageData, config: ra.TrainConfig, folder: Path) -> None:
    ra.train(model, data, config, checkpoint=ra.Checkpoint(folder / CHECKPOINT))


def layers_of(model: nn.Module, x: Tensor) -> dict[int, str]:
    """Number, from 1, and name of the layers of slopes that every path passes."""
    weights = slope_weights(model, x[:1])
    return {number: name for number, (name, w) in enumerate(weights.items(), 1) if abs(float(w.sum()) - 1) < 1e-9}


def shortened(part: Part, seed: int, given: Images, start: nn.Module, way: Way) -> tuple[nn.Module, Row]:
    """A post-trained copy of the first network, and its provenance."""
    model = ra.linearize(start, way.granularity, x=given.data.train_x[:2])
    config = way.config(part, seed)
    keep = () if way.layer is None else (layers_of(model, given.data.train_x)[way.layer],)
    decides = {"base": asdict(part.base.with_seed(seed)), "held_out": part.held_out, "granularity": way.granularity}
    decides |= {"linearization": asdict(config), "keep": list(keep)}

    def work(folder: Path) -> None:
        ra.post_train(model, given.data, config, keep=keep, checkpoint=ra.Checkpoint(folder / CHECKPOINT, every=4))

    return model, kept("variable-depth", decides, model, given.data, work)


def scratch(part: Part, seed: int, given: Images, width: int) -> tuple[nn.Module, Row]:
    """A network of one layer of ReLUs, by the first network's recipe, for all epochs of both trainings."""
    data = given.data
    model = feed_forward([data.train_x[0].numel(), width], data.num_classes, seed)
    model = model.to(data.train_x.device)
    config = replace(part.base.train, epochs=part.base.train.epochs + part.post.epochs, seed=seed)
    decides = {"scratch": width, "train": asdict(config), "held_out": part.held_out, "data": asdict(part.base.data)}
    return model, kept("variable-depth-scratch", decides, model, data, partial(_train, model, data, config))


def width_of(parameters: int, cost: int, data: ra.ImageData) -> int:
    """Units of one layer of ReLUs with at least so many parameters and FLOPs."""
    inputs, outputs = data.train_x[0].numel(), data.num_classes
    return max(math.ceil((parameters - outputs) / (inputs + 1 + outputs)), math.ceil(cost / 2 / (inputs + outputs)))


@torch.no_grad()
def measured(model: nn.Module, given: Images) -> Row:
    """Accuracies on the three kinds of images, the units that are left, and what the folded network costs."""
    model.eval()
    x, y = given.validation
    logits = torch.cat([model(some) for some in x.split(500)])
    folded = ra.fold(model, given.data.train_x[:2])
    prelus = [module.weight for module in model.modules() if isinstance(module, nn.PReLU)]
    return {
        "napl": round(ra.average_path_length(model, given.data.train_x[:1]), 6),
        "train_accuracy": round(ra.accuracy(model, given.data.train_x, given.data.train_y), 5),
        "validation_accuracy": round(float((logits.argmax(1) == y).double().mean()), 5),
        "validation_loss": rounded(F.cross_entropy(logits, y)),
        "accuracy": round(ra.accuracy(model, *given.test), 5),
        "surviving": [round(float((slopes != 1).double().mean()), 5) for slopes in prelus],
        "folded_flops": flops(folded, given.data.train_x),
        "folded_parameters": sum(parameter.numel() for parameter in folded.parameters()),
    }


def row_of(part: Part, seed: int, given: Images, labels: Row, made: tuple[nn.Module, Row]) -> Row:
    """What is recorded of a network."""
    common = {"seed": seed, "config": asdict(part.base.with_seed(seed)), "held_out": part.held_out}
    return labels | common | measured(made[0], given) | {"provenance": made[1]}


def post_row(part: Part, seed: int, given: Images, start: nn.Module, way: Way) -> Row:
    """What is recorded of a post-trained copy."""
    labels = way.labels | {"linearization": asdict(way.config(part, seed))}
    return row_of(part, seed, given, labels, shortened(part, seed, given, start, way))


def compared(part: Part, seed: int, given: Images) -> Iterator[Row]:
    """Rows of one seed, the most telling first."""
    untouched = first(part, seed, given)
    start = untouched[0].eval()
    row, post = partial(row_of, part, seed, given), partial(post_row, part, seed, given, start)
    yield row({"way": "untouched"}, untouched)
    yield (spread := post(Way("channel", "channel", NAPL)))
    steered = post(Way("layer", "layer", NAPL))
    every = layers_of(ra.linearize(start, "layer", x=given.data.train_x[:2]), given.data.train_x)
    turns = [post(Way("kept", "layer", NAPL, layer)) for layer in part.layers or every]
    turns = [steered, *turns] if part.layers else turns
    chosen = max(turns, key=lambda turn: (turn["validation_accuracy"], -turn["validation_loss"]))
    yield from (turn | {"chosen": turn is chosen} for turn in turns)
    if not part.layers:
        yield steered
    if part.affine:
        yield post(Way("channel", "channel", 0.0))
        yield post(Way("layer", "layer", 0.0))
    if part.direct:
        yield row({"way": "scratch", "width": part.base.model.width}, scratch(part, seed, given, part.base.model.width))
        occupied = sum(share > 0 for share in spread["surviving"])
        yield post(Way("layer at equal cost", "layer", float(occupied)))
        width = width_of(spread["folded_parameters"], spread["folded_flops"], given.data)
        yield row({"way": "wide", "width": width}, scratch(part, seed, given, width))


def other_recipes(part: Part, seed: int, given: Images) -> Iterator[Row]:
    """Rows of one seed with one ω all the way, without a stop and with it."""
    start = first(part, seed, given)[0].eval()
    for granularity, omegas in part.sweep.items():
        for omega in omegas:
            yield post_row(part, seed, given, start, Way(f"{granularity}, constant", granularity, None, omega=omega))
    for granularity, omega in part.stopped.items():
        yield post_row(part, seed, given, start, Way(f"{granularity}, stopped", granularity, NAPL, omega=omega))


def measure_part(name: str, seeds: Sequence[int] | None = None, **where: Any) -> list[Row]:
    """Measure one part, and write what there is after each seed."""
    part = PARTS[name]
    given, rows, start = images(part, **where), list[Row](), time.process_time()
    asked = part.seeds if seeds is None else seeds
    for measure, several in ((compared, asked), (other_recipes, asked[:SWEPT] if part.sweep else ())):
        for seed in several:
            for row in measure(part, seed, given):
                rows.append(row)
                told = {key: row[key] for key in ("way", "target", "layer", "omega") if row.get(key) is not None}
                scores = [row[key] for key in ("napl", "train_accuracy", "validation_accuracy", "accuracy")]
                print(f"{name} {time.process_time() - start:.0f} s | seed {seed} {told} | {scores}", flush=True)
            record(f"linearization_layers_{name}", f"python -m experiments.linearization_layers {name}", deepcopy(rows))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; all but cifar10 if none")
    parser.add_argument("--seeds", type=int, help="so many, from 0 on; as the part has them if not given")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--download", action="store_true", help="let torchvision fetch missing images")
    asked = parser.parse_args()
    for chosen in asked.parts or [name for name in PARTS if name != "cifar10"]:
        wanted = None if asked.seeds is None else tuple(range(asked.seeds))
        measure_part(chosen, wanted, device=asked.device, download=asked.download)
