"""The light score, tested, for chapter 21: do forward passes alone tell which networks align?

python -m experiments.screening

writes ``results/screening.json``: the line shape of the untrained twin of every recorded network that this project
trained, at five test images of each class. That is all that is measured here; all else is in the rows that there are.
About two minutes on one core, nothing is trained. A GPU adds nothing: what it could add are other networks to test on,
``python -m experiments.counterfactuals map`` and the others with larger settings, whose rows this program then takes up
(``FIT``, ``TEST``). It needs Fashion-MNIST in the folder that RESALIGN_DATA names.

Asked and fixed before the threshold was tried on the test networks, whose scores stood in other chapters by then:

*Networks.* Each counts once, whatever the number of files that hold it, with the scores of the end of its training.
The fit is on those of ``counterfactuals_*`` whose training accuracy is at least 0.99. The test is on all others but
those whose setting (the configuration without seeds) is in the fit: their rows say nothing new.

*Truth.* Aligned means an alignment of 0.5 or more. The ROC is also drawn for 0.1 and 0.3.

*Scores*, all from forward passes, each lower where there should be alignment: the line-shape score s; s / √L, since √L
is what L random steps give; log s / log √L; the step CV; a logistic regression on log s, log L and the step CV, fitted
on the same networks; s over that of the untrained twin. The threshold of a score maximises Youden's J, sensitivity +
specificity − 1, on the fit, and lies half way to the next value. The rules that ``diagnose`` has now stand beside them:
s at most 2; s below the twin's.

*Intervals* are of 95 %, by a bootstrap over settings, the seeds of one setting together. Where every network is judged
right the bootstrap has no width, and the lower end is the exact binomial one of as many settings. With fewer than five
settings of a kind (aligned or not) there is no interval, and numbers are counts.

1. *Does the threshold carry over?* In each family of networks: yes if the lower ends of sensitivity and of specificity
   are at least 0.8; no if the upper end of either is below 0.8; else it is not shown.
2. *Does another score rank better than s?* On all test networks that fit 0.99: yes if the interval of the difference of
   the two AUCs, on the same draws, lies above 0.
3. *Does the sentence of ``diagnose`` hold*, that none above s = 2 has an alignment above 0.19? It fails by one network.
4. *Is the fitted threshold better than 2?* Yes if the interval of the difference of their J, on all test networks
   that fit 0.99, lies above 0; then the rule changes.

Networks that do not fit, states in the course of a training, and published networks are judged apart. Which kinds of
network are missed, and why, is looked at afterwards: what is said of it is found, not tested.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cache

import torch

import resalign_utils as ra
from resalign_utils.alignment import trajectory_scores
from resalign_utils.runs import provenance_of_now

from ._record import Row, made_with, record, rounded

COUNTERFACTUALS = ("digits", "map", "fashion_mnist", "rank", "convolutional", "exercises", "course")
FIT = tuple(f"counterfactuals_{part}" for part in COUNTERFACTUALS)
TEST = {
    "few or unbalanced images": (
        "small_and_unbalanced",
        "small_and_unbalanced_batches",
        "small_and_unbalanced_exercises",
    ),
    "collapse and laws of depth": ("collapse", "collapse_decays", "theory"),
    "convolutional": ("convolutional_digits", "convolutional_fashion_mnist"),
    "convolutional, search": ("convolutional_search",),
    "partly linear": ("bridge",),
}


def twins() -> Iterator[ra.RunConfig]:
    """The configuration of each network whose twin is wanted; of those with one twin, the first."""
    seen = set()
    frame = ra.recorded_networks(*FIT, *(name for names in TEST.values() for name in names))
    for parts in frame.config:
        config = ra.RunConfig(
            ra.DataConfig(**parts["data"]), ra.ResNetConfig(**parts["model"]), ra.TrainConfig(**parts["train"])
        )
        key = twin_key(parts)
        if key not in seen:
            seen.add(key)
            yield config


def twin_key(config: Row) -> str:
    """All that an untrained network and its test images depend on, from a recorded configuration."""
    return json.dumps([config["data"], config["model"], config["train"]["seed"]], sort_keys=True)


@cache
def _images(data: ra.DataConfig) -> ra.ImageData:
    return ra.load_data(**asdict(data))


@cache
def _provenance(data: ra.DataConfig) -> Row:
    return made_with(provenance_of_now(_images(data)))


def untrained(config: ra.RunConfig) -> Row:
    """The scores of one untrained network."""
    data = _images(config.data)
    model = ra.build_model(config.model, data, seed=config.train.seed)
    ra.train(model, data, replace(config.train, epochs=0))  # sets the statistics of batch norms, as before any training
    x, _ = data.sample(5)
    line_shape, cv, _ = trajectory_scores(ra.trace(model, x).residuals)
    row: Row = {"config": asdict(config), "seed": config.train.seed, "inputs": len(x)}
    row |= {"line_shape_score": rounded(line_shape.mean()), "step_cv": rounded(cv.mean())}
    return row | {"provenance": dict(_provenance(config.data))}


def everything() -> list[Row]:
    """All twins."""
    torch.set_num_threads(1)
    start, rows = time.perf_counter(), []
    for number, config in enumerate(twins(), start=1):
        rows.append(untrained(config))
        if number % 50 == 0:
            print(f"{number} twins, {time.perf_counter() - start:.0f} s", flush=True)
    return rows


if __name__ == "__main__":
    record("screening", "python -m experiments.screening", everything())
