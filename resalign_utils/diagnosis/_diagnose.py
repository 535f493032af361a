"""From somebody's model and some inputs to a diagnosis, in stages, the cheap ones first."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..alignment import AlignmentReport, measure_path
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
    at_tokens,
    find_blocks,
    inputs_of,
    outputs_with_scaled_block,
    tensors_of,
    trace,
)
from ..svd import SVDOptions
from ._diagnosis import Diagnosis, Measured, Worth, join
from ._null import untrained_twin
from ._recipe import TrainingRecipe
from ._screen import join_screens, screen
from ._settings import settings_of
from ._verdicts import verdicts_of

Null = Literal["reinitialised"] | Callable[[], nn.Module] | None

DRAWS = 5  # of the untrained twin, which share the inputs
PER_CLASS = 10  # inputs taken of an ImageData
LEAN = 3  # inputs of the model for one of its twin where the budget is short
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
    tol: float = 1e-2,
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
        budget: of time, "90s", "5min", "1h", or seconds. What is begun is finished: one input's triplets.
        blocks: names of the blocks that are wanted, as in :func:`trace`.
        exclude: names of blocks to leave out.
        whole: whether the sums of one module count as one block, as in :func:`trace`.
        tokens: of transformers, the positions that are measured, as in :func:`measure_alignment`; without effect where
            states are no sequences.
        k: number of singular vectors compared; min(C, 10) if not given.
        tol: residual of singular triplets, relative to σ₁.
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
    clock = _Clock(_seconds(budget))
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
        subject = _Subject(path, tokens if are_sequences(model, path) else None, text)
        mine = _Measuring([subject])
    if subject.tokens is not None:
        notes.append("Blocks were measured token by token: the output at one position by the input there, see tokens=.")
    if table.note:
        notes.append(table.note)
    with clock.stage("untrained twin"):
        other, note = _twins(model, inputs, null, seed, subject.tokens, wanted, whole=whole)
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
        _triplets(
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


@dataclass
class _Clock:
    """The budget, and what of it each stage took."""

    budget: float
    began: float = field(default_factory=time.monotonic)
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def used(self) -> float:
        return time.monotonic() - self.began

    def stage(self, name: str) -> _Stage:
        return _Stage(self, name)


@dataclass
class _Stage:
    clock: _Clock
    name: str
    began: float = 0.0

    def __enter__(self) -> None:
        self.began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.clock.stages[self.name] = round(time.monotonic() - self.began, 2)


class _Subject:
    """A network that is measured: its trace, at all inputs or at their tokens."""

    def __init__(self, path: Trace, tokens: Tokens | None, text: bool) -> None:
        self.classes, self.inputs = path.logits.shape[1] if path.logits.dim() == 2 else None, len(path.logits)
        self.tokens, self._positions = tokens, torch.empty(0, dtype=torch.long)
        self._path, self._each = path, 1
        if tokens is not None:
            self._path, self._positions = at_tokens(path, tokens, text=text)
            self._each = len(self._positions) // len(path.logits)
        self.screen = screen(self._path, self._each)

    def measure(self, chosen: Tensor, k: int | None, options: SVDOptions) -> AlignmentReport:
        """The report of some inputs (r,)."""
        rows = (chosen[:, None] * self._each + torch.arange(self._each)).flatten()
        index = rows.to(self._path.states[0].device)
        part = Trace(
            [state[index] for state in self._path.states],
            [residual.rows(index) for residual in self._path.residuals],
            self._path.logits[chosen.to(index.device)],
        )
        positions = self._positions.cpu()[rows] if self.tokens is not None else self._positions
        return measure_path(part, k, None, self.classes, options, positions)


class _Measuring:
    """The model, or several draws of its twin that share the inputs, and the reports so far.

    Of K networks, number j has the inputs j, j + K, j + 2K, ...
    """

    def __init__(self, subjects: Sequence[_Subject]) -> None:
        self.subjects, self._reports, self._draws = subjects, list[AlignmentReport](), list[int]()

    @property
    def inputs(self) -> int:
        """How many inputs have been measured."""
        return sum(len(report.alignment) // report.tokens_per_input for report in self._reports)

    def measure(self, chosen: Tensor, k: int | None, options: SVDOptions) -> None:
        """Add the reports of some inputs (r,)."""
        found = list[tuple[AlignmentReport, int]]()
        for draw, subject in enumerate(self.subjects):
            own = chosen[chosen % len(self.subjects) == draw] // len(self.subjects)
            if len(own):
                found.append((subject.measure(own, k, options), draw))
        for report, draw in found:  # all, or none if it is interrupted
            self._reports.append(report)
            self._draws += [draw] * len(report.alignment)

    def measured(self) -> Measured:
        draws = [draw for draw, s in enumerate(self.subjects) for _ in range(len(s.screen.step_cv))]
        return Measured(
            join_screens([subject.screen for subject in self.subjects]),
            join(self._reports) if self._reports else None,
            torch.tensor(draws),
            torch.tensor(self._draws, dtype=torch.long),
        )


def _twins(
    model: nn.Module,
    inputs: Inputs,
    null: Null,
    seed: int,
    tokens: Tokens | None,
    wanted: Sequence[str],
    *,
    whole: bool,
) -> tuple[_Measuring, str]:
    """Several draws of the untrained network, each at its share of the inputs, and a sentence about them."""
    if null is None:
        return _Measuring([]), "No untrained twin was asked for."
    if null != "reinitialised" and not callable(null):
        raise ValueError(f"null must be 'reinitialised', a function that makes a network, or None; got {null!r}.")
    draws, subjects, note = max(1, min(DRAWS, len(inputs) // 2)), list[_Subject](), ""
    for draw in range(draws):
        twin, note = untrained_twin(model, inputs, None if null == "reinitialised" else null, seed + draw)
        rows = inputs.rows(torch.arange(draw, len(inputs), draws))
        try:
            path = trace(twin, rows.arguments(), blocks=wanted, whole=whole)
        except (ValueError, TypeError) as error:
            return _Measuring([]), f"There is no untrained twin: {error}"
        subjects.append(_Subject(path, tokens, not inputs.data.is_floating_point()))
    return _Measuring(subjects), note + (f" It is drawn {draws} times." if draws > 1 else "")


def _triplets(
    subjects: Sequence[_Measuring], k: int | None, options: SVDOptions, clock: _Clock, notes: list[str], progress: bool
) -> None:
    """Measure inputs until the budget is used: first one, then as many as take a moment."""
    n = subjects[0].subjects[0].inputs
    # inputs may be sorted by class
    order, done, each = torch.randperm(n, generator=torch.Generator().manual_seed(options.seed)), 0, 0.0
    bar = tqdm(total=n, desc="singular triplets", unit="input", disable=not progress)
    try:
        while done < n and (done == 0 or clock.used + each <= clock.budget):
            # together they are cheaper: twice as many as before, if they fit even at the price of the last ones
            size = 1 if done == 0 else max(1, min(done, int((clock.budget - clock.used) / each)))
            chosen, began = order[done : done + size], time.monotonic()
            # where the budget is short, the twin is measured at a third of the inputs: its scores vary little
            short = each * (n - done) > clock.budget - clock.used and LEAN * subjects[-1].inputs > done
            measured = subjects[:1] if short else subjects
            for subject in reversed(measured):  # the model last: interrupted, it has no input that its twin lacks
                subject.measure(chosen, k, options)
            done, each = done + len(chosen), (time.monotonic() - began) / len(chosen)
            bar.update(len(chosen))
    except KeyboardInterrupt:
        notes.append(
            f"Interrupted: scores of singular triplets are of the {done} inputs that were measured until then."
        )
    finally:
        bar.close()
    if 0 < done < n:
        twin = f" (of the untrained twin at {subjects[1].inputs})" if len(subjects) > 1 else ""
        notes.append(
            f"Singular triplets were measured at {done} of {n} inputs{twin}, drawn at random, in a budget of "
            f"{clock.budget:.0f} s; one input took {each:.1f} s."
        )


def _worth(
    model: nn.Module,
    data: ModelInputs,
    logits: Tensor,
    targets: Tensor | None,
    wanted: Sequence[str],
    whole: bool,
    clock: _Clock,
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
