"""Numbers as a reader expects them."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resalign_utils.formatting import format_mean, format_mean_sd, format_number

PM = "\u00a0±\u00a0"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-0.0, "0"),
        (78.000, "78"),
        (1088, "1,088"),
        (99_999, "99,999"),
        (14937.82, "14,900"),
        (123_456, "1.23×10⁵"),
        (0.84523, "0.845"),
        (0.5, "0.5"),
        (-0.25, "−0.25"),
        (0.9996, "1"),
        (999.6, "1,000"),
        (0.001, "0.001"),
        (0.00123, "0.00123"),
        (0.000999, "9.99×10⁻⁴"),
        (0.0009999, "0.001"),
        (4e-7, "4×10⁻⁷"),
        (-4.5e-7, "−4.5×10⁻⁷"),
        (1e-6, "10⁻⁶"),
        (10**2.1, "126"),
        (math.nan, "–"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
    ],
)
def test_numbers(value, text):
    assert format_number(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_any_number_is_short_and_close(value):
    text = format_number(value)
    assert not set(text) & set("-e")
    digits = re.sub(r"×?10[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+$|[,.−]", "", text).strip("0")
    assert len(digits) <= (5 if value == round(value) and abs(value) < 1e5 else 3)
    plain = text.replace("−", "-").replace(",", "").replace("×", "*")
    plain = re.sub(
        r"10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)$", lambda m: "1e" + m[1].translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")), plain
    )
    factors = [float(part) for part in plain.split("*")] if not plain.startswith("-1e") else [float(plain)]
    assert math.prod(factors) == pytest.approx(value, rel=0.006)


@pytest.mark.parametrize(
    ("mean", "sd", "text"),
    [
        (0.8453, 0.0029, "0.845 ± 0.003"),
        (0.62, 0.0213, "0.62 ± 0.02"),
        (14937.82, 1010.10, "14,900 ± 1,000"),
        (78.0, 0.0, "78 ± 0"),
        (0.0, 0.0, "0 ± 0"),
        (2.0, 1.0, "2 ± 1"),
        (17.0, 0.01, "17 ± 0.01"),
        (-1.244, 0.021, "−1.24 ± 0.02"),
        (0.001, 0.2, "0.0 ± 0.2"),
        (0.5, 0.1366, "0.50 ± 0.14"),
        (4e-7, 1e-7, "4×10⁻⁷ ± 10⁻⁷"),
        (math.nan, math.nan, "– ± –"),
    ],
)
def test_mean_and_deviation_end_at_one_place_and_never_break(mean, sd, text):
    assert format_mean_sd(mean, sd) == text.replace(" ± ", PM)


def test_the_mean_of_several_has_its_deviation_and_one_value_none():
    assert format_mean(np.array([0.5, 0.7])) == f"0.60{PM}0.10"  # ddof = 0
    assert format_mean([0.25]) == "0.25"
