"""Models of the hub, downloaded really from a hub of the tests' own."""

import json
import re
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file

from bench.api import compress, evaluate
from bench.catalogue import CATALOGUE, HubId, ModelRef, is_here, resolve
from bench.catalogue.hub import _reason, from_hub
from bench.errors import UsageError
from bench.model.checkpoint import read_manifest
from bench.record.store import Store
from bench.rehearse.sources import source_of
from bench.run.models import real_models
from tests.hub import Hub
from tests.suites import here, make_suite

REPO = "some-lab/Tiny-1.5"


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEANBOARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.fixture
def served(tiny_mha: Path, tmp_path: Path) -> Path:
    """What the repository holds: a checkpoint, and what lies with some."""
    folder = shutil.copytree(tiny_mha, tmp_path / "served")
    for name in ("consolidated.safetensors", "adapter_model.safetensors", "pytorch_model.bin", "original/model.pth"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not to be fetched")
    return folder


def refusal(model: str = REPO, offline: bool = False) -> str:
    with pytest.raises(UsageError) as caught:
        resolve(model, offline=offline)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{model}: ")
    return str(caught.value)


def test_a_hub_id_is_downloaded_once_with_what_is_needed_alone(hub: Hub, served: Path, tiny_mha: Path) -> None:
    commit = hub.add(REPO, served)
    said: list[str] = []
    ref = resolve(REPO, offline=False, on_progress=said.append)
    local = resolve(str(tiny_mha), offline=True)
    assert ref == ModelRef(REPO, ref.path, local.fingerprint, local.tokenizer_fingerprint, revision=commit)
    assert {path.name for path in ref.path.iterdir()} == {path.name for path in tiny_mha.iterdir()}
    assert any(line.startswith(f"{REPO}: {REPO} at commit {commit[:12]}: 0.00 GB in 1 files") for line in said), said
    [stored, *_] = evaluate(REPO, ["size"])
    assert (stored.id, stored.value) == ("params.stored", 4 * 4 * 64 * 64 + 4 * 3 * 64 * 96 + 9 * 64 + 2 * 300 * 64)
    asked = len(hub.asked)
    assert resolve(REPO, offline=False) == resolve(REPO, offline=True) == ref
    assert len(hub.asked) == asked


def test_a_revision_is_kept_apart_and_a_commit_names_it_too(hub: Hub, served: Path, tiny_gqa: Path) -> None:
    first = hub.add(REPO, served, "v1.0")
    second = hub.add(REPO, tiny_gqa)
    old, new = resolve(f"{REPO}@v1.0", offline=False), resolve(REPO, offline=False)
    assert (old.id, old.revision, new.id, new.revision) == (f"{REPO}@v1.0", first, REPO, second)
    assert old.fingerprint != new.fingerprint
    assert resolve(f"{REPO}@{first}", offline=True).path == old.path


def test_a_model_of_the_catalogue_has_a_commit_too(hub: Hub, served: Path) -> None:
    commit = hub.add("huggyllama/llama-7b", served)
    ref = resolve("llama-7b", offline=False)
    assert (ref.id, ref.revision) == ("llama-7b", commit)
    assert is_here(CATALOGUE["llama-7b"])
    assert not is_here(CATALOGUE["vicuna-7b"])


def test_a_folder_of_that_name_wins(hub: Hub, served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(served, tmp_path / "work" / REPO)
    monkeypatch.chdir(tmp_path / "work")
    ref = resolve(REPO, offline=False)
    assert (ref.id, ref.path, ref.revision) == (f"Tiny-1.5-{ref.fingerprint[:6]}", Path(REPO), None)
    assert resolve(REPO, paths={REPO: served}, offline=False).id == REPO
    assert hub.asked == []


def test_model_path_takes_a_hub_id_too(hub: Hub, served: Path) -> None:
    commit = hub.add(REPO, served, "v1")
    paths = {"llama-7b": Path(f"{REPO}@v1")}
    [note] = real_models(["llama-7b"], paths, False, False, print, listing=True).notes
    assert note.startswith("llama-7b: weights are not here (to be fetched: about 0.0 GB)")
    assert source_of("llama-7b", paths, offline=False).config["hidden_size"] == 64
    assert not any("safetensors" in line and "/resolve/" in line for line in hub.asked)
    ref = resolve("llama-7b", paths=paths, offline=False)
    assert (ref.id, ref.revision) == ("llama-7b", commit)
    assert real_models(["llama-7b"], paths, True, False, print, listing=True).refs == [ref]


def test_refusals_say_what_to_do(hub: Hub, served: Path) -> None:
    assert "no repository some-lab/Tiny-1.5 on the model hub, or one that needs a token in HF_TOKEN" in refusal()
    hub.add(REPO, served)
    assert f"{REPO} has no commit, tag or branch 'v9'" in refusal(f"{REPO}@v9")
    hub.denied[REPO] = "gated"
    assert f"is gated: ask for it at {hub.endpoint}/{REPO}, then set HF_TOKEN" in refusal()
    hub.denied[REPO] = 401
    assert "needs a token in HF_TOKEN" in refusal()
    hub.denied[REPO] = 403
    assert f"refuses access to {REPO}: ask for it at {hub.endpoint}/{REPO}" in refusal()
    hub.denied[REPO] = 500
    assert "the model hub answers 500" in refusal()
    offline = refusal(offline=True)
    assert "no weights on this machine and offline" in offline
    assert f"--model-path {REPO}=DIR" in offline


@pytest.mark.parametrize("name", ["lab/tiny-", "lab./tiny", "lab/t\u00efny", f"lab/{'b' * 97}"])
def test_what_no_hub_can_have_is_no_id(name: str) -> None:
    with pytest.raises(UsageError, match=f"^model {re.escape(name)}: the folder .* does not exist$"):
        resolve(name, offline=True)


def test_a_connection_that_breaks_is_no_missing_file() -> None:
    why = _reason(HubId(REPO), LocalEntryNotFoundError("An error happened on the way"))
    assert why == f"the transfer of {REPO} broke off (An error happened on the way); run it again, whole files are kept"


def test_a_token_opens_a_gated_repository(hub: Hub, served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPO, served)
    hub.denied[REPO], hub.token = "gated", "hf_mine"
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert resolve(REPO, offline=False).id == REPO


def test_after_a_broken_transfer_only_the_rest_is_fetched(hub: Hub, served: Path) -> None:
    hub.add(REPO, served)
    size = (served / "model.safetensors").stat().st_size
    hub.breaks["model.safetensors"] = 0
    assert f"the transfer of {REPO} broke off" in refusal()
    del hub.breaks["model.safetensors"]
    hub.asked.clear()
    hub.breaks["model.safetensors"] = size // 2
    assert (resolve(REPO, offline=False).path / "model.safetensors").stat().st_size == size
    fetched = [line for line in hub.asked if line.startswith("GET") and "/resolve/" in line]
    assert {line.split()[1].rsplit("/", 1)[1] for line in fetched} == {"model.safetensors"}
    assert any(" from " in line for line in fetched), "the file goes on where it broke off"


def test_a_damaged_file_of_the_snapshot_is_fetched_again(hub: Hub, served: Path) -> None:
    hub.add(REPO, served)
    weights = resolve(REPO, offline=False).path / "model.safetensors"
    blob = weights.resolve()
    blob.write_bytes(blob.read_bytes()[:-1])
    assert "no weights on this machine" in refusal(offline=True)
    assert resolve(REPO, offline=False).path == weights.parent
    assert weights.stat().st_size == (served / "model.safetensors").stat().st_size


def test_a_damaged_bin_of_the_snapshot_is_fetched_again(hub: Hub, tiny_mha: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_mha, tmp_path / "bins")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    hub.add(REPO, folder)
    fetched = from_hub(REPO, HubId(REPO), False, print) / "pytorch_model.bin"
    blob = fetched.resolve()
    blob.write_bytes(blob.read_bytes()[:-100])
    assert "no weights on this machine" in refusal(offline=True)
    from_hub(REPO, HubId(REPO), False, print)
    assert fetched.read_bytes() == (folder / "pytorch_model.bin").read_bytes()


def test_code_of_its_own_is_fetched_where_it_is_trusted_alone(
    hub: Hub, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = served / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"auto_map": {"AutoModelForCausalLM": "own.Own"}}))
    (served / "own.py").write_text("raise RuntimeError\n")
    hub.add(REPO, served)
    with pytest.raises(UsageError, match="which is refused without --trust-remote-code"):
        resolve(REPO, offline=False)
    assert not any("own.py" in line or ".safetensors" in line for line in hub.asked)
    compared: list[Path] = []
    monkeypatch.setattr("bench.foreign.run_module", lambda module, folder, copy: compared.append(Path(folder)))
    ref = resolve(REPO, offline=False, trust_remote_code=True)
    assert ref.remote_code is not None
    assert (compared[0] / "own.py").is_file()
    assert (ref.revision, ref.path.name[:6]) == (compared[0].name, "plain-")


