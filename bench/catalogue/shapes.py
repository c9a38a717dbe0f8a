"""Shapes of the models of the catalogue, as fields of their config.json. Without a model_type it is a LLaMA."""

from typing import Any

from bench.families.mistral import MISTRAL
from bench.families.qwen2 import QWEN2
from bench.families.qwen3 import QWEN3

Shape = dict[str, Any]


def _rope(theta: float, **more: object) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta, **more}}


def _llama3_rope(factor: float) -> dict[str, Any]:
    frequencies = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    return _rope(500_000.0, rope_type="llama3", factor=factor, **frequencies)


def _layers(count: int, *, hidden: int, heads: int, kv_heads: int, channels: int) -> Shape:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": count,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": channels,
    }


def _vocabulary(size: int, *, tied: bool, epsilon: float, context: int) -> Shape:
    return {
        "vocab_size": size,
        "tie_word_embeddings": tied,
        "rms_norm_eps": epsilon,
        "max_position_embeddings": context,
    }


SMOLLM2_135M = (
    _layers(30, hidden=576, heads=9, kv_heads=3, channels=1536)
    | _vocabulary(49152, tied=True, epsilon=1e-5, context=8192)
    | _rope(100_000.0)
)
TINYLLAMA_11B = (
    _layers(22, hidden=2048, heads=32, kv_heads=4, channels=5632)
    | _vocabulary(32000, tied=False, epsilon=1e-5, context=2048)
    | _rope(10_000.0)
)
LLAMA_7B = (
    _layers(32, hidden=4096, heads=32, kv_heads=32, channels=11008)
    | _vocabulary(32000, tied=False, epsilon=1e-6, context=2048)
    | _rope(10_000.0)
)
LLAMA_13B = LLAMA_7B | _layers(40, hidden=5120, heads=40, kv_heads=40, channels=13824)
LLAMA2_7B = LLAMA_7B | {"rms_norm_eps": 1e-5, "max_position_embeddings": 4096}
LLAMA31_8B = (
    _layers(32, hidden=4096, heads=32, kv_heads=8, channels=14336)
    | _vocabulary(128256, tied=False, epsilon=1e-5, context=131072)
    | _llama3_rope(8.0)
)
LLAMA32_1B = (
    _layers(16, hidden=2048, heads=32, kv_heads=8, channels=8192)
    | _vocabulary(128256, tied=True, epsilon=1e-5, context=131072)
    | _llama3_rope(32.0)
)
MISTRAL_7B = (
    {"model_type": MISTRAL.model_type, "sliding_window": None}
    | _layers(32, hidden=4096, heads=32, kv_heads=8, channels=14336)
    | _vocabulary(32768, tied=False, epsilon=1e-5, context=32768)
    | _rope(1_000_000.0)
)
QWEN25_05B = (
    {"model_type": QWEN2.model_type}
    | _layers(24, hidden=896, heads=14, kv_heads=2, channels=4864)
    | _vocabulary(151936, tied=True, epsilon=1e-6, context=32768)
    | _rope(1_000_000.0)
)
QWEN_CODER_05B = QWEN25_05B | {"tie_word_embeddings": False}
QWEN25_7B = (
    {"model_type": QWEN2.model_type}
    | _layers(28, hidden=3584, heads=28, kv_heads=4, channels=18944)
    | _vocabulary(152064, tied=False, epsilon=1e-6, context=131072)
    | _rope(1_000_000.0)
)
QWEN3_06B = (
    {"model_type": QWEN3.model_type, "head_dim": 128}
    | _layers(28, hidden=1024, heads=16, kv_heads=8, channels=3072)
    | _vocabulary(151936, tied=True, epsilon=1e-6, context=40960)
    | _rope(1_000_000.0)
)
QWEN3_8B = (
    {"model_type": QWEN3.model_type, "head_dim": 128}
    | _layers(36, hidden=4096, heads=32, kv_heads=8, channels=12288)
    | _vocabulary(151936, tied=False, epsilon=1e-6, context=40960)
    | _rope(1_000_000.0)
)
