"""Partial linearisation: how long are the paths through a network, and how long must they be?

``linearize`` gives every ReLU of a trained network a slope, ``post_train`` lets a penalty move slopes to 1, where the
unit is linear, ``average_path_length`` and ``path_length_distribution`` say how many nonlinear units are left on the
way from the input to the output, and ``fold`` merges what has become linear (Mehmeti-Göpel & Wand 2025).
"""

from ._fold import fold
from ._linearize import Granularity, linearize
from ._paths import average_path_length, path_length_distribution
from ._post_train import LinearizationConfig, LinearizationHistory, post_train

__all__ = [
    "Granularity",
    "LinearizationConfig",
    "LinearizationHistory",
    "average_path_length",
    "fold",
    "linearize",
    "path_length_distribution",
    "post_train",
]
