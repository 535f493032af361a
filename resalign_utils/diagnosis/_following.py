"""Singular vectors that follow a network in training: one product pair a block, started from the vectors before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..alignment import comparable_blocks, frames_of, mean_over
from ..arithmetic import or_one, ratio
from ..operators import JacobianBatch
from ..residuals import Residual
from ..svd import SVDOptions, TruncatedSVD, decompose, warn_if_unconverged

SPARE = 4  # vectors beyond those that are reported: what rises into the first r is found among them
TOLERANCE = 1e-4  # share of σ_1 up to which a singular value's vectors count as noise
CONVERGED = 1e-2  # residual, relative to σ_1, of a full measure: far below what training changes between two of them
PAIRS = 4  # at most, of a block at a time
SETTLED = 0.95  # share of the leading vectors' squared length that must lie in those of the pair before
FORMED = 128  # side up to which n matrices are formed and decomposed faster than by products


@dataclass(frozen=True)
class Triplets:
    """Leading triplets of L blocks' Jacobians at n inputs, and what they say of each other.

    Attributes:
        singular_values: (n, L, r).
        coupling: (n, L, L), NaN where not comparable.
        alignment: (n,) mean of the couplings of comparable pairs i ≠ j.
        residuals: (n, L, r) ``‖J v − σ u‖ / σ_1``; ``Jᵀ u = σ v`` holds by construction.
    """

    singular_values: Tensor
    coupling: Tensor
    alignment: Tensor
    residuals: Tensor


class Following:
    """The r leading singular triplets of each block, found once and then followed.

    A product pair is a step of subspace iteration with a Rayleigh–Ritz projection: ``U = orth(J V)``, then the SVD of
    ``Uᵀ J``. One a time is enough where a network changes slowly; where the vectors turn, up to ``PAIRS`` follow each
    other. The block is wider than r by ``SPARE``, and its last vector is drawn anew each time, so that no direction
    stays out for good.

    Args:
        rank: r.
        seed: of the random vectors, drawn on the CPU from generators of their own.
    """

    def __init__(self, rank: int, seed: int = 0) -> None:
        self._rank, self._seed, self._steps = rank, seed, 0
        self._proved: list[JacobianBatch] = []
        self._vectors: list[Tensor] = []  # (n, b, *in) of each block

    @property
    def started(self) -> bool:
        """Whether there are vectors to start from."""
        return bool(self._vectors)

    def prove(self, residuals: Sequence[Residual]) -> None:
        """Prove the products at these weights; :meth:`follow` uses them at later ones.

        Raises:
            ValueError: a derivative cannot be proved.
        """
        self._proved = [JacobianBatch(r.branch, r.input, name=_name(r)) for r in residuals]

    def full(self, residuals: Sequence[Residual]) -> Triplets:
        """Decompose from random vectors until converged; the products must have been proved at these weights."""
        svds = []
        for residual, operator in zip(residuals, self._proved, strict=True):
            # spare vectors are free where matrices are formed; by products they would cost a third more
            side = min(operator.shape)
            formed = side <= FORMED
            k = min(self._rank + SPARE, side) if formed else self._rank
            svds.append(decompose(operator, k, SVDOptions("dense" if formed else "krylov", CONVERGED, self._seed)))
            warn_if_unconverged(svds[-1], CONVERGED, f" of {_name(residual)}")
            operator.release()
        return self._related(residuals, self._proved, svds)

    def follow(self, residuals: Sequence[Residual]) -> Triplets:
        """One product pair a block from the vectors of the last time, at weights of now.

        Raises:
            ValueError: a block has another shape than when it was proved, or gives NaN or infinite values.
        """
        self._steps += 1
        operators = [old.moved(r.branch, r.input) for old, r in zip(self._proved, residuals, strict=True)]
        svds = [self._followed(operator, vectors) for operator, vectors in zip(operators, self._vectors, strict=True)]
        return self._related(residuals, operators, svds)

    def _followed(self, operator: JacobianBatch, vectors: Tensor) -> TruncatedSVD:
        """One pair where the vectors have hardly turned since the last time, up to ``PAIRS`` where they have."""
        width = min(self._rank + SPARE, *operator.shape)
        if width > self._rank:
            kept = vectors[:, : width - 1]
            generator = torch.Generator().manual_seed(self._seed * 2654435761 + self._steps)
            shape = len(kept), width - kept.shape[1], *operator.in_shape
            vectors = torch.cat([kept, torch.randn(shape, generator=generator).to(kept)], 1)
        for _ in range(PAIRS):
            found = _pair(operator, vectors)
            before, after = (v[:, : self._rank].flatten(2) for v in (vectors, found.V))
            if float((before @ after.mT).square().sum()) >= SETTLED * before.shape[:2].numel():
                break
            vectors = found.V
        operator.release()
        return found

    def _related(
        self, residuals: Sequence[Residual], operators: Sequence[JacobianBatch], svds: Sequence[TruncatedSVD]
    ) -> Triplets:
        """Keep the vectors for the next time; multiply each Jacobian with the frames of all comparable blocks."""
        self._vectors = [svd.V for svd in svds]
        k, n, blocks = self._rank, len(svds[0].S), len(svds)
        comparable = comparable_blocks(residuals)
        coupling = svds[0].S.new_full((n, blocks, blocks), math.nan)
        errors = []
        for i, (operator, svd) in enumerate(zip(operators, svds, strict=True)):
            others = comparable[i].nonzero().flatten().tolist()
            frames = frames_of([svds[j] for j in others], k, TOLERANCE)
            images = operator.matmat(frames.right.flatten(1, 2)).flatten(2).unflatten(1, frames.right.shape[1:3])
            operator.release()
            coupling[:, i, others] = ratio((frames.left.flatten(3) * images).sum((2, 3)), svd.S[:, :k].sum(1)[:, None])
            own = others.index(i)
            off = images[:, own] - svd.S[:, :k, None] * frames.left[:, own].flatten(2)
            errors.append(off.norm(dim=-1) / or_one(svd.S[:, :1]))
        pairs = comparable & ~torch.eye(blocks, dtype=torch.bool, device=comparable.device)
        return Triplets(
            torch.stack([svd.S[:, :k] for svd in svds], 1), coupling, mean_over(coupling, pairs), torch.stack(errors, 1)
        )


def _pair(operator: JacobianBatch, vectors: Tensor) -> TruncatedSVD:
    """A step of subspace iteration from right vectors (n, b, *in), and the triplets in the space that it gives."""
    n, b = vectors.shape[:2]
    images = operator.matmat(vectors).flatten(2)  # (n, b, m)
    basis = torch.linalg.qr(images.mT).Q.mT  # (n, b, m)
    pulled = operator.rmatmat(basis.reshape(n, b, *operator.out_shape)).flatten(2)  # Uᵀ J (n, b, d)
    turn, s, v = torch.linalg.svd(pulled, full_matrices=False)
    return TruncatedSVD(
        U=(turn.mT @ basis).reshape(n, b, *operator.out_shape),
        S=s,
        V=v.reshape(n, b, *operator.in_shape),
        residuals=torch.full_like(s, math.nan),  # known after the next products
        converged=torch.zeros_like(s, dtype=torch.bool),
        matvecs=operator.matvecs,
        method="krylov",
    )


def _name(residual: Residual) -> str:
    return f"block {residual.index} ('{residual.name}')"
