"""Networks of the library transformers that go on with a text, of two layers."""

from .settings import GROUPED, SMALL, Table, made, tokens

DECODERS: Table = {
    "GPT-2": (
        made("GPT2LMHeadModel", "GPT2Config", n_embd=32, n_layer=2, n_head=4, vocab_size=50, n_positions=64),
        tokens,
        4,
    ),
    "GPT-NeoX, parallel": (made("GPTNeoXForCausalLM", "GPTNeoXConfig", **SMALL), tokens, 2),
    "GPT-J, parallel": (
        made(
            "GPTJForCausalLM", "GPTJConfig", n_embd=32, n_layer=2, n_head=4, vocab_size=50, n_positions=64, rotary_dim=4
        ),
        tokens,
        2,
    ),
    "GPT-Neo": (
        made(
            "GPTNeoForCausalLM",
            "GPTNeoConfig",
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            vocab_size=50,
            attention_types=[[["global", "local"], 1]],
        ),
        tokens,
        4,
    ),
    "Llama": (made("LlamaForCausalLM", "LlamaConfig", **GROUPED), tokens, 4),
    "Mistral": (made("MistralForCausalLM", "MistralConfig", **GROUPED), tokens, 4),
    "Qwen2": (made("Qwen2ForCausalLM", "Qwen2Config", **GROUPED), tokens, 4),
    "Qwen3": (made("Qwen3ForCausalLM", "Qwen3Config", **GROUPED), tokens, 4),
    "Gemma 2": (made("Gemma2ForCausalLM", "Gemma2Config", **GROUPED), tokens, 4),
    "Gemma 3": (made("Gemma3ForCausalLM", "Gemma3TextConfig", **GROUPED), tokens, 4),
    "Phi, parallel": (made("PhiForCausalLM", "PhiConfig", **SMALL), tokens, 2),
    "Phi-3": (made("Phi3ForCausalLM", "Phi3Config", **dict(GROUPED, eos_token_id=1, bos_token_id=2)), tokens, 4),
    "OPT": (
        made(
            "OPTForCausalLM",
            "OPTConfig",
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            ffn_dim=48,
            vocab_size=50,
            word_embed_proj_dim=32,
        ),
        tokens,
        4,
    ),
    "BLOOM": (made("BloomForCausalLM", "BloomConfig", hidden_size=32, n_layer=2, n_head=4, vocab_size=50), tokens, 4),
    "Falcon, parallel": (made("FalconForCausalLM", "FalconConfig", **SMALL), tokens, 2),
    "MPT": (
        made("MptForCausalLM", "MptConfig", d_model=32, n_layers=2, n_heads=4, vocab_size=50, max_seq_len=64),
        tokens,
        4,
    ),
    "OLMo 2": (made("Olmo2ForCausalLM", "Olmo2Config", **dict(GROUPED, eos_token_id=1)), tokens, 4),
    "Cohere, parallel": (
        made("CohereForCausalLM", "CohereConfig", **dict(GROUPED, eos_token_id=1, bos_token_id=2)),
        tokens,
        2,
    ),
    "Granite": (made("GraniteForCausalLM", "GraniteConfig", **GROUPED), tokens, 4),
    "StableLM": (made("StableLmForCausalLM", "StableLmConfig", **GROUPED), tokens, 4),
    "StarCoder2": (made("Starcoder2ForCausalLM", "Starcoder2Config", **GROUPED), tokens, 4),
    "SmolLM3": (made("SmolLM3ForCausalLM", "SmolLM3Config", **GROUPED), tokens, 4),
    "Mamba": (
        made("MambaForCausalLM", "MambaConfig", hidden_size=16, num_hidden_layers=2, vocab_size=50, state_size=4),
        tokens,
        2,
    ),
    "Mamba-2": (
        made(
            "Mamba2ForCausalLM",
            "Mamba2Config",
            hidden_size=16,
            num_hidden_layers=2,
            vocab_size=50,
            state_size=4,
            num_heads=4,
            head_dim=8,
            expand=2,
            n_groups=1,
            chunk_size=4,
        ),
        tokens,
        2,
    ),
    "Mixtral, experts": (made("MixtralForCausalLM", "MixtralConfig", **dict(GROUPED, num_local_experts=4)), tokens, 4),
    "Qwen2-MoE, experts": (
        made(
            "Qwen2MoeForCausalLM",
            "Qwen2MoeConfig",
            **dict(GROUPED, num_experts=4, moe_intermediate_size=16, shared_expert_intermediate_size=16),
        ),
        tokens,
        4,
    ),
    "DeepSeek-V3, experts": (
        made(
            "DeepseekV3ForCausalLM",
            "DeepseekV3Config",
            **dict(
                SMALL,
                num_key_value_heads=4,
                n_routed_experts=4,
                n_group=2,
                topk_group=1,
                num_experts_per_tok=2,
                moe_intermediate_size=16,
                q_lora_rank=8,
                kv_lora_rank=8,
                qk_rope_head_dim=4,
                v_head_dim=4,
                qk_nope_head_dim=4,
                first_k_dense_replace=1,
            ),
        ),
        tokens,
        4,
    ),
    "GPT-BigCode": (
        made(
            "GPTBigCodeForCausalLM", "GPTBigCodeConfig", n_embd=32, n_layer=2, n_head=4, vocab_size=50, n_positions=64
        ),
        tokens,
        4,
    ),
    "Bamba": (
        made(
            "BambaForCausalLM",
            "BambaConfig",
            **dict(
                SMALL,
                num_key_value_heads=2,
                mamba_n_heads=8,
                mamba_d_head=8,
                mamba_n_groups=1,
                mamba_d_state=4,
                mamba_expand=2,
                mamba_chunk_size=4,
                attn_layer_indices=[1],
            ),
        ),
        tokens,
        4,
    ),
}
