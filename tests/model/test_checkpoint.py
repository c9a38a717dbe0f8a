"""Checkpoints: identical logits in a fresh process, with and without Leanboard, and nothing damaged goes unnoticed."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.checkpoint_files import check_checkpoint, fingerprint_of
from bench.errors import DataError, LeanboardError, UsageError
from bench.model.checkpoint import load_checkpoint, read_manifest, save_checkpoint
from bench.model.layers import shape_of
from bench.model.load import load_folder
from bench.model.surgery import kept_of, prune
from bench.shape import BlockKept, Kept
from tests.tiny import make_model, make_tokenizer

ROOT = Path(__file__).parents[2]
IDS = list(range(3, 30))


@pytest.fixture(params=["gqa", "uniform"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, torch.Tensor]:
    return save(tmp_path / "c", request.param)


def save(folder: Path, kind: str) -> tuple[Path, torch.Tensor]:
    """A checkpoint, uniform or not, and its logits."""
    dense = make_model(kv_heads=2, tied=True)
    layers = range(4) if kind == "uniform" else range(1, 3)
    cut = {i: BlockKept((0, 1), tuple(range(0, 96, 2))) for i in layers}
    model = prune(dense, Kept(dict(shape_of(dense).keep_all().blocks) | cut))
    save_checkpoint(
        folder, model, make_tokenizer(), ingredients={"a": 1}, achieved={"params": 0.1}, kept=kept_of(model)
    )
    with torch.no_grad():
        return folder, model(torch.tensor([IDS])).logits


def fresh_process(folders: Sequence[Path], load: str, **env: str) -> list[list[float]]:
    """The last logits that `model = load(folder)` gives for `IDS` in another process, for each of the folders."""
    program = f"""
import json, sys, torch
{load}
for folder in {list(map(str, folders))!r}:
    model = load(folder)
    with torch.no_grad():
        logits = model(torch.tensor([{IDS}])).logits[0, -1]
    out = model.generate(torch.tensor([{IDS[:4]}] * 2), max_new_tokens=3, do_sample=False)
    assert out.shape == (2, 7)
    print(json.dumps([float(x) for x in logits]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=folders[0],
        env={"PATH": "/usr/bin:/bin", "HOME": str(folders[0]), "HF_HUB_OFFLINE": "1", **env},
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


@pytest.mark.slow
def test_a_fresh_process_gives_the_same_logits(tmp_path: Path) -> None:
    """With Leanboard; without it: tests/serve/test_export.py."""
    folders, expected = zip(*(save(tmp_path / kind, kind) for kind in ("gqa", "uniform")), strict=True)
    load = "import bench.model\nfrom transformers import AutoModelForCausalLM as A\nload = A.from_pretrained"
    assert fresh_process(folders, load, PYTHONPATH=str(ROOT)) == [logits[0, -1].tolist() for logits in expected]


def test_uniform_results_are_plain_llama(saved: tuple[Path, torch.Tensor]) -> None:
    folder, _ = saved
    config = json.loads((folder / "config.json").read_text())
    uniform = config["num_attention_heads"] == 2
    assert config["model_type"] == ("llama" if uniform else "lean_llama")
    assert (folder / "lean.py").exists() != uniform
    assert set(config.get("auto_map", {})) == (
        set() if uniform else {"AutoConfig", "AutoModel", "AutoModelForCausalLM"}
    )


@pytest.mark.parametrize("saved", ["gqa"], indirect=True)
def test_a_checkpoint_with_the_model_file_of_earlier_versions_loads(saved: tuple[Path, torch.Tensor]) -> None:
    folder, expected = saved
    file = folder / "config.json"
    config = json.loads(file.read_text())
    now = check_checkpoint(folder)
    (folder / "lean.py").rename(folder / "lean_llama.py")
    config["auto_map"] = {name: value.replace("lean.", "lean_llama.") for name, value in config["auto_map"].items()}
    file.write_text(json.dumps(config))
    assert fingerprint_of(*check_checkpoint(folder)) == fingerprint_of(*now)
    model, _ = load_checkpoint(folder)
    torch.testing.assert_close(model(torch.tensor([IDS])).logits, expected)


def test_the_manifest_tells_what_is_kept(saved: tuple[Path, torch.Tensor]) -> None:
    manifest = read_manifest(saved[0])
    assert manifest is not None
    assert manifest.kept[1] == {"heads": [0, 1], "channels": list(range(0, 96, 2))}
    model, tokenizer = load_checkpoint(saved[0])
    assert manifest.sizes["params.stored"] == sum(p.numel() for p in model.parameters())
    assert tokenizer is not None


def test_a_changed_weight_is_noticed(saved: tuple[Path, torch.Tensor]) -> None:
    file = saved[0] / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.1.mlp.down_proj.weight"][0] += 1
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(DataError, match="logits differ by"):
        load_checkpoint(saved[0])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda w: w.pop("model.norm.weight"), "model.norm.weight is missing"),
        (lambda w: w.pop("model.embed_tokens.weight"), "model.embed_tokens.weight is missing"),
        (lambda w: w.update(spare=torch.ones(2)), "spare has no place in the model"),
        (lambda w: w.update({"model.norm.weight": torch.ones(3)}), r"model.norm.weight is \[3\] and not \[64\]"),
    ],
)
def test_weights_that_do_not_fit_are_named(saved: tuple[Path, torch.Tensor], change: Any, sentence: str) -> None:
    file = saved[0] / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(DataError, match=rf"the model cannot be loaded \({sentence}"):
        load_checkpoint(saved[0])


def test_old_tables_and_a_head_beside_a_tied_embedding_change_nothing(saved: tuple[Path, torch.Tensor]) -> None:
    file = saved[0] / "model.safetensors"
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8), "lm_head.weight": torch.zeros(320, 64)}
    save_file(load_file(file) | old, file, metadata={"format": "pt"})
    model, _ = load_checkpoint(saved[0])
    with torch.no_grad():
        assert torch.equal(model(torch.tensor([IDS])).logits, saved[1])


def test_a_truncated_weight_file_is_one_sentence(saved: tuple[Path, torch.Tensor]) -> None:
    file = saved[0] / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError) as caught:
        load_checkpoint(saved[0])
    assert str(saved[0]) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{}", '{"schema_version": 1, "kept": 3}', "[1, 2"])
def test_a_foreign_manifest_is_one_sentence(saved: tuple[Path, torch.Tensor], content: str) -> None:
    (saved[0] / "leanboard.json").write_text(content)
    with pytest.raises(DataError, match=r"leanboard\.json: "):
        load_checkpoint(saved[0])


def test_a_checkpoint_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()

    def full_disk(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "save_pretrained", full_disk)
    with pytest.raises(LeanboardError, match=r"cannot be written .*No space left"):
        save_checkpoint(tmp_path / "c", model, None, ingredients={}, achieved={}, kept=kept_of(model))
    assert list(tmp_path.iterdir()) == []


def test_other_families_and_dtypes_are_refused(tmp_path: Path, tiny_mha: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "opt"}')
    with pytest.raises(UsageError, match="is of no known family"):
        load_folder(tmp_path)
    with pytest.raises(UsageError, match="dtype 'int8' is not known"):
        load_folder(tiny_mha, dtype="int8")
