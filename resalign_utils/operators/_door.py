"""What is proved of a branch before any of its products is used.

The branch is evaluated: the same input gives the same bits, and no row depends on another. Then the ways to
differentiate it are tried in turn, and the first is taken whose products stand three tests:

* ``J v`` agrees with a central difference quotient, which knows nothing of autograd, at a point next to the given
  one: there no unit sits on its kink, as units at exact zeros do;
* ⟨u, J v⟩ = ⟨Jᵀ u, v⟩, for several vectors at once;
* the same product gives the same bits twice.

The second alone would prove nothing where ``J v`` is the transpose of the same backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from ..arithmetic import or_one
from ..precision import in_double
from ._compare import differ, dot, flat, norms, random_like, same_bits
from ._derivatives import AsItIs, BackwardOnce, Branch, DoubleBackward, ForwardMode, branch_rows
from ._values import error_text

ATTEMPTS = 4  # points at which a row may agree with a difference quotient
PROBES = 8  # random projections on which Jᵀ alone is compared
VECTORS = 2  # a row, in the test of adjoint products
JITTER = 1e-2  # distance of the point next to the given one, relative to the length of the input
# By the dtype in which the quotients are computed: their steps, relative to the length of the input, the likeliest
# first. A kink that lies within a step spoils some entries: so there are several, and `LOOSE` where even the quotients
# differ among themselves by more than what is asked.
STEPS = {torch.float64: (1e-6, 1e-5, 1e-4, 1e-3), torch.float32: (1e-3, 1e-4, 1e-2)}
# By the dtypes of the products and of the quotients: relative agreement that is asked.
AGREEMENT = {
    (torch.float64, torch.float64): 1e-5,
    (torch.float32, torch.float64): 1e-3,
    (torch.float32, torch.float32): 1e-2,
}
LOOSE = 10.0  # times the agreement in length; along J v itself, where such errors cancel, the agreement must hold
ROUNDING = 200.0  # times the machine's epsilon: relative error of a product

_HIDDEN = (
    "Something in it hides from autograd how its result depends on its input: torch.no_grad, detach(), .data, .item(), "
    "rounding, or a backward pass of its own. Compute that without, or make it a constant that does not depend on the "
    "input."
)
_CANCELS = (
    " Or it is the small difference of large numbers, which single precision does not resolve: try float64, "
    "model.double() and x.double()."
)
_NAMES = {
    DoubleBackward: "backward twice",
    AsItIs: "backward twice, layers as they are",
    ForwardMode: "forward mode",
    BackwardOnce: "backward once",
}


@dataclass(frozen=True)
class Way:
    """How products are computed.

    Attributes:
        derivative: the class of the derivative.
        repeats: whether the rows may be repeated, to multiply with several vectors at once.
    """

    derivative: type[DoubleBackward]
    repeats: bool


@torch.no_grad()
def proved_way(branch: Branch, x: Tensor, value: Tensor, name: str = "the branch") -> Way:
    """The first way to differentiate the branch at x (n, *in), of this value (n, *out), that stands the tests.

    Raises:
        ValueError: none does; the text says what became of each.
    """
    problems = {}
    sharp = _sharpest(branch, x, value)
    for derivative in _NAMES:
        try:
            _compare_with_differences(branch, sharp, x, derivative)
            for repeats in (True, False):
                if _stands(branch, x, value, Way(derivative, repeats)):
                    return Way(derivative, repeats)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # differentiation fails in as many ways as there are branches
            problems[derivative] = str(error) if isinstance(error, _Disagreement) else error_text(error)
        else:
            problems[derivative] = "⟨u, J v⟩ and ⟨Jᵀ u, v⟩ differ, or the same product twice does"
    said = "; ".join(f"{_NAMES[way]}: {problem}" for way, problem in problems.items())
    advice = _HIDDEN + (_CANCELS if x.dtype == torch.float32 else "") if "quotient" in said else "Look at the point."
    raise ValueError(f"The Jacobian of {name} cannot be trusted ({said}). {advice}")


_Sharp = tuple[Branch, torch.dtype]  # how a branch is evaluated for difference quotients, and its results' dtype


class _Disagreement(Exception):
    """J v is not what the difference quotients say."""


def _sharpest(branch: Branch, x: Tensor, value: Tensor) -> _Sharp:
    """The branch in float64, where a real difference stands out from rounding; unchanged if it has no float64."""
    as_it_is = branch, value.dtype
    if x.dtype == torch.float64:
        return as_it_is
    try:
        wide = in_double(branch, x)
    except Exception:  # it names its dtype, or writes to a tensor that it holds: it stays in float32
        return as_it_is
    same = wide.dtype == torch.float64 and wide.shape == value.shape and not differ(wide.to(value.dtype), value)
    return (partial(in_double, branch), torch.float64) if same else as_it_is


def _compare_with_differences(branch: Branch, sharp: _Sharp, x: Tensor, derivative: type[DoubleBackward]) -> None:
    """Every row must agree at one of a few points: at a single one, a kink may happen to lie within all steps."""
    proved = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    error = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
    for attempt in range(ATTEMPTS):
        near, direction = _beside(branch, x, attempt)
        agrees, apart = _differences(sharp, near, direction, derivative(branch, near))
        proved, error = proved | agrees, torch.fmin(error, apart)
        if proved.all():
            return
    raise _Disagreement(f"J v is {float(error[~proved].max()):.1%} off the difference quotient")


def _differences(sharpest: _Sharp, x: Tensor, v: Tensor, derivative: DoubleBackward) -> tuple[Tensor, Tensor]:
    """Whether J v agrees with a difference quotient (n,), and how far it is from the nearest, relative (n,)."""
    product, project = _seen(derivative, v)  # (n, r)
    if not torch.isfinite(product).all():
        raise _Disagreement("J v is NaN or infinite")
    length, quotients = product.norm(dim=1), list[Tensor]()
    proved = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    sharp, dtype = sharpest
    agreement, eps = AGREEMENT[x.dtype, dtype], torch.finfo(dtype).eps
    x, v = x.to(dtype), v.to(dtype)
    for step in STEPS[dtype]:
        after, before = (flat(sharp(x + sign * step * v)).double() for sign in (1, -1))
        quotients.append(quotient := project((after - before) / (2 * step)))
        rounding = 4 * eps * (after.norm(dim=1) + before.norm(dim=1)) / (2 * step)
        proved |= (quotient - product).norm(dim=1) <= agreement * torch.maximum(quotient.norm(dim=1), length) + rounding
        if proved.all():
            break
    apart = torch.stack([_apart(quotient, product) for quotient in quotients])  # (steps, n)
    if not proved.all():
        along = [((q - product) * product).sum(1).abs() / length.square().clamp(min=1e-300) for q in quotients]
        loose = ((apart <= LOOSE * agreement) & (torch.stack(along) <= agreement)).any(0)
        spread = torch.stack([_apart(a, b) for a, b in pairwise(quotients)]).amin(0)
        proved |= loose & (spread > agreement)
    return proved, apart.amin(0)


def _seen(derivative: DoubleBackward, v: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """``J v`` (n, m), or random projections of it (n, r) where there is Jᵀ alone; and the same view of any image."""
    if not isinstance(derivative, BackwardOnce):
        return flat(derivative.forward(v)).double(), lambda image: image
    probes = [
        random_like(derivative.value, seed=seed) * PROBES**-0.5 for seed in range(4, 4 + PROBES)
    ]  # (n, *out) each
    product = torch.stack([dot(derivative.adjoint(probe), v) for probe in probes], 1)
    return product, lambda image: torch.stack([dot(probe, image) for probe in probes], 1)


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """Distance of rows (n, r), relative to the longer."""
    apart: Tensor = (a - b).norm(dim=1) / torch.maximum(a.norm(dim=1), b.norm(dim=1)).clamp(min=1e-300)
    return apart


def _stands(branch: Branch, x: Tensor, value: Tensor, way: Way) -> bool:
    """Whether the products at x itself are adjoint and repeatable, with several vectors at once if the way says so."""
    derivative = repeated(branch, x, value, VECTORS, way) if way.repeats else way.derivative(branch, x)
    if derivative is None:
        return False
    if not way.repeats and differ(derivative.value, value):
        raise _Disagreement("the branch gives another result while gradients are recorded")
    u = random_like(derivative.value, seed=2)
    preimage = derivative.adjoint(u)
    if not torch.isfinite(preimage).all():
        raise _Disagreement("Jᵀ u is NaN or infinite")
    if not same_bits(derivative.adjoint(u), preimage):
        return False
    if way.derivative is BackwardOnce:
        return True
    v = random_like(x[:1].expand(len(u), *x.shape[1:]), seed=1)
    image = derivative.forward(v)
    # Also with u = J v: the larger ⟨u, J v⟩ is, the smaller the error that it shows.
    adjoint = _adjoint(u, image, preimage, v) and _adjoint(image, image, derivative.adjoint(image), v)
    return adjoint and same_bits(derivative.forward(v), image)


def repeated(branch: Branch, x: Tensor, value: Tensor, copies: int, way: Way) -> DoubleBackward | None:
    """The derivative at all points x (n, *in), so many times; None where the branch does not take them so."""
    index = torch.arange(len(x), device=x.device).repeat(copies)
    try:
        derivative = way.derivative(branch_rows(branch, index), x[index])
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, IndexError):
        return None  # the branch holds constants of its rows, or takes only so many
    same = derivative.value.shape == value[index].shape and not differ(derivative.value, value[index])
    return derivative if same else None


def _adjoint(u: Tensor, image: Tensor, preimage: Tensor, v: Tensor) -> bool:
    """Whether ⟨u, J v⟩ = ⟨Jᵀ u, v⟩ in every row, to rounding."""
    size = norms(u) * norms(image) + norms(preimage) * norms(v)
    bound = ROUNDING * torch.finfo(u.dtype).eps * size
    return bool(((dot(u, image) - dot(preimage, v)).abs() <= bound).all())


def _beside(branch: Branch, x: Tensor, attempt: int) -> tuple[Tensor, Tensor]:
    """A point next to x and a direction of the inputs' length, both (n, *in), others at each attempt."""
    size = flat(x).double().square().mean(1).sqrt().to(x.dtype)
    size = or_one(size).reshape(-1, *[1] * (x.dim() - 1))
    generator = torch.Generator().manual_seed(100 + attempt)
    noise = 0.5 + torch.rand(x.shape, generator=generator, dtype=torch.float64).to(x)
    near = x + JITTER * size * noise * torch.where(x < 0, -1.0, 1.0).to(x)  # away from zero: no sign changes
    if not torch.isfinite(branch(near.clone())).all():
        near = x
    # One part is the same within a channel: a mean over the channel hardly changes with independent entries.
    constant = x.flatten(2).amax(2) if x.dim() > 2 else x[:, :1]
    smooth = random_like(constant, seed=300 + attempt).reshape(*constant.shape, *[1] * (x.dim() - 2))
    return near, (random_like(x, seed=200 + attempt) + smooth) * size * 0.5**0.5
