"""llama.cpp reads our GGUF files: the same greedy tokens as transformers, the same tokens of a text."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.model.checkpoint import load_checkpoint
from bench.model.layers import window_of
from bench.serve.gguf import write_gguf
from tests.artefacts import FAMILIES, SHAPES, make

pytestmark = pytest.mark.vllm

PROMPT = [5, 9, 200, 33, 7]
NEW = 24
TEXT = "The quick brown fox asks: what's kept of 123 heads?\n  Nothing.</s>"
CASES = [(kind, shape) for shape in SHAPES | FAMILIES for kind in ("uniform", "uneven")]
CASES += [("merged", shape) for shape in ("mha", "gqa", "qwen2-mha", "qwen3-gqa")]


def has_form(kind: str, shape: str) -> bool:
    return kind != "uneven" or not shape.startswith("qwen3")


@pytest.mark.parametrize(("kind", "shape"), [case for case in CASES if has_form(*case)])
def test_same_tokens(kind: str, shape: str, tmp_path: Path) -> None:
    model, tokenizer = load_checkpoint(make(kind, shape, tmp_path / "made"))
    write_gguf(model, tmp_path / "made", tmp_path / "model.gguf", "tiny")
    window = window_of(model)
    new = NEW if window is None else window - len(PROMPT)  # what the file gives as its context
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("llama_cpp.py"), tmp_path / "model.gguf", str(new)],
        input=json.dumps({"prompt": PROMPT, "text": TEXT}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    got = json.loads(done.stdout.rpartition("RESULT ")[2])
    expected = model.generate(
        torch.tensor([PROMPT]), max_new_tokens=new, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert got["ids"] == expected[0, len(PROMPT) :].tolist()
    assert got["tokens"] == tokenizer(TEXT, add_special_tokens=False).input_ids
