"""What is found out about a branch by evaluating it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ._compare import near, same_bits
from ._derivatives import Branch

PRECISIONS = (torch.float32, torch.float64)


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
        raise ValueError(f"{_capital(name)} fails at its input {tuple(x.shape)}: {error_text(error)}.") from error
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
    if not same_bits(branch(x.clone()), value):
        raise ValueError(
            f"Two evaluations of {name} at one point differ. Call model.eval(): dropout is on, or it draws random "
            "numbers, or keeps a state between calls."
        )
    if not torch.equal(drawn, _random_state(x.device)):
        raise ValueError(
            f"{_capital(name)} draws random numbers, which another time may change its result. Call model.eval(): "
            "dropout is on; or take the noise out."
        )
    if pair is not None and (len(pair[0]) != 2 or not near(pair[0][:1], pair[1][:1])):
        raise _mixes(name)
    for kept, mixed in _half_changed(x):
        if not near(branch(mixed)[kept], value[kept]):
            raise _mixes(name)
    return value


def _pair(branch: Branch, x: Tensor) -> tuple[Tensor, Tensor] | None:
    """The result for a single row x (1, *in) with two others below it in turn; None where it takes no two rows."""
    try:
        return branch(torch.cat([x, x / 2 + 1])), branch(torch.cat([x, 1 - x]))
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
    if tensor.dtype not in PRECISIONS:
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


def error_text(error: Exception) -> str:
    """An error's kind and the beginning of its text."""
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0][:200]}"


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]
