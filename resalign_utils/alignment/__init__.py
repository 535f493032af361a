"""Residual Alignment as numbers: RA1–RA4 of a network at given inputs.

Sources: Li & Papyan 2023 (arXiv:2401.09018) for RA1–RA4; Gai & Zhang 2021 (arXiv:2102.09235) for the line-shape
score. The scores' exact definitions, bounds and null values are in the docstring of :class:`AlignmentReport`.
"""

from ._measure import all_formed, coupling_matrices, measure_alignment, measure_path
from ._report import AlignmentReport, DepthFit, compare, plus_minus
from ._scores import comparable_blocks, frames_of, line_shape_score, mean_over, trajectory_scores
from ._svd import BlockSVD, jacobian_svd, residual_jacobians

__all__ = [
    "AlignmentReport",
    "BlockSVD",
    "DepthFit",
    "all_formed",
    "comparable_blocks",
    "compare",
    "coupling_matrices",
    "frames_of",
    "jacobian_svd",
    "line_shape_score",
    "mean_over",
    "measure_alignment",
    "measure_path",
    "plus_minus",
    "residual_jacobians",
    "trajectory_scores",
]
