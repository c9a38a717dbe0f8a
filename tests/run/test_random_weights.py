"""Models of random weights: made once, the same for the same recipe, and never given a row of quality."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import LlamaForCausalLM

from bench.errors import UsageError
from bench.measure import generation
from bench.measure.generation.in_process import InProcessClient
from bench.measure.memory import peak_memory
from bench.model import random as maker
from bench.random_weights import Recipe, recipe_of
from bench.record.store import Store
from tests.in_process import run_module
from tests.suites import here, make_suite

pytestmark = pytest.mark.slow

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "tie_word_embeddings": True,
    "max_position_embeddings": 128,
}
MIB = 2**20


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[Any, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            found |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    return found


def test_the_same_recipe_gives_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker.write(SHAPE, "float32", 0, tmp_path / "a")
    maker.write(SHAPE, "float32", 1, tmp_path / "c")
    monkeypatch.setattr(maker, "SHARD_BYTES", 10_000)
    maker.write(SHAPE, "float32", 0, tmp_path / "b")
    assert len(list((tmp_path / "b").glob("*.safetensors"))) > 5
    a, b, c = (tensors(tmp_path / name) for name in "abc")
    assert a.keys() == b.keys() == c.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    drawn = [name for name, tensor in a.items() if tensor.dim() == 2]
    assert len(drawn) == 1 + 3 * 7
    assert not any(torch.equal(a[name], c[name]) for name in drawn)


def test_weights_are_normal_and_the_checkpoint_loads(tmp_path: Path) -> None:
    maker.write(SHAPE, "bfloat16", 0, tmp_path / "a")
    found = tensors(tmp_path / "a")
    together = torch.cat([t.float().flatten() for t in found.values() if t.dim() == 2])
    assert {t.dtype for t in found.values()} == {torch.bfloat16}
    assert together.std().item() == pytest.approx(0.02, rel=0.02)
    assert abs(together.mean().item()) < 0.001
    assert all(bool((t == 1).all()) for t in found.values() if t.dim() == 1)
    model = LlamaForCausalLM.from_pretrained(tmp_path / "a")
    assert model.dtype == torch.bfloat16
    assert model.num_parameters() == sum(t.numel() for t in found.values())
    assert bool(torch.isfinite(model(torch.arange(20)[None]).logits).all())


def test_making_them_needs_memory_for_a_shard_not_for_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards of 20 MB of a checkpoint of 280 MB."""
    monkeypatch.setattr(maker, "SHARD_BYTES", 20_000_000)
    big = SHAPE | {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 6, "num_key_value_heads": 4}
    with peak_memory("cpu") as peak:
        maker.write(big, "float32", 0, tmp_path / "big")
    assert sum(file.stat().st_size for file in (tmp_path / "big").glob("*.safetensors")) > 280_000_000
    if peak.bytes is None:
        pytest.skip("this kernel cannot reset the high-water mark of memory")
    assert 15 * MIB < peak.bytes < 70 * MIB


def test_the_fingerprint_follows_the_recipe_alone() -> None:
    one = recipe_of("llama-7b", {}, "bfloat16")
    assert one.id == "llama-7b-random"
    assert one.fingerprint.startswith("random-")
    assert one.fingerprint == recipe_of("vicuna-7b", {}, "bfloat16").fingerprint, "the same shape"
    others = {recipe_of("llama-7b", {}, "float32").fingerprint, recipe_of("llama-13b", {}, "bfloat16").fingerprint}
    assert len({one.fingerprint, *others}) == 3
    assert not one.folder.exists()


