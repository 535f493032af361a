"""From a trained network to its residual branches, each at its true input.

The Residual Jacobian of a block ``h ↦ σ(P h + F(h))`` is ``∂/∂h [σ'(P h + F(h)) ⊙ F(h)]`` (Li & Papyan 2023,
section 2): the skip path is left out, the outer activation counts through its derivative. What this module calls a
*branch* is therefore the function ``h ↦ σ'(P h + F(h)) ⊙ F(h)``, whose Jacobian is the Residual Jacobian.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import Literal

import torch
from torch import Tensor, nn

from .models import ResidualBlock

Branch = Callable[[Tensor], Tensor]

_STOCHASTIC_OR_BATCHED = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.RReLU)
_RANDOM_DEPTH = ("StochasticDepth", "DropPath")  # torchvision's and timm's, known by name: neither is imported here


@dataclass(frozen=True)
class Residual:
    """One block's residual branch at the true inputs of n images.

    Attributes:
        index: ℓ = 1..L, the block's place in the forward pass.
        name: the block's name in ``model.named_modules()``.
        branch: ``h (n, *in) → σ'(P h + F(h)) ⊙ F(h) (n, *out)``, row by row; its Jacobian is the Residual Jacobian.
        input: h_{ℓ−1} (n, *in).
        output: h_ℓ (n, *out).
        follows: whether ``input`` is the output of the block before (True for the first block).
    """

    index: int
    name: str
    branch: Branch
    input: Tensor
    output: Tensor
    follows: bool

    def rows(self, index: Tensor) -> Residual:
        """The same at some of the n rows."""
        return Residual(self.index, self.name, self.branch, self.input[index], self.output[index], self.follows)

    @property
    def step(self) -> Tensor | None:
        """``h_ℓ − h_{ℓ−1}`` (n, *out), or None where the block changes the shape."""
        return self.output - self.input if self.output.shape == self.input.shape else None


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
                return states @ axes * dims**-0.5
            case "pca":
                flat = states.flatten(0, 1) - states.mean((0, 1))
                axes = torch.linalg.svd(flat, full_matrices=False).Vh[:dims]  # (dims, D)
                signs = torch.sign(axes.gather(1, axes.abs().argmax(1, keepdim=True)))
                return (flat @ (axes * signs).T).reshape(*states.shape[:2], dims)
        raise ValueError(f"method must be 'random' or 'pca'; got {method!r}.")


@singledispatch
def residual_branch(block: nn.Module) -> Branch:
    """Return the branch ``h ↦ σ'(P h + F(h)) ⊙ F(h)`` of one block; blocks of your own join by registering.

    Example::

        @residual_branch.register
        def _(block: MyBlock):
            return gated(block.f, shortcut=lambda h: h)   # h ↦ ReLU(h + f(h)); without outer ReLU: block.f

    The function must treat the rows of its batch independently and must not change its argument in place.
    """
    if _register_torchvision(block):
        return residual_branch(block)
    raise TypeError(
        f"{type(block).__name__} is not registered as a residual block. Register a function of the block with "
        "@resalign_utils.residual_branch.register that returns its branch; see the book's page 'Your own model'."
    )


def gated(branch: Branch, shortcut: Branch) -> Branch:
    """Branch of a block with an outer ReLU: ``h ↦ 1[shortcut(h) + branch(h) > 0] ⊙ branch(h)``."""
    return _gated(branch, lambda h, f: shortcut(h) + f, nn.ReLU())


def _gated(branch: Branch, merge: Callable[[Tensor, Tensor], Tensor], outer: nn.Module) -> Branch:
    def active_branch(h: Tensor) -> Tensor:
        f = branch(h)
        return _derivative(outer, merge(h, f)) * f

    return active_branch


def _derivative(outer: nn.Module, z: Tensor) -> Tensor:
    """σ'(z) (n, *out) of a ReLU, or of a PReLU with one slope per channel or for all."""
    active = (z > 0).to(z.dtype)
    if not isinstance(outer, nn.PReLU):
        return active
    slopes = outer.weight.detach()
    if len(slopes) > 1:
        slopes = slopes.reshape(1, -1, *[1] * (z.dim() - 2))
    return active + (1 - active) * slopes


@residual_branch.register
def _(block: ResidualBlock) -> Branch:
    return block.branch if isinstance(block.outer, nn.Identity) else _gated(block.branch, block.merge, block.outer)


def is_residual_block(module: nn.Module) -> bool:
    """Whether the module's type, or one of its base classes, is registered with :func:`residual_branch`."""
    _register_torchvision(module)
    return residual_branch.dispatch(type(module)) is not residual_branch.dispatch(object)


@torch.no_grad()
def trace(model: nn.Module, x: Tensor) -> Trace:
    """Send n images through the network and keep every residual block's input, output and branch.

    Blocks are found by their type (see :func:`residual_branch`), in the order in which the forward pass calls
    them; a registered block inside another one belongs to the outer one.

    Args:
        model: a network in eval mode, on x's device.
        x: inputs (n, ...).

    Returns:
        A :class:`Trace` of detached tensors.

    Raises:
        TypeError: a block is not called with, or does not return, one tensor.
        ValueError: empty batch, NaN or infinite inputs, weights or states, mixed devices or dtypes, a model in train
            mode that has batch norm or dropout, no residual block found, a block that is called twice.
    """
    _check_inputs(model, x)
    calls: list[_Call] = []
    handles = _watch(model, calls)
    try:
        logits = model(x)
    finally:
        for handle in handles:
            handle.remove()
    if not calls:
        kinds = sorted({type(m).__name__ for m in model.modules() if list(m.children())})
        raise ValueError(
            f"No residual block found in {type(model).__name__}; its composite modules are {', '.join(kinds)}. "
            "Register the one that holds a skip with @resalign_utils.residual_branch.register."
        )
    residuals = [_residual(index, call, calls) for index, call in enumerate(calls, start=1)]
    _check_states(residuals)
    return Trace([residuals[0].input, *(r.output for r in residuals)], residuals, logits)


