"""Block Golub–Kahan–Lanczos bidiagonalisation: the contract without a matrix, and the evidence for it."""

import itertools
import re
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from contracts import KRYLOV_TOLERANCE, TOLERANCE, MatrixBatch, MatrixOperator, check_svd, matrix_with
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, svds
from torch.testing import assert_close

import resalign_utils.svd._krylov as krylov
import resalign_utils.svd._solve as solving
from resalign_utils import truncated_svd
from resalign_utils.svd import SVDOptions, cheaper_method, decompose, dense_svd

F64 = torch.float64
SHAPES = [(80, 80), (60, 40), (40, 60), (100, 30), (30, 100), (17, 23), (7, 1), (1, 7)]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
SPECTRA = {
    "decaying": lambda r: 0.7 ** np.arange(r),
    "slow": lambda r: 1 / np.sqrt(1 + np.arange(r)),
    "linear": lambda r: 1 - 0.9 * np.arange(r) / r,
    "flat, then a drop": lambda r: np.where(np.arange(r) < (r + 1) // 2, 1.0, 1e-3),
    "flat": np.ones,
    "steps of five": lambda r: 0.5 ** (np.arange(r) // 5),
    "steps of three": lambda r: 1 - 0.9 * (np.arange(r) // 3 * 3) / r,
    "clustered": lambda r: 1 + 1e-9 * np.arange(r)[::-1],
    "clustered pairs": lambda r: 0.8 ** (np.arange(r) // 2) + 1e-9 * (np.arange(r) % 2 == 0),
    "rank-deficient": lambda r: np.where(np.arange(r) < (r + 1) // 2, 1.0 + np.arange(r)[::-1], 0.0),
    "rank three": lambda r: np.where(np.arange(r) < 3, 3.0 - np.arange(r), 0.0),
    "graded over twelve decades": lambda r: 10.0 ** (-12 * np.arange(r) / r),
    "zero": np.zeros,
}


def random_matrix(m, d, seed=0):
    """Gaussian, float64: no symmetry, no gap."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((m, d)))


def solve(operator, k, **options):
    return truncated_svd(operator, k, method="krylov", **options)


def check_krylov(device, matrix, k, seed, **options):
    """Assert the contract for what Krylov finds; in float32 the last step may miss what is asked by rounding."""
    tolerance, matrix = KRYLOV_TOLERANCE[matrix.dtype], matrix.to(device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore" if matrix.dtype == torch.float32 else "error", category=RuntimeWarning)
        svd = solve(MatrixOperator(matrix), k, tol=tolerance / 2, seed=seed, **options)
    check_svd(svd.U, svd.S, svd.V, matrix, k, tolerance=tolerance)
    assert (svd.residuals <= tolerance).all()
    assert svd.method == "krylov"


def true_residuals(svd, matrix):
    """``max(‖A v − σ u‖, ‖Aᵀ u − σ v‖) / σ₁`` in float64, (k,)."""
    a, u, s, v = (part.double().cpu().numpy() for part in (matrix, svd.U, svd.S, svd.V))
    right, left = v @ a.T - s[:, None] * u, u @ a - s[:, None] * v
    return torch.from_numpy(np.maximum(np.linalg.norm(right, axis=1), np.linalg.norm(left, axis=1)) / (s[0] or 1.0))


@contextmanager
def small_bases(rows=8):
    """Room for so few rows that Krylov must restart; yields the list of its restarts."""
    restarts, restart = [], krylov._Bidiagonalisation.restart
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(krylov, "LARGEST_BASIS", rows)
        patch.setattr(
            krylov._Bidiagonalisation, "restart", lambda self, *args: (restarts.append(self.size), restart(self, *args))
        )
        yield restarts


@st.composite
def problems(draw, shapes=SHAPES, spectra=tuple(SPECTRA), largest_k=None):
    """A matrix of a chosen spectrum, shape, scale and dtype, and a number of triplets."""
    m, d = draw(st.sampled_from(shapes))
    spectrum = SPECTRA[draw(st.sampled_from(spectra))](min(m, d)) * 10.0 ** draw(st.integers(-4, 4))
    dtype = draw(st.sampled_from(list(KRYLOV_TOLERANCE)))
    matrix = matrix_with(spectrum, m, d, draw(st.integers(0, 99))).to(dtype)
    return matrix, draw(st.integers(1, min(m, d, largest_k or m)))


# The contract


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=200)
@given(problem=problems(), seed=st.integers(0, 99))
def test_contract_holds_for_every_spectrum_shape_and_dtype(device, problem, seed):
    check_krylov(device, *problem, seed)


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=100)
@given(problem=problems([(80, 80), (100, 60), (60, 100)], largest_k=6), seed=st.integers(0, 99))
def test_contract_holds_when_the_basis_is_small(device, problem, seed):
    with small_bases():
        check_krylov(device, *problem, seed, max_matvecs=20_000)


@settings(max_examples=30)
@given(problems([(80, 80), (100, 70), (70, 100)], ["linear", "steps of three"], largest_k=4), st.integers(0, 99))
def test_contract_holds_through_several_restarts(problem, seed):
    with small_bases() as restarts:
        check_krylov("cpu", *problem, seed, max_matvecs=20_000)
    assert len(restarts) >= 2
    assert max(restarts) <= 3 * problem[1] + 4 * krylov.SMALLEST_BLOCK


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=30)
@given(
    st.sampled_from([(60, 40), (40, 60), (50, 50)]),
    st.lists(st.sampled_from(sorted(SPECTRA)), min_size=2, max_size=5),
    st.integers(1, 12),
    st.booleans(),
    st.sampled_from(list(KRYLOV_TOLERANCE)),
)
def test_matrices_in_step_give_what_each_gives_alone(device, shape, names, k, small, dtype):
    spectra = [SPECTRA[name](min(shape)) * 10.0**scale for scale, name in enumerate(names, -2)]
    matrices = torch.stack([matrix_with(spectrum, *shape, i) for i, spectrum in enumerate(spectra)])
    matrices, tolerance = matrices.to(device, dtype), KRYLOV_TOLERANCE[dtype]
    with small_bases(8 if small else 512):
        options = SVDOptions("krylov", tolerance / 2, max_matvecs=20_000)
        found = decompose(MatrixBatch(matrices), k, options)
        alone = [decompose(MatrixBatch(a[None]), k, options) for a in matrices]
    assert (found.residuals <= tolerance).all()
    for i, matrix in enumerate(matrices):
        check_svd(found.U[i], found.S[i], found.V[i], matrix, k, tolerance=tolerance)
        assert_close(found.S[i], alone[i].S[0], rtol=0, atol=2 * tolerance * float(found.S[i, 0]))


def test_singular_vectors_have_the_shapes_of_inputs_and_outputs():
    matrix = matrix_with(0.5 ** np.arange(24), 36, 24)
    svd = solve(MatrixOperator(matrix, in_shape=(2, 3, 4), out_shape=(4, 9)), 5, tol=1e-12)
    shapes = {"in_shape": (2, 3, 4), "out_shape": (4, 9)}
    check_svd(svd.U, svd.S, svd.V, matrix, 5, tolerance=1e-11, **shapes)
    wide = solve(MatrixOperator(matrix.T, in_shape=(4, 9), out_shape=(2, 3, 4)), 5, tol=1e-12)
    check_svd(wide.U, wide.S, wide.V, matrix.T, 5, tolerance=1e-11, in_shape=(4, 9), out_shape=(2, 3, 4))


@pytest.mark.parametrize("shape", [(80, 80), (100, 60), (60, 100)])
def test_scipy_finds_the_same_singular_values(shape):
    matrix = random_matrix(*shape)
    products = LinearOperator(shape, matvec=lambda v: matrix.numpy() @ v, rmatvec=lambda u: matrix.numpy().T @ u)
    for solver in ("arpack", "propack"):
        expected = svds(
            products, 7, solver=solver, tol=1e-13, return_singular_vectors=False, rng=np.random.default_rng(0)
        )
        found = solve(MatrixOperator(matrix), 7, tol=1e-11).S
        assert_close(found, torch.from_numpy(np.sort(expected)[::-1].copy()), rtol=0, atol=1e-10)


@pytest.mark.parametrize("multiplicity", [5, 12])
def test_ties_of_more_vectors_than_a_block_has_are_all_found(multiplicity):
    spectrum = np.concatenate([np.ones(multiplicity), np.linspace(0.9, 0.1, 60 - multiplicity)])
    svd = solve(MatrixOperator(matrix_with(spectrum, 60, 60)), 4, tol=1e-11)
    assert_close(svd.S, torch.ones(4, dtype=F64), rtol=0, atol=1e-13)
    svd = solve(MatrixOperator(matrix_with(spectrum, 60, 60)), multiplicity + 1, tol=1e-11)
    assert_close(svd.S[:-1], torch.ones(multiplicity, dtype=F64), rtol=0, atol=1e-13)
    assert float(svd.S[-1]) == pytest.approx(0.9)


# Evidence


@settings(max_examples=60)
@given(problems(), st.integers(0, 60))
def test_residuals_are_the_true_ones_however_early_it_stops(problem, more):
    matrix, k = problem
    tolerance = KRYLOV_TOLERANCE[matrix.dtype]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        svd = solve(MatrixOperator(matrix), k, tol=tolerance, max_matvecs=fewest(matrix.shape, k) + more)
    truth = true_residuals(svd, matrix)
    rounding = 3 * TOLERANCE[matrix.dtype]
    assert_close(svd.residuals.double(), truth, rtol=1e-5, atol=rounding)
    assert torch.equal(svd.converged, svd.residuals <= tolerance)
    assert not (svd.converged & (truth > tolerance + rounding)).any()
    said = [str(warning.message) for warning in caught]
    assert any("have not converged" in text for text in said) == (not svd.converged.all())


def block_of(k, *shape):
    """Rows of a block for one small matrix."""
    return min(max(k, krylov.SMALLEST_BLOCK), krylov.LARGEST_BLOCK, *shape)


def fewest(shape, k):
    """The fewest products that span and check k triplets, of a wide matrix from a random block that J turns."""
    block = block_of(k, *shape)
    return 2 * block * -(-k // block) + 2 * k + (block if shape[1] > shape[0] else 0)


def test_result_that_has_not_converged_says_so():
    matrix = matrix_with(SPECTRA["linear"](80), 80, 80)
    with pytest.warns(RuntimeWarning) as record:
        svd = solve(MatrixOperator(matrix), 6, tol=1e-8, max_matvecs=50)
    assert len(record) == 1
    missed = int((true_residuals(svd, matrix) > 1e-8).sum())
    assert missed > 0
    assert svd.converged.tolist() == (true_residuals(svd, matrix) <= 1e-8).tolist()
    worst = f"{float(svd.residuals.max()):.1e}"
    text = (
        f"{missed} of 6 singular triplets have not converged within {svd.matvecs} products: their residuals reach "
        f"{worst}, asked were 1.0e-08. Allow more (max_matvecs), ask for less (tol), or compute in float64"
    )
    assert str(record[0].message).startswith(text)
    assert svd.matvecs <= 50


SIDES = [pytest.param(*shape, id=name) for name, shape in {"tall": (60, 40), "square": (50, 50)}.items()]
WIDE = pytest.param(40, 60, id="wide")


@pytest.mark.parametrize(("m", "d"), [*SIDES, WIDE])
@pytest.mark.parametrize("k", [1, 6, 40])
def test_products_are_counted_as_the_operator_counts_them(m, d, k):
    operator = MatrixOperator(random_matrix(m, d))
    operator.matmat(torch.zeros(5, d, dtype=F64))  # work of someone else
    assert solve(operator, k).matvecs == operator.matvecs - 5


@pytest.mark.parametrize(("m", "d"), [*SIDES, WIDE])
@pytest.mark.parametrize("rows", [8, 512])
def test_no_more_products_are_done_than_allowed(m, d, rows):
    with warnings.catch_warnings(), small_bases(rows):
        warnings.simplefilter("ignore", RuntimeWarning)
        for k, more in itertools.product((1, 5, 17, 40), (0, 1, 7, 30, 55)):
            operator = MatrixOperator(random_matrix(m, d))
            allowed = fewest((m, d), k) + more
            svd = solve(operator, k, tol=1e-14, max_matvecs=allowed)
            assert operator.matvecs <= allowed
            assert svd.matvecs <= allowed


@pytest.mark.parametrize(("m", "d"), [*SIDES, WIDE])
@pytest.mark.parametrize("name", sorted(SPECTRA))
def test_default_budget_suffices_when_the_basis_must_span_everything(m, d, name):
    matrix = matrix_with(SPECTRA[name](min(m, d)), m, d)
    operator = MatrixOperator(matrix)
    svd = solve(operator, min(m, d), tol=1e-12)
    check_svd(svd.U, svd.S, svd.V, matrix, min(m, d), tolerance=1e-11)
    assert svd.converged.all()
    assert svd.matvecs <= 4 * min(m, d)


def test_default_budget_is_what_forms_the_matrix_twice():
    operator = MatrixOperator(matrix_with(SPECTRA["linear"](80), 80, 80))
    with small_bases() as restarts, pytest.warns(RuntimeWarning, match="have not converged"):
        solve(operator, 3, tol=1e-13)
    assert restarts
    assert 2 * (80 + 3) - 2 * block_of(3, 80) < operator.matvecs <= 2 * (80 + 3)


@pytest.mark.parametrize("k", [1, 4, 6, 12, 17, 50])
def test_too_few_products_are_refused_with_the_number(k):
    operator, least, block = MatrixOperator(random_matrix(50, 50)), fewest((50, 50), k), block_of(k, 50)
    text = re.escape(
        f"max_matvecs must be at least {least}, to span and to check k={k} triplets in blocks of {block}; got "
        f"{least - 1}."
    )
    with pytest.raises(ValueError, match=text):
        solve(operator, k, max_matvecs=least - 1)
    assert operator.matvecs == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert solve(operator, k, tol=1e-12, max_matvecs=least).matvecs == operator.matvecs <= least


class Broken(MatrixOperator):
    """Its products of one kind have a bad entry, from the given call on."""

    def __init__(self, matrix, name, call, bad):
        super().__init__(matrix)
        self._broken, self._calls, self._bad = name, call, bad

    def _spoilt(self, name, product):
        if name == self._broken:
            self._calls -= 1
            if self._calls < 0:
                product[-1, 0] = self._bad
        return product

    def matmat(self, v):
        return self._spoilt("matmat", super().matmat(v))

    def rmatmat(self, u):
        return self._spoilt("rmatmat", super().rmatmat(u))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("call", [0, 1, 3])
@pytest.mark.parametrize(("product", "name"), [("matmat", "J v"), ("rmatmat", "Jᵀ u")])
@pytest.mark.parametrize(("m", "d"), [*SIDES, WIDE])
def test_nan_is_refused_with_the_name_of_the_product(m, d, product, name, call, bad):
    operator = Broken(random_matrix(m, d), product, call, bad)
    text = f"A product {name} gives NaN or infinite values, within the first "
    with pytest.raises(ValueError, match=text) as caught:
        solve(operator, 5, tol=1e-12)
    assert f"the first {operator.matvecs} products. Check the weights and the inputs" in str(caught.value)


def test_nan_in_one_matrix_of_several_is_found():
    matrices = torch.stack([random_matrix(20, 20, seed) for seed in range(3)])
    matrices[1, 4, 5] = torch.nan
    with pytest.raises(ValueError, match="A product J v gives NaN"):
        decompose(MatrixBatch(matrices), 2, SVDOptions("krylov"))


@pytest.mark.parametrize(("m", "d"), [*SIDES, WIDE])
@pytest.mark.parametrize("transpose", [lambda a: a + 0.3 * random_matrix(*a.shape, 9) / a.norm(), lambda a: 2 * a])
def test_operator_whose_transpose_is_another_matrix_is_found_out(m, d, transpose):
    class Lying(MatrixOperator):
        def rmatmat(self, u):
            self.matvecs += len(u)
            return u @ transpose(self.matrix)

    matrix = matrix_with(0.5 ** np.arange(min(m, d)), m, d)
    with pytest.warns(RuntimeWarning, match="have not converged"):
        svd = solve(Lying(matrix), 3, tol=1e-4)
    assert not svd.converged[0]


def test_matrix_is_never_formed():
    class Matrixless(MatrixOperator):
        def dense(self):
            raise AssertionError("Krylov asked for the matrix.")

    for m, d in [(30, 20), (20, 30)]:
        assert solve(Matrixless(random_matrix(m, d)), 20).method == "krylov"


def test_the_nearest_bound_of_a_triplet_is_its_residual():
    """There is a singular value within residual · σ₁ of each that is returned (Parlett 1998, theorem 11.7.1)."""
    matrix = random_matrix(80, 80)
    true = torch.from_numpy(np.linalg.svd(matrix.numpy(), compute_uv=False))
    with pytest.warns(RuntimeWarning):
        svd = solve(MatrixOperator(matrix), 8, tol=1e-10, max_matvecs=70)
    distance = (svd.S[:, None] - true).abs().min(1).values
    assert (distance <= svd.residuals * svd.S[0]).all()
    assert (svd.S - true[:8] <= 1e-13).all()  # a projection only makes singular values smaller


# Chance


@pytest.mark.usefixtures("random_state_untouched")
@pytest.mark.parametrize("dtype", KRYLOV_TOLERANCE)
def test_seed_decides_everything_and_singular_values_do_not_depend_on_it(dtype):
    matrix = random_matrix(60, 50).to(dtype)
    matrix[:, 20:] = matrix[:, :1]  # of rank 20: exhausted directions are replaced by random ones
    tolerance = KRYLOV_TOLERANCE[dtype]

    def found(seed):
        return solve(MatrixOperator(matrix), 25, tol=tolerance, seed=seed)

    one, again, other = found(1), found(1), found(2)
    for field in ("U", "S", "V", "residuals", "converged"):
        assert torch.equal(getattr(one, field), getattr(again, field))
    assert one.matvecs == again.matvecs
    assert not torch.equal(one.V, other.V)
    assert_close(one.S, other.S, rtol=0, atol=tolerance * float(one.S[0]))
    assert_close(one.S[20:], torch.zeros(5, dtype=dtype), rtol=0, atol=tolerance * float(one.S[0]))


@pytest.mark.parametrize(("n", "length"), [(1, 2**11), (1, 2**11 + 1), (1, 3136), (2, 2**11), (1, 40)])
def test_long_rows_are_multiplied_in_pieces_to_the_same_result(n, length):
    generator = torch.Generator().manual_seed(0)
    rows, basis = (torch.randn(n, count, length, generator=generator, dtype=F64) for count in (3, 7))
    wide = torch.cat([basis, basis], 1)[:, :7]  # a view into a larger one, as the solver's bases are
    coefficients = krylov._coefficients(rows, wide)
    assert_close(coefficients, rows @ basis.mT, rtol=0, atol=1e-11)
    expected = rows - coefficients @ basis
    assert_close(krylov._without(rows, coefficients, wide), expected, rtol=0, atol=1e-12)


def warm_starts(left, right, k):
    """Name → first vectors (b, d), by what they know of the k wanted right singular vectors (d, d)."""
    return {
        "the answer": right[:k],
        "the answer, of other lengths": right[:k] * torch.logspace(-9, 9, k, dtype=F64)[:, None],
        "the first one": right[:1],
        "one vector many times": right[:1].expand(9, -1),
        "zeros": torch.zeros(3, right.shape[1], dtype=F64),
        "nothing of the answer": right[k:],
        "one wrong vector": right[-1:],
        "more than is asked for": right,
        "left vectors": left[:k],
    }


@pytest.mark.parametrize("name", warm_starts(torch.eye(9, dtype=F64), torch.eye(9, dtype=F64), 3))
def test_any_start_gives_the_right_answer(name):
    matrix = matrix_with(np.repeat(0.8 ** np.arange(25), 2), 50, 50)
    left, _, right = np.linalg.svd(matrix.numpy())
    start = warm_starts(torch.from_numpy(left.T.copy()), torch.from_numpy(right), 6)[name]
    svd = solve(MatrixOperator(matrix), 6, tol=1e-12, v0=start)
    check_svd(svd.U, svd.S, svd.V, matrix, 6, tolerance=1e-11)
    assert svd.converged.all()


def test_start_without_any_part_of_the_answer_does_not_hide_it():
    """In a diagonal matrix not even rounding would bring the missing directions back."""
    spectrum = torch.cat([torch.linspace(1, 0.5, 6, dtype=F64), 0.45 * 0.6 ** torch.arange(194, dtype=F64)])
    svd = solve(MatrixOperator(torch.diag(spectrum)), 6, tol=1e-5, v0=torch.eye(200, dtype=F64)[6:60])
    assert_close(svd.S, spectrum[:6], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("m", "d"), [(200, 200), (200, 300), (300, 200)])
def test_start_near_the_answer_saves_products_whatever_its_dtype(m, d):
    matrix = matrix_with(0.98 ** np.arange(200), m, d)
    operator = MatrixOperator(matrix, in_shape=(2, d // 2))
    cold = solve(operator, 6, tol=1e-2)
    warm = solve(operator, 6, tol=1e-2, v0=1e-6 * cold.V.float())  # directions count, lengths do not
    assert_close(warm.S, cold.S, rtol=0, atol=1e-2)
    assert warm.matvecs < cold.matvecs


@pytest.mark.parametrize(
    ("shape", "expected", "got"),
    [
        ((3, 5), "(b, 6)", "(3, 5)"),
        ((6,), "(b, 6)", "(6,)"),
        ((0, 6), "(b, 6)", "(0, 6)"),
        ((5, 6), "(b, 6)", "(5, 6)"),
        ((2, 3, 2), "(b, 6)", "(2, 3, 2)"),
        ((), "(b, 6)", "()"),
    ],
)
def test_start_of_another_shape_is_refused(shape, expected, got):
    text = re.escape(f"Expected v0 of shape {expected} with 1 ≤ b ≤ 4; got {got}.")
    with pytest.raises(ValueError, match=text):
        solve(MatrixOperator(random_matrix(4, 6)), 2, v0=torch.ones(shape, dtype=F64))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_start_with_nan_is_refused(bad):
    v0 = torch.ones(2, 6, dtype=F64)
    v0[1, 3] = bad
    with pytest.raises(ValueError, match="v0 holds NaN or infinite values"):
        solve(MatrixOperator(random_matrix(4, 6)), 2, v0=v0)


# The choice of a method


def test_auto_takes_the_cheaper_method_and_says_which():
    ways = {}
    for size in (16, 1500):
        svd = truncated_svd(MatrixOperator(torch.diag(0.5 ** torch.arange(size, dtype=F64))), 2)
        assert svd.method == cheaper_method((size, size), 2)
        ways[size] = svd.method
    assert ways == {16: "dense", 1500: "krylov"}


@pytest.mark.parametrize("way", ["dense", "krylov"])
def test_auto_asks_cheaper_method_with_the_shape_and_k(monkeypatch, way):
    asked = []
    monkeypatch.setattr(solving, "cheaper_method", lambda *arguments: asked.append(arguments) or way)
    assert truncated_svd(MatrixOperator(random_matrix(9, 7)), 2, method="auto").method == way
    assert asked == [((9, 7), 2)]
    assert truncated_svd(MatrixOperator(random_matrix(9, 7)), 2, method="dense").method == "dense"
    assert len(asked) == 1


@given(st.integers(1, 2000), st.integers(1, 2000), st.data())
def test_cheaper_method_knows_shapes_alone(m, d, data):
    k = data.draw(st.integers(1, min(m, d)))
    way = cheaper_method((m, d), k)
    assert way == cheaper_method((m, d), k) == cheaper_method((d, m), k)
    if way == "krylov":
        assert cheaper_method((4 * m, 4 * d), k) == "krylov"
        assert cheaper_method((m, d), max(1, k // 2)) == "krylov"
    assert cheaper_method((m, d), min(m, d)) == "dense"
    assert cheaper_method((m + 20_000, d + 20_000), 30) == "krylov"


# The relations that everything rests on


def check_relations(basis, matrix, tolerance):
    """U, V orthonormal, ``J Vᵀ = Uᵀ B`` and ``U J = B V + E T P``, with the next block P orthogonal to V."""
    j, a = basis.size, matrix.double()
    u, v, b = (part[0].double() for part in (basis.U[:, :j], basis.V[:, :j], basis.B[:, :j, :j]))
    front, known = basis._front[0].double(), basis._known[0].double()
    near, size = {"rtol": 0, "atol": tolerance}, float(torch.linalg.matrix_norm(a, 2)) or 1.0
    rows = torch.cat([v, front])
    for frame in (u, rows):
        assert_close(frame @ frame.T, torch.eye(len(frame), dtype=F64), **near)
    assert_close(a @ v.T / size, u.T @ b / size, **near)
    corner = torch.zeros(j, len(front), dtype=F64)
    corner[j - known.shape[1] :] = known.T
    assert_close(u @ a / size, (b @ v + corner @ front) / size, **near)


def bidiagonalise(matrix, block, room):
    start = krylov.random_block(1, block, matrix.shape[1], 0, matrix.dtype, matrix.device)
    return krylov._Bidiagonalisation(
        lambda v: v @ matrix.T, lambda u: u @ matrix, start, len(matrix), room, 0
    )  # fmt: skip


# Restarts on a flat spectrum add up to this; without them KEPT_LENGTH keeps 5e-6 and 1e-14
RELATIONS = {torch.float32: 3e-5, torch.float64: 2e-13}


@pytest.mark.parametrize("name", sorted(SPECTRA))
@pytest.mark.parametrize("dtype", RELATIONS)
def test_relations_hold_block_after_block(dtype, name):
    matrix = matrix_with(SPECTRA[name](80), 80, 80).to(dtype)
    basis = bidiagonalise(matrix, 5, 80)
    for _ in range(15):
        basis.extend()
        check_relations(basis, matrix, RELATIONS[dtype])
    assert basis.size == 75
    basis.extend()
    assert basis.complete
    assert basis.triplets(80)[3].abs().max() == 0


@pytest.mark.parametrize("name", sorted(SPECTRA))
@pytest.mark.parametrize("dtype", RELATIONS)
def test_relations_hold_after_each_restart(dtype, name):
    matrix = matrix_with(SPECTRA[name](70), 80, 70).to(dtype)
    basis = bidiagonalise(matrix, 4, 26)
    for _ in range(4):
        while not basis.full:
            basis.extend()
        kept = basis.kept_at_restart(6)
        assert 6 < kept <= 18
        u, s, v, estimates = basis.triplets(kept)
        basis.restart(u, s, v)
        assert basis.size == kept
        check_relations(basis, matrix, RELATIONS[dtype])
        basis.extend()
        check_relations(basis, matrix, RELATIONS[dtype])
    # the estimates, that need no product, are the residuals
    u, s, v, estimates = basis.triplets(6)
    left, right = u[0] @ basis.U[0, : basis.size], v[0] @ basis.V[0, : basis.size]
    residuals = (left @ matrix - s[0, :, None] * right).norm(dim=1) / (s[0, 0] or 1.0)
    assert_close(estimates[0], residuals, rtol=1e-3, atol=RELATIONS[dtype])


def test_last_block_takes_only_the_dimensions_that_are_left():
    matrix = random_matrix(40, 23)
    basis, sizes = bidiagonalise(matrix, 5, 23), []
    while not basis.complete:
        basis.extend()
        sizes.append(basis.size)
        if not basis.complete:
            check_relations(basis, matrix, 1e-13)
    assert sizes == [5, 10, 15, 20, 23]
    s = basis.triplets(23)[1][0]
    assert_close(s, dense_svd(matrix, 23)[1])


def test_restart_keeps_half_as_many_again_but_leaves_room_for_two_blocks():
    basis = bidiagonalise(random_matrix(60, 60), 4, 26)
    basis.extend()
    assert basis.kept_at_restart(6) == 6  # not full: nothing to keep
    while not basis.full:
        basis.extend()
    assert basis.kept_at_restart(6) == 10
    assert basis.kept_at_restart(10) == 15
    assert basis.kept_at_restart(16) == 18


class Reusing(MatrixOperator):
    """An operator that writes every product into the same memory."""

    def __init__(self, matrix):
        super().__init__(matrix)
        self.memory = torch.empty(1000, matrix.shape[0], dtype=matrix.dtype)

    def matmat(self, v):
        return torch.matmul(v, self.matrix.T, out=self.memory[: len(v)])

    def rmatmat(self, u):
        return torch.matmul(u, self.matrix, out=self.memory[: len(u)])


@pytest.mark.parametrize("method", ["dense", "krylov"])
def test_an_operator_may_reuse_the_memory_of_its_results(method):
    matrix = matrix_with([0.95**i for i in range(600)], 600, 600)
    svd = truncated_svd(Reusing(matrix), 3, method=method)
    assert svd.converged.all()
    assert_close(svd.S, torch.tensor([0.95**i for i in range(3)], dtype=F64), rtol=1e-7, atol=0)
