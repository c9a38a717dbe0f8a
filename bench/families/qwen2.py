"""Qwen2 and Qwen2.5, Coder and Math included: LLaMA with biases on queries, keys and values."""

from bench.families import K, Q, V
from bench.families.llama import DECI, LLAMA, WORDS
from bench.family import Gguf

QWEN2 = LLAMA.but(
    model_type="qwen2",
    title="Qwen2",
    architecture="Qwen2ForCausalLM",
    biases=dict.fromkeys((Q, K, V), True),
    has_window=True,
    gguf=(Gguf("qwen2", derives_head_dim=True, biases=(Q, K, V)), DECI),
    splits={"qwen2": WORDS % r"\p{N}"},
    in_vllm="LlamaForCausalLM",
    in_vllm_fields={"qkv_bias": True},
    derives_head_dim=True,
    defaults={"num_key_value_heads": 32, "use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28},
)
