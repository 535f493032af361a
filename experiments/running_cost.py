"""What a network whose units were made linear costs to run: single channels against whole layers.

python -m experiments.running_cost

Two questions, fixed before the first row was measured:

1. Chapter 16 makes a trained network partly linear, channel by channel or layer by layer, and folds what is linear.
   What do both cost after folding at the same average path length, and how do their test accuracies compare there
   (differences paired by seed)? And at equal accuracy: what is the least cost at which the mean accuracy over the seeds
   is within one point of the untouched networks'?
2. Is the folded layer-wise network better than a network of its shape that was trained directly, for as many epochs in
   all?

*Digits*: chapter 16's fully-connected network of 17 layers of ReLUs, five seeds, post-trained to each of the targets.
*Convolutional*: the networks whose accuracies ``results/linearization_plain.json`` holds. What they cost depends on
which units are linear and not on the weights, so it is counted on networks with the recorded units made linear.

Cost is counted in FLOPs of one image (two for each multiplication with an addition, of matrices and convolutions, by
``torch.utils.flop_counter``), in parameters, and timed: milliseconds for a batch, medians, all networks in turn, on one
thread. Trained networks are kept as every run is, so that a second command only counts and times again.
Writes ``results/running_cost.json``.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import resalign_utils as ra
from benchmarks.timing import seconds_of, threads
from resalign_utils.linearization import Granularity
from resalign_utils.runs import CHECKPOINT, RECIPE_VERSIONS, Recipe, get_or_make, provenance_of_now
from resalign_utils.training import write_weights

from ._record import Row, made_with, record

SEEDS = (0, 1, 2, 3, 4)
TARGETS = (0.0, 1.0, 2.0, 4.0, 8.0)
RECORDED = (1.0, 2.0, 4.0)  # targets of the convolutional networks
WIDTH, EPOCHS, MORE = 64, 60, 20
ROUNDS, CALLS = 9, 5
OMEGA: dict[Granularity, float] = {"channel": 30.0, "layer": 1.0}


@dataclass(frozen=True)
class Costed:
    """A network to be counted and timed, with what is already known of it."""

    known: Row
    model: nn.Module
    folded: nn.Module
    x: Tensor


def base(seed: int) -> ra.RunConfig:
    """Chapter 16's plain network."""
    network = ra.ResNetConfig(8, WIDTH, skip=False)
    return ra.RunConfig("digits", network, ra.TrainConfig(epochs=EPOCHS, lr=0.4, seed=seed))


def penalty(granularity: Granularity, target: float, seed: int) -> ra.LinearizationConfig:
    """Chapter 16's post-training on the digits."""
    recipe = ra.TrainConfig(MORE, lr=0.02, momentum=0.9, weight_decay=5e-4, seed=seed)
    return ra.LinearizationConfig(OMEGA[granularity], ramp="steered", target=target, train=recipe)


def kept(name: str, decides: Row, model: nn.Module, data: ra.ImageData, work: Callable[[Path], object]) -> Row:
    """Train the model by ``work``, or load it if that was done before; its provenance."""
    recipe = Recipe(name, decides, tuple(RECIPE_VERSIONS), ("weights.safetensors",))

    def make(folder: Path) -> None:
        work(folder)
        write_weights(folder / "weights.safetensors", model)

    found = get_or_make(recipe, make, data=data)
    model.load_state_dict(load_file(found.folder / "weights.safetensors"))
    model.eval()
    return made_with(found.provenance)


def linearised(run: ra.Run, granularity: Granularity, target: float) -> tuple[nn.Module, Row]:
    """The post-trained network, and where it comes from."""
    model = ra.linearize(run.model, granularity)
    config = penalty(granularity, target, run.config.train.seed)
    decides = {"base": asdict(run.config), "granularity": granularity, "linearization": asdict(config)}

    def work(folder: Path) -> None:
        ra.post_train(model, run.data, config, checkpoint=ra.Checkpoint(folder / CHECKPOINT, every=10))

    return model, kept("running-cost", decides, model, run.data, work)


def direct(data: ra.ImageData, layers: int, seed: int) -> tuple[nn.Module, Row]:
    """A plain network of so many layers of ReLUs, with the recipe of the base and all epochs of the two trainings."""
    model = feed_forward([data.train_x[0].numel(), *[WIDTH] * layers], data.num_classes, seed)
    config = ra.TrainConfig(epochs=EPOCHS + MORE, lr=0.4, seed=seed)
    decides = {"direct": layers, "width": WIDTH, "train": asdict(config)}
    return model, kept("running-cost-direct", decides, model, data, lambda folder: ra.train(model, data, config))


