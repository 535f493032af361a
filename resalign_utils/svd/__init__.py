"""Truncated singular value decomposition of an operator that is known by its products."""

from ._dense import dense_svd
from ._krylov import KrylovSVD, block_krylov
from ._operator import Operator, OperatorBatch, TruncatedSVD, check_rank
from ._truncated import cheaper_method, krylov_svd, truncated_svd, warn_if_unconverged

__all__ = [
    "KrylovSVD",
    "Operator",
    "OperatorBatch",
    "TruncatedSVD",
    "block_krylov",
    "cheaper_method",
    "check_rank",
    "dense_svd",
    "krylov_svd",
    "truncated_svd",
    "warn_if_unconverged",
]
