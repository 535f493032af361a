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

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ._derivatives import BackwardOnce, Branch, DoubleBackward, ForwardMode, branch_rows

ATTEMPTS = 4  # points at which a row may agree with a difference quotient
VECTORS = 2  # a row, in the test of adjoint products
JITTER = 1e-2  # distance of the point next to the given one, relative to the length of the input
# By dtype: steps of the difference quotients relative to the length of the input, the likeliest first, and the relative
# agreement that they reach. A kink that lies within a step spoils some entries: many small steps, and `LOOSE` where
# even the quotients differ among themselves by more.
STEPS = {torch.float64: (1e-6, 1e-5, 1e-4, 1e-3), torch.float32: (1e-3, 1e-4, 1e-2)}
AGREEMENT = {torch.float64: 1e-5, torch.float32: 1e-2}
LOOSE = 10.0  # times the agreement in length; along J v itself, where such errors cancel, the agreement must hold
ROUNDING = 200.0  # times the machine's epsilon: relative error of a product

_HIDDEN = (
    "Something in it hides from autograd how its result depends on its input: torch.no_grad, detach(), .data, .item(), "
    "rounding, or a backward pass of its own. Compute that without, or make it a constant that does not depend on the "
    "input."
)
_NAMES = {DoubleBackward: "backward twice", ForwardMode: "forward mode", BackwardOnce: "backward once"}
PROBES = 8  # random projections on which Jᵀ alone is compared


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
def check_branch(branch: Branch, x: Tensor, name: str = "the branch") -> Tensor:
    """Evaluate a branch at x (n, *in), after making sure that it is a function of each row alone.

    Raises:
        ValueError: x or the result is of a kind that has no Jacobian (not float32 or float64, NaN or infinite, not
            (n, *out)); two evaluations differ (dropout in train mode); or a row's result depends on the other rows
            (batch norm in train mode).
    """
    _check_kind(x, "The input of " + name)
    pair = _pair(branch, x) if len(x) == 1 else None
    drawn = _random_state(x.device)
    try:
        value = branch(x.clone())
    except Exception as error:  # whatever a foreign branch raises
        if pair is not None:  # batch norm in train mode refuses a row that comes alone, without saying what to do
            raise _mixes(name) from None
        raise ValueError(f"{_capital(name)} fails at its input {tuple(x.shape)}: {_told(error)}.") from error
    if not isinstance(value, Tensor) or value.dim() == 0 or len(value) != len(x):
        came = str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"Expected a branch (n, *in) → (n, *out); {name} made {came} of {tuple(x.shape)}.")
    _check_kind(value, "The result of " + name)
    if value.dtype != x.dtype:
        raise ValueError(
            f"The result of {name} is of {value.dtype}, its input of {x.dtype}. Products need one dtype: convert the "
            f"model and its inputs, .to({value.dtype})."
        )
    if not torch.isfinite(value).all():
        raise ValueError(
            f"{_capital(name)} gives NaN or infinite values. Look at the input and the weights, or use float64."
        )
    if not torch.equal(drawn, _random_state(x.device)) or not _same_bits(branch(x.clone()), value):
        raise ValueError(
            f"Two evaluations of {name} at one point differ. Call model.eval(): dropout is on, or it draws random "
            "numbers, or keeps a state between calls."
        )
    if pair is not None and (len(pair) != 2 or differ(pair[:1], value)):
        raise _mixes(name)
    for kept, mixed in _half_changed(x):
        if not _near(branch(mixed)[kept], value[kept]):
            raise _mixes(name)
    return value


@torch.no_grad()
def proved_way(branch: Branch, x: Tensor, value: Tensor, name: str = "the branch") -> Way:
    """The first way to differentiate the branch at x (n, *in), of this value (n, *out), that stands the tests.

    Raises:
        ValueError: none does; the text says what became of each.
    """
    problems = {}
    for derivative in _NAMES:
        try:
            _compare_with_differences(branch, x, derivative)
            for repeats in (True, False):
                if _stands(branch, x, value, Way(derivative, repeats)):
                    return Way(derivative, repeats)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # differentiation fails in as many ways as there are branches
            problems[derivative] = _told(error)
        else:
            problems[derivative] = "⟨u, J v⟩ and ⟨Jᵀ u, v⟩ differ, or the same product twice does"
    said = "; ".join(f"{_NAMES[way]}: {problem}" for way, problem in problems.items())
    raise ValueError(f"The Jacobian of {name} cannot be trusted ({said}). {_HIDDEN}")


