"""LLaMA with widths of its own in every decoder layer.

Each layer is built from `config.per_layer_config[i]` (transformers >= 5.16): `num_attention_heads`,
`num_key_value_heads` and `intermediate_size` may differ from layer to layer, `head_dim` is explicit and the same
everywhere. Everything else is stock LLaMA. This file depends on torch and transformers alone: it is copied beside the
weights of a checkpoint, so that others load it with `trust_remote_code=True` and without Leanboard.
"""

from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel, LlamaPreTrainedModel
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
)


@strict
class LeanLlamaConfig(LlamaConfig):
    """`LlamaConfig` whose layers may differ; global values are those of the dense model."""

    model_type = "lean_llama"

    def validate_architecture(self) -> None:
        """Check every layer instead of the global head count (the stock check reads that).

        Raises:
            ValueError: a layer is empty, or its query heads are not a multiple of its key/value heads.
        """
        for i, layer in enumerate(self.per_layer_config):
            widths = (layer.num_attention_heads, layer.num_key_value_heads, layer.intermediate_size)
            if min(widths) < 1:
                raise ValueError(f"layer {i}: heads, key/value heads and channels must be at least 1, not {widths}")
            if layer.num_attention_heads % layer.num_key_value_heads:
                raise ValueError(
                    f"layer {i}: {layer.num_attention_heads} heads are not a multiple of "
                    f"{layer.num_key_value_heads} key/value heads"
                )


class LeanLlamaDecoderLayer(LlamaDecoderLayer):
    def __init__(self, config: LeanLlamaConfig, layer_idx: int) -> None:
        super().__init__(config.per_layer_config[layer_idx], layer_idx)
        self.self_attn.config = config  # the attention implementation is set on, and read from, the shared config


class LeanLlamaPreTrainedModel(LlamaPreTrainedModel):
    config_class = LeanLlamaConfig
    _no_split_modules = ["LeanLlamaDecoderLayer"]
    _can_record_outputs = {"hidden_states": LeanLlamaDecoderLayer, "attentions": LlamaAttention}


class LeanLlamaModel(LeanLlamaPreTrainedModel, LlamaModel):
    """The decoder: forward pass, cache and masks are LLaMA's."""

    def __init__(self, config: LeanLlamaConfig) -> None:
        LlamaPreTrainedModel.__init__(self, config)
        self.padding_idx = config.pad_token_id
        self.vocab_size = config.vocab_size
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, self.padding_idx)
        self.layers = nn.ModuleList(LeanLlamaDecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = LlamaRotaryEmbedding(config=config)
        self.gradient_checkpointing = False
        self.post_init()


class LeanLlamaForCausalLM(LeanLlamaPreTrainedModel, LlamaForCausalLM):
    """The decoder with its language-model head."""

    def __init__(self, config: LeanLlamaConfig) -> None:
        LlamaPreTrainedModel.__init__(self, config)
        self.model = LeanLlamaModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()
