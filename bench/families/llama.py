"""LLaMA 1 to 3.x, and what is built like it: Vicuna, SmolLM2, TinyLlama, Yi."""

from bench.families import DOWN, GATE, PROJECTIONS, UP, K, O, Q, V
from bench.family import Axis, Family, Gguf, Projection

DECI = Gguf("deci", interleaved=True, uneven=True, rope_factors=True, biases=PROJECTIONS)
"""LLaMA with widths of their own in every layer, as a search for architectures (Puzzle) leaves them."""

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""What tokenizers since GPT-4's split text by; %s is what they do with digits."""

LLAMA = Family(
    model_type="llama",
    title="LLaMA",
    architecture="LlamaForCausalLM",
    projections=(
        Projection(f"self_attn.{Q}", Axis.QUERY, Axis.HIDDEN),
        Projection(f"self_attn.{K}", Axis.KV, Axis.HIDDEN),
        Projection(f"self_attn.{V}", Axis.KV, Axis.HIDDEN),
        Projection(f"self_attn.{O}", Axis.HIDDEN, Axis.QUERY),
        Projection(f"mlp.{GATE}", Axis.CHANNELS, Axis.HIDDEN),
        Projection(f"mlp.{UP}", Axis.CHANNELS, Axis.HIDDEN),
        Projection(f"mlp.{DOWN}", Axis.HIDDEN, Axis.CHANNELS),
    ),
    biases={**dict.fromkeys((Q, K, V, O), "attention_bias"), **dict.fromkeys((GATE, UP, DOWN), "mlp_bias")},
    attention_norm="input_layernorm",
    mlp_norm="post_attention_layernorm",
    epsilon="rms_norm_eps",
    layers="model.layers",
    embedding="model.embed_tokens",
    final_norm="model.norm",
    head="lm_head",
    rotary="model.rotary_emb",
    gguf=(Gguf("llama", interleaved=True, rope_factors=True, biases=PROJECTIONS), DECI),
    splits={"llama-bpe": WORDS % r"\p{N}{1,3}"},
)
