"""Granite as a family of a plug-in: built like LLaMA, with factors of its own that transformers and vLLM know of."""

from bench.families.llama import LLAMA

GRANITE = LLAMA.but(model_type="granite", title="Granite", architecture="GraniteForCausalLM", gguf=())
