"""Few and unbalanced training images, for chapter 13.

python -m experiments.small_and_unbalanced

writes ``results/small_and_unbalanced.json``. Unbalanced means by steps: half of the classes, drawn by the seed, keep
135 images, the other half 1/ρ of them. Beside each stands a balanced twin with as many images in all.
Every training takes as many steps as one on all images. The seed draws images, minority, initialisation and order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

import resalign_utils as ra

from ._record import Row, record, rounded, swept
from .counterfactuals import BASE, Setting, changed, same_steps, summarised

RATIOS = (1, 2, 10, 50)
CLASSES, MINORITY = 10, 5
LARGEST = 135  # images of a class of full size
SEEDS = range(5)


def everything() -> list[Row]:
    """Few images, and unequal classes, with and without skips, five seeds each."""
    return swept([*few(), *unbalanced(), *weaker_decay()], measured)


def few() -> Iterator[Setting]:
    """5, 20, 80 images of each class, and all."""
    for count in (5, 20, 80, None):
        for skip in (True, False):
            for seed in SEEDS:
                labels = {"study": "few", "images": count or "all", "skip": skip}
                yield labels, drawn(skip, seed, None if count is None else (count,) * CLASSES)


def unbalanced() -> Iterator[Setting]:
    """Each ratio, and its balanced twin."""
    for ratio in RATIOS:
        for skip in (True, False):
            for seed in SEEDS:
                labels: Row = {"study": "unbalanced", "ratio": ratio, "skip": skip, "minority": minority(seed)}
                small = round(LARGEST / ratio)
                counts = tuple(small if label in labels["minority"] else LARGEST for label in range(CLASSES))
                yield labels, drawn(skip, seed, counts)
                if ratio > 1:
                    yield (
                        labels | {"study": "balanced twin"},
                        drawn(skip, seed, (sum(counts) // CLASSES,) * CLASSES),
                    )


def weaker_decay() -> Iterator[Setting]:
    """The largest ratio at a third of the weight decay, which no network has trouble to train under."""
    for labels, config in unbalanced():
        if labels["ratio"] == max(RATIOS) and labels["study"] == "unbalanced":
            yield labels | {"study": "weaker decay"}, changed(config, train={"weight_decay": 3e-3})


def minority(seed: int) -> list[int]:
    """The classes that are small, half of all."""
    return sorted(np.random.default_rng(seed).permutation(CLASSES)[:MINORITY].tolist())


def drawn(skip: bool, seed: int, per_class: tuple[int, ...] | None) -> ra.RunConfig:
    """The run on so many images a class, in as many steps as the base takes."""
    train: Row = {"seed": seed}
    if per_class is not None:
        train["epochs"] = same_steps(sum(per_class))
    config = changed(BASE, model={"skip": skip}, train=train)
    return replace(config, data=replace(config.data, per_class=per_class, seed=seed if per_class else 0))


def measured(run: ra.Run) -> Row:
    """Recall, Residual Alignment and Neural Collapse, apart for the minority and the rest where there are two kinds."""
    data, model = run.data, run.model
    small = minority(run.config.train.seed)
    x, y = data.sample(5)
    report = ra.measure_alignment(model, x)
    is_small = torch.isin(y, torch.tensor(small))
    row: Row = {"inputs": len(x), "training_images": len(data.train_y)} | summarised(report)
    row["recall"] = rounded(recall(model, data), 4)
    for name, inputs in (("minority", is_small), ("majority", ~is_small)):
        row[f"{name}_alignment"] = rounded(report.alignment[inputs].mean())
        row[f"{name}_line_shape"] = rounded(report.line_shape_score[inputs].mean())
    for split in ("train", "test"):
        collapse = ra.collapse_by_layer(model, getattr(data, f"{split}_x"), getattr(data, f"{split}_y"))["features"]
        row[f"{split}_collapse"] = {name: rounded(torch.tensor(value)) for name, value in vars(collapse).items()}
    row["head_cosines"] = rounded(cosines([*model.head.children()][-1].get_parameter("weight").detach()), 3)
    return row


@torch.no_grad()
def recall(model: torch.nn.Module, data: ra.ImageData) -> Tensor:
    """Share of each class's test images that is recognised (C,)."""
    hits = (model(data.test_x).argmax(1) == data.test_y).float()
    return torch.stack([hits[data.test_y == label].mean() for label in range(data.num_classes)])


def cosines(weight: Tensor) -> Tensor:
    """Cosines between the classifier's centred rows (C, C)."""
    units = torch.nn.functional.normalize(weight - weight.mean(0))
    return units @ units.T


if __name__ == "__main__":
    record("small_and_unbalanced", "python -m experiments.small_and_unbalanced", everything())
