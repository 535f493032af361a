"""Neural Collapse as numbers: NC1–NC4 of given features, or of every layer of a network.

Source: Papyan, Han & Donoho 2020. At the end of training the last-layer features of a class shrink to their mean
(NC1), the class means form a simplex equiangular tight frame (NC2), the classifier takes the same shape (NC3) and so
decides for the nearest class mean (NC4). Each number here is 0 iff its property holds.
"""

from ._features import NeuralCollapse, neural_collapse
from ._network import collapse_by_layer

__all__ = ["NeuralCollapse", "collapse_by_layer", "neural_collapse"]
