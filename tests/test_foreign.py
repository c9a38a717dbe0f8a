"""Models that bring code of their own: refused, or with the user's word run once and compared; never anywhere else."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from bench.catalogue import resolve
from bench.errors import DataError, UsageError
from bench.model.load import load_folder, load_tokenizer
from bench.registry import load_registry
from bench.run.outcome import artifact_record
from bench.run.plan import make_plan
from bench.suite import load_suite
from tests.suites import leanboard, make_suite
from tests.tiny import make_checkpoint

pytestmark = pytest.mark.slow

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

with open({log!r}, "a") as log:
    print("ran", file=log)

class OwnConfig(LlamaConfig):
    pass

class Own(LlamaForCausalLM):
    config_class = OwnConfig

    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        out.logits = out.logits * {factor}
        return out
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEANBOARD_CACHE", str(tmp_path / "cache"))


def foreign(root: Path, factor: float) -> Path:
    """A tiny LLaMA with a class of its own; running its code adds a line to `root / "log"`."""
    folder = make_checkpoint(root / "tiny-own")
    (folder / "own.py").write_text(CODE.format(log=str(root / "log"), factor=factor))
    edit(folder / "config.json", auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"})
    return folder


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_without_the_users_word_its_code_is_refused_and_never_run(tmp_path: Path) -> None:
    folder = foreign(tmp_path, 1.0)
    with pytest.raises(UsageError, match="run code of its own, which is refused without --trust-remote-code"):
        resolve(str(folder), offline=True)
    with pytest.raises(UsageError, match="auto_map"):
        load_folder(folder)
    assert not (tmp_path / "log").exists()


def test_code_next_to_bin_weights_is_refused_and_never_run(tmp_path: Path) -> None:
    folder = foreign(tmp_path, 1.0)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"is compared on \*\.safetensors alone, and it has pytorch_model\*\.bin"):
        resolve(str(folder), offline=True, trust_remote_code=True)
    assert not (tmp_path / "log").exists()


def test_code_that_computes_what_llama_does_is_run_once_and_the_record_says_so(tmp_path: Path) -> None:
    folder = foreign(tmp_path, 1.0)
    suite = make_suite(tmp_path, models=[str(folder)], methods=["dense"], tasks=["size"])
    shutil.rmtree(tmp_path / "tiny")
    [job] = make_plan(
        load_suite(str(suite)),
        load_registry(),
        tmp_path / "results",
        model_paths={},
        plugins=[],
        only={},
        offline=True,
        command=["leanboard"],
        say=lambda line: None,
        trust_remote_code=True,
    ).jobs
    assert job.remote_code is not None
    assert artifact_record(job, "ok", 1.0).provenance.remote_code == job.remote_code
    ran = (tmp_path / "log").read_text()
    load_folder(job.artifact.weights)
    assert resolve(str(folder), offline=True, trust_remote_code=True).remote_code == job.remote_code
    assert (tmp_path / "log").read_text() == ran != ""
    plain = make_checkpoint(tmp_path / "plain")
    assert resolve(str(plain), offline=True, trust_remote_code=True).remote_code is None


def test_code_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    folder = foreign(tmp_path, 1.5)
    with pytest.raises(UsageError, match=r"its own code cannot be replaced by that of LLaMA: its logits differ by"):
        resolve(str(folder), offline=True, trust_remote_code=True)
    assert not list((tmp_path / "cache" / "models").glob("plain-*")), "it would be taken for compared"


def test_a_tokenizer_with_code_of_its_own_is_refused_and_never_run(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "tiny")
    log = tmp_path / "log"
    (folder / "own.py").write_text(f"open({str(log)!r}, 'w').close()\nclass Own: pass\n")
    config = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    edit(folder / "tokenizer_config.json", **config)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="the tokenizer cannot be loaded"):
        load_tokenizer(folder)
    assert not log.exists()


def test_nothing_in_a_results_folder_or_where_one_stands_is_run(tmp_path: Path) -> None:
    make_suite(tmp_path, methods=["dense"], tasks=["size"])
    spy = f"open({str(tmp_path / 'log')!r}, 'w').close()\n"
    for place in (
        "results/evil.py",
        "results/runs/evil/__init__.py",
        "results/methods/__init__.py",
        "evil.py",
        "plugins/evil.py",
        "sitecustomize/evil.py",
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(spy)
    suite = yaml.safe_load((tmp_path / "suite.yaml").read_text())
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite | {"methods": ["evil"]}))
    assert leanboard(tmp_path, "methods").returncode == 0
    assert "unknown method 'evil'" in leanboard(tmp_path, "plan", "suite.yaml").stderr
    assert leanboard(tmp_path, "report").returncode == 0
    assert not (tmp_path / "log").exists()
    assert "evil" in leanboard(tmp_path, "methods", "--plugins", "plugins").stdout
    assert (tmp_path / "log").exists()
