"""Neural Collapse as numbers: NC1–NC4 of given features, or of every layer of a network.

Source: Papyan, Han & Donoho 2020. At the end of training the last-layer features of a class shrink to their mean
(NC1), the class means form a simplex equiangular tight frame (NC2), the classifier takes the same shape (NC3) and so
decides for the nearest class mean (NC4). Each number here is 0 iff its property holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .residuals import Trace, trace, trace_states
from .svd import whole_number

Maps = Literal["pool", "channels_first", "channels_last", "flatten"]
Layout = Literal["channels_first", "channels_last"]
Call = tuple[nn.Module, list[Tensor]]  # a layer, and the tensors that it read and wrote
Vectors = Tensor | np.ndarray | Sequence[Any]

ROWS = 4096  # features that are held in float64 at a time
NOISE = 1e-12  # what is smaller than this share of the largest feature is rounding of a float64 sum
EXPONENT = 1000  # of two, up to which features are scaled: 2^±1000 is a float64
# Layers that have their channels in dimension 1, and in the last one.
FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)
LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.MultiheadAttention, nn.RNNBase, nn.Embedding)


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
    features = _tensor("features", features)
    if features.dim() != 2 or not features.is_floating_point():
        raise ValueError(
            f"Expected features (n, d) of floating point; got {tuple(features.shape)} of {features.dtype}. "
            "Pool or flatten feature maps first."
        )
    head_weight, head_bias = (
        None if value is None else _tensor(name, value, features.device)
        for name, value in (("head_weight", head_weight), ("head_bias", head_bias))
    )
    labels = _checked_classes("labels", labels, features)
    classes = _number_of_classes(labels, head_weight, num_classes)
    _check_head(head_weight, head_bias, (classes, features.shape[1]))
    if decisions is not None:
        decisions = _checked_classes("decisions", decisions, features)
    elif head_weight is not None:
        decisions = torch.cat([_decide(part, head_weight, head_bias) for part in features.split(ROWS)])
    layer = _Layer(_counts(labels, classes))
    for a in range(0, len(features), ROWS):
        layer.add_to_means(features[a : a + ROWS], labels[a : a + ROWS])
    layer.fix_means()
    for a in range(0, len(features), ROWS):
        rows = slice(a, a + ROWS)
        layer.add_to_spread(features[rows], labels[rows], None if decisions is None else decisions[rows])
    return layer.result(head_weight)


@torch.no_grad()
def collapse_by_layer(
    model: nn.Module, x: Tensor, y: Vectors, *, maps: Maps = "pool", chunk: int = 256
) -> dict[str, NeuralCollapse]:
    """Measure Neural Collapse of every state of a network, and of the features that its classifier reads.

    The inputs pass twice, in chunks: once for the class means, once for the spread around them. So the memory does
    not grow with n.

    Args:
        model: a network that :func:`trace` knows, in eval mode, that ends in an ``nn.Linear``.
        x: inputs (n, ...), as a rule the training images.
        y: (n,) their true classes, integers in 0..C−1, each at least once.
        maps: what becomes of states of three dimensions or more. ``"channels_first"``: (n, c, *space), as of
            convolutions, become their mean over space (n, c); ``"channels_last"``: (n, T, D) of tokens and
            (n, *space, c) become their mean over tokens or space (n, D); ``"flatten"``: all entries, (n, -1).
            ``"pool"`` chooses between the first two by the layers that read or write the state itself, or another one
            of the run of blocks of equal shape in which it stands: a convolution, a batch or a group norm has its
            channels in dimension 1, a fully-connected layer, layer norm, attention or recurrent layer in the last one.
            States of four dimensions or more have their channels first where no such layer tells otherwise.
        chunk: number of inputs that pass at a time; all states of a chunk are held at once.

    Returns:
        For "h_0" (the first block's input), "h_1" .. "h_L" (the blocks' outputs) and "features" (the classifier's
        input), in this order, a :class:`NeuralCollapse`. nc3 is of "features" only; nc4 compares each layer's nearest
        class mean with the network's decision.

    Raises:
        ValueError: what :func:`trace` refuses, such as a model in train mode; no final ``nn.Linear``; what
            :func:`neural_collapse` refuses of labels; an unknown ``maps``; a state that ``"pool"`` could take either
            way, since layers of both kinds read or write it, or none does and it has three dimensions; a state whose
            first dimension is not that of the inputs; a chunk that is no whole number of at least 1.
    """
    if maps not in get_args(Maps):
        raise ValueError(f"maps must be one of {', '.join(get_args(Maps))}; got {maps!r}.")
    rows = whole_number(chunk)
    if rows is None or rows < 1:
        raise ValueError(f"chunk must be a whole number of at least 1; got {chunk!r}.")
    if not isinstance(x, Tensor):
        raise ValueError(f"Expected inputs x as a torch tensor; got {type(x).__name__}. Use torch.as_tensor.")
    y = _checked_classes("labels", y, x)
    path, calls = _watched(model, x[:1])
    head = _classifier(model, path, calls)
    layouts = _layouts(path, calls) if maps == "pool" else {}
    counts = _counts(y, head.out_features)
    layers: dict[str, _Layer] = {}
    for states, labels, _ in _features(model, head, x, y, maps, layouts, rows):
        for name, state in states.items():
            layers.setdefault(name, _Layer(counts)).add_to_means(state, labels)
    for layer in layers.values():
        layer.fix_means()
    for states, labels, decisions in _features(model, head, x, y, maps, layouts, rows):
        for name, state in states.items():
            layers[name].add_to_spread(state, labels, decisions)
    return {name: layer.result(head.weight if name == "features" else None) for name, layer in layers.items()}


class _Layer:
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


def _features(
    model: nn.Module,
    head: nn.Linear,
    x: Tensor,
    y: Tensor,
    maps: Maps,
    layouts: Mapping[str, Layout],
    chunk: int,
) -> Iterator[tuple[dict[str, Tensor], Tensor, Tensor]]:
    """For each chunk: the features (rows, d) of every layer by its name, the labels and the decisions (rows,)."""
    read: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, args: read.append(args[0].detach()))
    try:
        for inputs, labels in zip(x.split(chunk), y.split(chunk), strict=True):
            states, logits = trace_states(model, inputs)
            layers = {f"h_{depth}": state for depth, state in enumerate(states)} | {"features": read[-1]}
            vectors = {
                name: _vectors(name, state, len(inputs), layouts.get(name, maps)) for name, state in layers.items()
            }
            yield vectors, labels, logits.argmax(1)
            read.clear()
    finally:
        handle.remove()


def _vectors(name: str, state: Tensor, n: int, maps: Maps) -> Tensor:
    """State (n, d) as it is; of more dimensions as ``maps`` says, (n, c) or (n, -1)."""
    if len(state) != n:
        raise ValueError(f"Expected states whose rows are the {n} inputs; {name} is {tuple(state.shape)}.")
    if maps == "flatten" or state.dim() == 2:
        return state.flatten(1)
    return state.flatten(2).mean(2) if maps == "channels_first" else state.flatten(1, -2).mean(1)


def _watched(model: nn.Module, x: Tensor) -> tuple[Trace, list[Call]]:
    """The trace of one input, and what every layer whose channels have a place read and wrote on the way."""
    calls: list[Call] = []

    def note(layer: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        calls.append((layer, [t.clone() for t in tree_leaves((args, kwargs, output)) if isinstance(t, Tensor)]))

    layers = [layer for layer in model.modules() if isinstance(layer, FIRST + LAST)]
    handles = [layer.register_forward_hook(note, with_kwargs=True) for layer in layers]
    try:
        return trace(model, x), calls
    finally:
        for handle in handles:
            handle.remove()


def _layouts(path: Trace, calls: Sequence[Call]) -> dict[str, Layout]:
    """Where each state of three dimensions or more has its channels; states of a run of blocks have them alike."""
    runs = [[0]]
    for depth, (residual, (before, state)) in enumerate(zip(path.residuals, pairwise(path.states), strict=True), 1):
        if residual.follows and state.shape == before.shape:
            runs[-1].append(depth)
        else:
            runs.append([depth])
    found: dict[str, Layout] = {}
    for run in runs:
        states = [path.states[depth] for depth in run]
        if states[0].dim() > 2:
            layers = [layer for layer, tensors in calls if any(_equal(t, state) for t in tensors for state in states)]
            found |= dict.fromkeys((f"h_{depth}" for depth in run), _layout(f"h_{run[0]}", states[0], layers))
    return found


def _layout(name: str, state: Tensor, layers: Sequence[nn.Module]) -> Layout:
    """Where a state's channels are, judged by the layers that read or write it."""
    first = {type(layer).__name__ for layer in layers if isinstance(layer, FIRST)}
    last = {type(layer).__name__ for layer in layers if isinstance(layer, LAST) and not _of_whole_images(layer)}
    if bool(first) == bool(last) and (first or state.dim() == 3):
        found = (
            f"{', '.join(sorted(first))} has its channels in dimension 1 and {', '.join(sorted(last))} in the last one"
            if first
            else "no layer that reads or writes it tells which dimension holds its channels"
        )
        raise ValueError(
            f"State {name} is {('n', *state.shape[1:])}, and {found}. Say where they are: maps='channels_first' pools "
            "(n, c, *space), maps='channels_last' tokens (n, T, D)."
        )
    return "channels_last" if last else "channels_first"


