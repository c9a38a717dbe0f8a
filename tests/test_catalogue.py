import json
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from bench import catalogue
from bench.catalogue import CATALOGUE, HubModel, is_here, resolve
from bench.checkpoint_files import check_safetensors
from bench.errors import DataError, UsageError
from bench.paths import cache_dir
from bench.shape import Shape


@pytest.fixture
def folder(tiny_mha: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_mha, tmp_path / "my-llama")


@pytest.fixture(autouse=True)
def _no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEANBOARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("bench.catalogue.hub.why_no_hub", lambda offline: "the model hub does not answer")


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refusal(folder: Path, kind: type[UsageError] = UsageError) -> str:
    with pytest.raises(kind) as caught:
        resolve(str(folder), offline=True)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_importing_the_catalogue_is_cheap() -> None:
    code = (
        "import sys, bench.catalogue, bench.data.pack, bench.data.sources, bench.data.calibration\n"
        "import bench.data.instructions\n"
        "print([m for m in ('torch', 'transformers', 'datasets', 'pandas', 'pyarrow') if m in sys.modules])"
    )
    root = Path(catalogue.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"


def test_a_local_folder_is_used_as_it_is(folder: Path) -> None:
    ref = resolve(str(folder), offline=True)
    assert (ref.id, ref.path) == (f"my-llama-{ref.fingerprint[:6]}", folder)
    assert ref == resolve(str(folder), offline=True)


def test_model_path_stands_in_for_a_catalogue_id(folder: Path) -> None:
    ref = resolve("llama-7b", paths={"llama-7b": folder}, offline=True)
    assert (ref.id, ref.path) == ("llama-7b", folder)
    with pytest.raises(UsageError, match=r"llama-7b: the folder .*nowhere does not exist"):
        resolve("llama-7b", paths={"llama-7b": folder / "nowhere"}, offline=True)


def test_the_fingerprint_follows_weights_and_config_not_bookkeeping(folder: Path, tiny_gqa: Path) -> None:
    first = resolve(str(folder), offline=True)
    edit(folder, transformers_version="0", use_cache=False, _name_or_path="elsewhere")
    assert resolve(str(folder), offline=True) == first
    edit(folder, rms_norm_eps=0.5)
    assert resolve(str(folder), offline=True).fingerprint != first.fingerprint
    assert resolve(str(tiny_gqa), offline=True).fingerprint != first.fingerprint


def test_changed_weights_change_the_fingerprint(folder: Path) -> None:
    first = resolve(str(folder), offline=True)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    changed = resolve(str(folder), offline=True)
    assert changed.fingerprint != first.fingerprint
    assert changed.tokenizer_fingerprint == first.tokenizer_fingerprint


def test_weights_are_hashed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = resolve(str(folder), offline=True)
    monkeypatch.setattr("bench.data.store.sha256_of", lambda path: pytest.fail(f"{path} was hashed again"))
    assert resolve(str(folder), offline=True) == first


def test_a_damaged_store_of_hashes_counts_as_empty(folder: Path) -> None:
    first = resolve(str(folder), offline=True)
    (cache_dir() / "fingerprints.json").write_text("[")
    assert resolve(str(folder), offline=True) == first


def test_a_checkpoint_without_tokenizer_says_so(folder: Path) -> None:
    before = resolve(str(folder), offline=True)
    for path in folder.glob("*token*"):
        path.unlink()
    ref = resolve(str(folder), offline=True)
    assert ref.tokenizer_fingerprint == "none"
    assert ref.fingerprint == before.fingerprint


def test_other_families_are_refused(folder: Path) -> None:
    edit(folder, model_type="opt")
    assert "config.json: model_type: 'opt' is of no known family; known are llama, mistral, qwen2" in refusal(folder)
    edit(folder, model_type="mystery", auto_map={"AutoConfig": "code.Config"})
    assert "auto_map" in refusal(folder)
    edit(folder, model_type="llama")
    assert "auto_map" in refusal(folder)
    edit(folder, model_type="lean_llama")
    assert resolve(str(folder), offline=True).path == folder


@pytest.mark.parametrize("content", ["", "{", "[]", "\udcff"])
def test_a_broken_config_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert "config.json" in refusal(folder, DataError)


@pytest.mark.parametrize("name", ["../../elsewhere.safetensors", "/etc/passwd", "a/b.safetensors", "code.py", ".."])
def test_a_shard_that_is_no_file_beside_its_index_is_refused(folder: Path, name: str) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert "is not the name of a safetensors file next to it" in refusal(folder, DataError)


def test_a_folder_without_config_or_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "holds no *.safetensors" in refusal(folder, DataError)
    (folder / "config.json").unlink()
    assert "config.json: cannot be read" in refusal(folder, DataError)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_safetensors_are_refused(folder: Path, keep: int) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    assert "model.safetensors: truncated" in refusal(folder, DataError)


@pytest.mark.parametrize(("kind", "is_read"), [("F64", True), ("F8_E4M3", False), ("F4", False), ("I8", False)])
def test_floats_that_need_scales_are_refused(kind: str, is_read: bool, tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": kind, "shape": [1], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with nullcontext() if is_read else pytest.raises(DataError, match=f"a is of type {kind}: quantised weights"):
        check_safetensors(tmp_path / "a.safetensors")


def test_a_missing_shard_is_named(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-2.safetensors: this shard of the checkpoint is missing" in refusal(folder, DataError)


def test_unknown_names_get_a_suggestion() -> None:
    with pytest.raises(UsageError, match=r"unknown model 'llama-7'; did you mean llama-7b"):
        resolve("llama-7", offline=True)
    with pytest.raises(UsageError, match=r"folder .* does not exist"):
        resolve("./checkpoints/mine", offline=True)


@pytest.mark.parametrize("model", [entry.id for entry in CATALOGUE.values() if isinstance(entry.source, HubModel)])
def test_without_weights_and_hub_one_sentence_says_what_to_do(model: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(model, offline=False)
    assert "the model hub does not answer" in str(caught.value)
    assert f"--model-path {model}=DIR" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def snapshot(tiny_mha: Path, tmp_path: Path) -> Path:
    """The hub's cache with a tiny checkpoint in the place of llama-7b."""
    repo = tmp_path / "hub" / "models--huggyllama--llama-7b"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc")
    return shutil.copytree(tiny_mha, repo / "snapshots" / "abc")


def test_a_snapshot_in_the_hubs_cache_needs_no_hub(snapshot: Path) -> None:
    assert is_here(CATALOGUE["llama-7b"])
    assert resolve("llama-7b", offline=True).path == snapshot
    assert not is_here(CATALOGUE["vicuna-7b"])


def test_shapes_of_the_catalogue_count_as_published() -> None:
    counts = {name: Shape.of(entry.config).params() for name, entry in CATALOGUE.items()}
    assert counts == {
        "smollm2-135m": 134_515_008,
        "qwen2.5-coder-0.5b": 630_167_424,
        "llama-7b": 6_738_415_616,
        "llama-13b": 13_015_864_320,
        "vicuna-7b": 6_738_415_616,
        "vicuna-7b-v1.5": 6_738_415_616,
        "llama2-7b": 6_738_415_616,
        "llama3.1-8b": 8_030_261_248,
        "llama3.2-1b": 1_235_814_400,
        "tinyllama-1.1b": 1_100_048_384,
        "mistral-7b-v0.3": 7_248_023_552,
        "qwen2.5-0.5b": 494_032_768,
        "qwen2.5-7b": 7_615_616_512,
        "qwen3-0.6b": 596_049_920,
        "qwen3-8b": 8_190_735_360,
    }
