"""Residual Jacobians of whole networks and their singular triplets: where ``operators`` and ``svd`` meet."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..arithmetic import or_one
from ..operators import JacobianBatch, JoinedBatches, OperatorBatch
from ..residuals import Residual, Trace
from ..svd import Method, SVDOptions, TruncatedSVD, cheaper_method, check_rank, decompose, warn_if_unconverged

LARGEST_JACOBIAN = 2**32  # bytes; the dense SVD of a larger matrix takes hours
WORKING_MEMORY = 2**30  # bytes of matrices, frames and bases at a time; more inputs are measured in turn
ROWS_OF_A_BASIS = 256  # that a Krylov solve is given room for
ENTRIES_IN_STEP = 2**15  # of one vector for all the matrices that are solved together
PROBES = 16


@dataclass(frozen=True)
class BlockSVD(TruncatedSVD):
    """The k largest singular triplets of one block's Residual Jacobian at n inputs: U (n, k, *out), S (n, k), ...

    Attributes:
        stable_rank: ‖J‖_F² / σ_1² (n,), of the whole Jacobian, 0 where that is zero; exact if dense, else from
            ``Σ σ_κ²`` of the triplets and an unbiased estimate of the rest from random probes.
        stable_rank_error: its standard error (n,), 0 if exact.
    """

    stable_rank: Tensor
    stable_rank_error: Tensor

    @property
    def squared_norm(self) -> Tensor:
        """‖J‖_F² (n,)."""
        return self.stable_rank * self.S[:, 0].square()

    @property
    def squared_norm_error(self) -> Tensor:
        """Standard error of ‖J‖_F² (n,)."""
        return self.stable_rank_error * self.S[:, 0].square()


@torch.no_grad()
def jacobian_svd(
    path: Trace,
    k: int,
    *,
    method: Method = "auto",
    tol: float = 1e-4,
    seed: int = 0,
    warm_start: bool = False,
) -> list[BlockSVD]:
    """Singular triplets of every block's Residual Jacobian at every input.

    Args:
        path: what :func:`trace` returned.
        k: number of triplets, 1 ≤ k ≤ min(m, d) of each block.
        method: ``"dense"``, ``"krylov"``, or for each block the cheaper one, as in :func:`truncated_svd`.
        tol: residual, relative to σ_1, at which Krylov stops.
        seed: of Krylov's random vectors and of the probes for ‖J‖_F².
        warm_start: solve one block after the other, and start Krylov near the right singular vectors of the block
            before, if that has the same shape: aligned blocks need a few products less. If not, small blocks of one
            shape are solved in step, which is faster.

    Returns:
        One :class:`BlockSVD` a block, in the order of the forward pass.

    Warns:
        RuntimeWarning: triplets have not converged.

    Raises:
        ValueError: k out of range, or a block whose derivative cannot be proved (see :class:`JacobianBatch`).
        MemoryError: a Jacobian to be formed would take more than 4 GiB.

    Example:
        >>> import resalign_utils as ra
        >>> data = ra.load_data("digits")
        >>> model = ra.build_model(ra.ResNetConfig(depth=2, width=16), data).eval()
        >>> svds = ra.jacobian_svd(ra.trace(model, data.test_x[:5]), k=3)
        >>> [tuple(svd.V.shape) for svd in svds]
        [(5, 3, 16), (5, 3, 16)]
    """
    k, options = check_rank(k, smallest_shape(path.residuals)), SVDOptions(method, tol, seed)
    parts = [
        [svd for _, svd in open_and_decompose(residuals, k, options, first, warm_start=warm_start)]
        for first, residuals in split(path.residuals, k, options)
    ]
    return [join(several) for several in zip(*parts, strict=True)]


def residual_jacobians(residual: Residual) -> Tensor:
    """The Residual Jacobians of one block at its n inputs, formed, (n, m, d).

    Raises:
        ValueError: a branch whose derivative cannot be proved (see :class:`JacobianBatch`).
        MemoryError: one of them alone would take more than 4 GiB.
    """
    return _open(residual, "dense").dense()


def open_and_decompose(
    residuals: Sequence[Residual], k: int, options: SVDOptions, first: int = 0, *, warm_start: bool = False
) -> Iterator[tuple[OperatorBatch, BlockSVD]]:
    """Each block's Jacobians, formed or by their products, and their triplets; ``first`` numbers the inputs."""
    before: BlockSVD | None = None
    for group in _in_step(residuals, k, options, warm_start):
        operators = [_open(residual, method_for(residual, k, options)) for residual in group]
        near = before.V if warm_start and before is not None and group[0].input.shape == before.V[:, 0].shape else None
        found = decompose(operators[0] if len(group) == 1 else JoinedBatches(operators), k, options, near)
        for i, (residual, operator) in enumerate(zip(group, operators, strict=True)):
            own = _rows(found, slice(i * len(operator), (i + 1) * len(operator)))
            warn_if_unconverged(own, options.tol, f" of {_name(residual)}")
            before = _with_norm(residual, operator, own, options.seed, first)
            operator.release()
            yield operator, before


def method_for(residual: Residual, k: int, options: SVDOptions) -> str:
    """The way for one block."""
    return cheaper_method(_shape(residual), k) if options.method == "auto" else options.method