def test_compress_takes_a_hub_id(hub: Hub, served: Path, tmp_path: Path) -> None:
    hub.add(REPO, served, "v1")
    made = compress(f"{REPO}@v1", "magnitude", target={"basis": "params", "value": 0.2}, out=tmp_path / "out")
    assert made.achieved["params"] == pytest.approx(0.2, abs=0.005)
    manifest = read_manifest(made.path)
    assert manifest is not None
    assert manifest.ingredients["weights"] == resolve(f"{REPO}@v1", offline=True).fingerprint


def test_what_cannot_be_read_is_refused_before_its_weights_are_fetched(hub: Hub, served: Path) -> None:
    config = served / "config.json"
    good = json.loads(config.read_text())
    for change, sentence in (
        ({"model_type": "mystery"}, "'mystery' is of no known family"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised weights (gptq) are not read"),
    ):
        config.write_text(json.dumps(good | change))
        hub.add(REPO, served)
        with pytest.raises(UsageError, match=r"config\.json: ") as caught:
            resolve(REPO, offline=False)
        assert sentence in str(caught.value)
    config.write_text(json.dumps(good))
    (served / "model.safetensors").rename(served / "model.gguf")
    (served / "pytorch_model.bin").unlink()
    hub.add(REPO, served)
    assert "holds no *.safetensors and no pytorch_model*.bin" in refusal()
    assert "model.gguf" in refusal()
    assert not any(".safetensors" in line or ".gguf" in line for line in hub.asked)


@pytest.mark.filterwarnings("ignore:Not enough free disk space")
def test_a_disk_that_is_too_small_is_seen_before(hub: Hub, served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPO, served)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10))
    assert f"needs 0.00 GB in {hub.cache}, and 0.00 GB are free" in refusal()
    assert not any("model.safetensors" in line for line in hub.asked)


