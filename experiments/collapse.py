"""Neural Collapse beside Residual Alignment, for chapter 11: at the end of training, over training and over depth.

python -m experiments.collapse networks   what the chapter compares, three seeds; one of the convolutional pair
python -m experiments.collapse decays     an exercise, one seed: the network without norm, decays in between

write ``results/collapse.json`` and ``collapse_decays.json``; without a name, both. Trained networks are kept as every
run is, so that an interrupted command goes on where it was. RESALIGN_PROCESSES (2) networks are trained at a time.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

import resalign_utils as ra

from ._record import Row, record, rounded, seeded, swept

SCORES = ("alignment", "line_shape_score", "step_cv", "rank_drop", "depth_slope")
PARTS = ("nc1", "nc2_norm", "nc2_angle", "nc4")

CLOCK = (0, 1, 2, 5, *range(10, 201, 10))  # finer than the snapshots of a run


def everything() -> list[Row]:
    """Three seeds of each network, one of the convolutional ones; the finer course for the first."""
    seeds = {name: (0,) if config.model.kind == "conv" else (0, 1, 2) for name, config in networks().items()}
    settings = {name: seeded({"name": name}, config, seeds[name]) for name, config in networks().items()}
    rows = swept(settings.pop("skips, L = 16"), measured_by_clock)
    return rows + swept([setting for several in settings.values() for setting in several], measured)


def decays() -> list[Row]:
    """Is there a decay at which the network without norm both aligns and collapses?"""
    base = networks()["pre-activation, no norm, L = 16"]
    between = {w: replace(base, train=replace(base.train, weight_decay=w)) for w in (1e-3, 2e-3)}
    settings = [row for w, config in between.items() for row in seeded({"weight_decay": w}, config, (0,))]
    return swept(settings, measured)


def networks() -> dict[str, ra.RunConfig]:
    """What the chapter compares: twins that differ in the skips, in weight decay or in norm alone."""
    post = ra.RunConfig(ra.DataConfig("digits"), ra.ResNetConfig(16, 64), ra.TrainConfig(lr=0.5))
    twin = replace(post, model=ra.ResNetConfig(8, 64), train=ra.TrainConfig(lr=0.4))
    pre = replace(
        post,
        model=ra.ResNetConfig(16, 64, activation="pre", norm=False),
        train=ra.TrainConfig(lr=0.1, momentum=0.9, weight_decay=5e-3),
    )
    convolutional = replace(
        pre,
        model=ra.ResNetConfig(8, 16, kind="conv", activation="pre", norm=False, init="looks_linear"),
        train=replace(pre.train, epochs=60),
    )
    return {
        "skips, L = 16": post,
        "skips, L = 8": twin,
        "no skips, L = 8": _plain(twin),
        "weak decay, L = 16": _weak(post),
        "pre-activation, no norm, L = 16": pre,
        "pre-activation, no norm, weak decay, L = 16": _weak(pre),
        "pre-activation, norm, L = 16": replace(pre, model=ra.ResNetConfig(16, 64, activation="pre")),
        "convolutional, skips": convolutional,
        "convolutional, no skips": _plain(convolutional),
    }


def _plain(config: ra.RunConfig) -> ra.RunConfig:
    return replace(config, model=replace(config.model, skip=False))


def _weak(config: ra.RunConfig) -> ra.RunConfig:
    return replace(config, train=replace(config.train, weight_decay=5e-4))


def measured(run: ra.Run) -> Row:
    """Collapse layer by layer at the end, on training and test images, and the course of both phenomena."""
    data = run.data
    untrained = ra.collapse_by_layer(run.untrained, data.train_x, data.train_y)
    trained = ra.collapse_by_layer(run.model, data.train_x, data.train_y)
    test = ra.collapse_by_layer(run.model, data.test_x, data.test_y)
    layers = {"train": columns(trained), "test": columns(test), "untrained": columns(untrained)}
    return {"layers": layers, "on_the_line": on_the_line(run), "spectra": spectra(run), "course": snapshots(run)}


def measured_by_clock(run: ra.Run) -> Row:
    """The same with a finer course as well, for which the network is trained a second time."""
    return measured(run) | {"clock": retrained(run)}


def on_the_line(run: ra.Run) -> list[float]:
    """NC1 of states as RA1 claims them: equispaced on the line from the true h_0 to the true h_L."""
    states = ra.trace(run.model, run.data.train_x).states
    first, last, places = pooled(states[0]), pooled(states[-1]), torch.linspace(0, 1, len(states))
    return [_rounded(ra.neural_collapse(torch.lerp(first, last, at), run.data.train_y).nc1) for at in places]


def spectra(run: ra.Run) -> Row:
    """Singular values over the largest: of the centred class means of h_L (C,), of the Jacobians, their mean (C+2,)."""
    x, _ = run.data.sample(per_class(run))
    report = ra.measure_alignment(run.model, x)
    last = pooled(ra.trace(run.model, run.data.train_x).states[-1])
    classes = run.data.num_classes
    means = torch.stack([last[run.data.train_y == label].mean(0) for label in range(classes)])
    values = torch.linalg.svdvals(means - means.mean(0))
    jacobians = report.singular_values[..., : classes + 2]
    return {"means": rounded(values / values[0]), "jacobians": rounded((jacobians / jacobians[..., :1]).mean((0, 1)))}


def pooled(state: torch.Tensor) -> torch.Tensor:
    """States (n, d) of maps (n, c, h, w): their mean over the pixels."""
    return state.flatten(2).mean(2) if state.dim() > 2 else state


def per_class(run: ra.Run) -> int:
    """Test images of each class at which Jacobians are measured."""
    return 3 if run.config.model.kind == "conv" else 10


def snapshots(run: ra.Run) -> Row:
    """Scores at the epochs of which a run keeps the weights."""
    return _course({epoch: scores(run.snapshot(epoch), run.data, per_class(run)) for epoch in run.snapshot_epochs})


def retrained(run: ra.Run) -> Row:
    """Scores at the epochs of ``CLOCK``, from the same training once more."""
    model = ra.build_model(run.config.model, run.data, seed=run.config.train.seed)
    history = ra.train(model, run.data, run.config.train, monitors=[ra.Monitor("course", scores, epochs=CLOCK)])
    return _course(dict(history.monitors["course"]))


def _course(rows: dict[int, Row]) -> Row:
    return {"epochs": list(rows)} | {name: [row[name] for row in rows.values()] for name in next(iter(rows.values()))}


def scores(model: nn.Module, data: ra.ImageData, images: int = 10) -> Row:
    """RA1–RA4 at so many test images of each class, NC1–NC4 of the last training features."""
    x, _ = data.sample(images)
    summary = ra.measure_alignment(model, x).summary()
    last = ra.collapse_by_layer(model, data.train_x, data.train_y)["features"]
    row = {name: summary[name] for name in SCORES} | dataclasses.asdict(last)
    return {name: _rounded(value) for name, value in row.items()}


def columns(layers: dict[str, ra.NeuralCollapse]) -> Row:
    """The numbers that every layer has, each as a list over h_0 .. h_L and "features"."""
    return {part: [_rounded(getattr(layer, part)) for layer in layers.values()] for part in PARTS}


def _rounded(value: float) -> Any:
    return rounded(torch.tensor(value))


FILES: dict[str, tuple[str, Callable[[], list[Row]]]] = {
    "networks": ("collapse", everything),
    "decays": ("collapse_decays", decays),
}

if __name__ == "__main__":
    for part in sys.argv[1:] or FILES:
        name, rows = FILES[part]
        record(name, f"python -m experiments.collapse {part}", rows())
