"""What following alignment costs a training: the same run with a monitor and without, in turn."""

from __future__ import annotations

from dataclasses import dataclass

import torch

import resalign_utils as ra

from .plan import Plan
from .recording import Row, Table, integer, key, median_of, number, seconds, spread_of
from .timing import seconds_of

PROBES = 1  # images of each class
ROUNDS = 3


@dataclass(frozen=True)
class Task:
    """A training on the digits."""

    label: str
    model: ra.ResNetConfig
    train: ra.TrainConfig


TASKS = (
    Task("16 blocks of width 64, 200 epochs", ra.ResNetConfig(16, 64), ra.TrainConfig(epochs=200, lr=0.5)),
    Task(
        "8 convolutional blocks of 16 channels, 40 epochs",
        ra.ResNetConfig(8, 16, kind="conv"),
        ra.TrainConfig(epochs=40),
    ),
)
QUICK = (Task("2 blocks of width 16, 3 epochs", ra.ResNetConfig(2, 16), ra.TrainConfig(epochs=3)),)


def monitoring(plan: Plan) -> list[Table]:
    """Each training with and without a monitor at its defaults."""
    rows = [_row(task, plan) for task in (QUICK if plan.quick else TASKS) if plan.goes_on(task.label)]
    columns = {
        "training": key("task"),
        "seconds without": median_of("without"),
        "spread": spread_of("without"),
        "with": median_of("with"),
        "spread with": spread_of("with"),
        "longer by": number("longer", ".1%"),
        "of that the first measurement": number("first", ".1%"),
        "the others, by their own clock": number("share", ".1%"),
        "a measurement, s": seconds("each"),
        "measurements": integer("measurements"),
        "largest drift of the alignment": number("drift", ".4f"),
    }
    note = (
        f"`ra.AlignmentMonitor` at its defaults, one image of each class, {1 if plan.quick else ROUNDS} runs of either "
        "kind in turn; the monitor is made within the time. Longer by: of the medians. The next two columns are shares "
        "of the seconds without, by the monitor's clock: the first measurement, which is not counted in its budget, "
        "and all others. A measurement: the median of the warm-started ones. Drift: against the full measures, where "
        "there was one after the first."
    )
    return [Table("What a monitor costs a training", columns, rows, note)]


def _row(task: Task, plan: Plan) -> Row:
    data = ra.load_data("digits").to(plan.device)
    x, _ = data.sample(per_class=PROBES)
    taken: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(1 if plan.quick else ROUNDS):
        taken["without"].append(seconds_of(lambda: _train(task, data, None), plan.device)[0])
        second, monitor = seconds_of(lambda: _train(task, data, x), plan.device)
        taken["with"].append(second)
    frame = monitor.to_frame()
    base, longer = (float(torch.tensor(taken[name]).median()) for name in ("without", "with"))
    drift = frame.drift_alignment.abs().max()
    return {
        "task": task.label,
        **{name: [round(value, 4) for value in values] for name, values in taken.items()},
        "longer": longer / base - 1,
        "first": float(frame.seconds[0]) / base,
        "share": float(frame.seconds[1:].sum()) / base,
        "each": float(frame.seconds[~frame.fresh].median()),
        "measurements": len(frame),
        "drift": None if drift != drift else float(drift),
    }


def _train(task: Task, data: ra.ImageData, x: torch.Tensor | None) -> ra.AlignmentMonitor | None:
    """Train from the same start, with a monitor if there are probe inputs."""
    model = ra.build_model(task.model, data, seed=0).to(data.train_x.device)
    monitor = None if x is None else ra.AlignmentMonitor(model, x)
    ra.train(model, data, task.train, monitors=[] if monitor is None else [monitor])
    return monitor
