"""Results that were measured beforehand, and kept with the package."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd


def results_folder() -> Path:
    """Where results are written and read: ``results`` inside the package (in a wheel), else beside it (in a clone).

    Only one of the two is looked at, so that nobody else's ``results`` beside an installed package is read.
    """
    package = Path(__file__).resolve().parent
    inside = package / "results"
    return inside if inside.is_dir() else package.parent / "results"


def recorded(name: str) -> pd.DataFrame:
    """Return results that a program of ``experiments/`` or the benchmarks measured and wrote, one row a network.

    Args:
        name: of the file, such as ``"counterfactuals_digits"``.

    Returns:
        A frame; ``frame.attrs["command"]`` makes the results anew, ``frame.attrs["provenances"]`` says when and with
        what they were made, where a column ``provenance`` gives the number. Of ``"benchmarks"``, which are several
        tables, columns ``group`` and ``table`` say of which a row is, and what a table lacks is NaN: one of them is
        ``frame[frame.table == title].dropna(axis=1, how="all")``, its note ``frame.attrs["notes"][title]``, and
        ``frame.attrs["environment"]`` says with what it was timed.

    Raises:
        FileNotFoundError: there is no such result; the text lists those there are.
        OSError: the file is damaged.
    """
    paths = {path.stem: path for path in results_folder().glob("*.json")}
    if name not in paths:
        known = ", ".join(sorted(paths)) or f"none, for {results_folder()} holds no JSON file"
        raise FileNotFoundError(f"No result is recorded as {name!r}; expected one of {known}.")
    try:
        content: Any = json.loads(paths[name].read_text(encoding="utf-8"))
        if "groups" in content:
            content = _of_tables(content)
        frame = pd.DataFrame([dict(row) for row in content.pop("rows")])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise OSError(f"{paths[name]} is damaged ({error}). Restore it, or run its program again.") from error
    frame.attrs = content
    return frame


def _of_tables(content: dict[str, Any]) -> dict[str, Any]:
    """The rows of all tables of the benchmarks in one list, with the names of their group and table."""
    tables = [(group, table) for group, tables in content.pop("groups").items() for table in tables]
    rows = [{"group": group, "table": table["title"], **row} for group, table in tables for row in table["rows"]]
    notes = {table["title"]: table["note"] for _, table in tables}
    return content | {"command": "make bench", "notes": notes, "rows": rows}


Row = dict[str, Any]
WITHIN = ("trained", "sequence")  # what holds the scores of rows that have several
BESIDE = {"layers": str, "objective": dict}  # what of a network can stand beside its configuration, in rows of such
SCORES = ("alignment", "line_shape_score", "step_cv")


def recorded_networks(*names: str) -> pd.DataFrame:
    """Return the scores of all networks in recorded results, from whichever chapter they come, one row a measurement.

    Where a network was measured in the course of its training there is a row each time; ``last`` is false for all but
    the trained network. Scores are means over inputs.

    Args:
        names: of results, as in :func:`recorded`; their rows must hold an alignment and a line-shape score.

    Returns:
        A frame with the columns ``source``, the name; ``setting``, a text that is the same for the seeds of one
        setting and for no other network, whatever the source; ``seed``; ``config``, None for networks that others
        trained; ``depth``, the number of blocks; ``epoch``, NaN where it is the last and only one; ``last``;
        ``train_accuracy``, NaN where it is not known; ``alignment``, ``line_shape_score``, ``step_cv``.

    Raises:
        FileNotFoundError: there is no such result.
        ValueError: rows without these scores.

    Example:
        >>> import resalign_utils as ra
        >>> networks = ra.recorded_networks("theory", "collapse")
        >>> float(networks[networks["last"]].alignment.max().round(2))
        0.94
    """
    rows: list[Row] = []
    for name in names:
        for row in recorded(name).to_dict("records"):
            rows += _measured({str(column): value for column, value in row.items()} | {"source": name})
    return pd.DataFrame(rows)


def _measured(row: Row) -> list[Row]:
    """What one recorded row says of its network, measurement by measurement."""
    config, course = _full_config(row), _course(row)
    scores = next((row[part] for part in WITHIN if isinstance(row.get(part), dict)), row)
    if course is None and any(scores.get(name) is None for name in SCORES[:2]):
        raise ValueError(f"Expected alignment and line_shape_score in each row of {row['source']!r}; got {[*row]}.")
    common: Row = {"source": row["source"], "setting": _setting(row, config), "config": config}
    common["seed"] = row["seed"] if config is None else config["train"]["seed"]
    common["depth"] = len(row["blocks"]) if config is None else config["model"]["depth"]
    accuracy = row.get("train_accuracy", math.nan)
    if course is None:
        found: Row = {name: _mean(scores.get(name)) for name in SCORES}
        return [common | {"epoch": math.nan, "last": True, "train_accuracy": accuracy} | found]
    last = len(course["epochs"]) - 1
    accuracies = accuracy if isinstance(accuracy, list) else [None] * last + [accuracy]
    measured = []
    for at, epoch in enumerate(course["epochs"]):
        found = {"epoch": epoch, "last": at == last, "train_accuracy": _mean(accuracies[at])}
        measured.append(common | found | {name: _mean(course[name][at]) for name in SCORES})
    return measured


def _course(row: Row) -> Row | None:
    """Epochs, and scores after each of them, where a network was measured on its way."""
    if isinstance(row.get("course"), dict):
        return {"epochs": row.get("epochs"), **row["course"]}
    return row if isinstance(row.get("epochs"), list) else None


def _mean(values: Any) -> float:
    """Of a list over inputs, or the number itself; NaN where there is none."""
    known = [math.nan if v is None else v for v in (values if isinstance(values, list) else [values])]
    return sum(known) / len(known)


def _full_config(row: Row) -> Row | None:
    """The configuration with the fields that did not exist yet when it was recorded; None for networks of others."""
    config: Row | None = row["config"] if isinstance(row.get("config"), dict) else None
    if config is None and isinstance(row.get("model"), dict):
        config = {"data": {"name": "digits"}, "model": row["model"], "train": row["train"]}
    if config is None:
        return None
    from .models import ResNetConfig
    from .runs import RunConfig
    from .training import TrainConfig

    usual = asdict(RunConfig("digits", ResNetConfig(depth=1, width=1), TrainConfig()))
    return {**config, **{part: _filled(config[part], values) for part, values in usual.items()}}


def _filled(given: Row, usual: Row) -> Row:
    """With the usual values of what is not given, unless it is the configuration of something else."""
    return {**usual, **given} if given.keys() <= usual.keys() else given


def _setting(row: Row, config: Row | None) -> str:
    """All that makes a network but its seed: which images and classes a seed draws counts as the seed's."""
    if config is None:
        return json.dumps([row[name] for name in ("network", "weights")])
    model, data, train = (dict(config[part]) for part in ("model", "data", "train"))
    if "skip" in model:
        model["skip"] = [float(s) for s in skip] if isinstance(skip := model["skip"], list) else float(skip)
    counts = data.pop("per_class")
    same = isinstance(counts, list) and len(set(counts)) == 1  # as many of each class is also given as one number
    data["per_class"] = counts[0] if same else sorted(counts) if isinstance(counts, list) else counts
    del data["seed"], train["seed"]
    rest = {part: value for part, value in config.items() if part not in ("model", "data", "train")}
    rest |= {part: row[part] for part, kind in BESIDE.items() if isinstance(row.get(part), kind)}
    if isinstance(after := row.get("linearization"), dict):
        rest |= {"family": row["family"], "linearization": after | {"train": after["train"] | {"seed": None}}}
    return json.dumps([model, data, train, rest], sort_keys=True)
