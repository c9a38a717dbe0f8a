"""LoRA (arXiv 2106.09685, §4.1) by stock peft."""

from transformers import PreTrainedModel

from bench.blocks.lora import attach, merge, refuse_target
from bench.blocks.settings import LoraTuning
from bench.blocks.train import train
from bench.method import Context


def compress(model: PreTrainedModel, ctx: Context, config: LoraTuning) -> PreTrainedModel:
    """Train adapters on the harness's examples and merge them; the adapter goes with the model."""
    refuse_target(ctx, "lora")
    adapted = attach(model, ctx, config)
    train(model, ctx, config, ctx.examples(config.max_length), name="lora")
    return merge(adapted, keep=True)