def check_eval_mode(model: nn.Module) -> None:
    """Refuse a model with a layer that depends on the batch or on chance.

    Raises:
        ValueError: a batch norm or dropout layer is in train mode; the text names it.
    """
    for name, module in model.named_modules():
        random_depth = type(module).__name__ in _RANDOM_DEPTH or (isinstance(module, ResidualBlock) and module.drop > 0)
        if module.training and (isinstance(module, _STOCHASTIC_OR_BATCHED) or random_depth):
            raise ValueError(
                f"Layer '{name}' ({type(module).__name__}) is in train mode, where its output depends on the batch or "
                "on chance. Call model.eval() before measuring."
            )


@dataclass
class _Call:
    name: str
    block: nn.Module
    input: Tensor
    output: Tensor | None = None


def _watch(model: nn.Module, calls: list[_Call]) -> list[torch.utils.hooks.RemovableHandle]:
    open_calls: list[_Call] = []

    def enter(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(block: nn.Module, args: tuple[Tensor, ...]) -> None:
            if not args or not isinstance(args[0], Tensor):
                raise TypeError(
                    f"Block '{name}' must be called with its state, a tensor, as first positional argument."
                )
            # cloned: a block may work in place on what it is given
            open_calls.append(_Call(name, block, args[0].detach().clone()))

        return hook

    def leave(block: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        call = open_calls.pop()
        if not isinstance(output, Tensor):
            raise TypeError(
                f"Block '{call.name}' must return its state, a tensor; it returned {type(output).__name__}."
            )
        if not open_calls:
            call.output = output.detach().clone()
            calls.append(call)

    handles = []
    for name, module in model.named_modules():
        if is_residual_block(module):
            handles.append(module.register_forward_pre_hook(enter(name)))
            handles.append(module.register_forward_hook(leave))
    return handles


def _residual(index: int, call: _Call, calls: list[_Call]) -> Residual:
    if sum(other.block is call.block for other in calls) > 1:
        raise ValueError(
            f"Block '{call.name}' is called more than once in a forward pass. Give each place in depth its own module."
        )
    before = calls[index - 2] if index > 1 else None
    # by value: something between two blocks may work in place on the very tensor that the first returned
    follows = before is None or _equal(before.output, call.input)
    assert call.output is not None
    return Residual(index, call.name, residual_branch(call.block), call.input, call.output, follows)


def _equal(a: Tensor | None, b: Tensor) -> bool:
    return a is not None and a.shape == b.shape and torch.equal(a, b)


def _check_inputs(model: nn.Module, x: Tensor) -> None:
    check_eval_mode(model)
    if x.dim() < 2 or len(x) == 0:
        raise ValueError(f"Expected a batch of at least one input (n, ...); got shape {tuple(x.shape)}.")
    if not torch.isfinite(x).all():
        bad = int((~torch.isfinite(x.flatten(1))).any(1).sum())
        raise ValueError(f"{bad} of {len(x)} inputs hold NaN or infinite values. Remove them before measuring.")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.device != x.device:
            raise ValueError(
                f"'{name}' is on {tensor.device}, the inputs are on {x.device}. Move one: model.to(x.device)."
            )
        # integer inputs are token numbers, which the model embeds in its own dtype
        if tensor.is_floating_point() and x.is_floating_point() and tensor.dtype != x.dtype:
            raise ValueError(
                f"'{name}' has dtype {tensor.dtype}, the inputs {x.dtype}. Convert one: x.to({tensor.dtype})."
            )
        # an infinite buffer may be meant, as in the mask of an attention layer
        if not torch.isfinite(tensor).all() and (isinstance(tensor, nn.Parameter) or tensor.isnan().any()):
            raise ValueError(f"'{name}' holds NaN or infinite weights. The training diverged or the file is damaged.")


def _check_states(residuals: list[Residual]) -> None:
    for residual in residuals:
        if not torch.isfinite(residual.output).all():
            raise ValueError(
                f"The output of block {residual.index} ('{residual.name}') is NaN or infinite although inputs and "
                "weights are finite: the network overflows. Measure in float64, or look at the weights' scale."
            )


def _register_torchvision(module: nn.Module) -> bool:
    """Register torchvision's residual blocks when one first turns up; True if that made ``module`` known.

    Not at import: torchvision takes a second to load, and whoever has such a block has loaded it.
    """
    if not any(base.__module__ == "torchvision.models.resnet" for base in type(module).__mro__):
        return False
    from torchvision.models.resnet import BasicBlock, Bottleneck

    for kind, branch in ((BasicBlock, _basic_block), (Bottleneck, _bottleneck)):
        if kind not in residual_branch.registry:  # one's own function comes first
            residual_branch.register(kind, branch)
    return isinstance(module, BasicBlock | Bottleneck)


def _shortcut(block) -> Branch:  # of either torchvision block
    return (lambda h: h) if block.downsample is None else block.downsample


def _basic_block(block) -> Branch:  # torchvision's BasicBlock
    # torch.relu, not block.relu: that one works in place
    return gated(lambda h: block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(h))))), _shortcut(block))


def _bottleneck(block) -> Branch:  # torchvision's Bottleneck
    def branch(h: Tensor) -> Tensor:
        h = torch.relu(block.bn1(block.conv1(h)))
        h = torch.relu(block.bn2(block.conv2(h)))
        return block.bn3(block.conv3(h))

    return gated(branch, _shortcut(block))