def _of_whole_images(layer: nn.Module) -> bool:
    """Whether a layer norm is over (c, h, w), and so says nothing of where the channels are."""
    return isinstance(layer, nn.LayerNorm | nn.RMSNorm) and len(layer.normalized_shape) > 1


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


def _classifier(model: nn.Module, path: Trace, calls: Sequence[Call]) -> nn.Linear:
    """The last ``nn.Linear`` whose output is the model's."""
    logits = path.logits
    read_and_written = reversed(calls) if isinstance(logits, Tensor) and logits.dim() == 2 else ()
    for layer, tensors in read_and_written:
        if isinstance(layer, nn.Linear) and _equal(tensors[-1], logits):
            return layer
    linears = sum(isinstance(layer, nn.Linear) for layer in model.modules())
    raise ValueError(
        f"Expected a model whose output is that of an nn.Linear, its classifier, (n, C); {type(model).__name__} has "
        f"{linears} such layers and none gives its output. Take off what follows it, or call neural_collapse with "
        "features and head of your own."
    )


def _exponent(values: Tensor) -> int:
    """e with 2^(e−1) ≤ max |values| < 2^e, within ±EXPONENT; the least one if all are 0."""
    largest = float(values.abs().max())
    return max(-EXPONENT, min(EXPONENT, math.frexp(largest)[1])) if largest else -EXPONENT


