"""The convolutional networks of chapter 8: train, measure, record.

python -m experiments.convolutional digits          three seeds of each network on the embedded digits
python -m experiments.convolutional fashion_mnist   the same kinds on Fashion-MNIST, which RESALIGN_DATA must hold
python -m experiments.convolutional search          the training settings that were tried, as the file lists them

Each writes ``results/convolutional_<name>.json``. Trained networks are kept as every run is, so that an interrupted
command goes on where it was.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import torch

import resalign_utils as ra
from resalign_utils.records import results_folder

from ._record import rounded

TRAIN = ra.TrainConfig(lr=0.1, momentum=0.9)

Network = tuple[ra.ResNetConfig, ra.TrainConfig]


def networks() -> dict[str, Network]:
    """The kinds that the chapter compares on the digits."""

    def recipe(epochs: int, weight_decay: float) -> ra.TrainConfig:
        return replace(TRAIN, epochs=epochs, weight_decay=weight_decay)

    post = ra.ResNetConfig(8, 16, kind="conv")
    pre = replace(post, activation="pre", norm=False, init="looks_linear")
    return {
        "post-activation": (post, recipe(40, 0.03)),
        "pre-activation": (pre, recipe(60, 0.005)),
        "no skips, pre-activation": (replace(pre, skip=False), recipe(60, 0.005)),
        "no skips, post-activation": (replace(post, skip=False), recipe(40, 0.01)),
        "post-activation, decay of its control": (post, recipe(40, 0.01)),
        "one downsampling": (replace(post, kind="conv_down"), recipe(40, 0.03)),
    }


def digits() -> Iterator[dict[str, Any]]:
    """Three seeds of each kind."""
    for name, (model, train) in networks().items():
        for seed in (0, 1, 2):
            yield measured(name, ra.RunConfig("digits", model, replace(train, seed=seed)))


def fashion_mnist() -> Iterator[dict[str, Any]]:
    """One seed of three networks, from 600 images of each class, in 30 epochs."""
    data = ra.DataConfig("fashion_mnist", per_class=600)
    post = ra.ResNetConfig(8, 16, kind="conv")
    plain = replace(post, skip=False)
    for name, model, decay in (
        ("post-activation", post, 0.004),
        ("no skips, post-activation", plain, 0.001),
        ("post-activation, stronger decay", post, 0.01),
    ):
        yield measured(name, ra.RunConfig(data, model, replace(TRAIN, epochs=30, weight_decay=decay)))


def search() -> Iterator[dict[str, Any]]:
    """Every setting that ``convolutional_search.json`` lists, once more, measured at one image of each class."""
    for row in json.loads((results_folder() / "convolutional_search.json").read_text())["rows"]:
        config = ra.RunConfig("digits", ra.ResNetConfig(**row["model"]), ra.TrainConfig(**row["train"]))
        run = ra.load_or_train(config)
        x, _ = run.data.sample(per_class=1)
        summary = ra.measure_alignment(run.model, x).summary()
        scores = ("alignment", "line_shape_score", "step_cv", "rank_energy", "rank_drop", "depth_slope", "dead_share")
        measured_row = {key: row[key] for key in ("model", "train")} | {"seconds": run.provenance["seconds"]}
        measured_row |= {
            f"{which}_accuracy": getattr(run.history, f"{which}_accuracy")[-1] for which in ("train", "test")
        }
        measured_row |= {"inputs": len(x), "method": "krylov"} | {score: round(summary[score], 4) for score in scores}
        print(json.dumps(measured_row), flush=True)
        yield measured_row


def measured(name: str, config: ra.RunConfig, per_class: int = 3) -> dict[str, Any]:
    """Train a network, or take it from the cache, and measure it and its untrained twin at test images."""
    run = ra.load_or_train(config)
    x, _ = run.data.sample(per_class)
    row: dict[str, Any] = {"name": name, "config": asdict(config), "inputs": len(x)}
    row |= {"train_accuracy": run.history.train_accuracy[-1], "test_accuracy": run.history.test_accuracy[-1]}
    row["seconds"] = run.provenance["seconds"]
    row["trained"] = report_of(run.model, x)
    if config.train.seed == 0:
        row["untrained"] = report_of(run.untrained, x)
    row["provenance"] = {key: run.provenance[key] for key in ("date", "versions", "device", "data")}
    print(f"{name}, seed {config.train.seed}: {row['train_accuracy']:.3f} {row['test_accuracy']:.3f}", flush=True)
    return row


def report_of(model: torch.nn.Module, x: torch.Tensor) -> dict[str, Any]:
    """A report's summary, and what the figures need of it, averaged over the inputs."""
    report = ra.measure_alignment(model, x)
    inverse = 1 / report.singular_values[..., 0]  # (n, L)
    arrays = {
        "coupling": report.coupling.mean(0),
        "singular_values": report.singular_values.mean(0),
        "inverse_top": inverse.mean(0),
        "inverse_top_sd": inverse.std(0, correction=0),
        "rank_energy_by_block": report.rank_energy.mean(0),
    }
    summary = {key: round(value, 5) for key, value in report.summary().items()}
    return summary | {key: rounded(value) for key, value in arrays.items()}


def record(name: str, rows: list[dict[str, Any]]) -> None:
    """Write the rows of one part."""
    path = results_folder() / f"convolutional_{name}.json"
    path.write_text(json.dumps({"command": f"python -m experiments.convolutional {name}", "rows": rows}) + "\n")
    print(f"wrote {path.name}, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    PARTS = {"digits": digits, "search": search, "fashion_mnist": fashion_mnist}
    for part in sys.argv[1:] or PARTS:
        record(part, list(PARTS[part]()))
