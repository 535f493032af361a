"""The result of a proof of concept: scores, differences, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..data._images import value_error
from ._candidates import FREQUENT, HALF, WITH, WITHOUT
from ._difference import Difference, paired

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class ProofRun:
    """One candidate under one seed.

    Attributes:
        candidate: its name.
        seed: of the split, of the initial weights and of the order.
        accuracy: share of the test examples labelled right.
        balanced_accuracy: mean over the classes of that share.
        train_accuracy: share of the training examples labelled right: below 1, it did not learn them.
        seconds: wall time of the last fit, without the fits that chose the setting.
        parameters: numbers learnt; None for gradient boosting, which learns trees.
        setting: what was chosen inside of the training examples: weight decay of a network, C of logistic regression,
            least rows in a leaf of gradient boosting.
    """

    candidate: str
    seed: int
    accuracy: float
    balanced_accuracy: float
    train_accuracy: float
    seconds: float
    parameters: int | None
    setting: float


@dataclass(frozen=True)
class ProofOfConcept:
    """Scores of all candidates under all seeds, and what follows from them.

    Attributes:
        name: of the data.
        described: the data in a sentence.
        candidates: names, from the simplest to the least simple.
        seeds: one run of each candidate a seed.
        runs: one a candidate and seed.
        decided_by: ``"accuracy"``, or ``"balanced_accuracy"`` where the largest class has more than 1.5 times the
            examples of the smallest.
        margin: gain of the mean, as a share, below which a simpler candidate is taken.
        overlap: test / training examples where each seed has a split of its own, 0 where the data came split.
        step: by how much one test example, of the smallest class, changes the deciding score.
        frequent: name of the most frequent class.
        notes: what a reader should know before believing it, one sentence each.
    """

    name: str
    described: str
    candidates: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: tuple[ProofRun, ...]
    decided_by: str
    margin: float
    overlap: float
    step: float
    frequent: str
    notes: tuple[str, ...]

    def scores(self, candidate: str) -> tuple[float, ...]:
        """The deciding score of a candidate, one a seed.

        Raises:
            ValueError: no such candidate.
        """
        if candidate not in self.candidates:
            raise value_error(f"one of {', '.join(self.candidates)}", repr(candidate), "Use one of these names.")
        return tuple(getattr(run, self.decided_by) for run in self.runs if run.candidate == candidate)

    def difference(self, better: str, other: str) -> Difference:
        """By how much the first candidate's deciding score exceeds the second's, with its 95 % interval."""
        return paired(better, other, self.scores(better), self.scores(other), self.overlap, self.step)

    @property
    def best(self) -> str:
        """The candidate of the highest mean; of equal ones the simplest."""
        return max(self.candidates, key=lambda name: float(np.mean(self.scores(name))))

    @property
    def choice(self) -> str:
        """The candidate that is recommended, see :attr:`rule`."""
        eligible = self._eligible()
        kept = (name for place, name in enumerate(eligible) if not self._beaten_by(name, eligible[place + 1 :]))
        return next(kept, self.candidates[0])

    def _eligible(self) -> list[str]:
        """What is shown to beat the most frequent class, the simplest first."""
        return [name for name in self.candidates[1:] if self._beats(name, self.candidates[0])]

    def _beaten_by(self, name: str, others: Sequence[str]) -> str | None:
        """The best of the others that are shown to beat it."""
        return max((o for o in others if self._beats(o, name)), key=lambda o: np.mean(self.scores(o)), default=None)

    def _beats(self, better: str, other: str) -> bool:
        pair = self.scores(better), self.scores(other)
        gain = paired(better, other, *pair, self.overlap, self.step, self._level)
        return gain.mean >= self.margin and gain.low > 0

    @property
    def differences(self) -> tuple[Difference, ...]:
        """The three between the networks, then that of the choice to each of the others."""
        pairs = [(WITH, WITHOUT), (HALF, WITHOUT), (WITH, HALF)]
        pairs += [(self.choice, name) for name in self.candidates if name != self.choice]
        shown = [pair for place, pair in enumerate(pairs) if {*pair} not in [{*earlier} for earlier in pairs[:place]]]
        return tuple(self.difference(*pair) for pair in shown)

    @property
    def rule(self) -> str:
        """How the recommendation is found."""
        gain = f"{100 * self.margin:g} point{'s' * (self.margin != 0.01)} of {self._score}"
        return (
            f"of all that beat {self._called(FREQUENT)}, the simplest that nothing less simple beats. To beat is to "
            f"gain at least {gain}, with the interval above zero also at {100 * self._level:.3g} %, so that noise "
            "passes in about one of twenty data sets at most. Simplest first: " + ", ".join(self.candidates) + "."
        )

    @property
    def _level(self) -> float:
        """Each of the comparisons errs upwards in at most its share of 5 % (Bonferroni)."""
        return 1 - 2 * 0.05 / (len(self.candidates) - 1)

    @property
    def _score(self) -> str:
        return self.decided_by.replace("_", " ")

    @property
    def recommendation(self) -> str:
        """What to take, with the numbers that say so, and what is known of the skips."""
        best, choice, eligible = self.best, self.choice, self._eligible()
        score = f"{self._score} {np.mean(self.scores(choice)):.3f}"
        if choice in eligible:
            first, place = self.candidates[0], eligible.index(choice)
            gain = self.difference(choice, first)
            text = f"Take {self._called(choice)} ({score}). It beats {self._called(first)} by {gain}."
            if place and (winner := self._beaten_by(eligible[place - 1], eligible[place:])):
                gain = self.difference(winner, eligible[place - 1])
                text += f" The simpler {eligible[place - 1]} is beaten by {self._called(winner)} by {gain}."
        else:
            text = (
                f"Take no model yet: nothing is shown to beat {self._called(choice)} ({score}). The examples are too "
                "few, or do not tell the classes."
            )
        if best != choice:
            gain = self.difference(best, choice)
            why = ", less than the margin" if gain.mean < self.margin else ", but not shown when all are compared"
            why = "" if gain.covers_zero else why
            text += f" The highest mean has {self._called(best)}, which exceeds {self._called(choice)} by {gain}{why}."
        skips = self.difference(WITH, WITHOUT)
        verdict = (
            "no difference is shown" if skips.covers_zero else "they help here" if skips.mean > 0 else "they harm here"
        )
        return f"{text} Skips, with minus without: {skips}; {verdict}."

    def _called(self, name: str) -> str:
        if name == FREQUENT:
            return f"always saying {self.frequent!r}"
        return {WITH: "the network with skips", HALF: "the network with half of the skips"}.get(
            name, "the network without skips" if name == WITHOUT else name
        )

    def to_frame(self) -> pd.DataFrame:
        """One row a candidate and seed, with the fields of :class:`ProofRun` as columns."""
        return pd.DataFrame([asdict(run) for run in self.runs])

    def table(self) -> pd.DataFrame:
        """One row a candidate: means over the seeds, and the standard deviation (ddof = 1) of the deciding score."""
        frame = self.to_frame().drop(columns=["seed", "setting"]).astype({"parameters": float})
        groups = frame.groupby("candidate", sort=False)
        means = groups.mean().loc[[*self.candidates]]
        means.insert(2, "sd", groups[self.decided_by].std())
        return means

    def summary(self) -> str:
        """All of it as text: scores, cost, differences, recommendation, rule and notes."""
        formats = {name: "{:.3f}".format for name in ("accuracy", "balanced_accuracy", "sd", "train_accuracy")}
        formats |= {"seconds": "{:.2f}".format, "parameters": "{:,.0f}".format}
        over = "initialisation, order and split" if self.overlap else "initialisation and order, on the one split given"
        lines = [self.described, "", self.table().rename_axis(None).to_string(formatters=formats, na_rep="–"), ""]
        lines.append(f"Differences of {self._score} over {len(self.seeds)} paired seeds ({over}):")
        lines += [f"  {each.better} − {each.other}: {each}" for each in self.differences]
        lines += ["", f"Recommendation. {self.recommendation}", f"Rule: {self.rule}"]
        lines += [f"Note: {note}" for note in self.notes]
        return "\n".join(lines)

    def figure(self) -> go.Figure:
        """The differences as dots with their intervals, from ``plotting.difference_dots``."""
        from ..plotting import difference_dots

        rows = {f"{d.better} − {d.other}": (d.per_seed, d.mean, d.low, d.high) for d in self.differences}
        scaled = {name: (100 * np.array(seeds), 100 * m, 100 * a, 100 * b) for name, (seeds, m, a, b) in rows.items()}
        return difference_dots(scaled, x_label=f"difference of {self._score}, points")
