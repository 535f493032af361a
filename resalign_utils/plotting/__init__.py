"""Figures: one function each, from the results that the rest of the package returns.

Every function returns a Plotly figure. What is compared goes in as a mapping, ``{"trained": ..., "no skip": ...}``.
A class, a condition and a depth have the same colour everywhere. Plotly is imported when the first figure is drawn.
"""

from ._colours import CLASS_COLOURS, CONDITION_COLOURS, class_colour, condition_colours, depth_colours
from ._curves import curve_panels, curves
from ._depth import depth_law, inverse_singular_values
from ._differences import difference_dots
from ._dots import condition_dots
from ._heatmaps import coupling_grid, score_matrix
from ._page import figure_json, packed_plotly
from ._spectra import spectra
from ._theme import theme
from ._trajectories import trajectories, trajectories_over_training
from .chapters._images import image_grid
from .chapters._map import MapCell, alignment_map
from .chapters._path_lengths import bars, path_lengths
from .chapters._points import point_panels
from .chapters._schemes import block_diagram, frame_schemes
from .chapters._sliders import score_matrices, way_covered
from .chapters._sweep import LinearizedPoint, linearization_sweep
from .chapters._unit_paths import unit_paths

__all__ = [
    "CLASS_COLOURS",
    "CONDITION_COLOURS",
    "LinearizedPoint",
    "MapCell",
    "alignment_map",
    "bars",
    "block_diagram",
    "class_colour",
    "condition_colours",
    "condition_dots",
    "coupling_grid",
    "curve_panels",
    "curves",
    "depth_colours",
    "depth_law",
    "difference_dots",
    "figure_json",
    "frame_schemes",
    "image_grid",
    "inverse_singular_values",
    "linearization_sweep",
    "packed_plotly",
    "path_lengths",
    "point_panels",
    "score_matrices",
    "score_matrix",
    "spectra",
    "theme",
    "trajectories",
    "trajectories_over_training",
    "unit_paths",
    "way_covered",
]