def _scaled(values: Tensor, exponent: int) -> Tensor:
    """values · 2^−exponent in float64, which is exact."""
    return values.double() * 2.0**-exponent


def _decide(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    sizes = _exponent(features), _exponent(weight)
    logits = _scaled(features, sizes[0]) @ _scaled(weight, sizes[1]).T
    if bias is not None:  # both in the larger one's unit
        unit = max(sum(sizes), _exponent(bias))
        logits = logits * 2.0 ** (sum(sizes) - unit) + _scaled(bias, unit)
    return logits.argmax(1)


def _tensor(name: str, values: Vectors, device: torch.device | None = None) -> Tensor:
    """A tensor as it is, on ``device`` if given; arrays and lists as copies, for NumPy's may be read-only."""
    if isinstance(values, Tensor):
        return values.to(device)
    try:
        return torch.as_tensor(np.array(values), device=device)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected {name} as a tensor or an array of numbers; got {type(values).__name__}: {error}."
        ) from error


def _checked_classes(name: str, given: Vectors, of: Tensor) -> Tensor:
    values = _tensor(name, given, of.device)
    integer = not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)
    if values.shape != (len(of),) or len(of) == 0 or not integer:
        raise ValueError(
            f"Expected {name} ({len(of)},) of integers, one a sample and at least one; got {tuple(values.shape)} of "
            f"{values.dtype}."
        )
    return values.long()


def _number_of_classes(labels: Tensor, head_weight: Tensor | None, given: int | None) -> int:
    if given is not None:
        classes = whole_number(given)
        if classes is None:
            raise ValueError(f"num_classes must be a whole number; got {given!r}.")
        return classes
    return len(head_weight) if head_weight is not None else int(labels.max()) + 1


def _counts(labels: Tensor, classes: int) -> Tensor:
    """Samples of each class (C,)."""
    if classes < 2:
        raise ValueError(f"Neural Collapse is of two classes or more; got {classes}.")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"Labels must lie in 0..{classes - 1}; got {int(labels.min())}..{int(labels.max())}.")
    counts = labels.bincount(minlength=classes)
    if (empty := (counts == 0).nonzero().flatten().tolist()) != []:
        raise ValueError(
            f"Class {', '.join(map(str, empty))} of {classes} has no samples, so no mean. Give samples of every class, "
            "or relabel those there are to 0, 1, …"
        )
    return counts.double()


def _check_head(weight: Tensor | None, bias: Tensor | None, shape: tuple[int, int]) -> None:
    if weight is None and bias is not None:
        raise ValueError("A head_bias needs its head_weight; got the bias alone.")
    if weight is not None and weight.shape != shape:
        raise ValueError(f"Expected head_weight (C, d) = {shape}; got {tuple(weight.shape)}.")
    if bias is not None and bias.shape != shape[:1]:
        raise ValueError(f"Expected head_bias (C,) = ({shape[0]},); got {tuple(bias.shape)}.")
    for name, value in (("head_weight", weight), ("head_bias", bias)):
        if value is not None and not value.isfinite().all():
            raise ValueError(f"{name} holds NaN or infinite values. The training diverged, or the file is damaged.")
