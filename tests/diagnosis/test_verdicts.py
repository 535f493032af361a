"""The intervals on which verdicts rest: as scipy has them, and as often right as they say."""

import math

import pytest
import torch
from scipy import stats

from resalign_utils.diagnosis._verdicts import interval_of, null_range


def test_the_interval_of_a_mean_is_students():
    values = torch.tensor([0.31, 0.52, math.nan, 0.44, 0.12, 0.66])
    known = values[~values.isnan()].double().numpy()
    wanted = stats.ttest_1samp(known, 0).confidence_interval(0.95)
    assert interval_of(values) == pytest.approx((known.mean(), wanted.low, wanted.high), rel=1e-6)


def test_one_value_has_no_interval_and_none_no_mean():
    mean, *ends = interval_of(torch.tensor([0.5, math.nan]))
    assert mean == 0.5
    assert all(map(math.isnan, ends))
    assert all(map(math.isnan, interval_of(torch.tensor([math.nan]))))


def test_one_more_draw_lies_in_the_range_of_twins_in_19_of_20_cases():
    """Five twins and the model as a sixth draw of the same law, a thousand times: 950 hits, give or take 7."""
    generator = torch.Generator().manual_seed(0)
    sets = torch.randn(1000, 6, generator=generator)
    ranges = [null_range(one[:5].repeat_interleave(2), torch.arange(5).repeat_interleave(2)) for one in sets]
    hits = sum(low < float(one[5]) < high for one, (_, low, high) in zip(sets, ranges, strict=True))
    assert 930 <= hits <= 970


def test_a_single_twin_has_no_range():
    mean, low, high = null_range(torch.tensor([0.2, 0.4]), torch.tensor([3, 3]))
    assert mean == pytest.approx(0.3)
    assert math.isnan(low)
    assert math.isnan(high)
