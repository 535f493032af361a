"""Truncated singular value decomposition of an operator that is known by its products."""

from ._dense import dense_svd
from ._operator import (
    Method,
    Operator,
    OperatorBatch,
    SVDOptions,
    TruncatedSVD,
    check_rank,
    numerical_rank,
    unit_of,
    whole_number,
)
from ._solve import cheaper_method, decompose, truncated_svd, warn_if_unconverged

__all__ = [
    "Method",
    "Operator",
    "OperatorBatch",
    "SVDOptions",
    "TruncatedSVD",
    "cheaper_method",
    "check_rank",
    "decompose",
    "dense_svd",
    "numerical_rank",
    "truncated_svd",
    "unit_of",
    "warn_if_unconverged",
    "whole_number",
]
