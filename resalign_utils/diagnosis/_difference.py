"""The paired difference of two candidates, with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Difference:
    """How much better one candidate is than another on the same splits, seed by seed.

    Attributes:
        better: the candidate whose score comes first.
        other: the one whose score is subtracted.
        per_seed: the difference of each seed, as a share in [−1, 1].
        mean: of the differences.
        low: lower end of the 95 % interval of the mean.
        high: its upper end.
    """

    better: str
    other: str
    per_seed: tuple[float, ...]
    mean: float
    low: float
    high: float

    @property
    def covers_zero(self) -> bool:
        """Whether the interval does not tell which of the two is better."""
        return self.low <= 0 <= self.high

    def __str__(self) -> str:
        covers = ", covers zero" if self.covers_zero else ""
        return f"{points(self.mean)} points (95 % interval {points(self.low)} to {points(self.high)}{covers})"


def paired(
    better: str,
    other: str,
    first: Sequence[float],
    second: Sequence[float],
    overlap: float,
    step: float,
    level: float = 0.95,
) -> Difference:
    """Student's interval of the mean difference of paired scores.

    Splits of one data set that are drawn anew for each seed share most of their examples, so their scores are not
    independent: with ``overlap`` = test / training examples the variance of the mean is (1/n + overlap) · s² (Nadeau &
    Bengio 2003, Machine Learning 52, equation 9) instead of s²/n. With one split for all seeds, ``overlap`` is 0.

    Few seeds may by chance differ by the same one or two test examples, and s would be zero. It is taken to be at least
    one ``step``: a smaller spread cannot be seen on so few test examples.

    Args:
        better: name of the first candidate.
        other: name of the second.
        first: n ≥ 2 scores, one a seed.
        second: n scores of the other under the same seeds.
        overlap: test / training examples, or 0.
        step: by how much one test example changes a score.
        level: of the interval.
    """
    from scipy.stats import t as student

    values = np.subtract(first, second)  # (n,)
    n = len(values)
    deviation = max(float(values.std(ddof=1)), step)
    half = student.ppf((1 + level) / 2, n - 1) * math.sqrt(1 / n + overlap) * deviation
    mean = float(values.mean())
    return Difference(better, other, tuple(values.tolist()), mean, mean - float(half), mean + float(half))


def points(share: float) -> str:
    """Write a share in hundredths: +1.5, −0.3, 0.0."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")
