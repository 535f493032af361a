"""Jacobians as batched linear operators: products proved at the door, matrices behind the same interface.

A branch maps ``h (n, *in)`` to ``(n, *out)`` row by row. At one point its Jacobian is a matrix J of shape (m, d) with
``m = prod(out)`` and ``d = prod(in)``.
"""

from ._base import OperatorBatch, SingleOperator
from ._compare import near
from ._derivatives import Branch, branch_rows
from ._jacobians import MEMORY_BUDGET, JacobianBatch, JacobianOperator, dense_jacobians
from ._joined import JoinedBatches
from ._matrices import MatrixBatch
from ._values import error_text

__all__ = [
    "MEMORY_BUDGET",
    "Branch",
    "JacobianBatch",
    "JacobianOperator",
    "JoinedBatches",
    "MatrixBatch",
    "OperatorBatch",
    "SingleOperator",
    "branch_rows",
    "dense_jacobians",
    "error_text",
    "near",
]
