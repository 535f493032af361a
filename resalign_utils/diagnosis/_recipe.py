"""How a network was trained, as far as its decay time goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Mean of the schedule over its largest value: of a straight line and of a cosine down to zero it is one half
_MEANS = {"constant": 1.0, "linear": 0.5, "cosine": 0.5}


@dataclass(frozen=True)
class TrainingRecipe:
    """Settings of a training that give its decay time.

    Attributes:
        learning_rate: the largest one.
        weight_decay: as the optimiser is given it.
        steps: number of updates of the weights.
        schedule: of the learning rate: "constant", or "linear" or "cosine" down to zero; a warm-up counts little.
        momentum: of SGD; 0 for AdamW.
    """

    learning_rate: float
    weight_decay: float
    steps: int
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    momentum: float = 0.0

    def __post_init__(self) -> None:
        if self.schedule not in _MEANS:
            raise ValueError(f"schedule must be one of {', '.join(_MEANS)}; got {self.schedule!r}.")
        if min(self.learning_rate, self.weight_decay, self.steps) < 0 or not 0 <= self.momentum < 1:
            raise ValueError("learning_rate, weight_decay, steps must not be negative, and momentum lie in [0, 1).")

    @property
    def decay_time(self) -> float:
        """S: weight decay times the sum of the learning rates; of SGD with momentum m over 1 − m."""
        total = self.learning_rate * self.steps * _MEANS[self.schedule]
        return self.weight_decay * total / (1 - self.momentum)
