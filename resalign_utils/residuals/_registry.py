"""Which parts a block is made of, by its type."""

from __future__ import annotations

import copy
from functools import singledispatch
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ..models import ResidualBlock
from ..operators import Branch

if TYPE_CHECKING:
    from torchvision.models.resnet import BasicBlock, Bottleneck


class Parts(NamedTuple):
    """The parts of a block ``h ↦ outer(shortcut(h) + branch(h))``; a tuple that can be called.

    Attributes:
        branch: F, ``(n, *in) → (n, *out)``.
        shortcut: what F is added to, ``(n, *in) → (n, *out)``; None for a block without skip.
        outer: σ, what is applied to the sum; None for nothing.
    """

    branch: Branch
    shortcut: Branch | None
    outer: Branch | None

    def __call__(self, h: Tensor) -> Tensor:
        """``J_σ(z)·F(h)`` with ``z = shortcut(h) + F(h)`` of this very h (n, *in); a trace holds z at its inputs."""
        f = self.branch(h)
        if self.outer is None:
            return f
        y, pullback = torch.func.vjp(self.outer, f if self.shortcut is None else self.shortcut(h) + f)[:2]
        # u → J_σᵀ u is linear: its own transpose is J_σ
        pushed: Tensor = torch.func.vjp(lambda u: pullback(u)[0], torch.zeros_like(y))[1](f)[0]
        return pushed


@singledispatch
def residual_branch(block: nn.Module) -> Branch | tuple[Branch, Branch | None, Branch | None]:
    """Return the parts of one block, ``h ↦ outer(shortcut(h) + branch(h))``; your own blocks join by registering.

    A registered function returns the branch alone, which means an identity shortcut and nothing outside of the sum; or
    ``(branch, shortcut, outer)``. ``shortcut=None`` is for a block without skip, ``outer=None`` for none; ``outer`` is
    a function or a module and counts by its own derivative. Branch and shortcut are called with h alone, or, if they
    take that, with all that the model calls the block with. :func:`trace` replays every block and refuses it if its
    parts do not give its output.

    Raises:
        TypeError: the block's type is not registered.

    Example:
        >>> import torch, resalign_utils as ra
        >>> class MyBlock(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.f, self.norm = torch.nn.Linear(4, 4), torch.nn.LayerNorm(4)
        ...
        ...     def forward(self, h):
        ...         return self.norm(h + self.f(h))
        >>> @ra.residual_branch.register
        ... def _(block: MyBlock):
        ...     return block.f, torch.nn.Identity(), block.norm
        >>> model = torch.nn.Sequential(MyBlock(), MyBlock(), torch.nn.Linear(4, 2)).eval()
        >>> [residual.name for residual in ra.trace(model, torch.randn(3, 4)).residuals]
        ['0', '1']

        Of a block that gives ``h + f(h)``, ``return block.f`` is enough.
    """
    if _register_torchvision(block):
        return residual_branch(block)
    raise TypeError(
        f"{type(block).__name__} is not registered as a residual block. Register a function of the block with "
        "@resalign_utils.residual_branch.register that returns its branch; see the book's page 'Your own model'."
    )


def gated(branch: Branch, shortcut: Branch) -> Parts:
    """The parts of a block with an outer ReLU, ``h ↦ ReLU(shortcut(h) + branch(h))``."""
    return Parts(branch, shortcut, nn.ReLU())


def is_residual_block(module: nn.Module) -> bool:
    """Whether the module's type, or one of its base classes, is registered with :func:`residual_branch`."""
    _register_torchvision(module)
    return residual_branch.dispatch(type(module)) is not residual_branch.dispatch(object)


def parts_of(block: nn.Module) -> Parts:
    """The parts that are registered for a block.

    Raises:
        TypeError: the registered function returned something else.
    """
    registered = residual_branch(block)
    parts = registered if isinstance(registered, tuple) else (registered, _identity, None)
    if len(parts) != 3 or not callable(parts[0]) or not all(part is None or callable(part) for part in parts[1:]):
        kinds = ", ".join(type(part).__name__ for part in parts)
        raise TypeError(
            f"The function registered for {type(block).__name__} must return its branch, or (branch, shortcut, outer), "
            f"functions of which the last two may be None; it returned ({kinds})."
        )
    branch, shortcut, outer = parts
    return Parts(branch, shortcut, None if isinstance(outer, nn.Identity) else outer)


def _identity(h: Tensor) -> Tensor:
    return h


@residual_branch.register
def _(block: ResidualBlock) -> Parts:
    return Parts(block.branch, _scaled_skip(block), None if isinstance(block.outer, nn.Identity) else block.outer)


def _scaled_skip(block: ResidualBlock) -> Branch | None:
    """``h ↦ λPh``, None for λ = 0."""
    if block.skip == 0.0:
        return None
    project = _identity if block.project is None else block.project
    return project if block.skip == 1.0 else lambda h: block.skip * project(h)


def _register_torchvision(module: nn.Module) -> bool:
    """Register torchvision's residual blocks when one first turns up; True if that made ``module`` known.

    Not at import: torchvision takes a second to load, and whoever has such a block has loaded it.
    """
    if not any(base.__module__ == "torchvision.models.resnet" for base in type(module).__mro__):
        return False
    from torchvision.models.resnet import BasicBlock, Bottleneck

    for kind, parts in ((BasicBlock, _basic_block), (Bottleneck, _bottleneck)):
        if kind not in residual_branch.registry:  # one's own function comes first
            residual_branch.register(kind, parts)
    return isinstance(module, BasicBlock | Bottleneck)


def _basic_block(block: BasicBlock) -> Parts:
    relu = _out_of_place(block.relu)
    return Parts(lambda h: block.bn2(block.conv2(relu(block.bn1(block.conv1(h))))), _downsample(block), relu)


def _bottleneck(block: Bottleneck) -> Parts:
    relu = _out_of_place(block.relu)

    def branch(h: Tensor) -> Tensor:
        h = relu(block.bn1(block.conv1(h)))
        h = relu(block.bn2(block.conv2(h)))
        h = block.bn3(block.conv3(h))
        return h

    return Parts(branch, _downsample(block), relu)


def _downsample(block: BasicBlock | Bottleneck) -> Branch:
    return _identity if block.downsample is None else block.downsample


def _out_of_place(activation: nn.Module) -> nn.Module:
    """The same activation with the same weights, that leaves its argument as it is."""
    if not getattr(activation, "inplace", False):
        return activation
    twin = copy.copy(activation)
    twin.inplace = False  # type: ignore[assignment]
    return twin
