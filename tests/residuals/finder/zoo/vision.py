"""Networks of the library transformers for images, of a few layers."""

import transformers

from .settings import LAYERS, PATCHES, Table, made, pictures

VISION: Table = {
    "ViT": (made("ViTForImageClassification", "ViTConfig", **PATCHES), pictures(), 4),
    "DeiT": (made("DeiTModel", "DeiTConfig", **PATCHES), pictures(), 4),
    "BEiT": (made("BeitModel", "BeitConfig", **PATCHES, use_relative_position_bias=True), pictures(), 4),
    "DINOv2": (
        made(
            "Dinov2Model",
            "Dinov2Config",
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=32,
            patch_size=8,
        ),
        pictures(),
        4,
    ),
    "DINOv3": (made("DINOv3ViTModel", "DINOv3ViTConfig", **PATCHES), pictures(), 4),
    "ConvNeXt V2": (
        made("ConvNextV2ForImageClassification", "ConvNextV2Config", hidden_sizes=[8, 16], depths=[2, 2], num_stages=2),
        pictures(),
        4,
    ),
    "Swin": (
        made(
            "SwinForImageClassification",
            "SwinConfig",
            embed_dim=16,
            depths=[2, 2],
            num_heads=[2, 4],
            window_size=4,
            image_size=32,
            patch_size=4,
        ),
        pictures(),
        8,
    ),
    "Swin V2": (
        made(
            "Swinv2ForImageClassification",
            "Swinv2Config",
            embed_dim=16,
            depths=[2, 2],
            num_heads=[2, 4],
            window_size=4,
            image_size=32,
            patch_size=4,
        ),
        pictures(),
        8,
    ),
    "ResNet": (
        made("ResNetForImageClassification", "ResNetConfig", embedding_size=8, hidden_sizes=[16, 32], depths=[2, 2]),
        pictures(),
        4,
    ),
    "RegNet": (
        made(
            "RegNetForImageClassification",
            "RegNetConfig",
            embedding_size=8,
            hidden_sizes=[16, 32],
            depths=[2, 2],
            groups_width=8,
        ),
        pictures(),
        4,
    ),
    "SegFormer": (
        made(
            "SegformerForSemanticSegmentation",
            "SegformerConfig",
            num_encoder_blocks=2,
            depths=[2, 2],
            sr_ratios=[2, 1],
            hidden_sizes=[16, 32],
            patch_sizes=[7, 3],
            strides=[4, 2],
            num_attention_heads=[1, 2],
            mlp_ratios=[2, 2],
            decoder_hidden_size=16,
        ),
        pictures(),
        8,
    ),
    "PVT v2": (
        made(
            "PvtV2Model",
            "PvtV2Config",
            num_encoder_blocks=2,
            depths=[1, 1],
            sr_ratios=[2, 1],
            hidden_sizes=[16, 32],
            patch_sizes=[7, 3],
            strides=[4, 2],
            num_attention_heads=[1, 2],
            mlp_ratios=[2, 2],
        ),
        pictures(),
        4,
    ),
    "PoolFormer": (
        made(
            "PoolFormerModel",
            "PoolFormerConfig",
            hidden_sizes=[8, 16],
            depths=[2, 2],
            num_encoder_blocks=2,
            patch_sizes=[7, 3],
            strides=[4, 2],
            padding=[2, 1],
        ),
        pictures(),
        8,
    ),
    "SigLIP, images": (made("SiglipVisionModel", "SiglipVisionConfig", **PATCHES), pictures(), 5),
    "DETR with a ResNet": (
        lambda: transformers.DetrForObjectDetection(
            transformers.DetrConfig(
                use_timm_backbone=False,
                backbone_config=transformers.ResNetConfig(
                    embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1], out_features=["stage2"]
                ),
                d_model=32,
                encoder_layers=1,
                decoder_layers=1,
                encoder_attention_heads=4,
                decoder_attention_heads=4,
                encoder_ffn_dim=48,
                decoder_ffn_dim=48,
                num_queries=5,
                use_pretrained_backbone=False,
                backbone=None,
            )
        ),
        pictures(64),
        5,
    ),
    "DPT": (made("DPTModel", "DPTConfig", **PATCHES, backbone_out_indices=[0, 0, 1, 1]), pictures(), 4),
    "YOLOS": (
        made("YolosModel", "YolosConfig", **LAYERS, image_size=[32, 32], patch_size=8, num_detection_tokens=3),
        pictures(),
        4,
    ),
}
