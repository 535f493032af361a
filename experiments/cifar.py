"""ResNet-20 and ResNet-56 on CIFAR-10 and CIFAR-100: a preset for a machine with a GPU. Nothing of it is recorded yet.

python -m experiments.cifar --estimate     what the 72 runs would cost, counted in FLOPs; trains nothing
python -m experiments.cifar --download     train, measure, write results/cifar.json (one GPU, the estimate's hours)

With and without skips, at three decay times S (1, 4 and 10), three seeds; SGD without momentum, as in Li & Papyan's
public notebook, 100 epochs, no augmentation. The seeds are outermost and CIFAR-10 comes before CIFAR-100, so that a
whole comparison is there early; every run is kept, and an interrupted command goes on where it was.

Questions, and what would count as yes. A network that does not fit its training images (accuracy below 0.9) answers
none of them; the row says so.

1. *Does alignment come with skips?* In each pair (depth, classes, S) of S = 10, alignment with skips is above that of
   its twin without in all three seeds, and the paired 95 % interval of the difference excludes 0.
2. *Does decay time order it?* Alignment rises from S = 1 to 4 to 10 in all three seeds, with skips.
3. *Does rank follow the classes?* At S = 10, σ₁₁/σ₁ (mean over blocks) is at least three times as large for C = 100 as
   for C = 10, in all three seeds.
4. *Does the first stage differ from the last?* Alignment within the third stage minus that within the first: the
   interval over the three seeds excludes 0 at S = 10.

Chapters 5 to 10 answer 1 to 3 for fully-connected and small convolutional networks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

import resalign_utils as ra

from ._record import Row, _row, record, rounded

DEPTHS = {"ResNet-20": 9, "ResNet-56": 27}  # blocks of two layers
CLASSES = {"cifar10": 10, "cifar100": 100}
DECAYS = {1: 5e-4, 4: 2e-3, 10: 5e-3}  # S: weight decay, at the sum of the learning rates of TRAIN, about 2,000
TRAIN = ra.TrainConfig(epochs=100, lr=0.1)
SEEDS = (0, 1, 2)
IMAGES = 50_000
SUSTAINED = 1e13  # FLOPs a second assumed by the estimate; single precision on one H100 peaks at 6.7e13

Setting = tuple[Row, ra.RunConfig]


def settings(seeds: Sequence[int] = SEEDS, epochs: int = TRAIN.epochs, per_class: int | None = None) -> list[Setting]:
    """All runs, what tells most first."""
    return [
        (
            {"network": network, "S": at, "skip": skip, "classes": CLASSES[data]},
            ra.RunConfig(
                ra.DataConfig(data, per_class=per_class),
                ra.ResNetConfig(DEPTHS[network], 16, "cifar", skip=skip),
                replace(TRAIN, epochs=epochs, weight_decay=DECAYS[at], seed=seed),
            ),
        )
        for seed in seeds
        for data in CLASSES
        for network in DEPTHS
        for at in (10, 1, 4)
        for skip in (True, False)
    ]


def scores(run: ra.Run) -> Row:
    """Alignment of the whole network and of each stage, at one test image of each class, at most ten."""
    classes = run.data.num_classes
    x, _ = run.data.sample(1)
    report = ra.measure_alignment(run.model, x[: min(len(x), 10)], k=10, num_classes=classes)
    stage = run.config.model.depth // 3
    coupling = report.coupling.mean(0)  # (L, L)
    within = [_mean_pair(coupling[s * stage : (s + 1) * stage, s * stage : (s + 1) * stage]) for s in range(3)]
    summary = report.summary()
    names = ("alignment", "line_shape_score", "step_cv", "depth_slope", "dead_share")
    return {name: rounded(torch.tensor(summary[name])) for name in names} | {
        "stages": within,
        "coupling": rounded(coupling, 3),
        "singular_values": rounded(report.singular_values.mean(0), 4),
    }


def _mean_pair(coupling: torch.Tensor) -> float | None:
    """Mean over pairs of different blocks that can be compared; None if there is none."""
    pairs = coupling[~torch.eye(len(coupling), dtype=torch.bool)]
    pairs = pairs[~pairs.isnan()]
    return rounded(pairs.mean()) if len(pairs) else None


def hours(network: str, epochs: int = TRAIN.epochs, images: int = IMAGES) -> float:
    """Hours of one training: forward and backward FLOPs of all images, by what is assumed to be sustained."""
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    data = ra.ImageData.from_tensors(x, torch.arange(2), x, torch.arange(2), name="two")
    model = ra.build_model(ra.ResNetConfig(DEPTHS[network], 16, "cifar"), data)
    with FlopCounterMode(display=False) as counter:
        model(x).sum().backward()
    flops: int = counter.get_total_flops()
    return flops / len(x) * images * epochs / SUSTAINED / 3600


def estimate() -> None:
    """Print what all runs would cost."""
    each = {network: hours(network) for network in DEPTHS}
    total = sum(each[str(labels["network"])] for labels, _ in settings())
    for network, cost in each.items():
        print(f"{network}: {60 * cost:.0f} minutes a run")
    print(
        f"{len(settings())} runs: {total:.0f} hours on one GPU that sustains {SUSTAINED:.0e} FLOPs a second (assumed)"
    )


def run(listed: Sequence[Setting], *, device: str, download: bool = False) -> list[Row]:
    """Train and measure; one row a setting."""
    for name in {config.data.name for _, config in listed} if download else ():
        ra.load_data(name, download=True)
    start, rows = time.perf_counter(), list[Row]()
    found = ra.sweep([config for _, config in listed], partial(_row, scores), device=device)
    for (labels, _), row in zip(listed, found, strict=True):
        rows.append(labels | row)
        passed = time.perf_counter() - start
        print(f"{len(rows)}/{len(listed)} {passed:.0f} s | {labels} | {row['alignment']}", flush=True)
    return rows


def main() -> None:
    """Estimate, or run and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--estimate", action="store_true", help="say what it costs and train nothing")
    parser.add_argument("--download", action="store_true", help="fetch CIFAR where RESALIGN_DATA does not hold it")
    options = parser.parse_args()
    if options.estimate:
        estimate()
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    record("cifar", "python -m experiments.cifar", run(settings(), device=device, download=options.download))


if __name__ == "__main__":
    main()
