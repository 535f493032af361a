"""Blocks of a transformer seen token by token: what a block does at one position by what it is given there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from ..operators import Branch, branch_rows, near
from ..precision import in_double
from ._checks import unwrapped
from ._trace import Residual, Trace

ROWS_TRIED = 16  # in the test whether a branch acts on each token alone

Tokens = int | Sequence[int] | Literal["last", "all", "auto"]


@dataclass(frozen=True)
class TokenBranch:
    """``h_t (r, D) → F(h_1, …, h_t, …, h_T)_t (r, D)``, with the other tokens of each row's input held.

    Attributes:
        branch: F of the whole sequence, bound to the r rows.
        sequences: the true states (r, T, D).
        positions: t of each row (r,).
    """

    branch: Branch
    sequences: Tensor
    positions: Tensor

    def __call__(self, h: Tensor) -> Tensor:
        if len(h) != len(self.positions):
            raise ValueError(f"This branch is bound to {len(self.positions)} tokens; it was called with {len(h)}.")
        place = self.positions[:, None, None].expand(-1, 1, h.shape[-1])
        whole = self.branch(self.sequences.to(h.dtype).scatter(1, place, h[:, None]))
        place = self.positions[:, None, None].expand(-1, 1, whole.shape[-1])
        return whole.gather(1, place)[:, 0]

    @property
    def entries(self) -> int:
        """How many numbers one row's evaluation takes in."""
        return self.sequences[0].numel()

    def rows(self, index: Tensor) -> TokenBranch:
        """The same at some of its rows."""
        return TokenBranch(branch_rows(self.branch, index), self.sequences[index], self.positions[index])


@dataclass(frozen=True)
class LoneTokenBranch:
    """The same of an F that acts on each token alone: up to T copies of a row are evaluated as one sequence.

    A matrix takes as many products as a token has features; here T of them cost what one does otherwise.

    Attributes:
        whole: the branch at n rows.
        index: (r,) which of them each row is; they may repeat.
    """

    whole: TokenBranch
    index: Tensor

    def __call__(self, h: Tensor) -> Tensor:
        if len(h) != len(self.index):
            raise ValueError(f"This branch is bound to {len(self.index)} tokens; it was called with {len(h)}.")
        sequences, index = self.whole.sequences, self.index
        length, order = sequences.shape[1], index.argsort(stable=True)
        counts = index.bincount(minlength=len(sequences))
        needed = (counts + length - 1) // length  # sequences (n,)
        copy = torch.empty_like(index)  # 0, 1, ... among the copies of a row
        copy[order] = torch.arange(len(index), device=index.device) - (counts.cumsum(0) - counts)[index[order]]
        # the first copy stands where the token does
        where = (needed.cumsum(0) - needed)[index] + copy // length, (self.whole.positions[index] + copy) % length
        of = torch.arange(len(sequences), device=index.device).repeat_interleave(needed)
        result: Tensor = branch_rows(self.whole.branch, of)(sequences[of].to(h.dtype).index_put(where, h))[where]
        return result

    def rows(self, index: Tensor) -> LoneTokenBranch:
        """The same at some of its rows."""
        return replace(self, index=self.index[index])


def _lone(branch: TokenBranch) -> TokenBranch | LoneTokenBranch:
    """The branch, packed if it acts on each token alone.

    What it makes of a token must depend neither on the other tokens nor on the token's place, at two points, in
    float64. The operator's own tests follow, which compare packed results with those of single rows.
    """
    some = torch.linspace(0, len(branch.positions) - 1, min(len(branch.positions), ROWS_TRIED)).long()
    few = branch.rows(some.to(branch.positions.device))
    others, rows = few.sequences.roll(1, 1) / 2 + 1, torch.arange(len(some), device=few.positions.device)
    moved = TokenBranch(few.branch, others, (few.positions + 1) % others.shape[1])
    for h in (few.sequences[rows, few.positions], others[rows, few.positions]):
        try:
            here, there = in_double(few, h), in_double(moved, h)
        except Exception:  # it has no float64: it is measured as it is
            return branch
        if here.dtype != torch.float64 or not near(here, there):
            return branch
    return LoneTokenBranch(branch, torch.arange(len(branch.positions), device=branch.positions.device))


