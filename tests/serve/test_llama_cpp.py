"""llama.cpp reads our GGUF files: the same greedy tokens as transformers, the same tokens of a text."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.model.checkpoint import load_checkpoint
from bench.serve.gguf import write_gguf
from tests.artefacts import SHAPES, make

pytestmark = pytest.mark.vllm

PROMPT = [5, 9, 200, 33, 7]
NEW = 24
TEXT = "The quick brown fox asks: what's kept of 123 heads?\n  Nothing.</s>"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["uniform", "uneven", "merged"])
def test_same_tokens(kind: str, shape: str, tmp_path: Path) -> None:
    model, tokenizer = load_checkpoint(make(kind, shape, tmp_path / "made"))
    write_gguf(model, tmp_path / "made", tmp_path / "model.gguf", "tiny")
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("llama_cpp.py"), tmp_path / "model.gguf", str(NEW)],
        input=json.dumps({"prompt": PROMPT, "text": TEXT}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    got = json.loads(done.stdout.rpartition("RESULT ")[2])
    expected = model.generate(
        torch.tensor([PROMPT]), max_new_tokens=NEW, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert got["ids"] == expected[0, len(PROMPT) :].tolist()
    assert got["tokens"] == tokenizer(TEXT, add_special_tokens=False).input_ids
