"""The dense way: form the matrix, let LAPACK (cuSOLVER on CUDA) decompose it."""

from __future__ import annotations

import torch
from torch import Tensor

from ._lapack import thin_svd
from ._operator import check_rank, fix_signs


def dense_svd(matrices: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k largest singular triplets of a batch of matrices.

    Args:
        matrices: (..., m, d).
        k: number of triplets, 1 ≤ k ≤ min(m, d).

    Returns:
        U (..., k, m), S (..., k) descending, V (..., k, d): rows are singular vectors, and the entry of largest
        magnitude of each right vector is positive, which fixes the sign of the pair.

    Raises:
        ValueError: k out of range, NaN or infinite entries.

    Example:
        >>> import torch, resalign_utils as ra
        >>> u, s, v = ra.dense_svd(torch.diag(torch.tensor([1.0, 3.0, 2.0])), k=2)
        >>> s
        tensor([3., 2.])
        >>> v
        tensor([[0., 1., 0.],
                [0., 0., 1.]])
    """
    m, d = matrices.shape[-2:]
    k = check_rank(k, (m, d))
    if not torch.isfinite(matrices).all():
        raise ValueError("The matrix to decompose holds NaN or infinite entries: check the weights and the inputs.")
    u, s, vh = thin_svd(matrices)
    u, v = fix_signs(u[..., :k].mT, vh[..., :k, :])
    return u, s[..., :k], v
