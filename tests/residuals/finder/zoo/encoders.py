"""Networks of the library transformers that read text, some with a decoder, of two layers."""

import torch

from .settings import SMALL, Table, made, tokens

ENCODERS: Table = {
    "BERT": (made("BertForSequenceClassification", "BertConfig", **SMALL), tokens, 4),
    "BERT with a mask": (
        made("BertForMaskedLM", "BertConfig", **SMALL),
        lambda: dict(input_ids=tokens(), attention_mask=torch.tensor([[1] * 7, [1] * 5 + [0] * 2])),
        4,
    ),
    "RoBERTa": (made("RobertaModel", "RobertaConfig", **SMALL), tokens, 4),
    "DistilBERT": (
        made("DistilBertModel", "DistilBertConfig", dim=32, n_layers=2, n_heads=4, hidden_dim=48, vocab_size=50),
        tokens,
        4,
    ),
    "ALBERT, shared layers": (made("AlbertModel", "AlbertConfig", **dict(SMALL, embedding_size=16)), tokens, 4),
    "ELECTRA": (made("ElectraModel", "ElectraConfig", **dict(SMALL, embedding_size=16)), tokens, 4),
    "DeBERTa": (made("DebertaModel", "DebertaConfig", **SMALL), tokens, 4),
    "DeBERTa v2": (made("DebertaV2Model", "DebertaV2Config", **SMALL), tokens, 4),
    "ModernBERT": (
        made(
            "ModernBertModel",
            "ModernBertConfig",
            **dict(SMALL, pad_token_id=0, cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2),
        ),
        tokens,
        4,
    ),
    "XLNet": (made("XLNetModel", "XLNetConfig", d_model=32, n_layer=2, n_head=4, d_inner=48, vocab_size=50), tokens, 4),
    "FNet": (
        made("FNetModel", "FNetConfig", hidden_size=32, num_hidden_layers=2, intermediate_size=48, vocab_size=50),
        tokens,
        4,
    ),
    "BigBird": (made("BigBirdModel", "BigBirdConfig", **dict(SMALL, attention_type="original_full")), tokens, 4),
    "Longformer": (
        made("LongformerModel", "LongformerConfig", **dict(SMALL, attention_window=4)),
        lambda: tokens(2, 8),
        4,
    ),
    "MPNet": (made("MPNetModel", "MPNetConfig", **SMALL), tokens, 4),
    "ESM": (made("EsmModel", "EsmConfig", **dict(SMALL, pad_token_id=0, mask_token_id=1)), tokens, 4),
    "Nyströmformer": (
        made("NystromformerModel", "NystromformerConfig", **dict(SMALL, num_landmarks=4, segment_means_seq_len=8)),
        lambda: tokens(2, 8),
        4,
    ),
    "T5, encoder and decoder": (
        made("T5Model", "T5Config", d_model=32, d_kv=8, num_layers=2, num_heads=4, d_ff=48, vocab_size=50),
        lambda: dict(input_ids=tokens(), decoder_input_ids=tokens(2, 5)),
        10,
    ),
    "BART, encoder and decoder": (
        made(
            "BartModel",
            "BartConfig",
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            vocab_size=50,
        ),
        lambda: dict(input_ids=tokens(), decoder_input_ids=tokens(2, 5)),
        10,
    ),
}
