"""A cell without the harness: its engines, called one after another. Prints the values by metric id.

`python by_hand.py CHECKPOINT`: no plan, worker, keys, records or saved answers.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench.data.pack import Pack
from bench.measure.accuracy import score
from bench.measure.encoding import token_ids
from bench.measure.perplexity import window_losses, windows
from bench.measure.scorer import PackedLM
from bench.measure.size import body_parameters, macs, resident_bytes
from bench.measure.stock_tasks import build_tasks
from bench.model.checkpoint import sizes_of
from bench.registry import tasks_named

folder = Path(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval().requires_grad_(False)
tokenizer = AutoTokenizer.from_pretrained(folder)
pack = Pack.default()

found = sizes_of(model, folder)
found["params.body"], found["bytes.resident"] = body_parameters(model), resident_bytes(model)
found["macs.total@64"] = macs(model, 64)

text = "\n\n".join(pack.column("lambada_passages/test", "text"))
rows = windows(torch.tensor(token_ids(tokenizer, text)), 128)[:32]
losses = [loss for chunk in rows.split(16) for loss in window_losses(model, chunk)]
found["lambada_text.ppl_token@128/limit32"] = math.exp(sum(losses) / 127 / 32)

lm = PackedLM(model, tokenizer)
for name in ("arc_easy", "piqa"):
    [task] = tasks_named(name)
    for metric, bits in score([build_tasks(cast(Any, task.spec), pack)[""]], lm, 100).bits.items():
        found[f"{name}.{metric}@0shot/limit100"] = bits.count("1") / 100
print(json.dumps(found))
