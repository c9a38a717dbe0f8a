"""LLaMA-family models: loading, slicing, saving.

Importing this package registers `lean_llama` with transformers' Auto classes, so that
`AutoModelForCausalLM.from_pretrained` loads a pruned checkpoint without remote code. It imports torch; what must stay
cheap (`bench.catalogue`) keeps out of here.
"""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from bench.model.lean_llama import LeanLlamaConfig, LeanLlamaForCausalLM, LeanLlamaModel

AutoConfig.register("lean_llama", LeanLlamaConfig, exist_ok=True)
AutoModel.register(LeanLlamaConfig, LeanLlamaModel, exist_ok=True)
AutoModelForCausalLM.register(LeanLlamaConfig, LeanLlamaForCausalLM, exist_ok=True)
