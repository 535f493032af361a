"""What n images meet on their way through a network: states, and residual branches at their true inputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from ..arithmetic import exact_arithmetic
from ..operators import Branch, branch_rows
from ._checks import check_inputs, unwrapped
from ._inputs import Inputs, ModelInputs, inputs_of
from ._replay import replayed
from ._rows import check_rows
from ._runner import Blocks
from ._watch import as_it_was, eagerly
from .finder import BlockTable


@dataclass(frozen=True)
class Residual:
    """One block's residual branch at the true inputs of n images.

    The branch may hold constants of its n rows (the derivative of the outer activation, further arguments of the
    block): at some of the inputs, or at each several times, it is the branch of :meth:`rows`.

    Attributes:
        index: ℓ = 1..L, the block's place in the forward pass.
        name: the block's name in ``model.named_modules()``.
        branch: ``h (n, *in) → J_σ(z)·F(h) (n, *out)``, row by row, with ``z = P h_{ℓ−1} + F(h_{ℓ−1})`` held; its
            Jacobian at ``input`` is the Residual Jacobian.
        input: h_{ℓ−1} (n, *in).
        output: h_ℓ (n, *out).
        follows: whether ``input`` is the output of the block before (True for the first block).
        step: ``h_ℓ − h_{ℓ−1}`` (n, *out), None where the block changes the shape; subtracted in float64 if the block
            can be evaluated in it.
    """

    index: int
    name: str
    branch: Branch
    input: Tensor
    output: Tensor
    follows: bool
    step: Tensor | None

    def rows(self, index: Tensor) -> Residual:
        """The same residual at the inputs ``index`` (r,), repeats allowed: r inputs in place of n."""
        index = index.to(self.input.device)
        branch = branch_rows(self.branch, index)
        step = None if self.step is None else self.step[index]
        return replace(self, branch=branch, input=self.input[index], output=self.output[index], step=step)


@dataclass(frozen=True)
class Trace:
    """What n images met on their way through a network.

    Attributes:
        states: h_0..h_L, L+1 tensors (n, *); h_0 is the first block's input, h_ℓ the output of block ℓ.
        residuals: the L residual branches at their true inputs.
        logits: the network's output (n, C).
    """

    states: list[Tensor]
    residuals: list[Residual]
    logits: Tensor

    def project(self, dims: int = 2, *, method: Literal["random", "pca"] = "random", seed: int = 0) -> Tensor:
        """Project all states to a plane or a space, the same for all inputs and depths.

        Args:
            dims: dimension of the picture.
            method: ``"random"``, a Gaussian projection, which keeps squared distances on average and does not look at
                the data (what Li & Papyan draw); ``"pca"``, the directions of largest variance of all states together.
            seed: of the random projection, drawn on the CPU.

        Returns:
            (n, L+1, dims).

        Raises:
            ValueError: states of different shapes, dims out of range, or an unknown method.
        """
        if len({state.shape for state in self.states}) > 1:
            shapes = ", ".join(str(tuple(state.shape[1:])) for state in self.states)
            raise ValueError(f"One projection needs states of one shape; got {shapes}. Trace a part of constant shape.")
        states = torch.stack([state.flatten(1) for state in self.states], 1)  # (n, L+1, D)
        most = min(states.shape[-1], states.shape[0] * states.shape[1] if method == "pca" else states.shape[-1])
        if not 1 <= dims <= most:
            raise ValueError(f"dims must lie in 1..{most}; got {dims}.")
        match method:
            case "random":
                generator = torch.Generator().manual_seed(seed)
                axes = torch.randn(states.shape[-1], dims, generator=generator, dtype=states.dtype).to(states.device)
                return states @ axes * math.pow(dims, -0.5)
            case "pca":
                flat = states.flatten(0, 1) - states.mean((0, 1))
                axes = torch.linalg.svd(flat, full_matrices=False).Vh[:dims]  # (dims, D)
                signs = torch.sign(axes.gather(1, axes.abs().argmax(1, keepdim=True)))
                projected: Tensor = flat @ (axes * signs).T
                return projected.reshape(*states.shape[:2], dims)
        raise ValueError(f"method must be 'random' or 'pca'; got {method!r}.")


def trace(
    model: nn.Module,
    x: ModelInputs,
    *,
    blocks: BlockTable | Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    whole: bool = False,
) -> Trace:
    """Send n inputs through the network and keep every residual block's input, output and branch.

    Blocks are the sums that :func:`find_blocks` finds, and the modules whose type is registered with
    :func:`residual_branch`: what is registered for a type overrides what is found inside of it. The state of a
    registered block is its first argument and the tensor, or the first of a tuple, that it returns. What else enters a
    block, masks, further arguments, other streams of data, is held. Each block is replayed: shortcut and branch must
    give its output. The model is evaluated again where some inputs are changed: those that are not must keep all
    states. All is done in full precision, and the model is left as it was.

    Args:
        model: a network in eval mode, on x's device; what DataParallel, DistributedDataParallel or ``torch.compile``
            wrap is unwrapped.
        x: inputs (n, ...), a tuple of positional arguments, or a dictionary of keyword arguments.
        blocks: the names of the blocks that are wanted, or a table of them; all if not given. A sum that
            :func:`find_blocks` lists among ``others`` counts as a block if it is named here.
        exclude: names of blocks to leave out.
        whole: whether the sums of one call of a module count as one block, as attention and MLP of a transformer's
            layer; only sums with an identity skip and nothing outside of it are put together.

    Returns:
        A :class:`Trace` of detached tensors.

    Raises:
        TypeError: a block is not called with, or does not return, its state as a tensor; x holds no tensor; a
            registered function returns no branch.
        ValueError: empty batch, NaN or infinite inputs, weights or states, mixed devices or dtypes, half precision, a
            quantised, sharded or empty model, a model in train mode that has batch norm or dropout, batch norm without
            running statistics, dropout that is always on, no residual block found, a name that no block has, a state
            without a row for each input, a block whose parts do not give its output, a result that depends on the other
            inputs of the batch or on chance.

    Example:
        >>> import resalign_utils as ra
        >>> data = ra.load_data("digits")
        >>> model = ra.build_model(ra.ResNetConfig(depth=2, width=16), data).eval()
        >>> path = ra.trace(model, data.test_x[:5])
        >>> [tuple(state.shape) for state in path.states]
        [(5, 16), (5, 16), (5, 16)]
        >>> path.residuals[0].name
        'blocks.0'
    """
    model, inputs = unwrapped(model), inputs_of(x)
    check_inputs(model, inputs)
    with measuring(model, inputs):
        found = _found(model, inputs, blocks, exclude, whole=whole)
        calls, logits = found.calls, found.logits
        check_rows(model, inputs, found.run, calls, logits)
        parts = [replayed(call) for call in calls]
    residuals = []
    for index, (call, (branch, step), before) in enumerate(zip(calls, parts, [None, *calls], strict=False), start=1):
        # by value: something between two blocks may work in place on the very tensor that the first returned
        follows = before is None or _equal(before.output, call.input)
        residuals.append(Residual(index, call.name, branch, call.input, call.output, follows, step))
    return Trace([calls[0].input, *(call.output for call in calls)], residuals, logits)


def trace_states(model: nn.Module, x: ModelInputs) -> tuple[list[Tensor], Tensor]:
    """The states h_0..h_L (n, *) and the logits (n, C) of a :func:`trace` alone: nothing is replayed."""
    model, inputs = unwrapped(model), inputs_of(x)
    check_inputs(model, inputs)
    with measuring(model, inputs):
        found = _found(model, inputs)
    return [found.calls[0].input, *(call.output for call in found.calls)], found.logits


def find_blocks(
    model: nn.Module,
    x: ModelInputs,
    *,
    blocks: BlockTable | Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    whole: bool = False,
) -> BlockTable:
    """List where a network adds: its residual blocks, and what is none with the reason.

    A residual sum is ``z = P(h) + F(h)``: all that meets in it has come through the state h, one term depends on h in
    the simplest way (unchanged, then scaled or pooled, then by a linear map), and the others through a matrix and not
    linearly. An activation or a norm after the sum that makes the next state of it belongs to the block. Nothing is
    known of classes; the operations of one forward pass are looked at. Concatenations, gates, and skips over several
    blocks are no blocks.

    Args:
        model: a network in eval mode, on x's device.
        x: inputs (n, ...), a tuple of positional arguments, or a dictionary of keyword arguments; two are enough.
        blocks: names of the blocks that are wanted, as in :func:`trace`.
        exclude: names of blocks to leave out.
        whole: as in :func:`trace`.

    Returns:
        A :class:`BlockTable`: length and iteration are of the blocks alone, ``others`` lists what is none. It is empty,
        with a note, where the network has no additive stream, or adds by kernels that cannot be seen.

    Raises:
        ValueError: what :func:`trace` refuses of model and inputs, or a model whose operations cannot be followed.

    Example:
        >>> import torch, resalign_utils as ra
        >>> class Mine(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layers = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(3))
        ...
        ...     def forward(self, x):
        ...         for layer in self.layers:
        ...             x = x + torch.tanh(layer(x))
        ...         return x
        >>> table = ra.find_blocks(Mine().eval(), torch.randn(2, 4))
        >>> len(table), table[0].shortcut
        (3, 'identity')
    """
    model, inputs = unwrapped(model), inputs_of(x)
    check_inputs(model, inputs)
    with measuring(model, inputs):
        return Blocks(model, inputs, blocks, exclude, whole=whole, look=True).table()


@contextmanager
def measuring(model: nn.Module, inputs: Inputs) -> Iterator[None]:
    """Full precision, no gradients, uncompiled, and the model as it was afterwards."""
    eager, device = eagerly(model) or nullcontext, inputs.data.device
    with torch.inference_mode(False), torch.no_grad(), exact_arithmetic(device), eager(), as_it_was(model):
        yield


def _found(
    model: nn.Module,
    inputs: Inputs,
    wanted: BlockTable | Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    *,
    whole: bool = False,
) -> Blocks:
    found = Blocks(model, inputs, wanted, exclude, whole=whole)
    if not found.calls:
        raise ValueError(found.why_none())
    for index, call in enumerate(found.calls, start=1):
        if not torch.isfinite(call.output).all():
            raise ValueError(
                f"The output of block {index} ('{call.name}') is NaN or infinite although inputs and weights are "
                "finite: the network overflows. Measure in float64, or look at the weights' scale."
            )
    return found


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)
