"""Perplexity as one writes it with transformers alone. `python plain_perplexity.py CHECKPOINT` prints it."""

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench.data.pack import Pack

model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="float32").eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
text = "\n\n".join(Pack.default().column("lambada_passages/test", "text"))
rows = torch.tensor(tokenizer(text, verbose=False)["input_ids"])[: 32 * 128].view(32, 128)
with torch.inference_mode():
    losses = [model(row[None], labels=row[None]).loss for row in rows]
print(float(torch.stack(losses).mean().exp()))
