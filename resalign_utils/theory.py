"""A model whose local minima are aligned, and the two laws of depth between which its penalty decides.

Source of the name: Li & Papyan 2023, who prove that alignment occurs in an "Unconstrained Jacobians Model". Their exact
statement was not available to us; the model here is **our reading** of it: the Residual Jacobians of a residual network
are free matrices, everything else is linear. The proofs are on the book's page "Lemmas", and are ours. They need a head
whose rank is smaller than the dimension of the inputs, and say nothing of saddles.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .arithmetic import ratio
from .models import ResidualBlock, ResNet
from .svd import dense_svd

Penalty = Literal["frobenius", "kinetic"]
Loss = Literal["logistic", "square"]

Objective = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class UnconstrainedJacobians:
    """Where gradient descent on the Unconstrained Jacobians Model ended; all tensors float64.

    R is the number of logits, 1 with two classes and C with more; k is R, less one for three or more classes under the
    logistic loss, which does not see a constant added to all logits. A minimum has Jacobians of rank k at most.

    Attributes:
        jacobians: (L, d, d) J_1..J_L.
        head: (R, d) W.
        losses: (T+1,) the objective, penalties included, at the start and after each of the T steps.
        coupling: (L, L) score of block i in the frames of block j, with k vectors, as in
            :class:`AlignmentReport`; 1 iff the paired top subspaces agree. 0 where J_i is zero.
        singular_values: (L, d), descending.
        U: (L, k, d) left singular vectors.
        V: (L, k, d) right singular vectors.
        gradient_norm: norm of the objective's gradient at the end; 0 at a critical point.
        converged: gradient_norm ≤ tol.
        skip: whether blocks have a skip.
    """

    jacobians: Tensor
    head: Tensor
    losses: Tensor
    coupling: Tensor
    singular_values: Tensor
    U: Tensor
    V: Tensor
    gradient_norm: float
    converged: bool
    skip: bool

    @property
    def alignment(self) -> float:
        """Mean coupling of the pairs i ≠ j, as in :class:`AlignmentReport`; NaN with one block."""
        others = ~torch.eye(len(self.coupling), dtype=torch.bool)
        return float(self.coupling[others].mean())

    @property
    def network(self) -> ResNet:
        """The model as a residual network of linear blocks, for :func:`trace` and :func:`measure_alignment`."""
        layers = [_linear(jacobian) for jacobian in self.jacobians]
        blocks = [ResidualBlock(layer, float(self.skip), post=False) for layer in layers]
        return ResNet(nn.Identity(), blocks, _linear(self.head)).eval()


class DepthLaws(NamedTuple):
    """Gains s_1..s_L (L,) with ∏ (1 + s_ℓ) = Π: all equal, or such that all steps are equal."""

    geometric: Tensor
    arithmetic: Tensor


def depth_laws(product: float, depth: int) -> DepthLaws:
    """The two ways to spend a total gain Π over L blocks (book, lemma "the penalty decides the law"; ours).

    ``geometric``: s_ℓ = Π^{1/L} − 1, which makes Σ s_ℓ² least. ``arithmetic``: s_ℓ = 1/(ℓ − 1 + c) with c = L/(Π − 1),
    which makes the sum of the squared steps least. Both have mean ln Π / L + O(1/L²).

    Args:
        product: Π > 1.
        depth: L.

    Raises:
        ValueError: Π ≤ 1 or L < 1.
    """
    if not 1 < product < math.inf or depth < 1:
        raise ValueError(f"The laws need a product above 1 and a depth of at least 1; got {product!r} and {depth!r}.")
    block = torch.arange(depth, dtype=torch.float64)
    return DepthLaws(torch.full_like(block, math.expm1(math.log(product) / depth)), 1 / (block + depth / (product - 1)))


def fit_unconstrained_jacobians(
    x: Tensor,
    y: Tensor,
    depth: int,
    *,
    penalty: Penalty = "frobenius",
    weight: float = 1e-2,
    head_weight: float | None = None,
    loss: Loss = "logistic",
    skip: bool = True,
    steps: int = 20_000,
    tol: float = 1e-7,
    seed: int = 0,
) -> UnconstrainedJacobians:
    """Fit free Jacobians J_1..J_L and a linear head W to labelled inputs, from a random start.

    Minimised is ``mean loss(W (I + J_L) ⋯ (I + J_1) x, y) + penalty``, with h_ℓ = (I + J_ℓ) h_{ℓ−1} and penalty

    - ``"frobenius"``: weight/2 · Σ ‖J_ℓ‖_F² + head_weight/2 · ‖W‖_F²,
    - ``"kinetic"``: weight/2 · mean over inputs of Σ ‖h_ℓ − h_{ℓ−1}‖² + head_weight/2 · ‖W‖_F²,

    by full-batch gradient descent with Nesterov's momentum, started anew where it points uphill (O'Donoghue & Candès
    2015). The step is halved until the objective falls by half of what the gradient promises, and doubled at each new
    start. There is no bias: centre the inputs, or add a constant to them.

    Args:
        x: inputs (n, d); h_0 = x.
        y: labels (n,), each of 0..C−1. Two classes have one logit, ± as the class; more have C.
        depth: L.
        penalty: on the blocks.
        weight: of it, > 0.
        head_weight: of the head's penalty; ``weight`` if not given, 0 for a free head, for which there is in general no
            minimum with J ≠ 0.
        loss: ``"logistic"`` (cross-entropy), or ``"square"``: ½ ‖logits − target‖², target ±1, or one-hot.
        skip: False leaves the I out.
        steps: number of steps at most.
        tol: norm of the gradient at which to stop; 0 to take all steps and leave the end unjudged.
        seed: of the start: J_ℓ with entries N(0, 1/(dL)), without skip N(0, 1/d), W N(0, 1/d).

    Returns:
        :class:`UnconstrainedJacobians`, on x's device, computed in float64.

    Warns:
        RuntimeWarning: the gradient is above ``tol`` after all steps.

    Raises:
        ValueError: wrong shapes, labels, names or ranges.

    Example:
        >>> import torch, resalign_utils as ra
        >>> x, y = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 1])
        >>> found = ra.fit_unconstrained_jacobians(x, y, depth=3)
        >>> found.converged, round(found.alignment, 4)
        (True, 1.0)
    """
    head_weight = weight if head_weight is None else head_weight
    _check(x, y, depth, penalty, loss, weight, head_weight, steps, tol)
    x, y = x.detach().double(), y.detach().long().to(x.device)
    classes, d = int(y.max()) + 1, x.shape[1]
    logits = 1 if classes == 2 else classes
    data_loss, moment = _data_loss(x, y, classes, loss), x.mT @ x / len(x)

    def objective(parameters: Tensor) -> Tensor:
        jacobians, head = _unpack(parameters, depth, d)
        total, energy = _propagate(jacobians, moment, skip)
        cost = jacobians.square().sum() if penalty == "frobenius" else energy
        return data_loss(head @ total) + weight / 2 * cost + head_weight / 2 * head.square().sum()

    start = _start(depth, d, logits, skip, seed).to(x.device)
    end, losses, norm = _descend(objective, start, steps, tol)
    if tol > 0 and not norm <= tol:
        warnings.warn(
            f"The fit has not converged within {steps} steps: the gradient's norm is {norm:.1e}, asked was {tol:.1e}. "
            "Allow more steps, ask for less (tol), or see whether a minimum exists (a free head may have none).",
            RuntimeWarning,
            stacklevel=2,
        )
    k = min(logits - (loss == "logistic" and classes > 2), d)
    return _result(*_unpack(end, depth, d), losses, k, norm, norm <= tol, skip)


def _propagate(jacobians: Tensor, moment: Tensor, skip: bool) -> tuple[Tensor, Tensor]:
    """(I + J_L) ⋯ (I + J_1) (d, d), and Σ_ℓ mean ‖h_ℓ − h_{ℓ−1}‖² from the inputs' second moment (d, d)."""
    total = torch.eye(moment.shape[0], dtype=moment.dtype, device=moment.device)
    energy = total.new_zeros(())
    for jacobian in jacobians:
        step = jacobian @ total if skip else jacobian @ total - total  # what the block adds, as a map of x
        energy = energy + ((step @ moment) * step).sum()
        total = total + step
    return total, energy