def test_shapes_of_folders_are_read_and_others_refused(tiny_gqa: Path, tmp_path: Path) -> None:
    given = recipe_of("llama-7b", {"llama-7b": tiny_gqa}, "float32")
    assert (given.id, given.config["num_key_value_heads"]) == ("llama-7b-random", 2)
    assert recipe_of(str(tiny_gqa), {}, "float32").id == f"tiny-gqa-random-{given.fingerprint[7:13]}"
    with pytest.raises(UsageError, match="unknown model 'lama-7b'; did you mean llama-7b"):
        recipe_of("lama-7b", {}, "float32")
    for content, sentence in (
        ({"model_type": "opt"}, "config.json: model_type: 'opt' is of no known family"),
        ({"model_type": "llama", "num_hidden_layers": 1}, "config.json: hidden_size: missing"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(content))
        with pytest.raises(UsageError, match=sentence):
            recipe_of("llama-7b", {"llama-7b": tmp_path}, "float32")


def test_a_shape_that_is_none_is_one_sentence_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.random_weights.run_module", run_module)
    recipe = Recipe("x-random", SHAPE | {"num_attention_heads": 5}, "float32")
    with pytest.raises(Exception, match="x-random: the random weights cannot be made") as caught:
        recipe.make(lambda line: None)
    assert "\n" not in str(caught.value)
    assert not recipe.folder.exists()


def suite(root: Path, **changes: Any) -> None:
    """A suite of the catalogue's llama-7b in tiny."""
    make_suite(
        root,
        **{
            "models": ["llama-7b"],
            "tasks": ["size", "wikitext2@128/limit2", "commonsense7/limit4"],
            "training": {"data": "nowhere/train"},
            "methods": [
                "dense",
                {"name": "random", "tasks": ["piqa/limit2", "generate@hf/b1/p8/n4"]},
                {
                    "name": "llm_pruner",
                    "config": {"seq_len": 16},
                    "recovery": {"name": "lora", "steps": 2, "holdout": 8},
                },
            ],
        }
        | changes,
    )


ARGUMENTS = ["suite.yaml", "--weights", "random", "--model-path", "llama-7b=tiny"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("random")
    suite(root)
    for file in (root / "tiny").iterdir():
        if file.name != "config.json":
            file.unlink()
    done = here(root, "plan", *ARGUMENTS, "--cells", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {row["what"] for row in rows} == {"compress", "size@64", "generate@hf/b1/p8/n4"}
    assert {row["model"] for row in rows} == {"llama-7b-random"}
    [note] = [line for line in done.stderr.splitlines() if line.startswith("note:")]
    assert note.endswith("piqa/limit2, wikitext2@128/limit2, commonsense7/limit4 left out")
    assert not list((root / "cache").glob("models/*")), "planning makes nothing"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "ProcessClient", InProcessClient)
        done = here(root, "run", *ARGUMENTS, "--executor", "inline")
    assert done.returncode == 0, done.stderr + done.stdout
    return root


def test_a_sweep_measures_size_and_speed(swept: Path) -> None:
    records, problems = Store(swept / "results").read_all()
    assert (len(records), problems) == (3 * 2 + 1, [])
    assert {(r.model, r.status) for r in records} == {("llama-7b-random", "ok")}
    made = {r.method: r for r in records if r.kind == "artifact"}
    assert all(r.ingredients["weights"].startswith("random-") for r in made.values())
    assert made["llm_pruner"].ingredients["calibration"] == {"random_tokens": 300}
    assert made["llm_pruner"].ingredients["training"] == {"random_tokens": 300}
    assert made["llm_pruner"].cost.optimiser_steps == 2
    assert made["llm_pruner"].cost.calibration_tokens > 0
    assert made["random"].ingredients["calibration"] is None
    metrics = {metric.id for record in records for metric in getattr(record, "metrics", [])}
    assert {"params.stored", "generate.speedup@hf/b1/p8/n4"} <= metrics
    assert "llama-7b-random" in (swept / "results" / "leaderboard.md").read_text()


def test_running_again_computes_nothing_twice(swept: Path) -> None:
    [folder] = (swept / "cache" / "models").glob("random-*")
    made = folder.stat().st_mtime_ns
    done = here(swept, "run", *ARGUMENTS, "--executor", "inline")
    assert done.returncode == 0, done.stderr
    assert "0 cells to do, 7 cached" in done.stdout
    assert "drawing" not in done.stderr
    assert folder.stat().st_mtime_ns == made


def test_a_suite_of_quality_alone_ends_in_one_sentence(tmp_path: Path) -> None:
    suite(tmp_path, tasks=["commonsense7/limit4"], methods=["dense"])
    done = here(tmp_path, "plan", *ARGUMENTS)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "suite tiny: tasks: none is left with random weights" in done.stderr