def feed_forward(sizes: Sequence[int], classes: int, seed: int) -> nn.Sequential:
    """An untrained plain network: images of ``sizes[0]`` numbers, then a layer of ReLUs for each further size."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inner = [part for a, b in pairwise(sizes) for part in _layer(a, b)]
        return nn.Sequential(nn.Flatten(), *inner, nn.Linear(sizes[-1], classes))


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()


def digits() -> Iterator[Costed]:
    """Untouched, post-trained and directly trained networks on the digits, with their accuracies."""
    for seed in SEEDS:
        run = ra.load_or_train(base(seed))
        data = run.data

        def costed(way: str, target: float | None, model: nn.Module, made: Row, x: Tensor = data.test_x) -> Costed:
            known = {"family": "digits", "way": way, "target": target, "seed": seed, "provenance": made}  # noqa: B023
            return Costed(known | accuracies(model, data), model, ra.fold(model, x), x)  # noqa: B023

        yield costed("untouched", None, run.model, made_with(run.provenance))
        for target in TARGETS:
            for granularity in OMEGA:
                yield costed(granularity, target, *linearised(run, granularity, target))
            yield costed("direct", target, *direct(data, int(target), seed))


def accuracies(model: nn.Module, data: ra.ImageData) -> Row:
    """Of training and test images."""
    return {
        "train_accuracy": round(ra.accuracy(model, data.train_x, data.train_y), 5),
        "accuracy": round(ra.accuracy(model, data.test_x, data.test_y), 5),
    }


def convolutional() -> Iterator[Costed]:
    """Networks with the units made linear that were recorded as linear; accuracies are the recorded ones."""
    x = torch.randn(100, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    y = torch.arange(100) % 10
    images = ra.ImageData.from_tensors(x, y, x, y, name="noise of the shape of Fashion-MNIST")
    made = provenance_of_now(images)
    for row in ra.recorded("linearization_plain").to_dict("records"):
        if row["target"] == row["target"] and row["target"] not in RECORDED:
            continue
        untouched = row["target"] != row["target"]
        model = ra.linearize(
            ra.build_model(ra.ResNetConfig(**row["config"]["model"]), images).eval(), row["granularity"]
        )
        make_linear(model, row["surviving"])
        known = {
            "family": "convolutional",
            "way": "untouched" if untouched else row["granularity"],
            "target": None if untouched else row["target"],
            "seed": row["seed"],
            "train_accuracy": row["train_accuracy"],
            "accuracy": row["accuracy"],
            "provenance": made_with(made),
        }
        yield Costed(known, model, ra.fold(model, x[:10]), x)


@torch.no_grad()
def make_linear(model: nn.Module, surviving: list[float]) -> None:
    """Set slopes to 1 so that in each layer this share of the units stays nonlinear."""
    activations = [module for module in model.modules() if isinstance(module, nn.PReLU)]
    for module, share in zip(activations, surviving, strict=True):
        module.weight[round(share * len(module.weight)) :] = 1.0


def flops(model: nn.Module, x: Tensor) -> int:
    """Of one image."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x[:1])
    return int(counter.get_total_flops())


def milliseconds(networks: dict[Any, tuple[nn.Module, Tensor]]) -> dict[Any, float]:
    """Median over rounds, in each of which all networks take their turn, of the mean of several calls."""
    taken: dict[Any, list[float]] = {name: [] for name in networks}
    with threads(1), torch.no_grad():
        for _ in range(ROUNDS):
            for name, (model, x) in networks.items():
                taken[name].append(seconds_of(partial(_called, model, x))[0] / CALLS)
    return {name: round(1e3 * statistics.median(values), 4) for name, values in taken.items()}


def _called(model: nn.Module, x: Tensor) -> None:
    for _ in range(CALLS):
        model(x)


def counted(costed: Costed) -> Row:
    """The row of one network, without its time."""
    sizes = {"": costed.model, "folded_": costed.folded}
    row: Row = {key: value for key, value in costed.known.items() if key != "provenance"}
    for prefix, model in sizes.items():
        row[f"{prefix}flops"] = flops(model, costed.x)
        row[f"{prefix}parameters"] = sum(parameter.numel() for parameter in model.parameters())
    return row | {"images": len(costed.x), "provenance": costed.known["provenance"]}


def everything() -> list[Row]:
    """Count all networks, and time those of the first seed."""
    networks = [*digits(), *convolutional()]
    rows = [counted(costed) for costed in networks]
    first = {place: costed for place, costed in enumerate(networks) if costed.known["seed"] == 0}
    times = milliseconds({(p, f): (c.folded if f else c.model, c.x) for p, c in first.items() for f in (False, True)})
    for place in first:
        rows[place] |= {"milliseconds": times[place, False], "folded_milliseconds": times[place, True]}
    return rows


if __name__ == "__main__":
    record("running_cost", "python -m experiments.running_cost", everything())
