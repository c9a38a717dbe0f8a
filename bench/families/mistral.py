"""Mistral 7B: LLaMA without biases, in its first version with a sliding window."""

from bench.families.llama import LLAMA

MISTRAL = LLAMA.but(
    model_type="mistral",
    title="Mistral",
    architecture="MistralForCausalLM",
    biases={},
    has_window=True,
    defaults={"num_key_value_heads": 8, "sliding_window": 4096},
)
