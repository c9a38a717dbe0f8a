"""How much memory a checkpoint's making takes, stage by stage, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import json, sys, torch
from pathlib import Path
from bench.method import Target
from bench.registry import load_registry
from bench.run.compress import Order, Stages, Texts, build

folder, method, config, dtype, out, rows, tokens = sys.argv[1:]
entry = load_registry().method(method)
ids = torch.randint(3, 200, (int(rows), int(tokens)), generator=torch.Generator().manual_seed(0))
order = Order(
    weights=Path(folder), method=entry.cls(entry.cls.Config(**json.loads(config))), recovery=None,
    target=Target(value=0.2), seed=0, dtype=dtype, device="cpu", texts=Texts(ids=ids), ingredients={},
)
stages = Stages("cpu")
built = build(order, Path(out), stages)
print(json.dumps({"peaks": built.cost.peaks, "seconds": built.cost.seconds, "removed": built.manifest.achieved}))
"""
MAKE = """
import sys, json, torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
torch.set_default_dtype(getattr(torch, sys.argv[2]))
LlamaForCausalLM(LlamaConfig(**json.loads(sys.argv[3]), dtype=sys.argv[2])).save_pretrained(sys.argv[1])
"""


def make_model(folder: Path, dtype: str, **shape: int) -> int:
    """A random LLaMA in `folder`, made elsewhere; the bytes of its weights."""
    subprocess.run([sys.executable, "-c", MAKE, str(folder), dtype, json.dumps(shape)], check=True, capture_output=True)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def peaks(
    folder: Path, method: str, dtype: str, out: Path, text: tuple[int, int] = (4, 32), **config: object
) -> dict[str, dict[str, float]]:
    """Bytes and seconds by stage of removing 20 % of the parameters, above what the interpreter and torch take.

    `text` is rows and tokens of random calibration ids.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), method, json.dumps(config), dtype, str(out), *map(str, text)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return found
