"""Right or refused: each branch of the table beside derivatives that know nothing of the package."""

import contextlib

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import resalign_utils as ra

from .branches import IN_FLOAT32, ROWS, TOKENS
from .oracle import by_autograd, by_difference, faults, measure, settings_of
from .pieces import Attention

BY_NAME = {row.name: row for row in ROWS}


def test_the_table_is_one():
    assert len(BY_NAME) == len(ROWS) >= 60
    assert set(IN_FLOAT32) <= set(BY_NAME)


def at_sizes(rows):
    return [pytest.param(row.name, n, id=f"{row.name}, n = {n}") for row in rows for n in row.sizes]


@pytest.mark.parametrize(("name", "n"), at_sizes(ROWS))
def test_right_or_refused(name, n):
    row = BY_NAME[name]
    assert faults(row, n, measure(row, n)) == []


@pytest.mark.parametrize(("name", "n"), at_sizes(BY_NAME[name] for name in IN_FLOAT32))
def test_right_or_refused_in_float32(name, n):
    row = BY_NAME[name]
    assert faults(row, n, measure(row, n, torch.float32)) == []


# a result in float32 is too coarse for a difference quotient in float64
@pytest.mark.parametrize("name", [r.name for r in ROWS if r.oracle != "none" and r.name != "in another precision"])
def test_oracles_agree_where_autograd_is_right_and_only_there(name):
    row = BY_NAME[name]
    branch, again = row.fresh(), row.fresh()
    if row.row_of:
        branch, again = row.row_of(branch, 0), row.row_of(again, 0)
    point = row.points(1)
    difference, moved = by_difference(again, point)
    assert moved < 1e-6
    try:
        derivative = by_autograd(branch, point)
    except RuntimeError:
        assert row.oracle == "difference"
        return
    agree = (derivative - difference).norm() <= 1e-7 * max(1, difference.norm())
    assert agree == (row.oracle == "autograd")


@pytest.fixture(params=["defaults", "flash only", "without the fast path"])
def callers_settings(request):
    """Settings of attention that a caller has chosen."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(request.param != "without the fast path")
    try:
        if request.param == "flash only":
            with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                yield
        else:
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class Failing(Attention):
    """Attention that raises an error of its own at a chosen call."""

    calls, fails_at = 0, 0

    def forward(self, h):
        self.calls += 1
        if self.calls >= self.fails_at:
            raise ArithmeticError("this call fails")
        return super().forward(h)


@pytest.mark.parametrize("fails_at", [1, 2, 3, 4])
@pytest.mark.usefixtures("callers_settings")
def test_settings_are_restored_after_an_error(fails_at):
    torch.manual_seed(0)
    branch = Failing().double().eval()
    branch.fails_at = fails_at
    before, x = settings_of(branch), torch.randn(3, *TOKENS, dtype=torch.float64)
    with contextlib.suppress(ArithmeticError, ValueError):
        operator = ra.JacobianBatch(branch, x)
        operator.matmat(x[:, None])
        operator.rmatmat(x[:, None])
        operator.dense()
    assert branch.calls >= fails_at
    assert settings_of(branch) == before


@pytest.mark.usefixtures("callers_settings")
def test_settings_are_restored_after_each_product():
    row = BY_NAME["TransformerEncoderLayer"]
    assert faults(row, 3, measure(row, 3)) == []  # which compares the settings around each call