def split(residuals: Sequence[Residual], k: int, options: SVDOptions) -> Iterator[tuple[int, list[Residual]]]:
    """The residuals at chunks of the inputs, each with its first input's number, so that all blocks fit the memory."""
    held = 0
    for residual in residuals:
        m, d = _shape(residual)
        if method_for(residual, min(k, m, d), options) == "dense":
            held += 4 * m * d  # the matrix, and LAPACK's copies
        else:
            held += (m + d) * (2 * k + 16)  # frames
    largest = max(sum(_shape(r)) for r in residuals)
    held += largest * (ROWS_OF_A_BASIS + 2 * k * len(residuals))  # one basis; one block's images of all frames
    size = max(1, WORKING_MEMORY // (held * residuals[0].input.element_size()))
    n = len(residuals[0].input)
    if size >= n:
        yield 0, list(residuals)
        return
    for a in range(0, n, size):
        index = torch.arange(a, min(a + size, n), device=residuals[0].input.device)
        yield a, [residual.rows(index) for residual in residuals]


def join(parts: Sequence[BlockSVD]) -> BlockSVD:
    """One block's results at several chunks of the inputs, put together."""
    if len(parts) == 1:
        return parts[0]
    tensors = ("U", "S", "V", "residuals", "converged", "stable_rank", "stable_rank_error")
    whole = {name: torch.cat([getattr(part, name) for part in parts]) for name in tensors}
    return BlockSVD(**whole, matvecs=max(part.matvecs for part in parts), method=parts[0].method)


def smallest_shape(residuals: Sequence[Residual]) -> tuple[int, int]:
    """The shape (m, d) of the Jacobians that have fewest singular values."""
    return min(map(_shape, residuals), key=min)


def stable_rank(operator: OperatorBatch, s: Tensor, v: Tensor, seeds: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Estimate ‖J‖_F² / σ_1² (n,) and its standard error (n,) from the triplets' s (n, k), v (n, k, d) and probes.

    With random signs z, E ‖J (I − VᵀV) z‖² = ‖J‖_F² − Σ σ_κ² (Hutchinson 1990); what is known is not estimated
    (Meyer et al. 2021). Each matrix has signs of its own: with the same, the errors of similar ones would be alike.
    Nothing is squared before it is divided by σ_1: squares of 1e-23 are 0 in float32.
    """
    signs = torch.stack([_signs(seed, v.shape[2]) for seed in seeds]).to(v)
    rest = torch.baddbmm(signs, signs @ v.mT, v, alpha=-1)  # (n, p, d)
    images = operator.matmat(rest.reshape(*rest.shape[:2], *operator.in_shape)).flatten(2)
    unit = or_one(s[:, :1])  # σ_1 (n, 1)
    norms = (images / unit[..., None]).square().sum(-1)  # (n, p)
    return (s / unit).square().sum(-1) + norms.mean(1), norms.std(1) / PROBES**0.5


def _open(residual: Residual, method: str) -> OperatorBatch:
    m, d = _shape(residual)
    if method == "dense" and (size := m * d * residual.input.element_size()) > LARGEST_JACOBIAN:
        raise MemoryError(
            f"The Jacobian of {_name(residual)} has {m} × {d} entries, {size / 2**30:.0f} GiB; up to "
            f"{LARGEST_JACOBIAN / 2**30:.0f} GiB are formed. Ask for fewer singular vectors, by method='krylov', which "
            "needs no matrix."
        )
    operator = JacobianBatch(residual.branch, residual.input, name=_name(residual))
    return operator.materialise() if method == "dense" else operator


def _in_step(residuals: Sequence[Residual], k: int, options: SVDOptions, warm_start: bool) -> Iterator[list[Residual]]:
    """Neighbours of one shape that Krylov solves together: so small that what a step costs is not its arithmetic."""
    group: list[Residual] = []
    for residual in residuals:
        alike = bool(group) and _shapes(residual) == _shapes(group[0])
        entries = (len(group) + 1) * len(residual.input) * max(_shape(residual))
        together = alike and entries <= ENTRIES_IN_STEP and method_for(residual, k, options) == "krylov"
        if group and (warm_start or not together):
            yield group
            group = []
        group.append(residual)
    yield group


def _shapes(residual: Residual) -> tuple[torch.Size, torch.Size]:
    return residual.input.shape, residual.output.shape


def _rows(found: TruncatedSVD, rows: slice) -> TruncatedSVD:
    """The triplets of some of the matrices."""
    return replace(found, **{name: getattr(found, name)[rows] for name in ("U", "S", "V", "residuals", "converged")})


def _with_norm(residual: Residual, operator: OperatorBatch, found: TruncatedSVD, seed: int, first: int) -> BlockSVD:
    fields = vars(found)
    if found.method == "dense":
        rank = (operator.dense() / or_one(found.S[:, :1, None])).square().sum((1, 2))
        return BlockSVD(
            **fields | {"matvecs": operator.matvecs}, stable_rank=rank, stable_rank_error=torch.zeros_like(rank)
        )
    seeds = [f"{seed} {residual.index} {first + i}" for i in range(len(operator))]
    rank, error = stable_rank(operator, found.S, found.V.flatten(2), seeds)
    return BlockSVD(**fields, stable_rank=rank, stable_rank_error=error)


def _signs(seed: str, d: int) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(seed.encode()))
    return torch.randint(0, 2, (PROBES, d), generator=generator) * 2 - 1


def _name(residual: Residual) -> str:
    return f"block {residual.index} ('{residual.name}')"


def _shape(residual: Residual) -> tuple[int, int]:
    return residual.output[0].numel(), residual.input[0].numel()
