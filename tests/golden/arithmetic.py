"""A tiny model whose weights are plain arithmetic: the same on every machine and with every version of torch."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def numbers(count: int, salt: int) -> torch.Tensor:
    """`count` well-mixed float64 values in (-1, 1), from integers alone."""
    i = torch.arange(count, dtype=torch.int64) + 1
    mixed = (i * 2654435761 + salt * 40503 * 65537) % 2147483647
    mixed = (mixed * 48271 + i * i) % 2147483647
    return mixed.double() / 2147483647 * 2 - 1


def arithmetic_model(kv_heads: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=56,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=kv_heads,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for salt, weight in enumerate(model.parameters()):
            values = numbers(weight.numel(), salt).view_as(weight)
            if weight.dim() == 2:  # rows and columns of unlike size, so that no decision hangs on rounding
                rows, columns = (numbers(n, salt + 100 + i) for i, n in enumerate(weight.shape))
                weight.copy_(0.35 * values * (1 + 0.7 * rows).unsqueeze(1) * (1 + 0.7 * columns))
            else:
                weight.copy_(1 + 0.3 * values)
    return model.requires_grad_(False)


def arithmetic_ids() -> torch.Tensor:
    return ((numbers(6 * 20, 1000) + 1) * 48).long().view(6, 20)