def at_tokens(path: Trace, tokens: Tokens, *, text: bool = False) -> tuple[Trace, Tensor]:
    """A trace of sequences as one of tokens: row i·p + j is the j-th token of input i.

    The Jacobian of a block is then that of its output at t by its input at t, as in Aubry et al. (2025), who take the
    last token; how tokens act on each other is left out.

    Args:
        path: a trace whose states are sequences (n, T, D).
        tokens: positions, negative ones from the end; "last"; "all"; "auto": the last one of text, which has seen all
            others, else one an input, from the first token of the first input to the last token of the last. First
            tokens of language models often act as sinks of attention with states of another size: leave them out by
            naming the others.
        text: whether the inputs are token numbers.

    Returns:
        The trace, with states (n·p, D), and the position (n·p,) of each row.

    Raises:
        ValueError: a state is no sequence, states differ in length, or a position is outside of them.
    """
    lengths = {state.shape[1] if state.dim() == 3 else None for state in path.states}
    lengths |= {r.input.shape[1] if r.input.dim() == 3 else None for r in path.residuals}
    (length,) = lengths if len(lengths) == 1 else (None,)
    if length is None:
        shapes = ", ".join(sorted({str(tuple(state.shape[1:])) for state in path.states}))
        raise ValueError(
            f"Tokens need states (n, T, D) of one length T; got {shapes}. Choose blocks of one length, or measure "
            "whole states with tokens=None."
        )
    n, device = len(path.states[0]), path.states[0].device
    if tokens == "auto" and not text:
        positions = torch.linspace(0, length - 1, n, device=device).round().long()
    else:
        positions = torch.tensor(_positions(tokens, length), device=device).repeat(n)
    index = torch.arange(n, device=device).repeat_interleave(len(positions) // n)
    residuals = [_residual(residual, index, positions) for residual in path.residuals]
    states = [state[index, positions] for state in path.states]
    return Trace(states, residuals, path.logits), positions


def _residual(residual: Residual, index: Tensor, positions: Tensor) -> Residual:
    branch = TokenBranch(branch_rows(residual.branch, index), residual.input[index], positions)
    return replace(
        residual,
        branch=_lone(branch),
        input=residual.input[index, positions],
        output=residual.output[index, positions],
        step=None if residual.step is None else residual.step[index, positions],
    )


def _positions(tokens: Tokens, length: int) -> list[int]:
    if tokens in ("last", "auto"):
        tokens = -1
    if tokens == "all":
        tokens = range(length)
    if isinstance(tokens, str):
        raise ValueError(f"tokens must be positions, 'last', 'all', or 'auto'; got {tokens!r}.")
    given = [tokens] if isinstance(tokens, int) else list(tokens)
    outside = [t for t in given if not -length <= t < length]
    if outside or not given:
        raise ValueError(f"tokens must lie in {-length}..{length - 1}, for {length} tokens; got {outside or given}.")
    return [t % length for t in given]


def are_sequences(model: nn.Module, path: Trace) -> bool:
    """Whether all states are sequences (n, T, D) of one length, and not signals (n, channels, T).

    A block that holds a one-dimensional convolution, which takes channels first, is taken for one of signals.
    """
    modules = dict(unwrapped(model).named_modules())
    for residual in path.residuals:
        block = modules.get(re.split("[#@]", residual.name)[0], model)
        if any(isinstance(module, nn.modules.conv._ConvNd) for module in block.modules()):
            return False
    shapes = [state.shape for state in path.states] + [r.input.shape for r in path.residuals]
    return all(len(shape) == 3 for shape in shapes) and len({shape[1] for shape in shapes}) == 1
