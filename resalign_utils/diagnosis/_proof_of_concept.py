"""What to do first on one's own data: do skips help, does a network help at all?"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from ..data import ImageData
from ..data._images import value_error
from ..training import TrainConfig
from ._candidates import HALF, WITH, WITHOUT, Candidate, Predicted, candidates, recalls
from ._examples import Examples, Index, check_counts, stratified
from ._pictures import from_image_data, read_arrays, read_folder
from ._proof import ProofOfConcept, ProofRun
from ._tables import read_table

Data: TypeAlias = ImageData | pd.DataFrame | str | os.PathLike[str] | tuple[Any, Any]
UNBALANCED = 1.5  # largest class / smallest class, beyond which balanced accuracy decides
STEPS = 400  # of a training on few data
FEWEST_EPOCHS = 10  # on many
SMALL_DATA = 2000  # training examples up to which a batch has 32, beyond it 128


def proof_of_concept(
    data: Data,
    *,
    target: str | None = None,
    seeds: int = 5,
    image_size: int | None = None,
    test_share: float = 0.25,
    depth: int = 4,
    width: int | None = None,
    epochs: int | None = None,
    lr: float = 3e-3,
    weight_decays: Sequence[float] = (0.01, 1.0),
    margin: float = 0.01,
    device: torch.device | str = "cpu",
) -> ProofOfConcept:
    """Compare one network with all, half and none of its skips on your data, and with what is simpler.

    Beside the networks stand the most frequent class and, for a table, logistic regression and gradient boosting. Each
    seed draws a stratified split, a network's initial weights and the order of its examples, the same for all
    candidates. A candidate's setting (weight decay; C; rows in a leaf) is chosen on a quarter of the training examples
    by the score that decides, then it learns from all of them; the test examples are only labelled. No class is
    weighted: candidates that should weight rare classes are compared as they come. The intervals are over seeds, and
    account for splits that overlap; each holds for itself, and the rule asks for more, for it looks at several.

    Args:
        data: a table, as a pandas frame or the path of a CSV file; images, as a folder with one sub-folder a class, as
            a pair (x, y) of (n, h, w) or (n, c, h, w) and labels, or as an :class:`ImageData`, whose split and scale
            are kept for all seeds.
        target: the column that holds the classes; for a table, and only there.
        seeds: number of paired repetitions, at least 3.
        image_size: pixels of a side to which a folder's images are resized and cut.
        test_share: share of each class that is tested, where the data do not come split.
        depth: number of blocks of the networks, at least 2; "half" has a skip around the first of every two.
        width: units of a table's networks (64), or channels (16).
        epochs: passes over the training examples; by default so many that there are about 400 steps, at least 10.
        lr: learning rate of AdamW, one cycle.
        weight_decays: the settings of a network; one is taken as it is.
        margin: gain, as a share, that a less simple candidate must have to be recommended.
        device: where the networks are trained.

    Returns:
        A :class:`ProofOfConcept`: ``summary()``, ``recommendation``, ``to_frame()``, ``figure()``.

    Raises:
        ValueError: data or arguments that cannot be used; the text says which, and what to do.
        FileNotFoundError: there is no such file or folder.
        FloatingPointError: a training diverged; take a lower ``lr``.

    Example:
        >>> import numpy as np
        >>> import pandas as pd
        >>> import resalign_utils as ra
        >>> x = np.random.default_rng(0).normal(size=(120, 3))
        >>> table = pd.DataFrame(x, columns=["a", "b", "c"]).assign(sold=np.where(x[:, 0] > 0, "yes", "no"))
        >>> proof = ra.proof_of_concept(table, target="sold", seeds=3, depth=2, width=16, epochs=2)
        >>> proof.choice
        'logistic regression'
    """
    _check_arguments(seeds, depth, test_share, margin, weight_decays)
    examples = _read(data, target, image_size)
    check_counts(examples)
    counts = [*examples.counts.values()]
    decided_by = "balanced_accuracy" if max(counts) > UNBALANCED * min(counts) else "accuracy"
    train, test = examples.split or stratified(examples.y, np.arange(len(examples.y)), test_share, (0, 0))
    batch = 32 if len(train) <= SMALL_DATA else 128
    if epochs is None:
        epochs = max(FEWEST_EPOCHS, math.ceil(STEPS / math.ceil(len(train) / batch)))
    recipe = TrainConfig(epochs=epochs, lr=lr, batch_size=batch, optimizer="adamw")
    width = width or (64 if examples.kind == "fc" else 16)
    compared = candidates(examples.kind, depth, width, recipe, tuple(float(decay) for decay in weight_decays))
    runs = []
    with tqdm(total=seeds * len(compared), desc="proof of concept", unit="fit", leave=False, delay=1) as progress:
        for seed in range(seeds):
            for run in _compare(examples, compared, seed, test_share, decided_by, device):
                runs.append(run)
                progress.update()
    return ProofOfConcept(
        name=examples.name,
        described=_described(examples, len(train), len(test), seeds),
        candidates=tuple(candidate.name for candidate in compared),
        seeds=tuple(range(seeds)),
        runs=tuple(runs),
        decided_by=decided_by,
        margin=float(margin),
        overlap=0.0 if examples.split else len(test) / len(train),
        step=_step(examples, test, decided_by),
        frequent=max(examples.counts, key=lambda name: examples.counts[name]),
        notes=(*examples.notes, *_notes(examples, test, runs)),
    )


def _read(data: Data, target: str | None, image_size: int | None) -> Examples:
    path = Path(data) if isinstance(data, str | os.PathLike) else None
    table = data if isinstance(data, pd.DataFrame) else path if path and path.is_file() else None
    if table is not None:
        if target is None:
            raise value_error("target= as the name of a table's column", "none", 'Use e.g. target="class".')
        if image_size is not None:
            raise value_error("image_size=None with a table", f"{image_size!r}", "Leave it out.")
        return read_table(table, target)
    if target is not None:
        if path and not path.exists():
            raise FileNotFoundError(f"Expected a CSV file; there is no {path}.")
        raise value_error("target= with a table only", f"{target!r} with {type(data).__name__}", "Leave it out.")
    if path:
        return read_folder(path, image_size)
    if image_size is not None:
        raise value_error("image_size= with a folder only", f"{image_size!r}", "Resize the images before.")
    if isinstance(data, ImageData):
        return from_image_data(data)
    if isinstance(data, tuple) and len(data) == 2:
        return read_arrays(*data)
    fix = "For a table give a pandas DataFrame and target=."
    raise value_error("a DataFrame, a path, an ImageData or a pair (x, y)", type(data).__name__, fix)


def _check_arguments(seeds: int, depth: int, test_share: float, margin: float, decays: Sequence[float]) -> None:
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 3:
        raise value_error("seeds as a number of at least 3", f"{seeds!r}", "Fewer differences have no useful interval.")
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 2:
        raise value_error("depth as a number of at least 2", f"{depth!r}", "One block has no half of its skips.")
    if not 0 < test_share < 1:
        raise value_error("test_share between 0 and 1", f"{test_share!r}", "Use e.g. test_share=0.25.")
    if not 0 <= margin < 1:
        raise value_error("margin in [0, 1)", f"{margin!r}", "One point is margin=0.01.")
    if isinstance(decays, str) or not isinstance(decays, Sequence) or not decays:
        raise value_error("weight_decays as at least one number", f"{decays!r}", "Use e.g. weight_decays=(0.01, 1.0).")


def _compare(
    examples: Examples,
    compared: Sequence[Candidate],
    seed: int,
    test_share: float,
    decided_by: str,
    device: torch.device | str,
) -> Iterator[ProofRun]:
    """Each candidate once, on this seed's split; its setting is chosen inside of the training examples."""
    every = np.arange(len(examples.y))
    train, test = examples.split or stratified(examples.y, every, test_share, (seed, 0))
    learn, choose = stratified(examples.y, train, 0.25, (seed, 1))
    inner, outer = examples.prepare(learn, choose).to(device), examples.prepare(train, test).to(device)
    for candidate in compared:
        setting = candidate.settings[0]
        if len(candidate.settings) > 1:
            fits = {each: candidate.fit(each, inner, seed) for each in candidate.settings}
            setting = max(fits, key=lambda each: _scores(fits[each].test, examples, choose)[decided_by])
        fitted: Predicted = candidate.fit(setting, outer, seed)
        yield ProofRun(
            candidate.name,
            seed,
            **_scores(fitted.test, examples, test),
            train_accuracy=float((fitted.train == examples.y[train]).mean()),
            seconds=fitted.seconds,
            parameters=fitted.parameters,
            setting=setting,
        )


