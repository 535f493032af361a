"""From somebody's model and some inputs to a diagnosis, in stages, the cheap ones first."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..collapse import NeuralCollapse, neural_collapse
from ..data import ImageData
from ..linearization import path_length_distribution
from ..residuals import (
    BlockTable,
    Inputs,
    ModelInputs,
    Tokens,
    Trace,
    are_sequences,
    find_blocks,
    inputs_of,
    outputs_with_scaled_block,
    tensors_of,
    trace,
)
from ..svd import SVDOptions
from ._diagnosis import Diagnosis, Worth
from ._measuring import Clock, Measuring, Null, Subject, measure_triplets, twins_of
from ._recipe import TrainingRecipe
from ._settings import settings_of
from ._verdicts import verdicts_of

PER_CLASS = 10  # inputs taken of an ImageData
TIGHT, LOOSE = 1e-4, 1e-2  # tol where Jacobians are formed, and where products are counted
SHARE = 0.4  # of the budget, after which no block is cut any more: the rest is for triplets


def diagnose(
    model: nn.Module,
    data: ModelInputs | ImageData,
    *,
    labels: Tensor | Sequence[int] | None = None,
    null: Null = "reinitialised",
    budget: str | float = "5min",
    blocks: BlockTable | Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    whole: bool = False,
    tokens: Tokens | None = "auto",
    k: int | None = None,
    tol: float | None = None,
    recipe: TrainingRecipe | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Diagnosis:
    """Find where a network adds, measure it beside its untrained twin, and say what was found and how sure it is.

    In stages: the blocks; the forward pass alone, at all inputs; what each block is worth, by cutting its branch or its
    skip; Neural Collapse, if there are labels; then singular triplets, input by input, of the network and of the twin,
    until the budget is used. Interrupted (Ctrl-C), it reports what it has.

    Args:
        model: a network in eval mode, of any kind; see :func:`find_blocks`.
        data: n inputs, as in :func:`trace`, ten or more for verdicts; or an :class:`ImageData`, of which ten test
            images a class are taken with their labels.
        labels: (n,) classes, for accuracies and Neural Collapse.
        null: "reinitialised", the model's twin with weights drawn anew; a function that makes an untrained network;
            None for none.
        budget: of time, "90s", "5min", "1h", or seconds. What is begun is finished, one
            input's triplets, unless the first would end long after it (twice the budget, or a minute
            late): then there are none, and a note says what it would take.
        blocks: names of the blocks that are wanted, as in :func:`trace`.
        exclude: names of blocks to leave out.
        whole: whether the sums of one module count as one block, as in :func:`trace`.
        tokens: of transformers, the positions that are measured, as in :func:`measure_alignment`; without effect where
            states are no sequences.
        k: number of singular vectors compared; min(C, 10) if not given.
        tol: residual of singular triplets, relative to σ₁, and the share of σ₁ up to which a singular value's vectors
            count as noise, as in :func:`measure_alignment`. If not given, 1e-4, as there, where all Jacobians are small
            enough to be formed, which makes it free, and 1e-2 where some are solved by products.
        recipe: of the training, for its decay time.
        seed: of the twin's weights and of the solver's random vectors.
        progress: whether bars are shown.

    Returns:
        A :class:`Diagnosis`; ``print`` shows its sentences, ``to_html`` writes a report.

    Raises:
        ValueError: no residual block is found, what :func:`trace` refuses, labels that do not fit, a budget that cannot
            be read.

    Example:
        >>> import resalign_utils as ra
        >>> data = ra.load_data("digits")
        >>> model = ra.build_model(ra.ResNetConfig(depth=3, width=16), data).eval()
        >>> found = ra.diagnose(model, data.test_x[:12], labels=data.test_y[:12], budget="20s", progress=False)
        >>> len(found.blocks), found.measured.screen.line_shape_score.shape
        (3, torch.Size([12]))
        >>> found.verdicts[0].subject
        'straightness'
    """
    clock = Clock(_seconds(budget))
    if isinstance(data, ImageData):
        x, y = data.sample(PER_CLASS)
        data, labels = x, y if labels is None else labels
    inputs = inputs_of(data)
    targets = _checked_labels(labels, inputs)
    table = find_blocks(model, data, blocks=blocks, exclude=exclude, whole=whole)
    if not table:
        raise ValueError(table.note)
    wanted = table.names
    notes = list[str]()
    with clock.stage("trace"):
        path = trace(model, data, blocks=wanted, whole=whole)
        text = not inputs.data.is_floating_point()
        subject = Subject(path, tokens if are_sequences(model, path) else None, text)
        mine = Measuring([subject])
    if subject.tokens is not None:
        notes.append("Blocks were measured token by token: the output at one position by the input there, see tokens=.")
    if table.note:
        notes.append(table.note)
    tol = (TIGHT if mine.formed(k) else LOOSE) if tol is None else tol
    with clock.stage("untrained twin"):
        other, note = twins_of(model, inputs, null, seed, subject.tokens, wanted, whole=whole)
    if (outputs := _outputs(model, inputs)) > 1:
        notes.append(
            f"The model returns {outputs} tensors; blocks, labels and classes are judged by the first of them."
        )
    with clock.stage("worth"):
        worth = _worth(model, data, path.logits, targets, wanted, whole, clock, notes, progress)
    with clock.stage("collapse"):
        collapse = _collapse(path, targets, notes)
        lengths = _path_lengths(model, data, notes)
    with clock.stage("triplets"):
        measure_triplets(
            [s for s in (mine, other) if s is not None and s.subjects],
            k,
            SVDOptions("auto", tol, seed),
            clock,
            notes,
            progress,
        )
    accuracy = math.nan
    if targets is not None and path.logits.dim() == 2:
        accuracy = float((path.logits.argmax(1) == targets).double().mean())
    found = Diagnosis(
        model=type(model).__name__,
        blocks=table,
        inputs=len(inputs),
        measured=mine.measured(),
        null=other.measured() if other.subjects else None,
        null_note=note,
        worth=worth,
        collapse=collapse,
        accuracy=accuracy,
        path_lengths=lengths,
        decay_time=math.nan if recipe is None else recipe.decay_time,
        verdicts=(),
        notes=tuple(notes),
        settings=settings_of(model, inputs, tokens=subject.tokens, tol=tol, seed=seed, stages=clock.stages),
    )
    return verdicts_of(found)


def _worth(
    model: nn.Module,
    data: ModelInputs,
    logits: Tensor,
    targets: Tensor | None,
    wanted: Sequence[str],
    whole: bool,
    clock: Clock,
    notes: list[str],
    progress: bool,
) -> Worth:
    classes = logits.dim() == 2
    unknown = torch.full((len(wanted),), math.nan, dtype=torch.float64)
    divergence, changed, accuracy, skipless = (unknown.clone() for _ in range(4))
    for values, branch, skip in ((divergence, 0.0, 1.0), (skipless, 1.0, 0.0)):
        outputs = outputs_with_scaled_block(model, data, branch=branch, skip=skip, blocks=wanted, whole=whole)
        label = "without branch" if skip else "without skip"
        for i, (_, other) in enumerate(tqdm(outputs, label, len(wanted), unit="block", disable=not progress)):
            if other is None:
                continue
            values[i] = _divergence(logits, other) if classes else _distance(logits, other)
            if classes and skip:
                decided = other.argmax(1)
                changed[i] = (decided != logits.argmax(1)).double().mean()
                if targets is not None:
                    accuracy[i] = (decided == targets).double().mean() - (logits.argmax(1) == targets).double().mean()
            if clock.used > SHARE * clock.budget:
                notes.append(f"What blocks are worth was measured up to block {i + 1} {label}: the budget is used.")
                return Worth(divergence, changed, accuracy, skipless, "divergence" if classes else "distance")
    return Worth(divergence, changed, accuracy, skipless, "divergence" if classes else "distance")


def _divergence(logits: Tensor, other: Tensor) -> float:
    """Mean over inputs of KL(softmax(logits) ‖ softmax(other)), in nats."""
    p, q = logits.double().log_softmax(1), other.double().log_softmax(1)
    return float((p.exp() * (p - q)).sum(1).mean())


def _distance(output: Tensor, other: Tensor) -> float:
    a, b = output.double().flatten(1), other.double().flatten(1)
    return float(((a - b).norm(dim=1) / a.norm(dim=1).clamp(min=1e-300)).mean())


@torch.no_grad()
def _outputs(model: nn.Module, inputs: Inputs) -> int:
    """How many tensors of floating point the model returns, where it is no class of outputs with logits."""
    output = inputs.rows(torch.arange(1)).call(model)
    return 1 if hasattr(output, "logits") else sum(t.is_floating_point() for t in tensors_of(output))


def _collapse(path: Trace, targets: Tensor | None, notes: list[str]) -> NeuralCollapse | None:
    """Neural Collapse of the last state, its means over positions."""
    if targets is None or path.logits.dim() != 2:
        return None
    last = path.states[-1]
    # channels first in images, last in sequences
    features = last.flatten(2).mean(2) if last.dim() >= 4 else last.mean(1) if last.dim() == 3 else last
    counts = targets.bincount()
    if len(counts) < 2 or int(counts.min()) < 2:
        notes.append("Neural Collapse needs two inputs of each class or more.")
        return None
    try:
        return neural_collapse(features, targets, decisions=path.logits.argmax(1))
    except ValueError as error:
        notes.append(f"Neural Collapse was not measured: {error}")
        return None


def _path_lengths(model: nn.Module, data: ModelInputs, notes: list[str]) -> Tensor | None:
    try:
        if not isinstance(data, Tensor):
            raise ValueError("it is defined for networks of one input.")
        return path_length_distribution(model, data[:1])
    except Exception as error:  # torch.fx fails in as many ways as there are models
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        notes.append(f"The law of path lengths is not known: {why}")
        return None


def _checked_labels(labels: Tensor | Sequence[int] | None, inputs: Inputs) -> Tensor | None:
    if labels is None:
        return None
    targets = torch.as_tensor(labels).to(inputs.data.device)
    if targets.shape != (len(inputs),) or targets.is_floating_point():
        raise ValueError(
            f"Expected one whole-number label for each of {len(inputs)} inputs; got {tuple(targets.shape)} of "
            f"{targets.dtype}."
        )
    return targets.long()


def _seconds(budget: str | float) -> float:
    """Seconds of "90s", "5min", "1h", or a number."""
    if isinstance(budget, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)", budget.strip())
        seconds = float(match[1]) * {"s": 1, "min": 60, "h": 3600}[match[2]] if match else 0.0
    else:
        seconds = float(budget)
    if not 0 < seconds < math.inf:
        raise ValueError(f"budget must be a positive time, as '90s', '5min', '1h', or seconds; got {budget!r}.")
    return seconds
