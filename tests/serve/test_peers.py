"""What others use loads our checkpoints: lm-eval's own command line, peft, torch.export (transformers: test_export)."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from bench.model.checkpoint import load_checkpoint
from tests.artefacts import make
from tests.serve.lm_task import score_of, write_task

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("everything", "gqa", tmp_path_factory.mktemp("peers") / "everything")


def test_the_command_line_of_lm_eval(folder: Path, tmp_path: Path) -> None:
    task = write_task(tmp_path)
    command: list[Any] = [
        sys.executable,
        "-m",
        "lm_eval",
        "--model",
        "hf",
        "--model_args",
        f"pretrained={folder},trust_remote_code=True,dtype=float32",
        "--tasks",
        task.stem,
        "--include_path",
        tmp_path,
        "--output_path",
        tmp_path / "out",
        "--batch_size",
        "1",
        "--device",
        "cpu",
    ]
    alone = {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | alone
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = (tmp_path / "out").rglob("results_*.json")
    told = json.loads(file.read_text())["results"][task.stem]
    model, tokenizer = load_checkpoint(folder)
    assert told["word_perplexity,none"] == pytest.approx(score_of(model, tokenizer), rel=1e-4)


def test_peft_trains_on_it_and_loads_what_it_saved(folder: Path, tmp_path: Path) -> None:
    ids = torch.tensor([[5, 9, 200, 33]])
    settings = LoraConfig(target_modules=["q_proj", "k_proj", "down_proj"], init_lora_weights=False)
    adapted = get_peft_model(load_checkpoint(folder)[0], settings)
    adapted.save_pretrained(tmp_path)
    plain = load_checkpoint(folder)[0]
    with torch.no_grad():
        before, expected = plain(ids).logits, adapted.eval()(ids).logits
        again = PeftModel.from_pretrained(plain, tmp_path).eval()(ids).logits
    assert not torch.allclose(before, expected, atol=1e-3)
    torch.testing.assert_close(again, expected)


def test_torch_export_gives_the_same_logits(folder: Path) -> None:
    ids = torch.tensor([[5, 9, 200, 33, 7, 8]])
    model = load_checkpoint(folder)[0]
    program = torch.export.export(model, (ids,), {"use_cache": False}, strict=False)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(ids, use_cache=False).logits, model(ids).logits)
