"""Figures: one function each, from the results that the rest of the package returns.

Every function takes ``backend="plotly"`` (interactive, the default) or ``"matplotlib"`` (the static twin, for print)
and returns that library's ``Figure``, closed to pyplot, so that a notebook shows it once. What is to be compared goes
in as a mapping, ``{"trained": ..., "untrained": ..., "no skip": ...}``. A class, a condition and a depth have the same
colour in every figure. Neither library is imported before the first figure is drawn.
"""

from ._bars import bars
from ._cells import MapCell
from ._curves import curve_panels, curves
from ._depth import depth_law, inverse_singular_values
from ._dots import condition_dots
from ._films import trajectories_over_training
from ._images import image_grid
from ._jacobians import coupling_grid, score_matrix
from ._lengths import path_lengths
from ._linearization import linearization_sweep
from ._linearization_points import LinearizedPoint
from ._map import alignment_map
from ._palette import CLASS_COLOURS, CONDITION_COLOURS, class_colour, condition_colours, depth_colours
from ._spectra import spectra
from ._theme import theme
from ._trajectories import trajectories

__all__ = [
    "CLASS_COLOURS",
    "CONDITION_COLOURS",
    "LinearizedPoint",
    "MapCell",
    "alignment_map",
    "bars",
    "class_colour",
    "condition_colours",
    "condition_dots",
    "coupling_grid",
    "curve_panels",
    "curves",
    "depth_colours",
    "depth_law",
    "image_grid",
    "inverse_singular_values",
    "linearization_sweep",
    "path_lengths",
    "score_matrix",
    "spectra",
    "theme",
    "trajectories",
    "trajectories_over_training",
]
