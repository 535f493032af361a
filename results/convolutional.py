"""The convolutional networks of chapter 7: train, measure, record.

python -m results.convolutional digits          three seeds of each network on the embedded digits
python -m results.convolutional fashion_mnist   the same kinds on Fashion-MNIST, which RESALIGN_DATA must hold
python -m results.convolutional search          one network for each training setting of the search

Each writes ``results/convolutional_<name>.json``. Trained networks are kept as every run is, so that an interrupted
command goes on where it was.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

import resalign_utils as ra

HERE = Path(__file__).parent
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
    """One seed of every setting that was tried, the failures too, measured at one image of each class."""
    for config in settings():
        run = ra.load_or_train(config)
        summary = ra.measure_alignment(run.model, run.data.sample(per_class=1)[0]).summary()
        scores = ("alignment", "line_shape_score", "step_cv", "rank_energy", "rank_drop", "depth_slope", "dead_share")
        row = {"model": asdict(config.model), "train": asdict(config.train), "seconds": run.provenance["seconds"]}
        row |= {"train_accuracy": run.history.train_accuracy[-1], "test_accuracy": run.history.test_accuracy[-1]}
        row |= {score: round(summary[score], 4) for score in scores}
        print(json.dumps(row), flush=True)
        yield row


def settings() -> Iterator[ra.RunConfig]:
    """Weight decay first, then epochs, width, depth, batch size and learning rate, around what it gave."""

    def config(width: int, decay: float, epochs: int = 60, depth: int = 8, **change: Any) -> ra.RunConfig:
        recipe = {key: change.pop(key) for key in ("lr", "batch_size") if key in change}
        train = replace(TRAIN, epochs=epochs, weight_decay=decay, **recipe)
        return ra.RunConfig("digits", ra.ResNetConfig(depth, width, kind="conv", **change), train)

    pre, bare, plain = {"activation": "pre", "norm": False}, {"norm": False}, {"skip": False}
    linear = {"skip": False, "norm": False, "activation": "pre", "init": "looks_linear"}
    for decay in (0.005, 0.01, 0.02, 0.04):
        yield config(8, decay)
        yield config(8, decay, **pre)
        yield config(8, decay, activation="pre")
    for decay in (0.005, 0.01):
        yield config(8, decay, **bare)
    for decay in (0.01, 0.02, 0.03):
        yield config(16, decay)
    for decay in (0.005, 0.007, 0.01):
        yield config(16, decay, **pre)
    yield from (config(8, 0.02, 120), config(16, 0.02, 30), config(16, 0.03, 40))
    yield from (config(8, 0.007, 120, **pre), config(16, 0.007, 90, **pre))
    yield from (config(12, 0.03), config(24, 0.02, 30), config(24, 0.007, 40, **pre))
    yield from (config(8, 0.02, depth=16), config(16, 0.02, depth=12))
    yield from (config(8, 0.005, depth=16, **pre), config(16, 0.007, depth=12, **pre))
    yield from (config(16, 0.02, 40, batch_size=64), config(8, 0.02, lr=0.2), config(16, 0.007, lr=0.05, **pre))
    for decay in (0.005, 0.01, 0.02, 0.03):
        yield config(16, decay, **plain)
    for decay in (0.002, 0.005, 0.007):
        yield config(16, decay, **linear)
    yield config(16, 0.005, **linear | {"skip": True})
    yield config(16, 0.005, **plain, **pre)


def measured(name: str, config: ra.RunConfig, per_class: int = 10) -> dict[str, Any]:
    """Train a network, or take it from the cache, and measure it and its untrained twin at test images."""
    run = ra.load_or_train(config)
    x, _ = run.data.sample(per_class)
    row: dict[str, Any] = {"name": name, "config": asdict(config), "inputs": len(x)}
    row |= {"train_accuracy": run.history.train_accuracy[-1], "test_accuracy": run.history.test_accuracy[-1]}
    row["seconds"] = run.provenance["seconds"]
    row["trained"] = report_of(run.model, x)
    if config.train.seed == 0:
        row["untrained"] = report_of(run.untrained, x)
    row["provenance"] = {key: run.provenance[key] for key in ("date", "versions", "device", "git", "data")}
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
        "rank_energy": report.rank_energy.mean(0),
    }
    summary = {key: round(value, 5) for key, value in report.summary().items()}
    return summary | {key: rounded(value) for key, value in arrays.items()}


def rounded(values: torch.Tensor) -> Any:
    """Nested lists with five significant digits, None for NaN."""
    if values.dim():
        return [rounded(part) for part in values]
    return None if values.isnan() else float(f"{float(values):.5g}")


def record(name: str, rows: list[dict[str, Any]]) -> None:
    """Write the rows of one part."""
    path = HERE / f"convolutional_{name}.json"
    path.write_text(json.dumps({"command": f"python -m results.convolutional {name}", "rows": rows}) + "\n")
    print(f"wrote {path.name}, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    PARTS = {"digits": digits, "search": search, "fashion_mnist": fashion_mnist}
    for part in sys.argv[1:] or PARTS:
        record(part, list(PARTS[part]()))
