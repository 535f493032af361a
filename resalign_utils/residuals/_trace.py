"""What n images meet on their way through a network: states, and residual branches at their true inputs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from ..arithmetic import exact_arithmetic
from ..operators import Branch, branch_rows
from ._checks import check_inputs, unwrapped
from ._replay import replayed
from ._rows import check_rows
from ._watch import Call, as_it_was, eagerly, watched


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


def trace(model: nn.Module, x: Tensor) -> Trace:
    """Send n images through the network and keep every residual block's input, output and branch.

    Blocks are found by their type (see :func:`residual_branch`), in the order in which the forward pass calls them; a
    registered block inside another one belongs to the outer one. The state is a block's first argument and the tensor,
    or the first of a tuple, that it returns; what else it is called with is held. Each block is replayed: its
    registered parts must give its output. The model is evaluated again where some inputs are changed: those that are
    not must keep all states. All is done in full precision, and the model is left as it was.

    Args:
        model: a network in eval mode, on x's device; what DataParallel, DistributedDataParallel or ``torch.compile``
            wrap is unwrapped.
        x: inputs (n, ...).

    Returns:
        A :class:`Trace` of detached tensors.

    Raises:
        TypeError: a block is not called with, or does not return, its state as a tensor; x is no tensor; a registered
            function returns no branch.
        ValueError: empty batch, NaN or infinite inputs, weights or states, mixed devices or dtypes, half precision, a
            quantised, sharded or empty model, a model in train mode that has batch norm or dropout, batch norm without
            running statistics, dropout that is always on, no residual block found, a block that is called twice, a
            state without a row for each input, a block whose registered parts do not give its output, a result that
            depends on the other inputs of the batch or on chance.

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
    model = unwrapped(model)
    check_inputs(model, x)
    with _measuring(model, x):
        calls, logits = _calls(model, x)
        check_rows(model, x, calls, logits)
        parts = [replayed(call) for call in calls]
    residuals = []
    for index, (call, (branch, step), before) in enumerate(zip(calls, parts, [None, *calls], strict=False), start=1):
        # by value: something between two blocks may work in place on the very tensor that the first returned
        follows = before is None or _equal(before.output, call.input)
        residuals.append(Residual(index, call.name, branch, call.input, call.output, follows, step))
    return Trace([calls[0].input, *(call.output for call in calls)], residuals, logits)


def trace_states(model: nn.Module, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """The states h_0..h_L (n, *) and the logits (n, C) of a :func:`trace` alone: one forward pass, nothing replayed."""
    model = unwrapped(model)
    check_inputs(model, x)
    with _measuring(model, x):
        calls, logits = _calls(model, x)
    return [calls[0].input, *(call.output for call in calls)], logits


@contextmanager
def _measuring(model: nn.Module, x: Tensor) -> Iterator[None]:
    eager = eagerly(model) or nullcontext
    with torch.inference_mode(False), torch.no_grad(), exact_arithmetic(x.device), eager(), as_it_was(model):
        yield


def _calls(model: nn.Module, x: Tensor) -> tuple[list[Call], Tensor]:
    calls, logits = watched(model, x)
    if not calls:
        raise ValueError(f"No residual block found in {type(model).__name__}{_why_none(model)}")
    for index, call in enumerate(calls, start=1):
        if any(other.block is call.block for other in calls[: index - 1]):
            raise ValueError(
                f"Block '{call.name}' is called more than once in a forward pass. Give each place in depth its own "
                "module."
            )
        if not torch.isfinite(call.output).all():
            raise ValueError(
                f"The output of block {index} ('{call.name}') is NaN or infinite although inputs and weights are "
                "finite: the network overflows. Measure in float64, or look at the weights' scale."
            )
    return calls, logits


def _why_none(model: nn.Module) -> str:
    """The rest of the sentence that no residual block is found."""
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        return ": torch.jit hides the types of a model's modules. Give the eager model that it was made from."
    if any(isinstance(module, torch.fx.GraphModule) for module in model.modules()):
        return (
            ": torch.fx, by which linearize and fold work, makes one flat graph of a model, without its blocks. Give "
            "the model that it was made from."
        )
    kinds = sorted({type(m).__name__ for m in model.modules() if list(m.children())})
    return (
        f"; its composite modules are {', '.join(kinds)}. Register the one that holds a skip with "
        "@resalign_utils.residual_branch.register."
    )


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)
