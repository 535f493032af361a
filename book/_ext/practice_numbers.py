"""The numbers of the pages for practice, in English and in Japanese, from the recorded results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from inspect import signature
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

import resalign_utils as ra
from resalign_utils.diagnosis import RULES
from resalign_utils.diagnosis._monitor import SHARE
from resalign_utils.diagnosis._proof_of_concept import STEPS
from resalign_utils.training import TrainConfig, learning_rate

Row = dict[str, Any]
Numbers = Sequence[float] | np.ndarray
RATIO = 50  # majority : minority in the comparison that the guide shows
FILES = ("counterfactuals_digits", "counterfactuals_map", "counterfactuals_fashion_mnist", "small_and_unbalanced")
EDGES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, float("inf"))  # of the decay time, between rows of the table
SAMPLES = 1000  # of a schedule
FITTED = 0.99  # training accuracy from which on a network counts as one that fits
EXAMPLE = 2.0  # average path length at which chapter 16 folds its example


def results(root: Path, name: str) -> list[Row]:
    """The rows of one recorded result."""
    rows: list[Row] = json.loads((root / "results" / f"{name}.json").read_text(encoding="utf-8"))["rows"]
    return rows


def where(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """The rows with these values, by seed."""
    return sorted((r for r in rows if all(r.get(k) == v for k, v in wanted.items())), key=lambda r: r["seed"])


def interval(values: Numbers) -> tuple[float, float]:
    """Mean, and half of its 95 % interval by Student's t."""
    array = np.asarray(values, float)
    half = student.ppf(0.975, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array))
    return float(array.mean()), float(half)


def told(values: Numbers, digits: int = 2) -> str:
    """Mean ± half an interval."""
    return "{:.{d}f} ± {:.{d}f}".format(*interval(values), d=digits)


def points(differences: Numbers, digits: int = 0) -> str:
    """A difference of shares in points, with its sign."""
    mean, half = (100 * value for value in interval(differences))
    return f"{mean:+.{digits}f} ± {half:.{digits}f}".replace("-", "−")


