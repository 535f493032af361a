"""The ways to get k singular triplets of a Residual Jacobian: ours, and what people use.

Each way sets up an operator from a case, a branch and a point, and solves, ``(operator, k, **setting) → (U (k, m),
S (k,), V (k, d))``. Both are timed. All but the ones that say so use our products, which are fast, and counted.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, svds
from torch import Tensor

import resalign_utils as ra
from resalign_utils.operators import SingleOperator

from .measuring import rows
from .operators import Case

Triplets = tuple[Tensor, Tensor, Tensor]
TOLERANCE = 1e-4  # of the residuals, relative to σ_1
SKETCH, POWERS = 55, 20  # of the authors' subspace iteration


class Counted:
    """An operator that writes down its products, as pairs (name, number of vectors)."""

    def __init__(self, operator: Any) -> None:
        self._operator = operator
        self.calls: list[tuple[str, int]] = []
        self.in_shape, self.out_shape, self.shape = operator.in_shape, operator.out_shape, operator.shape
        self.dtype, self.device = operator.dtype, operator.device

    @property
    def matvecs(self) -> int:
        """Number of single products so far; a matrix that is formed counts as its smaller side."""
        return sum(number for _, number in self.calls)

    def matmat(self, v: Tensor) -> Tensor:
        """(k, *in) → (k, *out)."""
        self.calls.append(("matmat", len(v)))
        product: Tensor = self._operator.matmat(v)
        return product

    def rmatmat(self, u: Tensor) -> Tensor:
        """(k, *out) → (k, *in)."""
        self.calls.append(("rmatmat", len(u)))
        product: Tensor = self._operator.rmatmat(u)
        return product

    def dense(self) -> Tensor:
        """(m, d), of one that is formed."""
        matrix: Tensor = self._operator.dense()
        return matrix


class Textbook:
    """The products that people wire up: ``torch.func.jvp`` and ``vjp`` of the branch at each product."""

    def __init__(self, case: Case) -> None:
        self._branch, self._x = case.branch, case.point
        self.in_shape = self.out_shape = tuple(case.point.shape[1:])
        self.shape, self.dtype, self.device = (case.side, case.side), case.point.dtype, case.point.device

    @torch.no_grad()
    def matmat(self, v: Tensor) -> Tensor:
        """(k, *in) → (k, *out)."""
        return torch.cat([torch.func.jvp(self._branch, (self._x,), (row[None],))[1] for row in v])

    @torch.no_grad()
    def rmatmat(self, u: Tensor) -> Tensor:
        """(k, *out) → (k, *in)."""
        return torch.cat([torch.func.vjp(self._branch, self._x)[1](row[None])[0] for row in u])


def replay(opened: Callable[[], Any], calls: list[tuple[str, int]]) -> Callable[[], None]:
    """A function that opens the operator and makes the same products with nothing between them."""
    like, largest = opened(), max(number for _, number in calls)
    vectors = {
        "matmat": torch.randn(largest, *like.in_shape, device=like.device),
        "rmatmat": torch.randn(largest, *like.out_shape, device=like.device),
    }

    def bare() -> None:
        operator = opened()
        for name, number in calls:
            getattr(operator, name)(vectors[name][:number])

    return bare


def products(case: Case) -> Counted:
    """Set-up: our products, opened and proved."""
    return Counted(case.open())


def textbook(case: Case) -> Counted:
    """Set-up: nothing; what each product needs is made for it."""
    return Counted(Textbook(case))


def formed(case: Case) -> Counted:
    """Set-up: the matrix, by our products."""
    return _formed(case.open().materialise())


def formed_row_by_row(case: Case) -> Counted:
    """Set-up: the matrix, by one backward pass a row."""
    return _formed(SingleOperator(ra.MatrixBatch(row_by_row(case.branch, case.point)[None])))


def _formed(operator: SingleOperator) -> Counted:
    counted = Counted(operator)
    counted.calls.append(("dense", min(operator.shape)))
    return counted


def ours(operator: Counted, k: int) -> Triplets:
    found = ra.truncated_svd(operator, k, method="krylov", tol=TOLERANCE)
    return found.U.flatten(1), found.S, found.V.flatten(1)


def scipy_svds(operator: Counted, k: int, **setting: Any) -> Triplets:
    u, s, vh = svds(_for_scipy(operator), k, rng=np.random.default_rng(0), **setting)
    return _sorted(u.T, s, vh, operator)


def primme_svds(operator: Counted, k: int, **setting: Any) -> Triplets:
    import primme

    u, s, vh = primme.svds(_for_scipy(operator), k, **setting)[:3]
    return _sorted(u.T, s, vh, operator)


def dense_svd(operator: Counted, k: int) -> Triplets:
    u, s, vh = torch.linalg.svd(operator.dense(), full_matrices=False)
    return u[:, :k].T, s[:k], vh[:k]


def svd_lowrank(operator: Counted, k: int, q: int, niter: int) -> Triplets:
    with _seeded():
        u, s, v = torch.svd_lowrank(operator.dense(), q=min(q, *operator.shape), niter=niter)
    return u[:, :k].T, s[:k], v[:, :k].T


def torch_lobpcg(operator: Counted, k: int, niter: int) -> Triplets:
    matrix = operator.dense()
    with _seeded():
        squares, v = torch.lobpcg(matrix.T @ matrix, k, niter=niter, tol=1e-6, largest=True)
    s = squares.clamp(min=0).sqrt()
    return (matrix @ v / s).T, s, v.T


def authors(operator: Counted, k: int) -> Triplets:
    """Randomised subspace iteration on the matrix."""
    return subspace_iteration(operator.dense(), k)


def row_by_row(branch: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """J (m, d) at one point x (1, *in), by one backward pass per output."""
    return rows(lambda h: branch(h).flatten(1), x).flatten(2)[0]


def subspace_iteration(matrix: Tensor, k: int) -> Triplets:
    """Randomised subspace iteration (Halko, Martinsson & Tropp 2011, algorithms 4.4 and 5.1)."""
    width = min(max(SKETCH, k), *matrix.shape)
    with _seeded():
        q = torch.linalg.qr(matrix @ torch.randn(matrix.shape[1], width).to(matrix))[0]
    for _ in range(POWERS):
        q = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ q)[0])[0]
    u, s, vh = torch.linalg.svd(q.T @ matrix, full_matrices=False)
    return (q @ u[:, :k]).T, s[:k], vh[:k]


def skerch_ssvd(operator: Counted, k: int, outer_dims: int) -> Triplets:
    from skerch.algorithms import ssvd

    width = min(outer_dims, *operator.shape)
    u, s, vh = ssvd(_Matrix(operator), operator.device, operator.dtype, width, seed=0)
    return u[:, :k].T, s[:k], vh[:k]


def xitorch_svd(operator: Counted, k: int, min_eps: float) -> Triplets:
    import xitorch.linalg

    with _seeded():
        u, s, vh = xitorch.linalg.svd(_for_xitorch(operator), k, method="davidson", min_eps=min_eps, max_niter=30)
    order = s.argsort(descending=True)
    return u.T[order], s[order], vh[order]


@dataclass(frozen=True)
class Way:
    """One way and its settings, from the cheapest to the dearest: the first that reaches TOLERANCE is timed.

    Attributes:
        name: what the table calls it.
        solve: the function.
        settings: its keyword arguments to try.
        package: what must be installed, beyond what this package needs.
        set_up: makes the operator from the case.
    """

    name: str
    solve: Callable[..., Triplets]
    settings: tuple[dict[str, Any], ...] = ({},)
    package: str | None = None
    set_up: Callable[[Case], Counted] = products

    @property
    def installed(self) -> bool:
        """Whether it can be run here."""
        return self.package is None or importlib.util.find_spec(self.package) is not None


def ways(k: int, side: int) -> list[Way]:
    """All ways, ours first, for k triplets of a matrix with this smaller side."""
    tolerances = [10.0**-power for power in range(1, 8)]
    widths = sorted({min(width, side) for width in (2 * k, 8 * k, 32 * k, 5 * side // 8)})
    arpack = tuple({"solver": "arpack", "tol": tol} for tol in tolerances)
    # svds starts PROPACK with room for 10 k vectors
    propack = tuple({"solver": "propack", "tol": tol, "maxiter": min(10 * k, side)} for tol in tolerances)
    lobpcg = tuple({"solver": "lobpcg", "tol": 1e-2, "maxiter": most} for most in (20, 40, 80, 160, 320))
    lowrank = tuple({"q": q, "niter": niter} for q in (k + 10, 2 * k) for niter in (2, 8, 32, 64))
    lobpcg_torch = tuple({"niter": niter} for niter in (20, 40, 80, 160))
    davidson = tuple({"min_eps": eps} for eps in (1e-3, 1e-4, 1e-5))
    return [
        Way("ra.truncated_svd, Krylov", ours),
        Way("scipy svds, ARPACK, default tolerance", scipy_svds, ({"solver": "arpack"},)),
        Way("scipy svds, ARPACK, loosest tolerance", scipy_svds, arpack),
        Way("scipy svds, ARPACK, on products by torch.func.jvp and vjp", scipy_svds, arpack, set_up=textbook),
        Way("scipy svds, PROPACK", scipy_svds, propack),
        Way("scipy svds, LOBPCG", scipy_svds, lobpcg),
        Way("primme svds", primme_svds, tuple({"tol": tol} for tol in tolerances[1:]), "primme"),
        Way("xitorch svd, Davidson", xitorch_svd, davidson, "xitorch"),
        Way("skerch ssvd (a sketch)", skerch_ssvd, tuple({"outer_dims": width} for width in widths), "skerch"),
        Way("matrix formed, torch.linalg.svd", dense_svd, set_up=formed),
        Way("matrix formed, torch.svd_lowrank", svd_lowrank, lowrank, set_up=formed),
        Way("matrix formed, torch.lobpcg of JᵀJ", torch_lobpcg, lobpcg_torch, set_up=formed),
        Way("the authors': row by row, subspace iteration", authors, set_up=formed_row_by_row),
    ]


def _sorted(u: Any, s: Any, v: Any, like: Counted) -> Triplets:
    order = np.argsort(s)[::-1]
    u, s, v = (torch.tensor(np.ascontiguousarray(part[order])).to(like.device, like.dtype) for part in (u, s, v))
    return u, s, v


def _for_scipy(operator: Counted) -> LinearOperator:
    """The operator on columns of NumPy arrays; LOBPCG hands in float64 whatever the dtype."""

    def on_columns(product: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
        def columns(x: np.ndarray) -> np.ndarray:
            block = torch.from_numpy(np.ascontiguousarray(x.reshape(len(x), -1).T))
            block = block.to(operator.device, operator.dtype).reshape(-1, *shape)
            return product(block).flatten(1).T.cpu().numpy()

        return columns

    forward = on_columns(operator.matmat, operator.in_shape)
    adjoint = on_columns(operator.rmatmat, operator.out_shape)
    dtype = torch.empty(0, dtype=operator.dtype).numpy().dtype
    return LinearOperator(operator.shape, forward, adjoint, forward, dtype, adjoint)


class _Matrix:
    """The operator behind ``J @ x`` and ``y @ J``, which is all that skerch asks for."""

    def __init__(self, operator: Counted) -> None:
        self._operator, self.shape = operator, operator.shape

    def __matmul__(self, x: Tensor) -> Tensor:
        return self._operator.matmat(x.T.reshape(-1, *self._operator.in_shape)).flatten(1).T

    def __rmatmul__(self, y: Tensor) -> Tensor:
        return self._operator.rmatmat(y.reshape(-1, *self._operator.out_shape)).flatten(1)


def _for_xitorch(operator: Counted) -> Any:
    import xitorch

    class Linear(xitorch.LinearOperator):  # type: ignore[misc]  # xitorch has no types
        def __init__(self) -> None:
            super().__init__(operator.shape, dtype=operator.dtype, device=operator.device)

        def _getparamnames(self, prefix: str = "") -> list[str]:
            return []

        def _mv(self, x: Tensor) -> Tensor:
            return operator.matmat(x.reshape(-1, *operator.in_shape)).reshape(*x.shape[:-1], -1)

        def _rmv(self, y: Tensor) -> Tensor:
            return operator.rmatmat(y.reshape(-1, *operator.out_shape)).reshape(*y.shape[:-1], -1)

        def _mm(self, x: Tensor) -> Tensor:
            return self._mv(x.mT).mT

        def _rmm(self, y: Tensor) -> Tensor:
            return self._rmv(y.mT).mT

    return Linear()


@contextmanager
def _seeded() -> Iterator[None]:
    """The same random numbers each time, and torch's global generator as it was; other libraries warn as they like."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        torch.manual_seed(0)
        yield
