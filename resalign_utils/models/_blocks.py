"""A residual block, and the network made of such blocks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """``h ↦ σ(λPh + F(h))``: ``branch`` is F, ``skip`` is λ, ``outer`` is σ.

    Args:
        branch: ``(n, *in) → (n, *out)``.
        skip: λ; with 0 the block has no skip, and P is not used.
        post: σ: ReLU (True), the identity (False), or a module, ``(n, *out) → (n, *out)``.
        drop: probability of dropping the branch in training (Huang et al. 2016).
        project: P, ``(n, *in) → (n, *out)``; None for the identity, which needs in = out.
    """

    def __init__(
        self,
        branch: nn.Module,
        skip: float,
        post: bool | nn.Module,
        drop: float = 0.0,
        project: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.branch, self.skip, self.drop = branch, skip, drop
        self.project = project
        self.outer = post if isinstance(post, nn.Module) else nn.ReLU() if post else nn.Identity()

    def merge(self, h: Tensor, f: Tensor) -> Tensor:
        """``λPh + f`` (n, *out), what the outer activation is applied to."""
        if self.skip == 0.0:
            return f
        if self.project is not None:
            h = self.project(h)
        return h + f if self.skip == 1.0 else self.skip * h + f

    def forward(self, h: Tensor) -> Tensor:
        """Map h_{ℓ−1} (n, *in) to h_ℓ (n, *out)."""
        f = self.branch(h)
        if self.drop and self.training:
            from torchvision.ops import stochastic_depth

            f = stochastic_depth(f, self.drop, mode="row")
        h = self.outer(self.merge(h, f))
        return h

    def extra_repr(self) -> str:
        """Show the skip factor in ``print(model)``."""
        return f"skip={self.skip:g}"


class ResNet(nn.Module):
    """``stem → blocks → head``; ``stem(x)`` is h_0, the states never include the classifier."""

    def __init__(self, stem: nn.Module, blocks: Sequence[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = stem, nn.ModuleList(blocks), head

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, c, h, w) to logits (n, C)."""
        h = self.stem(x)
        for block in self.blocks:
            h = block(h)
        logits: Tensor = self.head(h)
        return logits
