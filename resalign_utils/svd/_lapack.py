"""LAPACK's singular value decomposition, with its slower driver where the fast one gives up."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor


def thin_svd(matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``U (..., m, r), S (..., r), Vᵀ (..., r, d)`` of matrices (..., m, d), r = min(m, d).

    Divide and conquer (gesdd) may fail where many singular values are equal; QR iteration (gesvd) does not.
    """
    try:
        with warnings.catch_warnings():
            # cuSOLVER's fast way failed and its slow one was taken, which does not
            warnings.filterwarnings("ignore", "torch.linalg.svd: During SVD computation with the selected cusolver")
            u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
        return u, s, vh
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # torch does not list it among its exports
        from scipy.linalg import svd

        flat = matrices.detach().cpu().numpy().reshape(-1, *matrices.shape[-2:])
        parts = zip(*(svd(matrix, full_matrices=False, lapack_driver="gesvd") for matrix in flat), strict=True)
        u, s, vh = (torch.stack([torch.from_numpy(one) for one in part]).to(matrices) for part in parts)
        lead = matrices.shape[:-2]
        return u.reshape(*lead, *u.shape[1:]), s.reshape(*lead, *s.shape[1:]), vh.reshape(*lead, *vh.shape[1:])
