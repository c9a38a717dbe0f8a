"""Qwen3, the dense models: queries and keys are normed head by head, and heads have a width of their own."""

from bench.families import K, O, Q, V
from bench.families.llama import LLAMA
from bench.families.qwen2 import QWEN2
from bench.family import Gguf

QWEN3 = LLAMA.but(
    model_type="qwen3",
    title="Qwen3",
    architecture="Qwen3ForCausalLM",
    biases=dict.fromkeys((Q, K, V, O), "attention_bias"),
    head_norms={Q: "self_attn.q_norm", K: "self_attn.k_norm"},
    has_window=True,
    gguf=(Gguf("qwen3"),),
    splits=QWEN2.splits,
    defaults={**QWEN2.defaults, "head_dim": 128},
)
