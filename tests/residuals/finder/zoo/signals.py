"""Networks of the library transformers for sound, series, and pairs of kinds, of two layers."""

import torch
import transformers

from .settings import LAYERS, PATCHES, Table, made, tokens

SPEECH = {
    **LAYERS,
    "conv_dim": (8, 8),
    "conv_kernel": (4, 4),
    "conv_stride": (2, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}

SIGNALS: Table = {
    "CLIP, two towers": (
        lambda: transformers.CLIPModel(
            transformers.CLIPConfig(
                text_config=dict(**LAYERS, vocab_size=50, eos_token_id=2, bos_token_id=1, pad_token_id=0),
                vision_config=dict(**PATCHES),
                projection_dim=16,
            )
        ),
        lambda: dict(input_ids=tokens(), pixel_values=torch.randn(2, 3, 32, 32)),
        8,
    ),
    "Whisper, encoder and decoder": (
        made(
            "WhisperModel",
            "WhisperConfig",
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            vocab_size=50,
            num_mel_bins=8,
            max_source_positions=16,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        ),
        lambda: dict(input_features=torch.randn(2, 8, 32), decoder_input_ids=tokens(2, 5)),
        10,
    ),
    "Wav2Vec2": (made("Wav2Vec2Model", "Wav2Vec2Config", **SPEECH), lambda: torch.randn(2, 200), 5),
    "HuBERT": (made("HubertModel", "HubertConfig", **SPEECH), lambda: torch.randn(2, 200), 5),
    "Audio Spectrogram Transformer": (
        made(
            "ASTModel",
            "ASTConfig",
            **LAYERS,
            patch_size=4,
            max_length=16,
            num_mel_bins=8,
            frequency_stride=4,
            time_stride=4,
        ),
        lambda: torch.randn(2, 16, 8),
        4,
    ),
    "Perceiver": (
        made(
            "PerceiverModel",
            "PerceiverConfig",
            num_latents=4,
            d_latents=16,
            d_model=12,
            num_blocks=1,
            num_self_attends_per_block=2,
            num_self_attention_heads=2,
            num_cross_attention_heads=1,
        ),
        lambda: torch.randn(2, 6, 12),
        5,
    ),
    "PatchTST": (
        made(
            "PatchTSTModel",
            "PatchTSTConfig",
            num_input_channels=2,
            context_length=16,
            patch_length=4,
            patch_stride=4,
            d_model=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            ffn_dim=24,
        ),
        lambda: torch.randn(2, 16, 2),
        4,
    ),
}
