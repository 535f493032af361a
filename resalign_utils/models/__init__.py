"""The networks of the book: residual ones, and their twins without skips.

A network is ``stem → blocks → head``. Block ``ℓ = 1..L`` maps ``h_{ℓ−1}`` to
``h_ℓ = σ(λ_ℓ P_ℓ h_{ℓ−1} + F_ℓ(h_{ℓ−1}))`` with a two-layer branch ``F_ℓ``, a skip factor ``λ_ℓ``, a skip map ``P_ℓ``
(the identity, or a strided 1×1 convolution where the block halves the resolution) and an outer activation ``σ`` (ReLU
for ``activation="post"``, the identity for ``activation="pre"``). With ``kind="repvgg"`` a block is one
convolution, trained as the sum of three branches (:class:`RepVGGBlock`): a plain network, not a residual one. A
transformer (:class:`TransformerConfig`) has two such sums in a block, after attention and after a small network.
"""

from ._blocks import ResidualBlock, ResNet
from ._build import build_model
from ._config import ResNetConfig
from ._repvgg import RepVGGBlock
from ._transformer import TransformerBlock, TransformerConfig, whole_blocks

__all__ = [
    "RepVGGBlock",
    "ResNet",
    "ResNetConfig",
    "ResidualBlock",
    "TransformerBlock",
    "TransformerConfig",
    "build_model",
    "whole_blocks",
]
