"""Few and unbalanced training images, for chapter 13.

python -m experiments.small_and_unbalanced networks    what the chapter compares
python -m experiments.small_and_unbalanced batches     few images against all, at equal batches
python -m experiments.small_and_unbalanced exercises   the solutions: weighted classes, a long tail

write ``results/small_and_unbalanced.json``, ``..._batches.json`` and ``..._exercises.json``; without a name, all three.
Unbalanced means by steps: half of the classes, drawn by the seed, keep 135 images, the other half 1/ρ of them. Beside
each stands a balanced twin with as many images in all. Every training takes as many steps as one on all images. The
seed draws images, minority, initialisation and order.

The question of ``batches``, asked before it was run. Five images a class are 50 in all, one batch, so these networks
see the whole training set in every step, while those on all images see batches of about 120. Alignment is higher with
five images (0.77 against 0.62). Is that the images or the batch? Both are trained at batches of 25 (neither the whole
set), at 50, and on the whole set in every step, with as many steps and the same decay time, five seeds each. What
decides is the difference of alignment, five images less all, at batches of 25, paired by seed, with its 95 % interval:

- the images, if it stays positive and at least half of the 0.15 that it is between 50 and about 120;
- the batch, if its interval holds zero, or the difference is less than half of that: then the chapter must not say
  that fewer images align more.

The other comparisons are reported beside it, whatever comes out. The one on the whole training set of 1,437 images in
every step was not run: it takes more time than there was.

The answer, added afterwards: the batch. At batches of 25 the difference is far less than half of 0.15. On all images
alignment grows as batches get smaller, with five images a class it does not change. At batches of 50, which hold the
whole set of the five, about half of the difference is left.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import resalign_utils as ra
from resalign_utils.training import learning_rate

from ._record import Row, record, rounded, swept
from .counterfactuals import BASE, IMAGES, Setting, changed, same_steps, summarised

RATIOS = (1, 2, 10, 50)
CLASSES, MINORITY = 10, 5
LARGEST = 135  # images of a class of full size
SEEDS = range(5)
EXERCISE_SEEDS = (0,)


def everything() -> list[Row]:
    """Few images, and unequal classes, with and without skips, five seeds each."""
    return swept([*few(), *unbalanced(), *weaker_decay()], measured)


def batches() -> list[Row]:
    """Five images a class and all, with skips, at equal batches; 5 and "all" once are in ``few`` already."""
    return swept(list(equal_batches()), measured)


def exercises() -> list[Row]:
    """What the chapter's exercises ask for, with skips, one seed."""
    return swept(list(lopsided()), measured_beside_weighted) + swept(list(long_tail()), measured)


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


def equal_batches() -> Iterator[Setting]:
    """Batches of 25, of 50, and the whole training set; 50 images in batches of 50 are the fives of ``few``."""
    for seed in SEEDS:
        for count, batch in ((None, 25), (None, 50), (5, 25)):
            labels = {"study": "batches", "images": count or "all", "batch": batch, "skip": True}
            config = drawn(True, seed, None if count is None else (count,) * CLASSES)
            images = IMAGES if count is None else count * CLASSES
            yield labels, changed(config, train={"batch_size": batch, "epochs": epochs_of(images, batch)})


def epochs_of(images: int, batch: int) -> int:
    """Epochs in which batches of at most this size give as many steps as all the base's."""
    return same_steps(1) // math.ceil(images / batch)


def lopsided() -> Iterator[Setting]:
    """The largest ratio, with skips, as in ``unbalanced``."""
    for labels, config in unbalanced():
        largest = labels["ratio"] == max(RATIOS) and labels["study"] == "unbalanced"
        if largest and labels["skip"] and config.train.seed in EXERCISE_SEEDS:
            yield labels | {"study": "weighted"}, config


def long_tail() -> Iterator[Setting]:
    """From 135 images down to 3 in a geometric sequence, over the classes in an order that the seed draws."""
    sizes = [round(LARGEST * max(RATIOS) ** (-place / (CLASSES - 1))) for place in range(CLASSES)]
    for seed in EXERCISE_SEEDS:
        counts = tuple(sizes[place] for place in np.random.default_rng(seed).permutation(CLASSES))
        yield {"study": "long tail", "ratio": max(RATIOS), "skip": True, "sizes": counts}, drawn(True, seed, counts)


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


def measured_beside_weighted(run: ra.Run) -> Row:
    """The same, and once more for its twin that is trained on a loss in which all classes count alike."""
    twin = replace(run, model=weighted(run))
    hits = (twin.model(run.data.train_x).argmax(1) == run.data.train_y).float().mean()
    return measured(run) | {"weighted": measured(twin) | {"train_accuracy": float(hits)}}


def weighted(run: ra.Run) -> ra.ResNet:
    """The run's network trained anew from its initial weights, each image weighted by n / (C n_c), c its class."""
    config, data = run.config.train, run.data
    counts = torch.bincount(data.train_y, minlength=data.num_classes)
    weights = len(data.train_y) / (data.num_classes * counts.float())
    model = ra.build_model(run.config.model, data, seed=config.seed).train()
    optimizer = torch.optim.SGD(model.parameters(), weight_decay=config.weight_decay)
    generator = torch.Generator().manual_seed(config.seed)
    parts = math.ceil(len(data.train_y) / config.batch_size)
    for step in range(config.epochs * parts):
        if step % parts == 0:
            order = torch.randperm(len(data.train_y), generator=generator).tensor_split(parts)
        batch = order[step % parts]
        optimizer.param_groups[0]["lr"] = learning_rate(config, (step + 0.5) / (config.epochs * parts))
        optimizer.zero_grad()
        F.cross_entropy(model(data.train_x[batch]), data.train_y[batch], weight=weights).backward()
        if config.clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
    return model.eval()


@torch.no_grad()
def recall(model: torch.nn.Module, data: ra.ImageData) -> Tensor:
    """Share of each class's test images that is recognised (C,)."""
    hits = (model(data.test_x).argmax(1) == data.test_y).float()
    return torch.stack([hits[data.test_y == label].mean() for label in range(data.num_classes)])


def cosines(weight: Tensor) -> Tensor:
    """Cosines between the classifier's centred rows (C, C)."""
    units = torch.nn.functional.normalize(weight - weight.mean(0))
    return units @ units.T


FILES: dict[str, tuple[str, Callable[[], list[Row]]]] = {
    "networks": ("small_and_unbalanced", everything),
    "batches": ("small_and_unbalanced_batches", batches),
    "exercises": ("small_and_unbalanced_exercises", exercises),
}

if __name__ == "__main__":
    for part in sys.argv[1:] or FILES:
        name, rows = FILES[part]
        record(name, f"python -m experiments.small_and_unbalanced {part}", rows())
