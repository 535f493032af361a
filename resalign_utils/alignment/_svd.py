"""Residual Jacobians of whole networks and their singular triplets: where ``jacobians`` and ``svd`` meet."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..jacobians import JacobianBatch, check_branch, dense_jacobians
from ..residuals import Residual, Trace
from ..svd import OperatorBatch, cheaper_method, check_rank, dense_svd, krylov_svd, warn_if_unconverged

Method = Literal["auto", "dense", "krylov"]

LARGEST_JACOBIAN = 2**32  # bytes; the dense SVD of a larger matrix takes hours
WORKING_MEMORY = 2**30  # bytes of matrices, frames and bases at a time; more inputs are measured in turn
ROWS_OF_A_BASIS = 256  # that a Krylov solve is given room for
PROBES = 16


@dataclass(frozen=True)
class BlockSVD:
    """The k largest singular triplets of one block's Residual Jacobian at n inputs.

    Attributes:
        U: left singular vectors (n, k, *out).
        S: singular values (n, k), descending.
        V: right singular vectors (n, k, *in); each one's entry of largest magnitude is positive.
        squared_norm: ‖J‖_F² (n,), of the whole Jacobian; exact if dense, else ``Σ σ_κ²`` of the triplets and an
            unbiased estimate of the rest from random probes.
        squared_norm_error: its standard error (n,), 0 if exact.
        residuals: of each triplet (n, k), relative to σ_1, see ``TruncatedSVD``; 0 if dense.
        matvecs: products with each Jacobian that the triplets took; min(m, d) if dense.
        method: ``"dense"`` or ``"krylov"``.
    """

    U: Tensor
    S: Tensor
    V: Tensor
    squared_norm: Tensor
    squared_norm_error: Tensor
    residuals: Tensor
    matvecs: int
    method: str


class FormedJacobians:
    """Matrices (n, m, d) behind the interface of ``JacobianBatch``."""

    def __init__(self, residual: Residual) -> None:
        self.matrices = residual_jacobians(residual)
        self.in_shape, self.out_shape = tuple(residual.input.shape[1:]), tuple(residual.output.shape[1:])
        self.shape = (self.matrices.shape[1], self.matrices.shape[2])
        self.dtype, self.device = self.matrices.dtype, self.matrices.device

    def __len__(self) -> int:
        return len(self.matrices)

    def matmat(self, v: Tensor) -> Tensor:
        """(n, k, *in) → (n, k, *out)."""
        return (v.flatten(2) @ self.matrices.mT).reshape(*v.shape[:2], *self.out_shape)

    def rmatmat(self, u: Tensor) -> Tensor:
        """(n, k, *out) → (n, k, *in)."""
        return (u.flatten(2) @ self.matrices).reshape(*u.shape[:2], *self.in_shape)


@torch.no_grad()
def jacobian_svd(
    path: Trace,
    k: int,
    *,
    method: Method = "auto",
    tol: float = 1e-4,
    seed: int = 0,
    warm_start: bool = True,
) -> list[BlockSVD]:
    """Singular triplets of every block's Residual Jacobian at every input.

    Args:
        path: what :func:`trace` returned.
        k: number of triplets, 1 ≤ k ≤ min(m, d) of each block.
        method: ``"dense"``, ``"krylov"``, or for each block the cheaper one, as in :func:`truncated_svd`.
        tol: residual, relative to σ_1, at which Krylov stops.
        seed: of Krylov's random vectors and of the probes for ‖J‖_F².
        warm_start: start Krylov near the right singular vectors of the block before, if that has the same shape: blocks
            that are aligned need fewer products.

    Returns:
        One :class:`BlockSVD` a block, in the order of the forward pass.

    Warns:
        RuntimeWarning: triplets have not converged.

    Raises:
        ValueError: k out of range.
        MemoryError: a Jacobian to be formed would take more than 4 GiB.
    """
    parts = []
    for first, residuals in split(path.residuals, k, method):
        operators = open_operators(residuals, k, method)
        parts.append(decompose(residuals, operators, k, tol=tol, seed=seed, warm_start=warm_start, first=first))
    return [join(several) for several in zip(*parts, strict=True)]


def residual_jacobians(residual: Residual) -> Tensor:
    """The Residual Jacobians of one block at its n inputs, formed, (n, m, d).

    Raises:
        MemoryError: one of them alone would take more than 4 GiB.
    """
    m, d = residual.output[0].numel(), residual.input[0].numel()
    if (size := m * d * residual.input.element_size()) > LARGEST_JACOBIAN:
        raise MemoryError(
            f"The Jacobian of block {residual.index} ('{residual.name}') has {m} × {d} entries, "
            f"{size / 2**30:.0f} GiB; "
            f"up to {LARGEST_JACOBIAN / 2**30:.0f} GiB are formed. Ask for fewer singular vectors, by method='krylov', "
            "which needs no matrix."
        )
    check_branch(residual.branch, residual.input)
    return dense_jacobians(residual.branch, residual.input)


def open_operators(residuals: Sequence[Residual], k: int, method: Method) -> list[FormedJacobians | JacobianBatch]:
    """The blocks' Jacobians, formed or by their products, whichever the method says for each."""
    if method not in ("auto", "dense", "krylov"):
        raise ValueError(f"method must be 'auto', 'dense' or 'krylov'; got {method!r}.")
    return [
        FormedJacobians(r) if method_for(r, k, method) == "dense" else JacobianBatch(r.branch, r.input)
        for r in residuals
    ]


