"""How a cost grows: exponents by least squares on logarithms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The slope p of ``cost ≈ c · size^p``.

    Raises:
        ValueError: fewer than two different sizes, or something that is not positive.
    """
    x, y = np.asarray(sizes, float), np.asarray(costs, float)
    if len(x) != len(y) or len(np.unique(x)) < 2 or (x <= 0).any() or (y <= 0).any():
        raise ValueError(f"Expected two positive sizes or more and as many positive costs; got {sizes} and {costs}.")
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
