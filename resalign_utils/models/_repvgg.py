"""A block that is trained with three branches and is one convolution afterwards."""

from __future__ import annotations

from torch import Tensor, nn


class RepVGGBlock(nn.Module):
    """``h ↦ ReLU(three(h) + one(h) + identity(h))``, the block of RepVGG (Ding et al. 2021, section 3.2).

    Three linear branches, each with its batch norm, are trained side by side. In eval mode their sum is one 3×3
    convolution, which ``resalign_utils.fold`` makes of it (section 3.3): a stack of such blocks is a plain network. It
    is no residual block in this book's sense, since ``h`` itself is not passed on; :func:`resalign_utils.trace` does
    not find it.

    Args:
        three: 3×3 convolution and batch norm, ``(n, c, h, w) → (n, c, h, w)``.
        one: 1×1 convolution and batch norm, of the same shapes.
        identity: batch norm alone, or None to leave this branch out.
    """

    def __init__(self, three: nn.Module, one: nn.Module, identity: nn.Module | None) -> None:
        super().__init__()
        self.three, self.one, self.identity = three, one, identity
        self.relu = nn.ReLU()

    def forward(self, h: Tensor) -> Tensor:
        """Map h_{ℓ−1} (n, c, h, w) to h_ℓ (n, c, h, w)."""
        z = self.three(h) + self.one(h)
        h = self.relu(z if self.identity is None else z + self.identity(h))
        return h
