"""Measuring a network and its untrained twins within a budget, input after input."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..alignment import AlignmentReport, all_formed, measure_path
from ..residuals import Inputs, Tokens, Trace, at_tokens, trace
from ..svd import SVDOptions
from ._diagnosis import Measured, join
from ._null import untrained_twin
from ._screen import join_screens, screen

Null = Literal["reinitialised"] | Callable[[], nn.Module] | None

GRACE = 60.0  # seconds behind the budget, or as many as it has: where the first input would end later, it is given up
LEAN = 3  # inputs of the model for one of its twin where the budget is short
DRAWS = 5  # of the untrained twin, which share the inputs


@dataclass
class Clock:
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
    clock: Clock
    name: str
    began: float = 0.0

    def __enter__(self) -> None:
        self.began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.clock.stages[self.name] = round(time.monotonic() - self.began, 2)


class Subject:
    """A network that is measured: its trace, at all inputs or at their tokens."""

    def __init__(self, path: Trace, tokens: Tokens | None, text: bool) -> None:
        self.classes, self.inputs = path.logits.shape[1] if path.logits.dim() == 2 else None, len(path.logits)
        self.tokens, self._positions = tokens, torch.empty(0, dtype=torch.long)
        self._path, self._each = path, 1
        if tokens is not None:
            self._path, self._positions = at_tokens(path, tokens, text=text)
            self._each = len(self._positions) // len(path.logits)
        self.screen = screen(self._path, self._each)

    def formed(self, k: int | None) -> bool:
        """Whether each block's Jacobian will be formed."""
        return all_formed(self._path, k, self.classes)

    @property
    def blocks(self) -> int:
        return len(self._path.residuals)

    def measure(
        self, chosen: Tensor, k: int | None, options: SVDOptions, after_block: Callable[[], None]
    ) -> AlignmentReport:
        """The report of some inputs (r,)."""
        rows = (chosen[:, None] * self._each + torch.arange(self._each)).flatten()
        index = rows.to(self._path.states[0].device)
        part = Trace(
            [state[index] for state in self._path.states],
            [residual.rows(index) for residual in self._path.residuals],
            self._path.logits[chosen.to(index.device)],
        )
        positions = self._positions.cpu()[rows] if self.tokens is not None else self._positions
        return measure_path(part, k, None, self.classes, options, positions, after_block)


class Measuring:
    """The model, or several draws of its twin that share the inputs, and the reports so far.

    Of K networks, number j has the inputs j, j + K, j + 2K, ...
    """

    def __init__(self, subjects: Sequence[Subject]) -> None:
        self.subjects, self._reports, self._draws = subjects, list[AlignmentReport](), list[int]()

    def formed(self, k: int | None) -> bool:
        """Whether the Jacobians of all blocks will be formed, and not known by their products alone."""
        return all(subject.formed(k) for subject in self.subjects)

    @property
    def inputs(self) -> int:
        """How many inputs have been measured."""
        return sum(len(report.alignment) // report.tokens_per_input for report in self._reports)

    def measure(
        self, chosen: Tensor, k: int | None, options: SVDOptions, after_block: Callable[[], None] = lambda: None
    ) -> None:
        """Add the reports of some inputs (r,)."""
        found = list[tuple[AlignmentReport, int]]()
        for draw, subject in enumerate(self.subjects):
            own = chosen[chosen % len(self.subjects) == draw] // len(self.subjects)
            if len(own):
                found.append((subject.measure(own, k, options, after_block), draw))
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


def twins_of(
    model: nn.Module,
    inputs: Inputs,
    null: Null,
    seed: int,
    tokens: Tokens | None,
    wanted: Sequence[str],
    *,
    whole: bool,
) -> tuple[Measuring, str]:
    """Several draws of the untrained network, each at its share of the inputs, and a sentence about them."""
    if null is None:
        return Measuring([]), "No untrained twin was asked for."
    if null != "reinitialised" and not callable(null):
        raise ValueError(f"null must be 'reinitialised', a function that makes a network, or None; got {null!r}.")
    draws, subjects, note = max(1, min(DRAWS, len(inputs) // 2)), list[Subject](), ""
    for draw in range(draws):
        twin, note = untrained_twin(model, inputs, None if null == "reinitialised" else null, seed + draw)
        rows = inputs.rows(torch.arange(draw, len(inputs), draws))
        try:
            path = trace(twin, rows.arguments(), blocks=wanted, whole=whole)
        except (ValueError, TypeError) as error:
            return Measuring([]), f"There is no untrained twin: {error}"
        subjects.append(Subject(path, tokens, not inputs.data.is_floating_point()))
    return Measuring(subjects), note + (f" It is drawn {draws} times." if draws > 1 else "")


class _TooLong(Exception):
    """One input would take far longer than there is."""


class _FirstInput:
    """Watches the first input, block by block, and gives up where it would end long after the budget."""

    def __init__(self, clock: Clock, blocks: int, bar: Any) -> None:
        self._blocks, self._bar, self._done = blocks, bar, 0
        self._most = clock.budget + max(clock.budget, GRACE) - clock.used
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """That all blocks take, as far as one can tell."""
        return (time.perf_counter() - self._began) / max(1, self._done) * self._blocks

    def after_block(self) -> None:
        self._done += 1
        self._bar.set_postfix_str(f"block {self._done} of {self._blocks}", refresh=False)
        if self.seconds > self._most:
            raise _TooLong


def measure_triplets(
    subjects: Sequence[Measuring], k: int | None, options: SVDOptions, clock: Clock, notes: list[str], progress: bool
) -> None:
    """Measure inputs until the budget is used: first one, then as many as take a moment."""
    n = subjects[0].subjects[0].inputs
    # inputs may be sorted by class
    order, done, each = torch.randperm(n, generator=torch.Generator().manual_seed(options.seed)), 0, 0.0
    bar = tqdm(total=n, desc="singular triplets", unit="input", disable=not progress)
    first = _FirstInput(clock, sum(s.subjects[0].blocks for s in subjects), bar)
    try:
        while done < n and (done == 0 or clock.used + each <= clock.budget):
            # together they are cheaper: twice as many as before, if they fit even at the price of the last ones
            size = 1 if done == 0 else max(1, min(done, int((clock.budget - clock.used) / each)))
            chosen, began = order[done : done + size], time.monotonic()
            # where the budget is short, the twin is measured at a third of the inputs: its scores vary little
            short = each * (n - done) > clock.budget - clock.used and LEAN * subjects[-1].inputs > done
            measured = subjects[:1] if short else subjects
            for subject in reversed(measured):  # the model last: interrupted, it has no input that its twin lacks
                subject.measure(chosen, k, options, *([first.after_block] if done == 0 else []))
            done, each = done + len(chosen), (time.monotonic() - began) / len(chosen)
            bar.update(len(chosen))
    except _TooLong:
        notes.append(
            f"Singular triplets were not measured: those of one input would take about {first.seconds:.0f} s, the "
            f"budget was {clock.budget:.0f} s in all. Give more (budget=), fewer blocks (blocks=), or smaller inputs."
        )
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
