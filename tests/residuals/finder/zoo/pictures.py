"""Networks for images: those of torchvision, small where they can be configured, and names of timm's."""

from collections.abc import Callable
from typing import Any

import torch
import torchvision.models as tv
from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.maxvit import MaxVit
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2
from torchvision.models.vision_transformer import VisionTransformer

Entry = tuple[Callable[[], nn.Module], Callable[[], Any], int]


def images(size: int) -> Callable[[], torch.Tensor]:
    """Two images."""
    return lambda: torch.randn(2, 3, size, size)


def film() -> torch.Tensor:
    """Two films of four images."""
    return torch.randn(2, 3, 4, 32, 32)


_BARE: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": 3}
_CONVNEXT = [CNBlockConfig(24, 48, 3), CNBlockConfig(48, 96, 3), CNBlockConfig(96, None, 2)]
_SWIN: Any = ([4, 4], 24, [2, 2], [2, 4])

IMAGES: dict[str, Entry] = {
    "resnet18": (tv.resnet18, images(32), 8),
    "resnet50": (tv.resnet50, images(32), 16),
    "wide_resnet50_2": (tv.wide_resnet50_2, images(32), 16),
    "resnext50_32x4d": (tv.resnext50_32x4d, images(32), 16),
    "densenet121": (tv.densenet121, images(32), 0),
    "mobilenet_v2": (tv.mobilenet_v2, images(32), 10),
    "mobilenet_v3_small": (tv.mobilenet_v3_small, images(32), 6),
    "mobilenet_v3_large": (tv.mobilenet_v3_large, images(32), 10),
    "efficientnet_b0": (tv.efficientnet_b0, images(32), 9),
    "efficientnet_v2_s": (tv.efficientnet_v2_s, images(32), 35),
    "convnext, 8 blocks": (lambda: ConvNeXt(_CONVNEXT), images(64), 8),
    "vit, 3 layers": (lambda: VisionTransformer(32, 8, 3, 4, 32, 64), images(32), 6),
    "swin, 4 blocks": (lambda: SwinTransformer(*_SWIN, [7, 7]), images(64), 8),
    "swin_v2, 4 blocks": (
        lambda: SwinTransformer(*_SWIN, [8, 8], block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2),
        images(64),
        8,
    ),
    "maxvit, 3 layers": (lambda: MaxVit((64, 64), 16, 4, [16, 32], [1, 2], 8, 0.0), images(64), 15),
    "regnet_y_400mf": (tv.regnet_y_400mf, images(32), 16),
    "regnet_x_400mf": (tv.regnet_x_400mf, images(32), 22),
    "mnasnet0_5": (tv.mnasnet0_5, images(32), 10),
    "shufflenet_v2_x0_5": (tv.shufflenet_v2_x0_5, images(32), 0),
    "inception_v3": (lambda: tv.inception_v3(init_weights=False, aux_logits=False), images(96), 0),
    "googlenet": (lambda: tv.googlenet(init_weights=False, aux_logits=False), images(48), 0),
    "vgg11_bn": (lambda: tv.vgg11_bn(num_classes=3, init_weights=False), images(32), 0),
    "squeezenet1_1": (tv.squeezenet1_1, images(48), 0),
    "deeplabv3_resnet50": (lambda: tv.segmentation.deeplabv3_resnet50(**_BARE), images(64), 16),
    "fcn_resnet50": (lambda: tv.segmentation.fcn_resnet50(**_BARE), images(64), 16),
    "lraspp_mobilenet_v3_large": (lambda: tv.segmentation.lraspp_mobilenet_v3_large(**_BARE), images(64), 10),
    "r3d_18": (tv.video.r3d_18, film, 8),
    "r2plus1d_18": (tv.video.r2plus1d_18, film, 8),
    "quantizable resnet18": (tv.quantization.resnet18, images(32), 8),
}

# name: side of the images, blocks
TIMM: dict[str, tuple[int, int]] = {
    "resnetv2_50": (64, 16),
    "resnet26d": (64, 8),
    "seresnet18": (64, 8),
    "convnext_atto": (64, 12),
    "vit_tiny_patch16_224": (64, 24),
    "mixer_s32_224": (224, 16),
    "efficientnet_lite0": (64, 9),
    "coat_lite_tiny": (64, 16),
    "coatnet_nano_rw_224": (224, 25),
    "poolformer_s12": (64, 24),
    "edgenext_xx_small": (64, 12),
    "regnetz_005": (64, 17),
    "nfnet_l0": (64, 12),
    "hrnet_w18_small": (64, 23),
    "dla34": (64, 12),
    "dpn48b": (64, 12),
    "ese_vovnet19b_dw": (64, 0),
    "cait_xxs24_224": (64, 51),
    "deit_tiny_distilled_patch16_224": (64, 24),
    "beit_base_patch16_224": (64, 24),
    "xcit_nano_12_p16_224": (64, 40),
    "levit_128s": (224, 20),
    "volo_d1_224": (224, 40),
    "davit_tiny": (64, 24),
    "focalnet_tiny_srf": (64, 24),
    "mobilevit_xxs": (64, 21),
    "mobilevitv2_050": (64, 19),
    "ghostnet_050": (64, 16),
    "repvgg_a0": (64, 0),
    "tresnet_m": (64, 21),
    "cspresnet50": (64, 13),
    "darknet53": (64, 23),
    "selecsls42": (64, 0),
    "res2net50_14w_8s": (64, 16),
    "skresnet18": (64, 8),
    "resnest14d": (64, 4),
    "efficientformer_l1": (224, 16),
    "fastvit_t8": (64, 10),
    "hiera_tiny_224": (224, 24),
    "mambaout_femto": (64, 18),
    "eva02_tiny_patch14_224": (56, 24),
    "twins_svt_small": (64, 36),
    "pvt_v2_b0": (64, 16),
    "gmlp_ti16_224": (224, 30),
    "resmlp_12_224": (224, 24),
    "sequencer2d_s": (224, 36),
    "visformer_tiny": (224, 23),
    "crossvit_tiny_240": (240, 36),
    "tnt_s_legacy_patch16_224": (224, 48),
    "nest_tiny_jx": (224, 24),
    "inception_next_atto": (64, 12),
    "convmixer_768_32": (64, 32),
    "convit_tiny": (224, 24),
    "caformer_s18": (64, 36),
    "convformer_s18": (64, 36),
}
