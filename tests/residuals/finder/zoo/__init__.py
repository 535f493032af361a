"""Architectures in which residual sums are looked for, each with the number that its source has.

Sizes are small and weights random. The tests try one of each kind; ``python -m tests.residuals.finder.zoo`` tries all
of them, and writes the book's table.
"""

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import resalign_utils as ra

from .decoders import DECODERS
from .encoders import ENCODERS
from .pictures import IMAGES, TIMM
from .signals import SIGNALS
from .vision import VISION

# one of each kind, which the tests try
QUICK = {
    *("resnet18", "densenet121", "mobilenet_v2", "convnext, 8 blocks", "vit, 3 layers", "swin_v2, 4 blocks"),
    *("regnet_y_400mf", "shufflenet_v2_x0_5", "r2plus1d_18", "lraspp_mobilenet_v3_large", "quantizable resnet18"),
    *("seresnet18", "resnest14d", "repvgg_a0", "ese_vovnet19b_dw", "cspresnet50", "dla34", "ghostnet_050"),
    *("pvt_v2_b0", "edgenext_xx_small", "inception_next_atto", "fastvit_t8"),
    *("BERT with a mask", "ALBERT, shared layers", "DeBERTa", "ModernBERT", "XLNet", "FNet", "Longformer"),
    *("T5, encoder and decoder", "GPT-2", "GPT-NeoX, parallel", "Llama", "Gemma 3", "BLOOM", "Cohere, parallel"),
    *("Mamba", "Mamba-2", "Mixtral, experts", "DeepSeek-V3, experts"),
    *("SigLIP, images", "DETR with a ResNet", "CLIP, two towers", "Wav2Vec2", "Perceiver", "PatchTST"),
}


@dataclass(frozen=True)
class Architecture:
    """One architecture.

    Attributes:
        name: for a reader.
        library: where it comes from.
        make: the model.
        inputs: two inputs.
        sums: how many residual blocks it has.
    """

    name: str
    library: str
    make: Callable[[], torch.nn.Module]
    inputs: Callable[[], Any]
    sums: int


def _timm(name: str, size: int) -> Callable[[], torch.nn.Module]:
    def make() -> torch.nn.Module:
        import timm

        try:
            return timm.create_model(name, img_size=size)
        except TypeError:  # it takes images of any size
            return timm.create_model(name)

    return make


def _images(size: int) -> Callable[[], torch.Tensor]:
    return lambda: torch.randn(2, 3, size, size)


TRANSFORMERS = {**ENCODERS, **DECODERS, **VISION, **SIGNALS}
ZOO = [
    *(Architecture(name, "torchvision", *entry) for name, entry in IMAGES.items()),
    *(Architecture(name, "timm", _timm(name, size), _images(size), sums) for name, (size, sums) in TIMM.items()),
    *(Architecture(name, "transformers", *entry) for name, entry in TRANSFORMERS.items()),
]


def looked_at(architecture: Architecture) -> tuple[ra.BlockTable, torch.nn.Module, Any]:
    """The table of an architecture's blocks, with the model and its inputs."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, on their own models
        torch.manual_seed(0)
        model, x = architecture.make().eval(), architecture.inputs()
        return ra.find_blocks(model, x), model, x


def row(architecture: Architecture, table: ra.BlockTable) -> str:
    """The row of the book's table, without the time."""
    skips = ", ".join(sorted({block.shortcut for block in table})) or "–"
    outer = ", ".join(sorted({block.outer.lower() or "none" for block in table})) or "–"
    kinds = Counter(other.kind for other in table.others)
    beside = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in sorted(kinds.items())) or "–"
    return f"| {architecture.name} | {len(table)} | {skips} | {outer} | {beside} |"
