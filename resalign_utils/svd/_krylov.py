"""Block Golub–Kahan–Lanczos bidiagonalisation of a batch of matrices that are known by their products.

After j steps' vectors there are orthonormal rows U (j, m), V (j, d) and a small matrix B (j, j) with

    J Vᵀ = Uᵀ B,    U J = B V + E T P,

where P (b, d) is the next block of V, and E T (j, b) is zero but for the last b rows. So the singular triplets of B
give approximate ones of J, whose residual is ``‖Tᵀ x‖`` with x the last b entries of B's left singular vector:
convergence is watched without a product with J. When the basis fills its room, it is restarted from its best triplets,
which keeps the two relations.

Sources: Golub & Kahan 1965 (bidiagonalisation); Golub, Luk & Overton 1981 (in blocks); Halko, Martinsson & Tropp 2011
and Musco & Musco 2015 (from a random block: error bounds without a gap); Daniel et al. 1976 (Gram–Schmidt again where
a vector has lost most of its length); Baglama & Reichel 2006 (restart by augmentation).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..arithmetic import or_one
from ._lapack import thin_svd
from ._operator import fix_signs, residual_norms

Product = Callable[[Tensor], Tensor]

BASIS_MEMORY = 2**28  # bytes for the two bases
LARGEST_BASIS = 256  # beyond, the dense SVD of B costs more than the products that a restart repeats
BLOCK_ENTRIES = 2**15  # of a block: below, a product's fixed costs dominate; a larger block needs more products
SMALLEST_BLOCK, LARGEST_BLOCK = 4, 8
PIECES, LONG = 16, 2**11  # of rows, and the length from which on they are cut
KEPT_LENGTH = 0.3  # a row that loses more in Gram–Schmidt is sent through once more (Daniel et al.)


@dataclass(frozen=True)
class KrylovRun:
    """What a solver found of n matrices, flat: triplets, evidence, products with each.

    Attributes:
        U: (n, k, m).
        S: (n, k).
        V: (n, k, d).
        residuals: (n, k), relative to σ_1.
        matvecs: products with each matrix.
        complete: whether all directions were seen, so that no triplet can be missing.
    """

    U: Tensor
    S: Tensor
    V: Tensor
    residuals: Tensor
    matvecs: int
    complete: bool


@torch.no_grad()
def block_krylov(
    forward: Product,
    adjoint: Product,
    start: Tensor,
    m: int,
    k: int,
    *,
    tol: float,
    seed: int = 0,
    max_matvecs: int | None = None,
    room: int | None = None,
    spent: int = 0,
    size: Tensor | None = None,
    names: tuple[str, str] = ("J v", "Jᵀ u"),
) -> KrylovRun:
    """The k largest singular triplets of matrices J_1..J_n (m, d), m ≥ d, all in step.

    Args:
        forward: ``v (n, b, d) → J_i v (n, b, m)``.
        adjoint: ``u (n, b, m) → J_iᵀ u (n, b, d)``.
        start: first block (n, b, d), 1 ≤ b ≤ d; its dtype and device are those of the computation.
        m: number of rows of the matrices.
        k: number of triplets, 1 ≤ k ≤ d.
        tol: residual, relative to σ_1, at which to stop.
        seed: of the random vectors that replace exhausted directions.
        max_matvecs: products a matrix to stop at, those for the last residuals included; if not given, ``2 (d + k)``,
            about as many as form the matrix twice, or the fewest that k triplets take, if those are more.
        room: largest basis.
        spent: products that ``start`` took.
        size: (n, 1), to which residuals are relative in place of σ_1.
        names: what an error calls the two products.

    Raises:
        ValueError: NaN or infinite products, or too few products allowed.
    """
    n, block, d = start.shape
    fewest = spent + 2 * block * math.ceil(k / block) + 2 * k
    if max_matvecs is None:
        max_matvecs = max(fewest, 2 * (d + k))
    if max_matvecs < fewest:
        raise ValueError(
            f"max_matvecs must be at least {fewest}, to span and to check k={k} triplets in blocks of {block}; got "
            f"{max_matvecs}."
        )
    room = min(d, room or default_room(n, m, d, k, block, start.element_size()))
    basis = _Bidiagonalisation(forward, adjoint, start, m, room, seed)
    basis.matvecs, basis.names, basis.unit = spent, names, size
    watch = _Watch(k, block, tol)
    while True:
        basis.extend()
        exhausted = basis.matvecs + 2 * basis.next_rows + 2 * k > max_matvecs
        if basis.size < k or not (exhausted or basis.complete or basis.full or watch.due(basis.size)):
            continue
        u, s, v, estimates = basis.triplets(max(k, basis.kept_at_restart(k)))
        if basis.complete or exhausted or watch.finished(basis.size, estimates[:, :k]):
            break
        if basis.full:
            basis.restart(u, s, v)
            watch.restarted(basis.size)
    u, s, v = (part[:, :k] for part in (u, s, v))
    u, v = _polished(u @ basis.U[:, : basis.size]), _polished(v @ basis.V[:, : basis.size])
    residuals = residual_norms(basis.image, basis.preimage, u, s, v, size)
    u, v = fix_signs(u, v)
    return KrylovRun(u, s, v, residuals, basis.matvecs, basis.complete)


def default_block(n: int, m: int, d: int, k: int) -> int:
    """Rows of a block, so that one product with n matrices at once has about BLOCK_ENTRIES entries."""
    rows = min(max(BLOCK_ENTRIES // (n * max(m, d)), SMALLEST_BLOCK), LARGEST_BLOCK)
    return min(rows, max(k, SMALLEST_BLOCK), m, d)


def default_room(n: int, m: int, d: int, k: int, block: int, itemsize: int) -> int:
    """Rows of the bases: what fits the memory, but at least enough for a restart to gain something."""
    fits = BASIS_MEMORY // (n * (m + d) * itemsize)
    return max(min(fits, LARGEST_BASIS), 3 * k + 4 * block)


def random_block(n: int, rows: int, d: int, seed: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Gaussian rows (n, rows, d), the same for all n, drawn on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, d, generator=generator, dtype=dtype).to(device).expand(n, rows, d)


class _Bidiagonalisation:
    """The relations of this module's docstring, for n matrices at once, extended block by block."""

    def __init__(self, forward: Product, adjoint: Product, start: Tensor, m: int, room: int, seed: int) -> None:
        n, self.block, d = start.shape
        self._forward, self._adjoint, self._seed, self._room = forward, adjoint, seed, room
        self.U, self.V = start.new_empty(n, room, m), start.new_empty(n, room, d)
        self.B = start.new_zeros(n, room, room)
        self.size = self.matvecs = 0
        self.names = ("J v", "Jᵀ u")
        self.unit: Tensor | None = None  # (n, 1), to which residuals are relative; σ_1 if not given
        self.complete = False  # whether the bases span all there is: the triplets are exact
        self._scale = start.new_zeros(n)  # a lower bound of σ_1
        self._front = self._orthonormalise(start.clone(), self.V[:, :0])[0]  # P, the next block of V
        self._rest = start  # T, set by extend()
        self._known = start.new_zeros(n, self.block, 0)  # coefficients of J P in the last rows of U: Tᵀ

    @property
    def next_rows(self) -> int:
        """Rows of the block that comes next."""
        return self._front.shape[1]

    @property
    def full(self) -> bool:
        """Whether there is no room for it."""
        return self.size + self.next_rows > self._room

    def image(self, v: Tensor) -> Tensor:
        """``J v`` (n, b, m), checked and counted."""
        return self._checked(self._forward(v), self.names[0], len(v[0]))

    def preimage(self, u: Tensor) -> Tensor:
        """``Jᵀ u`` (n, b, d), checked and counted."""
        return self._checked(self._adjoint(u), self.names[1], len(u[0]))

    def extend(self) -> None:
        """Add the front to V, its image to U, and compute the next front."""
        front, j = self._front, self.size
        b = front.shape[1]
        self.V[:, j : j + b] = front
        # on both sides the short recurrence first, then against all: without it, errors double from block to block
        recent = j - self._known.shape[2]
        image = torch.baddbmm(self.image(front), self._known, self.U[:, recent:j], alpha=-1)
        q, coefficients, lower = self._orthonormalise(image, self.U[:, :j])
        coefficients[..., recent:] += self._known
        self.U[:, j : j + b] = q
        self.B[:, :j, j : j + b], self.B[:, j : j + b, j : j + b] = coefficients.mT, lower.mT
        self.size = j = j + b
        self.complete = j == self.V.shape[2]
        if self.complete:
            self._rest = self._rest[:, :0]
            return
        rest = torch.baddbmm(self.preimage(q), lower.mT, front, alpha=-1)
        left = min(b, self.V.shape[2] - j)  # dimensions that V does not span yet
        self._front, _, self._rest = self._orthonormalise(rest, self.V[:, :j], left)
        self._known = self._rest.mT

    def triplets(self, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The k largest of B, as rows of coefficients (n, k, j), with their residuals (n, k) relative to σ_1."""
        j, b = self.size, self._rest.shape[1]
        x, s, yh = thin_svd(self.B[:, :j, :j])
        u, v, s = x[..., :k].mT, yh[:, :k], s[:, :k]
        if b == 0:
            return u, s, v, torch.zeros_like(s)
        norms = (u[..., j - b :] @ self._rest).norm(dim=-1)
        return u, s, v, norms / or_one(s[:, :1] if self.unit is None else self.unit)

    def kept_at_restart(self, k: int) -> int:
        """Half as many again as are wanted: the unwanted ones next to them would have to be found again."""
        return min(k + max(k // 2, self.block), self._room - 2 * self.block, self.size) if self.full else k

    def restart(self, u: Tensor, s: Tensor, v: Tensor) -> None:
        """Shrink the bases to the triplets that ``u``, ``s``, ``v`` describe; the front stays."""
        kept, j = s.shape[1], self.size
        self._known = (u[..., j - self._rest.shape[1] :] @ self._rest).mT
        self.U[:, :kept], self.V[:, :kept] = u @ self.U[:, :j], v @ self.V[:, :j]
        self.B.zero_()
        self.B[:, :kept, :kept] = torch.diag_embed(s)
        self.size = kept

    def _checked(self, product: Tensor, name: str, rows: int) -> Tensor:
        self.matvecs += rows
        norms = product.norm(dim=-1)  # (n, b)
        if not torch.isfinite(norms).all():
            raise ValueError(
                f"A product {name} gives NaN or infinite values, within the first {self.matvecs} products. Check the "
                "weights and the inputs, or use float64."
            )
        self._scale = torch.maximum(self._scale, norms.amax(1))  # every product is with a unit vector
        return product

    def _orthonormalise(self, rows: Tensor, basis: Tensor, rank: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Write rows (n, b, N) as ``C basis + L Q`` with orthonormal Q (n, rank, N), orthogonal to the basis (n, j, N).

        ``rows`` may be overwritten. Where rows depend on the basis or on each other, L has zero columns and Q random
        directions.
        """
        before = rows.norm(dim=-1)  # (n, b)
        coefficients = _coefficients(rows, basis)
        rows = _without(rows, coefficients, basis)
        rank = rank or rows.shape[1]
        if rank == rows.shape[1]:
            q, lower = _lq(rows)
            if (lower.diagonal(dim1=1, dim2=2).abs() > KEPT_LENGTH * before).all():
                return q, coefficients, lower
        # a small pivot says that rows depend on the basis or on each other; the SVD says on how many directions
        left, s, q = thin_svd(rows)
        left, s, q = left[..., :rank], s[:, :rank], q[:, :rank]
        rounding = 10 * torch.finfo(rows.dtype).eps * torch.maximum(self._scale, before.amax(1))
        lost = s <= rounding[:, None]  # (n, rank)
        lower = left * torch.where(lost, torch.zeros_like(s), s)[:, None]
        if lost.any():
            self._seed += 1
            fresh = random_block(len(q), rank, q.shape[2], self._seed, q.dtype, q.device)
            q = torch.where(lost[..., None], fresh / q.shape[-1] ** 0.5, q)
        for _ in range(5):
            again = _coefficients(q, basis)
            q, turn = _lq(_without(q, again, basis))
            coefficients, lower = coefficients + lower @ again, lower @ turn
            if (turn.diagonal(dim1=1, dim2=2).abs() > 0.5).all():
                break
        return q, coefficients, lower


class _Watch:
    """When to look at the triplets: an SVD of B at each step would soon cost more than the products."""

    def __init__(self, k: int, block: int, tol: float) -> None:
        self._k, self._block, self._tol = k, block, tol
        self._next, self._last = k + block, (0, math.inf)

    def due(self, size: int) -> bool:
        return size >= self._next

    def finished(self, size: int, estimates: Tensor) -> bool:
        """Whether all residuals are at the tolerance; if not, foresee when: they fall geometrically."""
        worst = float(estimates.max())
        if worst <= self._tol:
            return True
        before, larger = self._last
        step = size // 3  # nothing known: a third more
        if worst < larger < math.inf and size > before and self._tol > 0:
            rate = math.log(larger / worst) / (size - before)
            step = min(step, math.ceil(math.log(worst / self._tol) / rate))
        self._last, self._next = (size, worst), size + max(step, self._block)
        return False

    def restarted(self, size: int) -> None:
        """The basis is smaller now; look again when it is full, or has grown by half."""
        self._last, self._next = (size, math.inf), size + max(size // 2, self._block)


def _coefficients(rows: Tensor, basis: Tensor) -> Tensor:
    """``rows basisᵀ`` (n, b, j) of rows (n, b, N) and a basis (n, j, N)."""
    if (pieces := _pieces(rows)) == 1:
        return rows @ basis.mT
    return (_cut(rows, pieces) @ _cut(basis, pieces).mT).sum(0, keepdim=True)


def _without(rows: Tensor, coefficients: Tensor, basis: Tensor) -> Tensor:
    """``rows − coefficients basis``, written over rows (1, b, N) of one matrix: fresh memory costs as much as this."""
    if (pieces := _pieces(rows)) == 1:
        return torch.baddbmm(rows, coefficients, basis, alpha=-1)
    _cut(rows, pieces).sub_(coefficients.expand(pieces, -1, -1) @ _cut(basis, pieces))
    return rows


def _pieces(rows: Tensor) -> int:
    """In how many pieces to multiply long rows of one matrix: a product with few rows uses one core, pieces use all."""
    n, _, length = rows.shape
    return math.gcd(length, PIECES) if n == 1 and length >= LONG else 1


def _cut(rows: Tensor, pieces: int) -> Tensor:
    """Rows (1, b, N) as (pieces, b, N / pieces), a view."""
    cut: Tensor = rows[0].unflatten(1, (pieces, -1))
    return cut.transpose(0, 1)


def _polished(rows: Tensor) -> Tensor:
    """Rows (n, k, N) that are orthonormal up to the rounding of many steps, up to that of one (Newton–Schulz)."""
    return 1.5 * rows - 0.5 * (rows @ rows.mT) @ rows


def _lq(rows: Tensor) -> tuple[Tensor, Tensor]:
    """``rows = L Q`` with Q (n, b, N) orthonormal, L (n, b, b) lower triangular."""
    q, r = torch.linalg.qr(rows.mT)
    return q.mT, r.mT