def _scores(labels: Index, examples: Examples, index: Index) -> dict[str, float]:
    y = examples.y[index]
    return {
        "accuracy": float((labels == y).mean()),
        "balanced_accuracy": float(recalls(labels, y, len(examples.class_names)).mean()),
    }


def _step(examples: Examples, test: Index, decided_by: str) -> float:
    """By how much a score changes when one test example, of the smallest class, is labelled otherwise."""
    if decided_by == "accuracy":
        return 1 / len(test)
    classes = len(examples.class_names)
    return 1 / (classes * int(np.bincount(examples.y[test], minlength=classes).min()))


def _described(examples: Examples, train: int, test: int, seeds: int) -> str:
    counts = examples.counts
    sizes = ", ".join(f"{name}: {count}" for name, count in counts.items())
    if len(counts) > 10:
        sizes = f"from {min(counts.values())} to {max(counts.values())} {examples.what} a class"
    split = "as they came" if examples.split else "drawn anew for each seed, stratified"
    return (
        f"{examples.name}: {len(examples.y)} {examples.what} of {examples.shape} in {len(counts)} classes ({sizes}).\n"
        f"{train} to learn from and {test} to test, {split}; {seeds} seeds."
    )


def _notes(examples: Examples, test: Index, runs: Sequence[ProofRun]) -> list[str]:
    notes = []
    tested = np.bincount(examples.y[test], minlength=len(examples.class_names))
    least = int(tested.argmin())
    if tested[least] < 10:
        notes.append(
            f"Class {examples.class_names[least]!r} has {tested[least]} {examples.what} in a test set: one of them is "
            f"{100 / tested[least]:.0f} points of its recall."
        )
    if examples.split:
        notes.append("The data came split, so the intervals do not say what other test examples would give.")
    fitted = {
        name: np.mean([run.train_accuracy for run in runs if run.candidate == name]) for name in (WITH, HALF, WITHOUT)
    }
    if max(fitted.values()) - min(fitted.values()) > 0.05:
        worst = min(fitted, key=lambda name: float(fitted[name]))
        notes.append(
            f"The network {worst} fits only {fitted[worst]:.3f} of its training examples, another "
            f"{max(fitted.values()):.3f}: the difference may be one of training, which more epochs or another lr can "
            "change."
        )
    return notes
