"""Numbers as a reader expects them: few digits, a true minus sign, powers of ten instead of "4e-07"."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_NARROWEST, _WIDEST = -3, 5  # powers of ten that are still written out


def format_number(value: float, digits: int = 3) -> str:
    """Write a number with at most so many significant digits; whole numbers below 10⁵ are written in full.

    >>> [format_number(value) for value in (47.0, 0.84523, -12.3456, 14937.82, 4e-7, 1e-6, float("nan"))]
    ['47', '0.845', '−12.3', '14,900', '4×10⁻⁷', '10⁻⁶', '–']
    """
    value = float(value)
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if value == round(value) and abs(value) < 10**_WIDEST:
        return _fixed(value, 0)
    mantissa, exponent = f"{abs(value):.{digits - 1}e}".split("e")
    power, sign = int(exponent), "−" if value < 0 else ""
    if _NARROWEST <= power < _WIDEST:
        return _fixed(value, digits - 1 - power, strip=True)
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return sign + ("" if mantissa == "1" else f"{mantissa}×") + power_of_ten(power)


def format_mean_sd(mean: float, sd: float) -> str:
    """Write "mean ± deviation", both to the place where the deviation begins; the line never breaks around "±".

    >>> [format_mean_sd(*pair).replace(chr(160), " ") for pair in ((0.8453, 0.0029), (14937.82, 1010.1), (78.0, 0.0))]
    ['0.845 ± 0.003', '14,900 ± 1,000', '78 ± 0']
    """
    pair = format_number(mean), format_number(sd, 1)
    sizes = [abs(value) for value in (mean, sd) if math.isfinite(value) and value]
    if math.isfinite(mean) and math.isfinite(sd) and sd and 10.0**_NARROWEST <= max(sizes) < 10**_WIDEST:
        first = f"{sd:.1e}"  # one digit of the deviation, two if it begins with 1: 0.0029 → 0.003, 0.0013
        whole = mean == round(mean) and sd == round(sd)
        places = (1 if first[0] == "1" and not whole else 0) - int(first.split("e")[1])
        places = min(places, 2 - math.floor(math.log10(max(sizes))))  # of the larger one never more than three digits
        if round(sd, places):
            pair = _fixed(mean, places), _fixed(sd, places)
    return "\u00a0±\u00a0".join(pair)


def format_mean(values: Sequence[float] | NDArray[np.float64]) -> str:
    """Write the mean of several values with their standard deviation (ddof = 0); of one value, that alone.

    >>> format_mean([0.5, 0.7]).replace(chr(160), " "), format_mean([0.25])
    ('0.60 ± 0.10', '0.25')
    """
    mean = float(np.mean(values))
    return format_mean_sd(mean, float(np.std(values))) if len(values) > 1 else format_number(mean)


def power_of_ten(power: int) -> str:
    """10⁻³."""
    return "10" + str(power).translate(_SUPERSCRIPTS)


def _fixed(value: float, places: int, *, strip: bool = False) -> str:
    rounded = round(value, places) + 0.0  # + 0.0: never "−0.00"
    text = f"{rounded:,.{max(places, 0)}f}"
    text = text.rstrip("0").rstrip(".") if strip and "." in text else text
    return text.replace("-", "−")
