"""The Python interface, as its users call it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import Target, compress, evaluate
from bench.data.pack import Pack
from bench.errors import MethodError, UsageError
from bench.model.load import load_folder
from bench.registry import load_registry
from bench.suite import TextSource
from tests.packs import make_pack, tables

IDS = torch.arange(640).view(10, 64) % 300


def test_compress_then_evaluate(tiny_gqa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEANBOARD_DATA", str(make_pack(tmp_path / "pack", tables())))
    artifact = compress(
        tiny_gqa, "llm_pruner", config={"layers": [1, 3], "group_ratio": 0.5}, calibration=IDS, out=tmp_path / "out"
    )
    assert len(artifact.kept) == 4
    assert artifact.kept[0] == {"heads": [0, 1, 2, 3], "channels": list(range(96))}
    assert len(artifact.kept[1]["heads"]) == 2
    assert len(artifact.kept[1]["channels"]) == 48
    assert artifact.cost.calibration_tokens == 640
    dense, _ = load_folder(tiny_gqa)
    pruned, tokenizer = load_folder(artifact.path)
    count = sum(p.numel() for p in pruned.parameters())
    assert artifact.sizes["params.stored"] == count
    assert artifact.achieved["params"] == pytest.approx(1 - count / sum(p.numel() for p in dense.parameters()))
    assert tokenizer is not None
    metrics = {m.id: m for m in evaluate(artifact, ["piqa", "wikitext2.ppl_token@128", "size"], limit=3)}
    assert metrics["params.stored"].value == count
    assert metrics["piqa.acc@0shot/limit3"].n == 3
    assert metrics["wikitext2.ppl_token@128/limit3"].n == 3 * 127


def test_a_target_is_reached_and_a_seed_repeats(tiny_mha: Path, tmp_path: Path) -> None:
    kept = []
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        artifact = compress(tiny_mha, "random", target=Target(value=0.3), out=tmp_path / out, seed=seed)
        assert artifact.achieved["params"] == pytest.approx(0.3, abs=0.005)
        kept.append(artifact.kept)
    assert kept[0] == kept[1] != kept[2]


@pytest.mark.parametrize("method", [n for n, m in load_registry().methods.items() if "training" in m.cls.traits.needs])
def test_methods_that_train_take_the_callers_ids_and_steps(tiny_gqa: Path, tmp_path: Path, method: str) -> None:
    artifact = compress(tiny_gqa, method, config={"steps": 2}, calibration=IDS, out=tmp_path / "out")
    assert artifact.cost.optimiser_steps >= 2
    assert artifact.cost.trainable_parameters > 0
    assert (artifact.path / "adapter" / "adapter_model.safetensors").exists() == (method in ("lora", "capaboost"))


@pytest.mark.slow
@pytest.mark.parametrize("recovery", ["lora", "grouped"])
@pytest.mark.parametrize(("method", "config"), [("saap", {}), ("trawl", {"starts": ["hosvd"], "sweeps": 5})])
def test_a_recovery_may_follow(tiny_gqa: Path, tmp_path: Path, method: str, config: Any, recovery: str) -> None:
    how: Any = {"config": config, "target": Target(value=0.2), "calibration": IDS}
    plain, trained = (
        compress(tiny_gqa, method, **how, recovery=after, out=tmp_path / name)
        for name, after in (("plain", None), ("trained", {"name": recovery, "steps": 2, "holdout": 0}))
    )
    assert (plain.cost.optimiser_steps, trained.cost.optimiser_steps) == (0, 2)
    assert plain.achieved == trained.achieved
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        a, b = (load_folder(artifact.path)[0](ids).logits for artifact in (plain, trained))
    assert not torch.allclose(a, b)


def test_the_global_random_state_is_left_as_it_was(tiny_mha: Path, tmp_path: Path) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    compress(tiny_mha, "random", out=tmp_path / "out")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"method": "randon"}, "unknown method 'randon'; did you mean random?"),
        ({"config": {"layerz": [0, 1]}}, "method random: config: layerz: unknown key; did you mean 'layers'?"),
        ({"config": {"group_ratio": 1.0}}, "method random: config: group_ratio: Input should be less than 1"),
        ({"model": "no-such-model"}, "unknown model 'no-such-model'"),
        ({"target": {"basis": "params", "value": 1.5}}, "target: value: Input should be less than 1"),
        ({"target": {"basis": "parms", "value": 0.5}}, "target: basis: Input should be 'params'"),
        ({"calibration": [[1, 2]]}, "calibration: must be an int64 tensor"),
        ({"calibration": torch.zeros(2, 3)}, "calibration: must be an int64 tensor"),
        ({"calibration": "c4"}, "calibration: data: "),
        ({"device": "tpu"}, "device: must be auto, cpu or cuda, not 'tpu'"),
        ({"dtype": "int8"}, "dtype: must be float32, float16, bfloat16, not 'int8'"),
        ({"tokenizer": object()}, "tokenizer: goes with a loaded model alone"),
        ({"model": torch.nn.Linear(1, 1)}, "model: must be a name, a folder or a transformers model, not Linear"),
    ],
)
def test_bad_arguments_are_one_sentence(
    tiny_mha: Path, tmp_path: Path, arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError) as caught:
        compress(**(dict[str, Any](model=tiny_mha, method="random", out=tmp_path / "out") | arguments))
    assert sentence in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_text_by_name_is_what_the_method_reads(
    tiny_mha: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"text": f"The fox number {i} is what is measured, " * 12} for i in range(12)]
    monkeypatch.setenv("LEANBOARD_DATA", str(make_pack(tmp_path / "pack", {"mine/train": rows})))
    config = {"layers": [1, 3], "group_ratio": 0.5}
    texts = ("mine/train", TextSource(data="mine/train", sampler="joined"))
    read = []
    for i, text in enumerate(texts):
        artifact = compress(tiny_mha, "llm_pruner", config=config, calibration=text, out=tmp_path / f"out{i}")
        assert artifact.cost.calibration_tokens == 640
        manifest = json.loads((artifact.path / "leanboard.json").read_text())
        read.append(manifest["ingredients"]["calibration"])
    fingerprint = Pack.default().fingerprint("mine/train")
    assert [text["fingerprint"] for text in read] == [fingerprint] * 2
    assert [text.get("sampler") for text in read] == [None, "joined"]
    with pytest.raises(UsageError, match=r"^calibration: mine/train: 10 windows of 900 tokens are asked for, and 0 of"):
        compress(tiny_mha, "llm_pruner", config={"seq_len": 900}, calibration="mine/train", out=tmp_path / "no")
    with pytest.raises(UsageError, match="unknown data 'mine/trian'; did you mean mine/train"):
        compress(tiny_mha, "llm_pruner", calibration="mine/trian", out=tmp_path / "no")


def test_a_folder_of_the_user_is_never_overwritten(tiny_mha: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="nothing is overwritten"):
        compress(tiny_mha, "random", out=tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_an_unreachable_target_says_what_can_be_reached(tiny_mha: Path, tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="cannot be reached: the nearest fraction of params"):
        compress(tiny_mha, "random", target=Target(value=0.9), out=tmp_path / "out")


def test_token_ids_beyond_the_vocabulary_are_refused(tiny_mha: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"calibration: token ids must be within 0..299"):
        compress(tiny_mha, "llm_pruner", calibration=IDS + 200, out=tmp_path / "out")


def test_evaluating_what_is_not_there(tiny_mha: Path) -> None:
    with pytest.raises(UsageError, match="unknown task 'pica'; did you mean piqa"):
        evaluate(tiny_mha, ["pica"])
    with pytest.raises(UsageError, match="limit: must be at least 1"):
        evaluate(tiny_mha, ["piqa"], limit=0)
    with pytest.raises(UsageError, match=r"piqa/validation is not available: .*offline"):
        evaluate(tiny_mha, ["piqa"])