def decay_time(config: Row) -> float | None:
    """S of a recorded configuration, its schedule averaged over many points; None where Adam rescales the penalty."""
    recipe = TrainConfig(**{**config["train"], "seed": 0})
    if recipe.optimizer == "adam" and recipe.weight_decay:
        return None
    steps = recipe.epochs * -(-_images(config["data"]) // recipe.batch_size)
    return float(recipe.weight_decay * steps * _mean_rate(recipe) / (1 - recipe.momentum))


@cache
def _mean_rate(recipe: TrainConfig) -> float:
    return sum(learning_rate(recipe, (place + 0.5) / SAMPLES) for place in range(SAMPLES)) / SAMPLES


@cache
def _images_of(classes: tuple[int, ...] | None) -> int:
    return len(ra.load_data("digits", classes=classes).train_y)


def _images(data: Row) -> int:
    """Number of training images of a recorded configuration."""
    if isinstance(data["per_class"], list):
        return sum(data["per_class"])
    if data["per_class"]:
        return int(data["per_class"]) * len(data["classes"] or range(10))
    if data["name"] != "digits":
        raise ValueError(f"Expected per_class for {data['name']}, whose size is not known here.")
    return _images_of(data["classes"] and tuple(data["classes"]))


def fitted_networks(root: Path) -> list[Row]:
    """Networks with all skips and true labels that fit their training set: S, alignment, norm; each counted once."""
    found: dict[str, Row] = {}
    times: dict[str, float | None] = {}
    for row in (row for name in FILES for row in results(root, name)):
        config = row["config"]
        whole = config["model"]["skip"] in (True, 1.0) and not config["data"]["label_noise"]
        if not whole or row.get("alignment") is None or row["train_accuracy"] < FITTED:
            continue
        recipe = json.dumps([config["data"], {**config["train"], "seed": 0}], sort_keys=True)
        if recipe not in times:
            times[recipe] = decay_time(config)
        if times[recipe] is not None:
            entry = {"S": times[recipe], "alignment": row["alignment"], "norm": config["model"]["norm"]}
            found[json.dumps(config, sort_keys=True)] = entry
    return list(found.values())


def decay_table(networks: Sequence[Row]) -> list[Row]:
    """For each range of S: least and most alignment, and the number of networks, with batch norm and without."""
    table = []
    for low, high in pairwise(EDGES):
        row: Row = {"low": low, "high": high}
        for norm in (True, False):
            inside = [n["alignment"] for n in networks if low <= n["S"] < high and n["norm"] == norm]
            row["norm" if norm else "plain"] = (min(inside), max(inside), len(inside)) if inside else None
        table.append(row)
    return table


def _recall(rows: Sequence[Row], rare: bool = True) -> np.ndarray:
    """Mean recall of the rare, or of the other, classes: one a seed."""
    return np.array([np.mean([v for c, v in enumerate(r["recall"]) if (c in r["minority"]) == rare]) for r in rows])


def _share(row: Row) -> float:
    """Of the training images, those of the rare classes."""
    counts = row["config"]["data"]["per_class"]
    return float(sum(counts[c] for c in row["minority"]) / sum(counts))


def unbalanced(root: Path) -> dict[str, str]:
    """Chapter 13: recall of rare classes with and without skips, at two weight decays; few images."""
    rows = results(root, "small_and_unbalanced")
    kinds = {
        f"{decay}-{kind}": where(rows, study=study, ratio=RATIO, skip=skip)
        for decay, study in (("strong", "unbalanced"), ("weak", "weaker decay"))
        for kind, skip in (("skips", True), ("plain", False))
    }
    recall = {name: _recall(several) for name, several in kinds.items()}
    better = max(("strong-plain", "weak-plain"), key=lambda name: float(recall[name].mean()))
    values = {f"recall-{name}": told(seeds) for name, seeds in recall.items()}
    values |= {
        "gain-strong": points(recall["strong-skips"] - recall["strong-plain"]),
        "gain-weak": points(recall["weak-skips"] - recall["weak-plain"]),
        "gain-both": points(recall["strong-skips"] - recall[better]),
        "majority-strong-skips": told(_recall(kinds["strong-skips"], rare=False)),
        "fit-strong-plain": f"{100 * np.mean([r['train_accuracy'] for r in kinds['strong-plain']]):.0f}",
        "rare-share": f"{100 * _share(kinds['strong-plain'][0]):.0f}",
        "decay-strong": f"{kinds['strong-skips'][0]['config']['train']['weight_decay']:g}",
        "decay-weak": f"{kinds['weak-skips'][0]['config']['train']['weight_decay']:g}",
        "S-strong": f"{decay_time(kinds['strong-skips'][0]['config']):.1f}",
        "S-weak": f"{decay_time(kinds['weak-skips'][0]['config']):.1f}",
        "ratio": f"1:{RATIO}",
        "seeds": f"{len(recall['strong-skips'])}",
    }
    for images in (5, 80, "all"):
        pair = [where(rows, study="few", images=images, skip=skip) for skip in (True, False)]
        gain = [a["test_accuracy"] - b["test_accuracy"] for a, b in zip(*pair, strict=True)]
        values[f"few-{images}"] = points(gain, 1 if images != 5 else 0)
    return values


def decay(root: Path) -> dict[str, str]:
    """Chapters 9 and 10: what is known of S, and of alignment as no measure of quality."""
    rows = results(root, "counterfactuals_digits")

    def of(factor: str, level: Any, column: str = "alignment") -> list[float]:
        return [r[column] for r in where(rows, factor=factor, level=level)]

    architectures = [r for r in rows if r["factor"] in ("architecture", "optimiser") and decay_time(r["config"])]
    base = decay_time(where(rows, factor="weight decay", base=True)[0]["config"]) or 0.0
    same = [r for r in architectures if abs((decay_time(r["config"]) or 0) - base) < 0.01]
    means = [np.mean(of(r["factor"], r["level"])) for r in same]
    norm = "post-activation, no norm, 0.01", "pre-activation, batch norm, 0.01"
    values = {
        "S-base": f"{base:.1f}",
        "same-S-low": f"{min(means):.2f}",
        "same-S-high": f"{max(means):.2f}",
        "S-400": f"{decay_time(where(rows, factor='epochs', level=400)[0]['config']):.1f}",
        "S-800": f"{decay_time(where(rows, factor='epochs', level=800)[0]['config']):.1f}",
        "alignment-400": told(of("epochs", 400)),
        "alignment-800": told(of("epochs", 800)),
        "S-adamw": f"{decay_time(where(rows, factor='optimiser', level='AdamW, 0.01')[0]['config']):.2f}",
        "alignment-adamw": told(of("optimiser", "AdamW, 0.01"), 3),
        "accuracy-adamw": told(of("optimiser", "AdamW, 0.01", "test_accuracy"), 3),
        "wrong-train": f"{np.mean(of('label noise, decay 0.01', 1.0, 'train_accuracy')):.2f}",
        "wrong-test": f"{np.mean(of('label noise, decay 0.01', 1.0, 'test_accuracy')):.2f}",
        "wrong-alignment": told(of("label noise, decay 0.01", 1.0)),
        "few-alignment": told(of("images a class", 5)),
        "few-accuracy": told(of("images a class", 5, "test_accuracy")),
        "all-alignment": told(of("images a class", "all")),
        "all-accuracy": told(of("images a class", "all", "test_accuracy")),
    }
    for name, level in zip(("more", "less"), norm, strict=True):
        values[f"{name}-alignment"] = told(of("architecture", level))
        values[f"{name}-accuracy"] = told(of("architecture", level, "test_accuracy"), 3)
    return values


def limits(root: Path) -> dict[str, str]:
    """What was seen below S = 1, which networks did not train, and how far a proof of concept goes by default."""
    early = [n["alignment"] for n in fitted_networks(root) if n["S"] < RULES["decay time"].thresholds[0]]
    grid = results(root, "counterfactuals_map")
    failed = {skip: sum(r["train_accuracy"] < FITTED for r in grid if r["skip"] == skip) for skip in (True, False)}
    given = {name: value.default for name, value in signature(ra.proof_of_concept).parameters.items()}
    proof = ra.TrainingRecipe(given["lr"], max(given["weight_decays"]), STEPS, schedule="cosine")
    return {
        "early-count": f"{len(early)}",
        "early-most": f"{max(early):.2f}",
        "failed-skips": f"{failed[True]}",
        "failed-plain": f"{failed[False]}",
        "tried": f"{sum(r['skip'] for r in grid)}",
        "S-proof": f"{proof.decay_time:.1f}",
    }


def cost(root: Path) -> dict[str, str]:
    """Chapter 16 and experiments/running_cost.py: folding, and what either granularity costs to run."""
    rows = results(root, "running_cost")
    digits = {
        way: where(rows, family="digits", way=way, target=EXAMPLE if way != "untouched" else None)
        for way in ("untouched", "layer", "channel", "direct")
    }
    accuracy = {way: np.array([r["accuracy"] for r in several]) for way, several in digits.items()}
    values = {"seeds-cost": f"{len(accuracy['layer'])}", "NAPL": f"{EXAMPLE:g}"}
    for way, several in digits.items():
        values[f"{way}-accuracy"] = f"{100 * accuracy[way].mean():.1f}"
        values[f"{way}-flops"] = _thousands(several, "folded_flops")
        values[f"{way}-parameters"] = _thousands(several, "folded_parameters")
        (timed,) = (r for r in several if "folded_milliseconds" in r)
        values[f"{way}-ms"] = f"{timed['folded_milliseconds']:.2f}"
        values["timed-images"] = f"{timed['images']}"
        if way != "untouched":
            values[f"{way}-loss"] = points(accuracy[way] - accuracy["untouched"], 1)
    values["untouched-size"] = _thousands(digits["untouched"], "parameters")
    values["channel-minus-layer"] = points(accuracy["channel"] - accuracy["layer"], 1)
    values["direct-minus-layer"] = points(accuracy["direct"] - accuracy["layer"], 1)
    shorter = [where(rows, family="digits", way=way, target=EXAMPLE / 2) for way in ("direct", "layer")]
    values["direct-minus-layer-1"] = points([a["accuracy"] - b["accuracy"] for a, b in zip(*shorter, strict=True)], 1)
    for way in ("layer", "channel"):
        values[f"cheapest-{way}"] = _cheapest(rows, way, float(accuracy["untouched"].mean()))
    values["fewer-flops"] = _ratio(digits["channel"], digits["layer"], "folded_flops")
    values["fold-flops"] = f"{digits['untouched'][0]['flops'] / digits['layer'][0]['folded_flops']:.0f}"
    images = [r for r in rows if r["family"] == "convolutional"]
    (flops,) = {f"{r['folded_flops'] / 1e6:.1f}" for r in images}  # the same before and after, for both granularities
    return values | {"conv-flops": flops}


def _cheapest(rows: Sequence[Row], way: str, untouched: float) -> str:
    """Thousands of FLOPs at the shortest average path length whose mean accuracy is within a point of the untouched."""
    several = where(rows, family="digits", way=way)
    for target in sorted({r["target"] for r in several}):
        these = [r for r in several if r["target"] == target]
        if np.mean([r["accuracy"] for r in these]) >= untouched - 0.01:
            return _thousands(these, "folded_flops")
    raise ValueError(f"No target of {way} is within a point of the untouched networks: the guide must say so.")


def _thousands(rows: Sequence[Row], column: str) -> str:
    values = sorted({round(r[column] / 1e3) for r in rows})
    return f"{values[0]}–{values[-1]}" if len(values) > 1 else f"{values[0]}"


def _ratio(over: Sequence[Row], under: Sequence[Row], column: str) -> str:
    return f"{np.mean([a[column] for a in over]) / np.mean([b[column] for b in under]):.0f}"


def thresholds(_: Path) -> dict[str, str]:
    """What is fixed in the package."""
    named = {name.replace(" ", "-"): rule.thresholds for name, rule in RULES.items()}
    values = {f"rule-{name}": f"{numbers[0]:g}" for name, numbers in named.items()}
    values["rule-straightness-bent"] = f"{RULES['straightness'].thresholds[1]:g}"
    values["rule-alignment-strong"] = f"{RULES['alignment'].thresholds[1]:g}"
    return values | {"monitor-share": f"{100 * SHARE:g}", "rules": f"{len(RULES)}"}


PARTS: tuple[Callable[[Path], dict[str, str]], ...] = (unbalanced, decay, limits, cost, thresholds)


def numbers(root: Path) -> dict[str, str]:
    """All numbers by name, as they are printed.

    Args:
        root: the folder that holds ``results``.

    Raises:
        ValueError: two parts give one name.
    """
    values: dict[str, str] = {}
    for part in PARTS:
        new = part(root)
        if twice := values.keys() & new.keys():
            raise ValueError(f"Two parts give {', '.join(sorted(twice))}.")
        values |= new
    return values