def method_for(residual: Residual, k: int, method: Method) -> str:
    """The way for one block."""
    return cheaper_method(_shape(residual), k) if method == "auto" else method


def decompose(
    residuals: Sequence[Residual],
    operators: Sequence[FormedJacobians | JacobianBatch],
    k: int,
    *,
    tol: float,
    seed: int,
    warm_start: bool,
    first: int = 0,
) -> list[BlockSVD]:
    """The triplets of each block in turn; ``first`` is the number of the first input among all."""
    results: list[BlockSVD] = []
    for residual, operator in zip(residuals, operators, strict=True):
        check_rank(k, operator.shape)
        if isinstance(operator, FormedJacobians):
            results.append(_dense(operator, k))
            continue
        before = results[-1].V if warm_start and results and residual.input.shape == results[-1].V[:, 0].shape else None
        results.append(_krylov(residual, operator, k, tol, seed, before, first))
    return results


def split(residuals: Sequence[Residual], k: int, method: Method) -> Iterator[tuple[int, list[Residual]]]:
    """The residuals at chunks of the inputs, each with its first input's number, so that all blocks fit the memory."""
    held = 0
    for residual in residuals:
        m, d = _shape(residual)
        if method_for(residual, min(k, m, d), method) == "dense":
            held += 4 * m * d  # the matrix, and LAPACK's copies
        else:
            held += (m + d) * (2 * k + 16)  # frames, and the constants of the linearised branch
    largest = max(sum(_shape(r)) for r in residuals)
    held += largest * (ROWS_OF_A_BASIS + 2 * k * len(residuals))  # one basis; one block's images of all frames
    size = max(1, WORKING_MEMORY // (held * residuals[0].input.element_size()))
    for a in range(0, len(residuals[0].input), size):
        yield (
            a,
            [
                Residual(r.index, r.name, r.branch, r.input[a : a + size], r.output[a : a + size], r.follows)
                for r in residuals
            ],
        )


def join(parts: Sequence[BlockSVD]) -> BlockSVD:
    """One block's results at several chunks of the inputs, put together."""
    if len(parts) == 1:
        return parts[0]
    tensors = ("U", "S", "V", "squared_norm", "squared_norm_error", "residuals")
    whole = {name: torch.cat([getattr(part, name) for part in parts]) for name in tensors}
    return BlockSVD(**whole, matvecs=max(part.matvecs for part in parts), method=parts[0].method)


def _dense(operator: FormedJacobians, k: int) -> BlockSVD:
    u, s, v = dense_svd(operator.matrices, k)
    u, v = u.reshape(*s.shape, *operator.out_shape), v.reshape(*s.shape, *operator.in_shape)
    norm, exact = operator.matrices.square().sum((1, 2)), torch.zeros_like(s)
    return BlockSVD(u, s, v, norm, exact[:, 0], exact, min(operator.shape), "dense")


def _krylov(
    residual: Residual, operator: JacobianBatch, k: int, tol: float, seed: int, start: Tensor | None, first: int
) -> BlockSVD:
    found = krylov_svd(operator, k, tol=tol, seed=seed, v0=start)
    warn_if_unconverged(found.residuals, tol, found.matvecs, f" of block {residual.index} ('{residual.name}')")
    u, v = found.U.reshape(*found.S.shape, *operator.out_shape), found.V.reshape(*found.S.shape, *operator.in_shape)
    seeds = [f"{seed} {residual.index} {first + i}" for i in range(len(operator))]
    norm, error = squared_norm(operator, found.S, found.V, seeds)
    return BlockSVD(u, found.S, v, norm, error, found.residuals, found.matvecs, "krylov")


def squared_norm(operator: OperatorBatch, s: Tensor, v: Tensor, seeds: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Estimate ‖J‖_F² (n,) and its standard error (n,) from the triplets' s (n, k), v (n, k, d) and random probes.

    With random signs z, E ‖J (I − VᵀV) z‖² = ‖J‖_F² − Σ σ_κ² (Hutchinson 1990); what is known is not estimated
    (Meyer et al. 2021). Each matrix has signs of its own: with the same, the errors of similar ones would be alike.
    """
    signs = torch.stack([_signs(seed, v.shape[2]) for seed in seeds]).to(v)
    rest = torch.baddbmm(signs, signs @ v.mT, v, alpha=-1)  # (n, p, d)
    images = operator.matmat(rest.reshape(*rest.shape[:2], *operator.in_shape)).flatten(2)
    norms = images.square().sum(-1)  # (n, p)
    return s.square().sum(-1) + norms.mean(1), norms.std(1) / PROBES**0.5


def _signs(seed: str, d: int) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(seed.encode()))
    return torch.randint(0, 2, (PROBES, d), generator=generator) * 2 - 1


def _shape(residual: Residual) -> tuple[int, int]:
    return residual.output[0].numel(), residual.input[0].numel()
