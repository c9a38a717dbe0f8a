"""Weights as PyTorch's pickles: read as tensors alone, and the model is that of the same weights as safetensors."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bench.catalogue import bin_files, resolve
from bench.errors import DataError, UsageError
from bench.model.bin_files import convert
from bench.model.load import load_folder
from tests.hub import Hub
from tests.in_process import run_module

IDS = torch.tensor([[5, 9, 200, 31, 7]])


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEANBOARD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Conversions are made in this process, and counted."""
    made: list[str] = []

    def run(module: str, folder: str, new: str) -> str | None:
        made.append(module)
        try:
            convert(Path(folder), Path(new))
        except DataError as error:
            return str(error)
        return None

    monkeypatch.setattr(bin_files, "run_module", run)
    return made


def bins_of(source: Path, folder: Path, *, shards: int = 1, dtype: torch.dtype = torch.float32) -> Path:
    """`source` with its weights as pytorch_model*.bin, as older checkpoints lie on the hub."""
    shutil.copytree(source, folder)
    weights = folder / "model.safetensors"
    state = {name: weight.to(dtype) for name, weight in load_file(weights).items()}
    weights.unlink()
    names = sorted(state)
    if shards == 1:
        torch.save(state, folder / "pytorch_model.bin")
        return folder
    places: dict[str, str] = {}
    for i in range(shards):
        file = f"pytorch_model-{i + 1:05}-of-{shards:05}.bin"
        torch.save({name: state[name] for name in names[i::shards]}, folder / file)
        places |= dict.fromkeys(names[i::shards], file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def logits(folder: Path, dtype: str = "float32") -> torch.Tensor:
    model, _ = load_folder(folder, dtype)
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("shards", [1, 3])
def test_the_model_is_that_of_the_same_weights(
    tiny_mha: Path, tmp_path: Path, in_process: list[str], shards: int
) -> None:
    folder = bins_of(tiny_mha, tmp_path / "model", shards=shards)
    (folder / "training_args.bin").write_bytes(b"of a trainer")
    ref = resolve(str(folder), offline=True)
    assert ref.id == f"model-{ref.fingerprint[:6]}"
    assert torch.equal(logits(ref.path), logits(tiny_mha))
    assert len(list(ref.path.glob("*.safetensors"))) == shards
    assert ref.tokenizer_fingerprint == resolve(str(tiny_mha), offline=True).tokenizer_fingerprint
    assert resolve(str(folder), offline=True) == ref
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"rms_norm_eps": 0.5}))
    other = resolve(str(folder), offline=True)
    assert other.fingerprint != ref.fingerprint
    assert not torch.equal(logits(other.path), logits(ref.path))
    assert len(in_process) == 1, "the weights are written once"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_weights_stay_what_they_are(
    tiny_mha: Path, tmp_path: Path, in_process: list[str], dtype: torch.dtype
) -> None:
    ref = resolve(str(bins_of(tiny_mha, tmp_path / "model", dtype=dtype)), offline=True)
    weights = load_file(ref.path / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {dtype}
    wide = load_file(tiny_mha / "model.safetensors")
    assert all(torch.equal(weight, wide[name].to(dtype)) for name, weight in weights.items())


def test_safetensors_are_taken_where_there_are_both(tiny_mha: Path, tmp_path: Path, in_process: list[str]) -> None:
    folder = shutil.copytree(tiny_mha, tmp_path / "model")
    before = resolve(str(folder), offline=True)
    (folder / "pytorch_model.bin").write_bytes(b"anything")
    (folder / "consolidated.00.safetensors").write_bytes(b"anything")
    (folder / "adapter_model.safetensors").write_bytes(b"anything")
    assert resolve(str(folder), offline=True) == before
    assert in_process == []


def test_names_that_share_memory_and_views_are_written_apart(tmp_path: Path) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    state = {"a": whole, "tied": whole, "rows": whole[1:3], "turned": whole.t(), "alone": torch.ones(2)}
    (tmp_path / "new").mkdir()
    torch.save(state, tmp_path / "pytorch_model.bin")
    convert(tmp_path, tmp_path / "new")
    written = load_file(tmp_path / "new" / "model.safetensors")
    assert written.keys() == state.keys()
    assert all(torch.equal(written[name], state[name]) for name in state)


def test_files_of_before_zip_archives_are_read(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    torch.save({"a": torch.ones(3)}, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    convert(tmp_path, tmp_path / "new")
    assert torch.equal(load_file(tmp_path / "new" / "model.safetensors")["a"], torch.ones(3))


class Code:
    """What a pickle runs when it is read by those who trust it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"a": torch.ones(2), "b": "text"}, "'b' is str and not a tensor"),
        ({"state_dict": {"a": torch.ones(2)}}, "'state_dict' is dict and not a tensor"),
        ([torch.ones(2)], "holds list and not tensors by name"),
        ({"a": torch.ones(2, dtype=torch.int8)}, "a is of type torch.int8: quantised weights are not read"),
    ],
)
def test_anything_but_tensors_is_refused(tmp_path: Path, content: Any, sentence: str) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError) as caught:
        convert(tmp_path, tmp_path)
    assert str(caught.value) == f"{tmp_path / 'pytorch_model.bin'}: {sentence}"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS and not the file itself"),
        (b"<!doctype html><html></html>", "this pickle asks for more than tensors, or is damaged"),
    ],
)
def test_a_file_that_is_none_of_pytorchs_is_not_called_dangerous_alone(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(DataError, match=rf"pytorch_model\.bin: {sentence}"):
        convert(tmp_path, tmp_path)


def test_code_is_not_run(tmp_path: Path) -> None:
    torch.save({"a": Code(tmp_path / "ran")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"pytorch_model\.bin: this pickle asks for .*; it could run code and is refus"):
        convert(tmp_path, tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_truncated_and_a_missing_shard_are_named(tiny_mha: Path, tmp_path: Path, in_process: list[str]) -> None:
    folder = bins_of(tiny_mha, tmp_path / "model", shards=2)
    second = folder / "pytorch_model-00002-of-00002.bin"
    content = second.read_bytes()
    second.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"pytorch_model-00002-of-00002\.bin: "):
        resolve(str(folder), offline=True)
    second.unlink()
    with pytest.raises(DataError, match=r"pytorch_model-00002-of-00002\.bin: this shard of the checkpoint is missing"):
        resolve(str(folder), offline=True)


def test_an_unknown_family_and_a_full_disk_are_seen_before(
    tiny_mha: Path, tmp_path: Path, in_process: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bins_of(tiny_mha, tmp_path / "model")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))
        with pytest.raises(UsageError, match=r"model: needs 0\.0 GB in .*cache, and 0\.0 GB are free"):
            resolve(str(folder), offline=True)
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "opt"}))
    with pytest.raises(UsageError, match="'opt' is of no known family"):
        resolve(str(folder), offline=True)
    assert in_process == []


@pytest.mark.slow
def test_a_repository_of_bin_files_is_converted_in_a_process_of_its_own(
    hub: Hub, tiny_gqa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Vicuna's is: nothing but .bin shards; and a pickle with code does nothing."""
    commit = hub.add("lab/vicuna", bins_of(tiny_gqa, tmp_path / "served", shards=2))
    ref = resolve("lab/vicuna", offline=False)
    assert (ref.id, ref.revision) == ("lab/vicuna", commit)
    assert torch.equal(logits(ref.path), logits(tiny_gqa))
    assert resolve("lab/vicuna", offline=True) == ref
    monkeypatch.setattr("bench.catalogue.bin_files.run_module", run_module)
    bad = bins_of(tiny_gqa, tmp_path / "bad")
    torch.save({"a": Code(tmp_path / "ran")}, bad / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"bad/pytorch_model\.bin: this pickle asks for .* is refused$"):
        resolve(str(bad), offline=True)
    assert not (tmp_path / "ran").exists()
