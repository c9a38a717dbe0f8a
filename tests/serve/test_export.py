"""An exported folder is what was measured, loads without Leanboard, and says what it is."""

import json
import re
from pathlib import Path

import pytest
import torch

from bench.errors import DataError, UsageError
from bench.model import checkpoint
from bench.model.checkpoint import load_checkpoint, read_manifest
from bench.serve import export as module
from bench.serve.card import write_card
from bench.serve.export import export, servable
from tests.artefacts import make
from tests.model.test_checkpoint import IDS, fresh_process
from tests.serve.board import row

ALONE = """
sys.modules["bench"] = None  # as if it were not installed
from transformers import AutoModel, AutoModelForCausalLM
def load(folder):
    AutoModel.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    assert not [name for name in sys.modules if name.startswith("bench.")]
    return model
"""


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is not loaded again in another process, which takes seconds."""
    monkeypatch.setattr(module, "_check", lambda *_: None)


@pytest.mark.slow
def test_a_process_without_leanboard_gets_the_logits_that_were_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By stock transformers, as a model card on the hub says: `trust_remote_code=True`, and nothing else.

    All are loaded by one process; the export's own check is made on one of them.
    """
    check = module._check
    monkeypatch.setattr(module, "_check", lambda folder, *rest: "uneven" in folder.name and check(folder, *rest))
    folders = [make("uneven", "qwen3-gqa", tmp_path / "qwen3")]
    for kind in ("uniform", "uneven", "everything", "merged"):
        found, out = row(tmp_path / kind, kind), tmp_path / f"out-{kind}"
        assert not [note for note in export(found, out, dtype=None, form="hf") if "cast" in note]
        config = json.loads((out / "config.json").read_text())
        is_plain = kind in ("uniform", "merged")
        assert config["architectures"] == ["LlamaForCausalLM" if is_plain else "LeanLlamaForCausalLM"]
        assert ("auto_map" in config) != is_plain
        assert (out / "adapter" / "adapter_config.json").exists() == (kind == "merged")
        assert read_manifest(out) == read_manifest(found.folder)
        folders.append(out)
    with torch.no_grad():
        expected = [load_checkpoint(folder)[0](torch.tensor([IDS])).logits[0, -1].tolist() for folder in folders]
    assert fresh_process(folders, ALONE, HF_MODULES_CACHE=str(tmp_path / "hf")) == expected


@pytest.mark.usefixtures("trusted")
def test_the_card_tells_method_sizes_scores_and_how_to_load_it(tmp_path: Path) -> None:
    export(row(tmp_path, "uneven", method="llm_pruner"), tmp_path / "out", dtype=None, form="hf")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| method | `llm_pruner`, LLM-Pruner (" in card
    assert "20.00 % of params" in card
    assert "| `wikitext2.ppl_token@2048/limit4` | 12.50 ± 0.40 | 8188 |" in card
    assert 'from_pretrained("DIR", dtype="float32", trust_remote_code=True)' in card
    assert "lm_eval --model hf --model_args pretrained=DIR,dtype=float32,trust_remote_code=True" in card
    assert "vllm serve DIR --dtype float32" in card
    assert "| 1 | 3 | 3 | 80 |" in card
    assert not re.search(r"\$\w", card)


@pytest.mark.usefixtures("trusted")
def test_the_card_names_the_file_of_code_that_lies_there(tmp_path: Path) -> None:
    found = row(tmp_path, "uneven")
    export(found, tmp_path / "out", dtype=None, form="hf")
    assert "`lean.py`" in (tmp_path / "out" / "README.md").read_text()
    code, file = tmp_path / "out" / "lean.py", tmp_path / "out" / "config.json"
    code.rename(code.with_name("lean_llama.py"))  # what checkpoints of earlier versions have
    file.write_text(file.read_text().replace('"lean.', '"lean_llama.'))
    write_card(found, tmp_path / "out", "hf", "float32", [])
    assert "`lean_llama.py`" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.usefixtures("trusted")
def test_a_plain_model_needs_no_code_and_an_adapter_is_told_of(tmp_path: Path) -> None:
    export(row(tmp_path, "merged"), tmp_path / "out", dtype=None, form="hf")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "trust_remote_code" not in card
    assert 'PeftModel.from_pretrained(dense_model, "DIR/adapter")' in card


@pytest.mark.usefixtures("trusted")
def test_another_precision_is_written_and_told(tmp_path: Path) -> None:
    (note,) = export(row(tmp_path, "uneven"), tmp_path / "out", dtype="bfloat16", form="hf")
    assert note.startswith("cast from float32, in which it was measured")
    assert json.loads((tmp_path / "out" / "leanboard.json").read_text())["dtype"] == "bfloat16"
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    assert load_checkpoint(tmp_path / "out", "bfloat16")[0].dtype == torch.bfloat16
    assert note in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.usefixtures("trusted")
def test_nothing_is_overwritten_and_nothing_half_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, full = row(tmp_path, "uneven"), tmp_path / "full"
    full.mkdir()
    (full / "mine").touch()
    with pytest.raises(UsageError, match="is not empty"):
        export(found, full, dtype=None, form="hf")
    with pytest.raises(UsageError, match="dtype 'int4' is not known"):
        export(found, tmp_path / "out", dtype="int4", form="hf")
    monkeypatch.setattr(module, "write_card", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(found, tmp_path / "out", dtype=None, form="hf")
    assert not (tmp_path / "out").exists()
    assert [p.name for p in full.iterdir()] == ["mine"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("return self.down_proj(", "return 2 * self.down_proj(", "without Leanboard its logits differ by"),
        ("import torch\n", "import torch\nimport bench.shape\n", "without Leanboard it cannot be loaded"),
    ],
)
def test_code_that_is_not_what_was_measured_is_noticed(
    before: str, after: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, save = row(tmp_path, "factored"), checkpoint.save_checkpoint

    def spoil(folder: Path, *args: object, **kwargs: object) -> object:
        manifest = save(folder, *args, **kwargs)  # type: ignore[arg-type]
        code = (folder / "lean.py").read_text()
        assert before in code
        (folder / "lean.py").write_text(code.replace(before, after, 1))
        return manifest

    monkeypatch.setattr(module, "save_checkpoint", spoil)
    with pytest.raises(DataError, match=sentence):
        export(found, tmp_path / "out", dtype=None, form="hf")
    assert not (tmp_path / "out").exists()


def test_heads_that_cannot_be_shared_evenly_are_refused(tmp_path: Path) -> None:
    for kind, where in (("uneven", ("per_layer_config", "0")), ("uniform", ())):
        found = row(tmp_path, kind)
        file = found.folder / "config.json"
        config = json.loads(file.read_text())
        part = config
        for name in where:
            part = part.setdefault(name, {})
        part |= {"num_attention_heads": 4, "num_key_value_heads": 3}
        file.write_text(json.dumps(config))
        why = r"config\.json: num_key_value_heads: 4 query heads are not a multiple of 3 key/value heads"
        with pytest.raises(UsageError, match=why):
            export(found, tmp_path / "out", dtype=None, form="hf")


def test_what_vllm_lacks_is_told(tmp_path: Path, tiny_gqa: Path) -> None:
    assert servable(tiny_gqa) == ["vLLM has no attention for heads of 16 dimensions on a CPU"]
    (note,) = servable(row(tmp_path, "factored").folder)
    assert "one GPU" in note