@pytest.mark.filterwarnings("ignore:Not enough free disk space")
def test_one_disk_has_to_hold_bin_weights_twice(hub: Hub, served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are downloaded, and as safetensors."""
    weights = (served / "model.safetensors").rename(served / "pytorch_model.bin")
    hub.add(REPO, served)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(2 * weights.stat().st_size - 1))
    assert f"in {hub.cache}, and 0.00 GB are free" in refusal()
    assert not any("pytorch_model.bin" in line and "/resolve/" in line for line in hub.asked)


@pytest.mark.slow
def test_a_suite_of_a_hub_id_is_run_and_its_records_keep_the_commit(hub: Hub, served: Path, tmp_path: Path) -> None:
    commit = hub.add(REPO, served, "v1")
    model = f"{REPO}@v1"
    make_suite(tmp_path, models=[model], methods=["dense"], tasks=["size"])

    def run(*arguments: str) -> str:
        done = here(tmp_path, *arguments, **hub.environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("run", "suite.yaml", "--executor", "inline")
    records, problems = Store(tmp_path / "results").read_all()
    assert problems == []
    assert {(record.model, record.provenance.model_revision) for record in records} == {(model, commit)}
    rows = json.loads(run("plan", "suite.yaml", "--only", f"model={model}", "--offline", "--cells", "--json"))
    assert {row["status"] for row in rows} == {"finished"}
    [page] = (tmp_path / "results" / "site" / "rows").glob("*.html")
    assert f"# {model} is the repository&#39;s commit {commit}" in page.read_text()