class _Disagreement(Exception):
    """J v is not what the difference quotients say."""


def _compare_with_differences(branch: Branch, x: Tensor, derivative: type[DoubleBackward]) -> None:
    """Every row must agree at one of a few points: at another one a kink may lie within all steps, by chance."""
    proved = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    error = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
    for attempt in range(ATTEMPTS):
        near, direction = _beside(branch, x, attempt)
        agrees, apart = _differences(branch, near, direction, derivative(branch, near))
        proved, error = proved | agrees, torch.minimum(error, apart)
        if proved.all():
            return
    raise _Disagreement(f"J v is {float(error[~proved].max()):.1%} off the difference quotient")


def _differences(branch: Branch, x: Tensor, v: Tensor, derivative: DoubleBackward) -> tuple[Tensor, Tensor]:
    """Whether J v agrees with a difference quotient (n,), and how far it is from the nearest, relative (n,)."""
    agreement, eps = AGREEMENT[x.dtype], torch.finfo(x.dtype).eps
    product, project = _seen(derivative, v)  # (n, r)
    length = product.norm(dim=1)
    proved = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    quotients: list[Tensor] = []
    for step in STEPS[x.dtype]:
        after, before = (_flat(branch(x + sign * step * v)).double() for sign in (1, -1))
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
    """``J v`` (n, m), or random projections of it (n, r) where there is Jᵀ alone; and how to see others so."""
    if not isinstance(derivative, BackwardOnce):
        return _flat(derivative.forward(v)).double(), lambda image: image
    probes = [_random(derivative.value, seed=seed) * PROBES**-0.5 for seed in range(4, 4 + PROBES)]  # (n, *out) each
    product = torch.stack([_dot(derivative.adjoint(probe), v) for probe in probes], 1)
    return product, lambda image: torch.stack([_dot(probe, image) for probe in probes], 1)


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """Distance of rows (n, r), relative to the longer."""
    return (a - b).norm(dim=1) / torch.maximum(a.norm(dim=1), b.norm(dim=1)).clamp(min=1e-300)


def _stands(branch: Branch, x: Tensor, value: Tensor, way: Way) -> bool:
    """Whether the products at x itself are adjoint and repeatable, with several vectors at once if the way says so."""
    derivative = repeated(branch, x, value, VECTORS, way) if way.repeats else way.derivative(branch, x)
    if derivative is None:
        return False
    if not way.repeats and differ(derivative.value, value):
        raise _Disagreement("the branch gives another result while gradients are recorded")
    u = _random(derivative.value, seed=2)
    preimage = derivative.adjoint(u)
    if not _same_bits(derivative.adjoint(u), preimage):
        return False
    if way.derivative is BackwardOnce:
        return True
    v = _random(x[:1].expand(len(u), *x.shape[1:]), seed=1)
    image = derivative.forward(v)
    # images themselves beside random vectors: the larger ⟨u, J v⟩ is, the smaller an error it shows
    adjoint = _adjoint(u, image, preimage, v) and _adjoint(image, image, derivative.adjoint(image), v)
    return adjoint and _same_bits(derivative.forward(v), image)


def repeated(branch: Branch, x: Tensor, value: Tensor, copies: int, way: Way) -> DoubleBackward | None:
    """The derivative at all points x (n, *in), so many times; None where the branch does not take them so."""
    index = torch.arange(len(x), device=x.device).repeat(copies)
    try:
        derivative = way.derivative(branch_rows(branch, index), x[index])
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, IndexError):
        return None  # bound to its rows, or to so many at most
    same = derivative.value.shape == value[index].shape and not differ(derivative.value, value[index])
    return derivative if same else None


