"""NC1–NC4 of given features, which pass in parts: memory does not grow with their number."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ._checks import Vectors, check_head, checked_classes, number_of_classes, samples_of, tensor

ROWS = 4096  # features that are held in float64 at a time
NOISE = 1e-12  # what is smaller than this share of the largest feature is rounding of a float64 sum
EXPONENT = 1000  # of two, up to which features are scaled: 2^±1000 is a float64


@dataclass(frozen=True)
class NeuralCollapse:
    """NC1–NC4 of n features of dimension d in C classes; every number is 0 at full collapse.

    With μ_c the mean of class c, μ_G the mean of the class means, and M (C, d) of rows μ_c − μ_G. Classes count
    equally, whatever their sizes: Σ_B = MᵀM / C and Σ_W is the mean over classes of the classes' covariances
    (ddof = 0). With balanced classes these are the usual definitions (Papyan, Han & Donoho 2020).

    Attributes:
        nc1: Tr(Σ_W Σ_B†) / C, variation within classes against that between, in the span of the class means;
            in [0, ∞]. Σ_B† from the top min(C − 1, d) eigenpairs; ∞ where the class means span fewer dimensions,
            as when two of them coincide.
        nc2_norm: standard deviation / mean (ddof = 0) over classes of ‖μ_c − μ_G‖, in [0, √(C−1)).
        nc2_angle: mean over pairs of classes of |cos(μ_c − μ_G, μ_c' − μ_G) + 1/(C−1)|, in [0, C/(C−1)]; a class
            mean at the centre has cosine 0 with all others.
        nc3: ‖W/‖W‖_F − M/‖M‖_F‖_F² with W (C, d) the classifier's weight, in [0, 4], 2 for unrelated ones; None
            without a classifier of these features.
        nc4: share of the n samples for which the network does not decide for the nearest class mean, in [0, 1]; None
            where the decisions are not known.

    Where all class means coincide there is no geometry: nc2_norm, nc2_angle and nc3 are NaN. So is nc3 of a head whose
    weight is all zero: it has no direction. No number depends on the unit in which features or weights are measured.
    """

    nc1: float
    nc2_norm: float
    nc2_angle: float
    nc3: float | None
    nc4: float | None


@torch.no_grad()
def neural_collapse(
    features: Vectors,
    labels: Vectors,
    head_weight: Vectors | None = None,
    head_bias: Vectors | None = None,
    *,
    decisions: Vectors | None = None,
    num_classes: int | None = None,
) -> NeuralCollapse:
    """Measure Neural Collapse of features, in float64 inside, on their device.

    All may be tensors, arrays of NumPy or lists.

    Args:
        features: (n, d), as a rule of the training images in eval mode.
        labels: (n,) the true classes, integers in 0..C−1, each at least once.
        head_weight: (C, d) of the classifier that reads these features; for nc3 and, without ``decisions``, nc4.
        head_bias: (C,) of the same; zero if not given.
        decisions: (n,) the network's decisions, for features below the last layer; by default the head's.
        num_classes: C; by default the head's, else one more than the largest label.

    Returns:
        A :class:`NeuralCollapse`.

    Raises:
        ValueError: shapes or types that do not fit, NaN or infinite features or weights, fewer than two classes, a
            label outside 0..C−1, a class without samples.

    Example:
        >>> import resalign_utils as ra
        >>> found = ra.neural_collapse([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]], [0, 0, 1, 1])
        >>> found.nc1, found.nc2_norm, found.nc2_angle
        (0.0, 0.0, 0.0)
    """
    features = tensor("features", features)
    if features.dim() != 2 or not features.is_floating_point():
        raise ValueError(
            f"Expected features (n, d) of floating point; got {tuple(features.shape)} of {features.dtype}. "
            "Pool or flatten feature maps first."
        )
    head_weight, head_bias = (
        None if value is None else tensor(name, value, features.device)
        for name, value in (("head_weight", head_weight), ("head_bias", head_bias))
    )
    labels = checked_classes("labels", labels, features)
    classes = number_of_classes(labels, head_weight, num_classes)
    check_head(head_weight, head_bias, (classes, features.shape[1]))
    if decisions is not None:
        decisions = checked_classes("decisions", decisions, features)
    elif head_weight is not None:
        decisions = torch.cat([_decide(part, head_weight, head_bias) for part in features.split(ROWS)])
    layer = Sums(samples_of(labels, classes))
    for a in range(0, len(features), ROWS):
        layer.add_to_means(features[a : a + ROWS], labels[a : a + ROWS])
    layer.fix_means()
    for a in range(0, len(features), ROWS):
        rows = slice(a, a + ROWS)
        layer.add_to_spread(features[rows], labels[rows], None if decisions is None else decisions[rows])
    return layer.result(head_weight)


class Sums:
    """Sums over the features of one layer, which come in parts: first all for the means, then again for the rest."""

    def __init__(self, counts: Tensor) -> None:
        self.counts = counts[:, None]  # (C, 1)
        self.sums: Tensor | None = None
        self.exponent = -EXPONENT  # of two, in whose unit all is held: squares neither overflow nor underflow
        self.largest = 0.0  # norm of a feature
        self.unlike = 0  # samples not decided for the nearest class mean
        self.judged = False

    def add_to_means(self, features: Tensor, labels: Tensor) -> None:
        if self.sums is None:
            self.sums = self.counts.new_zeros(len(self.counts), features.shape[1])
        exponent = max(self.exponent, _exponent(features))
        self.sums *= 2.0 ** (self.exponent - exponent)
        self.largest *= 2.0 ** (self.exponent - exponent)
        self.exponent = exponent
        features = _scaled(features, exponent)  # (rows, d)
        self.sums.index_add_(0, labels, features)
        self.largest = max(self.largest, float(features.norm(dim=1).max()))

    def fix_means(self) -> None:
        assert self.sums is not None
        if not torch.isfinite(self.sums).all():
            raise ValueError("The features hold NaN or infinite values. Remove them before measuring.")
        means = self.sums / self.counts  # (C, d)
        self.centre = means.mean(0)
        self.means = means - self.centre  # M
        rank = min(len(means) - 1, means.shape[1])
        _, values, axes = torch.linalg.svd(self.means, full_matrices=False)
        self.values, self.axes = values[:rank], axes[:rank]  # (r,), (r, d)
        self.places = self.means @ self.axes.T  # (C, r), the class means in their own span
        self.squares = torch.zeros_like(self.places)  # Σ of squared deviations from the class mean

    def add_to_spread(self, features: Tensor, labels: Tensor, decisions: Tensor | None) -> None:
        places = (_scaled(features, self.exponent) - self.centre) @ self.axes.T  # (rows, r)
        self.squares.index_add_(0, labels, (places - self.places[labels]).square())
        if decisions is not None:
            # what lies outside the span is equally far from all class means
            nearest = torch.cdist(places, self.places, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
            self.unlike += int((nearest != decisions).sum())
            self.judged = True

    def result(self, head_weight: Tensor | None) -> NeuralCollapse:
        nc4 = self.unlike / float(self.counts.sum()) if self.judged else None
        noise = NOISE * self.largest
        if self.values[0] <= noise:
            return NeuralCollapse(math.inf, math.nan, math.nan, None if head_weight is None else math.nan, nc4)
        within = (self.squares / self.counts).mean(0)  # (r,), vᵀ Σ_W v along each eigenvector v of Σ_B
        # the eigenvalues of Σ_B are the squared singular values of M over C, and the C of the definition cancels
        nc1 = float((within / self.values.square()).sum()) if self.values[-1] > noise else math.inf
        norms = self.means.norm(dim=1)
        nc3 = None
        if head_weight is not None:
            head_weight = _scaled(head_weight, _exponent(head_weight))
            nc3 = float((head_weight / head_weight.norm() - self.means / self.means.norm()).square().sum())
        return NeuralCollapse(nc1, float(norms.std(correction=0) / norms.mean()), self._angle(noise), nc3, nc4)

    def _angle(self, noise: float) -> float:
        units = nn.functional.normalize(self.means, eps=noise)
        cosines = (units @ units.T)[*torch.triu_indices(len(units), len(units), 1)]
        return float((cosines + 1 / (len(units) - 1)).abs().mean())


def _decide(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    sizes = _exponent(features), _exponent(weight)
    logits = _scaled(features, sizes[0]) @ _scaled(weight, sizes[1]).T
    if bias is not None:  # both in the larger one's unit
        unit = max(sum(sizes), _exponent(bias))
        logits = logits * 2.0 ** (sum(sizes) - unit) + _scaled(bias, unit)
    return logits.argmax(1)


def _exponent(values: Tensor) -> int:
    """e with 2^(e−1) ≤ max |values| < 2^e, within ±EXPONENT; the least one if all are 0."""
    largest = float(values.abs().max())
    return max(-EXPONENT, min(EXPONENT, math.frexp(largest)[1])) if largest else -EXPONENT


def _scaled(values: Tensor, exponent: int) -> Tensor:
    """values · 2^−exponent in float64, which is exact."""
    return values.double() * 2.0**-exponent
