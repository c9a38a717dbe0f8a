"""Seed-OSS: LLaMA with biases of three kinds, and heads of a width of their own."""

from bench.families import ATTENTION, MLP, O
from bench.families.llama import LLAMA

SEED_OSS = LLAMA.but(
    model_type="seed_oss",
    title="Seed-OSS",
    architecture="SeedOssForCausalLM",
    biases={**dict.fromkeys(ATTENTION, "attention_bias"), O: "attention_out_bias", **dict.fromkeys(MLP, "mlp_bias")},
    defaults={"num_key_value_heads": 8, "head_dim": 128, "attention_bias": True},
)
