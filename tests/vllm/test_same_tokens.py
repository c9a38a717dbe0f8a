"""Every kind of checkpoint gives the same greedy tokens in vLLM as in transformers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.model.checkpoint import load_checkpoint
from bench.registry import load_registry
from tests.artefacts import FAMILIES, KINDS, SHAPES, make

pytestmark = pytest.mark.vllm

PLUGIN = Path(__file__).parents[1] / "plugins" / "granite.py"
PROMPTS = [[5, 9, 200, 33, 7], [17, 120, 3], [250, 251, 252, 60, 61, 62, 63, 64]]
NEW = 24
CASES = [(kind, shape) for shape in SHAPES | FAMILIES for kind in (*KINDS, "merged")]
CASES += [("uneven", "granite"), ("everything", "granite")]


@pytest.fixture(scope="module")
def generated(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> dict[tuple[str, str], tuple[Path, dict[str, Any]]]:
    root = tmp_path_factory.mktemp("vllm")
    load_registry([PLUGIN])
    folders = [make(kind, shape, root / f"{kind}-{shape}") for kind, shape in CASES]
    job = {"folders": list(map(str, folders)), "prompts": PROMPTS, "new": NEW, "out": str(root / "out.json")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.vllm.generate"],
        input=json.dumps(job),
        env=environment | {"LEANBOARD_PLUGINS": str(PLUGIN)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads((root / "out.json").read_text())
    return dict(zip(CASES, zip(folders, found, strict=True), strict=True))


@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_same_greedy_tokens(
    kind: str, shape: str, generated: dict[tuple[str, str], tuple[Path, dict[str, Any]]]
) -> None:
    folder, got = generated[kind, shape]
    config = json.loads((folder / "config.json").read_text())
    assert got["architecture"] == config["architectures"][0]
    plain = {"merged"} if shape.startswith("qwen2") else {"merged", "uniform"}  # vLLM's Qwen2 takes no width of heads
    assert (not got["architecture"].startswith("Lean")) == (kind in plain)
    model, _ = load_checkpoint(folder)
    for prompt, ids, logprobs in zip(PROMPTS, got["ids"], got["logprobs"], strict=True):
        expected = model.generate(
            torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        assert ids == expected[0, len(prompt) :].tolist()
        with torch.no_grad():
            scores = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        torch.testing.assert_close(
            torch.tensor(logprobs), scores.gather(1, torch.tensor(ids)[:, None])[:, 0], rtol=0, atol=1e-4
        )
