"""Residual Jacobians of whole networks and their singular triplets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..jacobians import check_branch, dense_jacobians
from ..residuals import Residual, Trace
from ..svd import dense_svd

LARGEST_JACOBIAN = 2**32  # bytes; the SVD of a larger matrix takes hours


@dataclass(frozen=True)
class BlockSVD:
    """The k largest singular triplets of one block's Residual Jacobian at n inputs.

    Attributes:
        U: left singular vectors (n, k, *out).
        S: singular values (n, k), descending.
        V: right singular vectors (n, k, *in); each one's entry of largest magnitude is positive.
        squared_norm: ‖J‖_F² (n,), of the whole Jacobian.
        method: how they were computed.
    """

    U: Tensor
    S: Tensor
    V: Tensor
    squared_norm: Tensor
    method: str = "dense"


@torch.no_grad()
def jacobian_svd(path: Trace, k: int) -> list[BlockSVD]:
    """Singular triplets of every block's Residual Jacobian at every input.

    Args:
        path: what :func:`trace` returned.
        k: number of triplets, 1 ≤ k ≤ min(m, d) of each block.

    Returns:
        One :class:`BlockSVD` a block, in the order of the forward pass.
    """
    return [decompose(residual, residual_jacobians(residual), k) for residual in path.residuals]


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
            f"up to {LARGEST_JACOBIAN / 2**30:.0f} GiB are formed. Measure smaller images, or a narrower network."
        )
    check_branch(residual.branch, residual.input)
    return dense_jacobians(residual.branch, residual.input)


def decompose(residual: Residual, jacobians: Tensor, k: int) -> BlockSVD:
    u, s, v = dense_svd(jacobians, k)
    n = len(s)
    return BlockSVD(
        u.reshape(n, k, *residual.output.shape[1:]),
        s,
        v.reshape(n, k, *residual.input.shape[1:]),
        jacobians.square().sum((1, 2)),
    )
