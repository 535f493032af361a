"""Truncated singular value decomposition: the contract, over spectra that were chosen first."""

import re

import numpy as np
import pytest
import torch
from contracts import TOLERANCE, MatrixOperator, check_svd, matrix_with
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import hilbert, svdvals
from torch.testing import assert_close

from resalign_utils import dense_svd, truncated_svd
from resalign_utils.svd import check_rank

SHAPES = [(9, 9), (12, 7), (5, 11), (1, 6), (6, 1), (1, 1)]
SPECTRA = {
    "decaying": lambda r: 0.5 ** np.arange(r),
    "slowly decaying": lambda r: 1 / (1 + np.arange(r)),
    "flat, then a drop": lambda r: np.where(np.arange(r) < (r + 1) // 2, 1.0, 1e-3),
    "rank-deficient": lambda r: np.where(np.arange(r) < (r + 1) // 2, 1.0 + np.arange(r)[::-1], 0.0),
    "clustered": lambda r: 1 + 1e-9 * np.arange(r)[::-1],
    "zero": np.zeros,
}


@st.composite
def problems(draw):
    """A matrix of a chosen spectrum, size and dtype, and a number of triplets."""
    m, d = draw(st.sampled_from(SHAPES))
    spectrum = SPECTRA[draw(st.sampled_from(sorted(SPECTRA)))](min(m, d)) * 10.0 ** draw(st.integers(-4, 4))
    matrix = matrix_with(spectrum, m, d, draw(st.integers(0, 99))).to(draw(st.sampled_from(list(TOLERANCE))))
    return matrix, draw(st.integers(1, min(m, d)))


@given(problems(), st.sampled_from(["dense", "krylov"]))
def test_contract_holds_for_every_spectrum_shape_and_dtype(problem, method):
    matrix, k = problem
    svd = truncated_svd(MatrixOperator(matrix), k, method=method, tol=TOLERANCE[matrix.dtype])
    check_svd(svd.U, svd.S, svd.V, matrix, k)
    assert svd.converged.all()
    assert svd.method == method


@given(problems())
def test_batched_svd_keeps_the_contract_for_every_matrix(problem):
    matrix, k = problem
    batch = torch.stack([matrix, -2 * matrix, torch.zeros_like(matrix)])[None]  # (1, 3, m, d)
    u, s, v = dense_svd(batch, k)
    for i in range(3):
        check_svd(u[0, i], s[0, i], v[0, i], batch[0, i], k)


def test_singular_values_are_those_that_were_chosen():
    spectrum = [5.0, 3.0, 2.0, 1.0]
    svd = truncated_svd(MatrixOperator(matrix_with(spectrum, 8, 4)), 3)
    assert_close(svd.S, torch.tensor(spectrum[:3], dtype=torch.float64))


def test_hilbert_matrix_agrees_with_scipy_down_to_rounding():
    matrix = torch.from_numpy(hilbert(10))
    svd = truncated_svd(MatrixOperator(matrix), 10)
    check_svd(svd.U, svd.S, svd.V, matrix, 10)
    assert_close(svd.S, torch.from_numpy(svdvals(hilbert(10))), rtol=0, atol=1e-15)


def test_singular_vectors_have_the_shapes_of_inputs_and_outputs():
    matrix = matrix_with([3.0, 2.0, 1.0] + [0.0] * 5, 12, 8)
    svd = truncated_svd(MatrixOperator(matrix, in_shape=(2, 4), out_shape=(3, 2, 2)), 2)
    check_svd(svd.U, svd.S, svd.V, matrix, 2, in_shape=(2, 4), out_shape=(3, 2, 2))


@pytest.mark.parametrize("product", ["matmat", "rmatmat"])
def test_residuals_are_measured_on_the_operator_itself(product):
    """An operator whose products belong to another matrix than its dense form is found out."""
    matrix = matrix_with([4.0, 2.0, 1.0], 3, 3)

    class Lying(MatrixOperator):
        def matmat(self, v):
            return super().matmat(v) + 0.4 * (product == "matmat") * v  # ‖Jv − σu‖ = 0.4 = 0.1 σ₁

        def rmatmat(self, u):
            return super().rmatmat(u) + 0.4 * (product == "rmatmat") * u

    with pytest.warns(RuntimeWarning, match=r"disagree with the triplets of the matrix that it forms, by 1.0e-01 σ_1"):
        svd = truncated_svd(Lying(matrix), 3)
    assert_close(svd.residuals, torch.full((3,), 0.1, dtype=torch.float64))
    assert not svd.converged.any()
    assert truncated_svd(Lying(matrix), 3, tol=0.2).converged.all()


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_residuals_are_the_true_ones_and_at_rounding_level(dtype):
    matrix = matrix_with([4.0, 2.0, 1.0, 0.1], 6, 4).to(dtype)
    svd = truncated_svd(MatrixOperator(matrix), 3)
    right = (svd.V @ matrix.T - svd.S[:, None] * svd.U).norm(dim=1)
    left = (svd.U @ matrix - svd.S[:, None] * svd.V).norm(dim=1)
    assert_close(svd.residuals, torch.maximum(right, left) / svd.S[0])
    assert (svd.residuals < TOLERANCE[dtype]).all()


def test_work_is_counted_with_that_for_the_residuals():
    operator = MatrixOperator(matrix_with([1.0] * 4, 7, 4))
    operator.matmat(torch.zeros(5, 4, dtype=torch.float64))  # work of someone else
    assert truncated_svd(operator, 2).matvecs == 4 + 2 + 2


def test_result_cannot_be_changed():
    svd = truncated_svd(MatrixOperator(torch.eye(3)), 1)
    with pytest.raises(AttributeError):
        svd.S = torch.zeros(1)


def test_zero_operator_has_orthonormal_vectors_and_no_residual():
    svd = truncated_svd(MatrixOperator(torch.zeros(4, 3)), 3)
    assert_close(svd.residuals, torch.zeros(3))
    check_svd(svd.U, svd.S, svd.V, torch.zeros(4, 3), 3)


@pytest.mark.parametrize("k", [0, -1, 4, True, 2.0, None])
def test_number_of_triplets_out_of_range_is_refused_with_the_range(k):
    text = re.escape(f"k must be a whole number from 1 to min(5, 3) = 3; got {k!r}.")
    for compute in (
        lambda: truncated_svd(MatrixOperator(torch.ones(5, 3)), k),
        lambda: dense_svd(torch.ones(2, 5, 3), k),
        lambda: check_rank(k, (5, 3)),
    ):
        with pytest.raises(ValueError, match=text):
            compute()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_matrix_with_nan_or_infinity_is_refused(bad):
    matrix = torch.ones(3, 3)
    matrix[1, 2] = bad
    with pytest.raises(ValueError, match="holds NaN or infinite entries: check the weights and the inputs"):
        truncated_svd(MatrixOperator(matrix), 1)


def test_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method must be 'auto', 'dense' or 'krylov'; got 'lanczos'"):
        truncated_svd(MatrixOperator(torch.eye(3)), 1, method="lanczos")
