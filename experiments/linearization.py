"""The controlled comparison of chapter 16: a trained network, made partly linear channel by channel or layer by layer.

python -m experiments.linearization [plain] [residual] [longer]

Fashion-MNIST, 400 images a class, 17 layers of ReLUs: a stem and 16 convolutions of 16 channels. *plain* starts from a
network without skips, *residual* from its twin with skips around every second layer, *longer* post-trains the plain
network twice as long. Each post-training is steered to a NAPL. Three seeds, of initialisation and order, each
with a network of its own. Writes ``results/linearization_<part>.json``. RESALIGN_PROCESSES (2) networks are trained at
a time; trained and post-trained networks are kept in the store of all runs, unfinished ones with a checkpoint, so that
an interrupted command goes on where it was.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

import resalign_utils as ra
from resalign_utils.linearization import Granularity
from resalign_utils.runs import CHECKPOINT, RECIPE_VERSIONS, Recipe, get_or_make, read_json, write_json
from resalign_utils.training import write_weights

from ._record import PROCESSES, Row, made_with, record, rounded

EPOCHS, LONGER = 8, 2
WATCHED = 1000  # test images that are classified after each epoch; the accuracy that is reported is of all of them
CHANNEL = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 15.0)
LAYER = (0.0, 1.0, 2.0, 3.0, 4.0, 8.0, 12.0, 15.0)  # whole layers, so whole numbers
FEWER = (1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Setting:
    """One post-training: from which network, how, and to which NAPL (None: with ω = 0, nothing becomes linear)."""

    part: str
    base: ra.RunConfig
    granularity: Granularity
    target: float | None
    epochs: int = EPOCHS

    @property
    def labels(self) -> Row:
        """What tells it from the others of its part."""
        return {"granularity": self.granularity, "target": self.target, "seed": self.base.train.seed}

    @property
    def config(self) -> ra.LinearizationConfig:
        """Penalty and recipe of the post-training."""
        recipe = ra.TrainConfig(
            epochs=self.epochs, lr=0.05, momentum=0.9, weight_decay=5e-4, batch_size=32, seed=self.base.train.seed
        )
        if self.target is None:
            return ra.LinearizationConfig(omega=0.0, train=recipe)
        return ra.LinearizationConfig(omega=10.0, ramp="steered", target=self.target, train=recipe)

    @property
    def recipe(self) -> Recipe:
        """What decides the post-trained network, and the files that are kept of it."""
        decides = {"base": asdict(self.base), "granularity": self.granularity, "linearization": asdict(self.config)}
        return Recipe(
            name=f"linearized-{self.base.data.name}-{self.base.model.kind}{self.base.model.depth}",
            config=decides | {"watched": WATCHED},
            stages=tuple(RECIPE_VERSIONS),
            files=("weights.safetensors", "history.json"),
        )


def base(skip: bool, seed: int) -> ra.RunConfig:
    """The network that is trained first."""
    recipe = ra.TrainConfig(epochs=20, lr=0.1, momentum=0.9, weight_decay=5e-4, seed=seed)
    images = ra.DataConfig("fashion_mnist", per_class=400)
    return ra.RunConfig(images, ra.ResNetConfig(8, 16, kind="conv", skip=skip), recipe)


def settings(
    part: str, skip: bool, channel: Sequence[float | None], layer: Sequence[float], epochs: int = EPOCHS
) -> list[Setting]:
    """All post-trainings of a part: the seeds outermost, so that a whole curve is there early."""
    curves: tuple[tuple[Granularity, Sequence[float | None]], ...] = (("channel", channel), ("layer", layer))
    return [
        Setting(part, base(skip, seed), granularity, target, epochs)
        for seed in (0, 1, 2)
        for granularity, targets in curves
        for target in targets
    ]


def plain() -> list[Setting]:
    """From the network without skips."""
    return settings("plain", False, (None, *CHANNEL), LAYER)


def residual() -> list[Setting]:
    """From the network with skips; its NAPL is 13 to begin with."""
    return settings("residual", True, (None, *FEWER), FEWER)


def longer() -> list[Setting]:
    """From the network without skips, twice as long: is the gap one of optimisation?"""
    return settings("longer", False, (1.0,), (1.0,), LONGER * EPOCHS)


PARTS = {"plain": plain, "residual": residual, "longer": longer}


def linearized(setting: Setting, run: ra.Run) -> tuple[nn.Module, Row]:
    """The post-trained network and its row; post-train it if this machine has not done so yet."""
    model = ra.linearize(run.model, setting.granularity)

    def make(folder: Path) -> None:
        watched = replace(run.data, test_x=run.data.test_x[:WATCHED], test_y=run.data.test_y[:WATCHED])
        checkpoint = ra.Checkpoint(folder / CHECKPOINT, every=2)
        history = ra.post_train(model, watched, setting.config, checkpoint=checkpoint)
        write_weights(folder / "weights.safetensors", model)
        write_json(folder / "history.json", asdict(history))

    kept = get_or_make(setting.recipe, make, data=run.data)
    model.load_state_dict(load_file(kept.folder / "weights.safetensors"))
    told = read_json(kept.folder / "history.json")
    history = ra.LinearizationHistory(**told | {"history": ra.History(**told["history"])})
    return model.eval(), measured(setting, run, model, history) | {
        "seconds": kept.provenance["seconds"],
        "provenance": made_with(kept.provenance),
    }


def measured(setting: Setting, run: ra.Run, model: nn.Module, history: ra.LinearizationHistory) -> Row:
    """What is recorded of a post-trained network."""
    slopes = torch.cat([module.weight.detach() for module in model.modules() if isinstance(module, nn.PReLU)])
    return setting.labels | {
        "config": asdict(run.config),
        "linearization": asdict(setting.config),
        "napl": ra.average_path_length(model),
        "napl_before": ra.average_path_length(run.model),
        "accuracy": round(ra.accuracy(model, run.data.test_x, run.data.test_y), 5),
        "accuracy_before": round(ra.accuracy(run.model, run.data.test_x, run.data.test_y), 5),
        "train_accuracy": round(history.history.train_accuracy[-1], 5),
        "loss": rounded(torch.tensor(history.history.loss[-1])),
        "law": rounded(ra.path_length_distribution(model), 4),
        "surviving": [round(1 - share, 5) for share in history.linear_share[-1].values()],
        "slopes_left": rounded(slopes[slopes != 1].quantile(torch.linspace(0, 1, 5)), 4) if (slopes != 1).any() else [],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "napl_per_epoch": [round(value, 4) for value in history.napl],
        "accuracy_per_epoch": [round(value, 4) for value in history.accuracy],
        "omega_per_epoch": [float(f"{value:.4g}") for value in history.omega],
    }


def row_of(setting: Setting, run: ra.Run) -> Row:
    """The row without the network: small enough to be sent from one process to another."""
    return linearized(setting, run)[1]


def measure_part(part: str) -> None:
    """Measure one part and write it."""
    listed, start, rows = PARTS[part](), time.perf_counter(), []
    measures = [partial(row_of, setting) for setting in listed]
    results = ra.sweep([setting.base for setting in listed], measures, processes=PROCESSES)
    for number, (setting, row) in enumerate(zip(listed, results, strict=True), start=1):
        rows.append(row)
        told = f"{setting.labels} | NAPL {row['napl']:.2f}, accuracy {row['accuracy']:.4f} ({row['seconds']:.0f} s)"
        print(f"{part} {number}/{len(listed)} {time.perf_counter() - start:.0f} s | {told}", flush=True)
    record(f"linearization_{part}", f"python -m experiments.linearization {part}", rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; all if none is given")
    for chosen in parser.parse_args().parts or PARTS:
        measure_part(chosen)
