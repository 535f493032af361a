"""What the networks of the library transformers share: their sizes, their inputs, and how one is made."""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import nn

LAYERS: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
SMALL: dict[str, Any] = {**LAYERS, "vocab_size": 50, "max_position_embeddings": 64}
GROUPED: dict[str, Any] = {**SMALL, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}
PATCHES: dict[str, Any] = {**LAYERS, "image_size": 32, "patch_size": 8}

# name: the model, two inputs, the number of its blocks
Table = dict[str, tuple[Callable[[], nn.Module], Callable[[], Any], int]]


def tokens(n: int = 2, length: int = 7) -> torch.Tensor:
    """Token numbers (n, length)."""
    return torch.randint(3, 50, (n, length))


def pictures(size: int = 32) -> Callable[[], torch.Tensor]:
    """Two images."""
    return lambda: torch.randn(2, 3, size, size)


def made(model: str, config: str, **values: Any) -> Callable[[], nn.Module]:
    """A model by the names of its class and of its configuration's."""
    return lambda: getattr(transformers, model)(getattr(transformers, config)(**values))