def _adjoint(u: Tensor, image: Tensor, preimage: Tensor, v: Tensor) -> bool:
    """Whether ⟨u, J v⟩ = ⟨Jᵀ u, v⟩ in every row, to rounding."""
    size = _norms(u) * _norms(image) + _norms(preimage) * _norms(v)
    bound = ROUNDING * torch.finfo(u.dtype).eps * size
    return bool(((_dot(u, image) - _dot(preimage, v)).abs() <= bound).all())


def _beside(branch: Branch, x: Tensor, attempt: int) -> tuple[Tensor, Tensor]:
    """A point next to x and a direction of the inputs' length, both (n, *in), others at each attempt."""
    size = _flat(x).square().mean(1).sqrt()
    size = torch.where(size > 0, size, 1.0).reshape(-1, *[1] * (x.dim() - 1))
    generator = torch.Generator().manual_seed(100 + attempt)
    noise = 0.5 + torch.rand(x.shape, generator=generator, dtype=torch.float64).to(x)
    near = x + JITTER * size * noise * torch.where(x < 0, -1.0, 1.0)  # away from zero: no sign changes
    if not torch.isfinite(branch(near.clone())).all():
        near = x
    return near, _random(x, seed=200 + attempt) * size


def _pair(branch: Branch, x: Tensor) -> Tensor | None:
    """The result for a single row x (1, *in) with another below it; None where the branch takes no two rows."""
    try:
        return branch(torch.cat([x, x / 2 + 1]))
    except (RuntimeError, ValueError, IndexError):
        return None


def _random_state(device: torch.device) -> Tensor:
    """Of torch's generator: it moves if a branch draws a number, whether or not that changes the result this time."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _half_changed(x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows to keep (n,) and x with all others changed, so that for every pair of rows one is kept and the other not."""
    number, other = torch.arange(len(x), device=x.device), x / 2 + 1
    for bit in range((len(x) - 1).bit_length()):
        for side in (0, 1):
            kept = (number >> bit) & 1 == side
            yield kept, torch.where(kept.reshape(-1, *[1] * (x.dim() - 1)), x, other)


def _check_kind(tensor: Tensor, what: str) -> None:
    if tensor.dtype not in STEPS:
        raise ValueError(
            f"{what} is of {tensor.dtype}; Jacobians are computed in float32 or float64. Convert the model and its "
            "inputs: model.float(), x.float()."
        )
    if tensor.numel() == 0:
        raise ValueError(f"{what} is empty: {tuple(tensor.shape)}.")


def _mixes(name: str) -> ValueError:
    return ValueError(
        f"The result of {name} for one input depends on the other inputs of the batch. Call model.eval(): batch norm "
        "is in train mode, or a layer mixes the batch (its first dimension)."
    )


def _told(error: Exception) -> str:
    text = (str(error).splitlines() or ["no message"])[0][:200]
    return text if isinstance(error, _Disagreement) else f"{type(error).__name__}: {text}"


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]


def differ(a: Tensor, b: Tensor) -> bool:
    """Whether more than 1 % of the entries differ by more than rounding.

    A few may: where rounding, which depends on the size of the batch, moves a unit across the kink of a ReLU.
    """
    scale = a.abs().max().clamp(min=torch.finfo(a.dtype).tiny)
    return float(((a - b).abs() > 1e3 * torch.finfo(a.dtype).eps * scale).float().mean()) > 0.01


def _near(a: Tensor, b: Tensor) -> bool:
    """Whether results of evaluations of one shape are equal up to rounding."""
    return a.shape == b.shape and bool(((a - b).abs() <= 100 * torch.finfo(b.dtype).eps * b.abs().amax()).all())


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two results are equal; up to rounding on a GPU, where sums may come in any order."""
    return torch.equal(a, b) if a.device.type == "cpu" else a.shape == b.shape and not differ(a, b)


def _random(like: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)


def _norms(rows: Tensor) -> Tensor:
    return _flat(rows).double().norm(dim=1)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (_flat(a).double() * _flat(b).double()).sum(1)


def _flat(rows: Tensor) -> Tensor:
    """(r, N), also of rows that are single numbers."""
    return rows.reshape(len(rows), -1)
