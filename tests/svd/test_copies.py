"""Singular values in more copies than a block has vectors: none may be missing."""

import numpy as np
import pytest
import torch
from contracts import MatrixBatch, MatrixOperator, check_svd, matrix_with
from torch import nn
from torch.testing import assert_close

import resalign_utils as ra
import resalign_utils.svd._krylov as krylov
from resalign_utils.svd import SVDOptions, decompose


def solve(matrix, k, **options):
    return ra.truncated_svd(MatrixOperator(matrix), k, method="krylov", **options)


@pytest.mark.parametrize("multiplicity", [1, 2, 3, 4, 5, 7, 11, 12, 13, 20, 25, 40, 64, 100])
@pytest.mark.parametrize("k", [1, 4, 10, 30])
@pytest.mark.parametrize("shape", [(400, 300), (300, 400)])
def test_every_copy_is_found(multiplicity, k, shape):
    """Each value so many times, three values in all above a tail."""
    steps = np.repeat([1.0, 0.7, 0.5], multiplicity)[:300]
    spectrum = np.concatenate([steps, np.linspace(0.3, 0.0, 300 - len(steps))])
    svd = solve(matrix_with(spectrum, *shape), k, tol=1e-10, max_matvecs=20_000)
    assert_close(svd.S, torch.from_numpy(spectrum[:k].copy()), rtol=0, atol=1e-9)
    check_svd(svd.U, svd.S, svd.V, matrix_with(spectrum, *shape), k, tolerance=1e-9)
    assert svd.converged.all()


@pytest.mark.parametrize("gap", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
@pytest.mark.parametrize("multiplicity", [1, 6, 13, 30])
@pytest.mark.parametrize("tol", [1e-4, 1e-9])
def test_values_that_are_nearly_copies_are_all_found_to_the_tolerance(gap, multiplicity, tol):
    values = np.repeat(1 - gap * np.arange(4), multiplicity)
    spectrum = np.concatenate([values, np.linspace(0.4, 0.0, 300 - len(values))])
    svd = solve(matrix_with(spectrum, 300, 300), 20, tol=tol, max_matvecs=20_000)
    assert_close(svd.S, torch.from_numpy(spectrum[:20].copy()), rtol=0, atol=tol)


def test_copies_are_found_in_one_matrix_of_several():
    spectra = [np.linspace(1, 0, 200), np.repeat([1.0, 0.8, 0.5, 0.1], 50), 0.9 ** np.arange(200)]
    matrices = torch.stack([matrix_with(spectrum, 200, 200, i) for i, spectrum in enumerate(spectra)])
    found = decompose(MatrixBatch(matrices), 20, SVDOptions("krylov", 1e-9))
    for i, spectrum in enumerate(spectra):
        assert_close(found.S[i], torch.from_numpy(spectrum[:20].copy()), rtol=0, atol=1e-8)


def test_slower_driver_serves_where_the_fast_one_gives_up(monkeypatch):
    """gesdd fails on some matrices with many equal singular values, which ones depends on the library."""
    matrices = torch.stack([matrix_with([3.0, 3.0, 3.0, 1.0], 6, 4, seed) for seed in range(2)])

    def fails(*_, **__):
        raise torch.linalg.LinAlgError("the algorithm failed to converge")

    monkeypatch.setattr(torch.linalg, "svd", fails)
    u, s, v = ra.dense_svd(matrices, 4)
    for i in range(2):
        check_svd(u[i], s[i], v[i], matrices[i], 4)
    assert ra.dense_svd(matrices[0], 4)[0].shape == (4, 6)


def test_search_costs_nothing_where_no_block_of_values_is_alike():
    spectrum = 0.97 ** np.arange(300)
    matrix, calls = matrix_with(spectrum, 300, 300), []
    operator = MatrixOperator(matrix)
    with pytest.MonkeyPatch.context() as patch:
        extend = krylov._Bidiagonalisation.__init__
        patch.setattr(
            krylov._Bidiagonalisation, "__init__", lambda self, *args: (calls.append(1), extend(self, *args))[1]
        )
        ra.truncated_svd(operator, 10, method="krylov")
        assert len(calls) == 1
        ra.truncated_svd(MatrixOperator(matrix_with(np.repeat([1, 0.5, 0.1], 100), 300, 300)), 20, method="krylov")
    assert len(calls) > 2


def test_products_that_do_not_suffice_for_the_search_are_announced():
    matrix = matrix_with(np.repeat([1.0, 0.9, 0.5, 0.1], 75), 300, 300)
    with pytest.warns(RuntimeWarning, match=r"8 or more singular values are alike.*max_matvecs=160 leaves no products"):
        solve(matrix, 20, max_matvecs=160)


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("channels", [1, 8, 64])
def test_depthwise_pooling_minus_identity_has_as_many_copies_as_channels(n, channels):
    """``pool(h) − h`` of the mixer of PoolFormer (Yu et al. 2022): every channel has the same Jacobian."""
    pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    x = torch.randn(n, channels, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    operators = ra.JacobianBatch(lambda h: pool(h) - h, x)
    one = ra.dense_jacobians(lambda h: pool(h) - h, x[:1, :1])[0]  # (36, 36)
    exact = torch.linalg.svdvals(one).repeat_interleave(channels)[:10]
    found = decompose(operators, 10, SVDOptions("krylov", 1e-8))
    for i in range(n):
        assert_close(found.S[i], exact, rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("low", [[1.0], [1e-6], [0.0], [1.0, 1e-12]])
def test_a_matrix_of_low_rank_beside_one_with_copies_costs_no_search_of_noise(low, dtype):
    """What is left of it is noise, which converges to no size of its own: 23,634 products were done once."""
    spectra = [[1.0] * 20, low, [0.9**i for i in range(300)]]
    matrices = torch.stack([matrix_with(s + [0.0] * (560 - len(s)), 560, 560, seed=i) for i, s in enumerate(spectra)])
    found = decompose(MatrixBatch(matrices.to(dtype)), 15, SVDOptions("krylov", 1e-4))
    assert found.matvecs < 600
    for values, spectrum in zip(found.S, spectra, strict=True):
        expected = torch.tensor((spectrum + [0.0] * 15)[:15], dtype=dtype)
        assert_close(values, expected, rtol=0, atol=1e-5 * max(spectrum))
