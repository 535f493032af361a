"""The trained networks of chapter 12: which of the two laws of depth do they follow?

python -m experiments.theory

Two factors, each with two levels: outer activation (post, pre) and batch norm (with, without); 16 blocks of 64 units on
the digits, three seeds. Writes ``results/theory.json``. RESALIGN_PROCESSES (2) networks are trained at a time; all are
kept as every run is, so that an interrupted command goes on where it was.
"""

from __future__ import annotations

import torch

import resalign_utils as ra

from ._record import Row, record, rounded, seeded, swept

SCORES = ("alignment", "line_shape_score", "step_cv", "rank_drop", "depth_slope", "depth_intercept", "depth_r2")


def networks() -> dict[str, ra.RunConfig]:
    """The four kinds; with norm and without each has the recipe of chapter 7."""
    with_norm = ra.TrainConfig(lr=0.5)
    without = ra.TrainConfig(lr=0.1, momentum=0.9, weight_decay=5e-3)
    return {
        f"{activation}-activation, {'batch norm' if norm else 'no norm'}": ra.RunConfig(
            "digits", ra.ResNetConfig(16, 64, activation=activation, norm=norm), with_norm if norm else without
        )
        for activation in ("post", "pre")
        for norm in (True, False)
    }


def profile(run: ra.Run) -> Row:
    """Scores at ten test images of each class, and what depends on the block, averaged over the images."""
    x, _ = run.data.sample(per_class=10)
    report, classes = ra.measure_alignment(run.model, x), run.data.num_classes
    summary = report.summary()
    sigma = report.singular_values[..., : classes - 1]  # (n, L, C-1)
    residuals = ra.trace(run.model, x).residuals
    steps = torch.stack([(r.output - r.input).norm(dim=1) for r in residuals], 1)  # (n, L)
    arrays = {
        "singular_values": sigma.mean(0),
        "inverse": (1 / sigma[..., 0]).mean(0),
        "left_right": report.left_right[..., 0].mean(0),
        "affine_share": report.affine_share.median(0).values,
        "steps": (steps / steps.mean(1, keepdim=True)).mean(0),
    }
    return {name: rounded(torch.tensor(summary[name])) for name in SCORES} | {
        name: rounded(values, 4) for name, values in arrays.items()
    }


def everything() -> list[Row]:
    """Three seeds of each kind."""
    settings = [setting for name, config in networks().items() for setting in seeded({"name": name}, config)]
    return swept(settings, profile)


if __name__ == "__main__":
    record("theory", "python -m experiments.theory", everything())