def _data_loss(x: Tensor, y: Tensor, classes: int, loss: Loss) -> Objective:
    """The mean loss as a function of the whole linear map (R, d)."""
    sign = 2.0 * y - 1  # (n,)
    if loss == "logistic":
        if classes == 2:
            return lambda theta: F.softplus(-sign * (x @ theta[0])).mean()
        return lambda theta: F.cross_entropy(x @ theta.mT, y)
    target = sign[:, None].double() if classes == 2 else F.one_hot(y, classes).double()  # (n, R)
    return lambda theta: (x @ theta.mT - target).square().sum(1).mean() / 2


def _start(depth: int, d: int, logits: int, skip: bool, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(depth * d * d + logits * d, generator=generator, dtype=torch.float64) / math.sqrt(d)
    start[: depth * d * d] /= math.sqrt(depth) if skip else 1.0
    return start


def _unpack(parameters: Tensor, depth: int, d: int) -> tuple[Tensor, Tensor]:
    blocks = depth * d * d
    return parameters[:blocks].view(depth, d, d), parameters[blocks:].view(-1, d)


def _descend(objective: Objective, start: Tensor, steps: int, tol: float) -> tuple[Tensor, list[float], float]:
    """Accelerated gradient descent: the end, the objective on the way, and the norm of the gradient at the end."""
    here, ahead, rate, inertia = start, start, 1.0, 1.0
    losses = [float(objective(start))]
    for _ in range(steps):
        value, gradient = _slope(objective, ahead)
        square = float(gradient @ gradient)
        if math.sqrt(square) <= tol:
            here, losses[-1] = ahead, value
            break
        goal = value + 1e-14 * abs(value)  # below the rounding of the objective nothing can be judged
        while (landed := float(objective(ahead - rate * gradient))) > goal - rate / 2 * square:
            rate /= 2
        reached = ahead - rate * gradient
        losses.append(landed)
        if gradient @ (reached - here) > 0:
            inertia, rate = 1.0, 2 * rate
        grown = (1 + math.sqrt(1 + 4 * inertia**2)) / 2
        ahead = reached + (inertia - 1) / grown * (reached - here)
        here, inertia = reached, grown
    return here, losses, float(_slope(objective, here)[1].norm())


def _slope(objective: Objective, at: Tensor) -> tuple[float, Tensor]:
    with torch.enable_grad():
        at = at.detach().requires_grad_()
        value = objective(at)
        return value.item(), torch.autograd.grad(value, at)[0]


def _result(
    jacobians: Tensor, head: Tensor, losses: list[float], k: int, norm: float, converged: bool, skip: bool
) -> UnconstrainedJacobians:
    u, s, v = dense_svd(jacobians, jacobians.shape[1])
    u, v = u[:, :k], v[:, :k]  # (L, k, d)
    traces = torch.einsum("jkm,imd,jkd->ij", u, jacobians, v)
    coupling = ratio(traces, s[:, :k].sum(1, keepdim=True))
    course = torch.tensor(losses, dtype=torch.float64)
    return UnconstrainedJacobians(jacobians, head, course, coupling, s, u, v, norm, converged, skip)


def _linear(matrix: Tensor) -> nn.Linear:
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(matrix, requires_grad=False)
    return layer


def _check(
    x: Tensor,
    y: Tensor,
    depth: int,
    penalty: str,
    loss: str,
    weight: float,
    head_weight: float,
    steps: int,
    tol: float,
) -> None:
    if x.dim() != 2 or y.shape != x.shape[:1]:
        raise ValueError(f"Expected x (n, d) and y (n,); got x {tuple(x.shape)} and y {tuple(y.shape)}. Flatten them.")
    if not torch.isfinite(x).all():
        raise ValueError("The inputs hold NaN or infinite entries; remove those samples.")
    counts = torch.bincount(y.long()) if len(y) and bool((y >= 0).all()) and not y.is_floating_point() else y[:0]
    if len(counts) < 2 or bool((counts == 0).any()):
        raise ValueError(f"Labels must be whole numbers, each of 0..C−1 with C ≥ 2; got {y.unique().tolist()[:12]}.")
    for name, value, allowed in (("penalty", penalty, get_args(Penalty)), ("loss", loss, get_args(Loss))):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}.")
    if depth < 1 or steps < 0 or not 0 < weight < math.inf or not 0 <= head_weight < math.inf or not tol >= 0:
        raise ValueError(
            "Expected depth ≥ 1, steps ≥ 0, weight > 0, head_weight ≥ 0 and tol ≥ 0; got "
            f"depth={depth}, steps={steps}, weight={weight}, head_weight={head_weight}, tol={tol}."
        )
