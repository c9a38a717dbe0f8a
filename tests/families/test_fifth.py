"""Another family is one more file: found as a plug-in or a package, and no other file knows of it."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

import bench
from bench import family as families
from bench.conformance.tiny import make_checkpoint, variants
from bench.errors import UsageError
from bench.families import mistral
from bench.families.llama import LLAMA
from bench.family import Family, known, of_config
from bench.model.load import load_folder
from bench.registry import load_registry
from bench.shape import Shape
from tests.families import seed_oss, test_surgery, test_tables
from tests.families.models import MODELS
from tests.suites import here, leanboard, make_suite

pytestmark = test_tables.pytestmark
PLUGIN = Path(seed_oss.__file__)
MISTRAL = Path(mistral.__file__).read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def nothing_plugged_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test begins without plug-ins and leaves none behind."""
    monkeypatch.setattr(families, "_plugged_in", {})
    families._packaged.cache_clear()
    yield
    families._packaged.cache_clear()


@pytest.fixture
def seed() -> Family:
    assert load_registry([PLUGIN]).broken == {}
    return known()["seed_oss"]


def holds(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the built-in families are asked, of this one."""
    for kind, fields in variants(family).items():
        name = f"{family.model_type}-{kind}"
        monkeypatch.setitem(MODELS, name, fields)
        test_tables.test_names_and_sizes_are_those_of_transformers(name)
        for hidden in (None, test_surgery.HIDDEN):
            test_surgery.test_what_is_left_computes_as_before(name, hidden)
        test_surgery.test_masks_are_folded(name)
        test_surgery.test_factors_keep_biases(name)
        test_tables.test_channels_and_hidden_dimensions_go_together(name)
    test_tables.test_heads_go_together(f"{family.model_type}-mha", (1, 3))
    test_tables.test_what_a_config_leaves_out_is_what_transformers_takes(family)


def test_it_holds_what_built_in_families_do(seed: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    holds(seed, monkeypatch)
    shape = Shape.of({"model_type": "seed_oss", "vocab_size": 9, "num_hidden_layers": 1} | WIDTHS)
    assert (shape.biased, shape.head_dim) == (("q_proj", "k_proj", "v_proj"), 128)


WIDTHS = {"hidden_size": 64, "intermediate_size": 8, "num_attention_heads": 8}


@pytest.mark.slow
def test_by_the_command_line_it_gets_its_rows(seed: Family, tmp_path: Path) -> None:
    """Its models are planned, compressed, unevenly too, measured in a process of their own, and shown."""
    fields = variants(seed)["gqa"]
    model = make_checkpoint(tmp_path / "seed", **fields, channels=256)
    uneven = {"name": "magnitude", "config": {"global_ranking": True}}
    make_suite(tmp_path, models=[str(model)], methods=["dense", uneven], tasks=["size", "wikitext2@128/limit2"])
    refused = leanboard(tmp_path, "plan", "suite.yaml")
    assert refused.returncode == 2
    assert "model_type: 'seed_oss' is of no known family" in refused.stderr
    run = ("run", "suite.yaml", "--plugins", str(PLUGIN), "--results")
    done = here(tmp_path, *run, "r", "--only", "method=dense", "--executor", "inline")
    assert done.returncode == 0, done.stderr
    done = leanboard(tmp_path, *run, "r")
    assert done.returncode == 0, done.stderr
    done = here(tmp_path, *run, "random", "--weights", "random", "--only", "method=dense", "--executor", "inline")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "r" / "leaderboard.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert {row["status"] for row in rows.values()} == {"ok"}
    made = [json.loads(file.read_text()) for file in (tmp_path / "cache").glob("**/config.json")]
    assert "lean_seed_oss" in {config["model_type"] for config in made}
    dense = load_folder(model)[0]
    assert float(rows["dense"]["params.stored"]) == sum(p.numel() for p in dense.parameters())


def test_by_an_installed_package_it_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own entry points, and the Python interface: compress, save, reload, evaluate."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "a_package_of_seed.py").write_text(PLUGIN.read_text())
    info = tmp_path / "site" / "a_package_of_seed-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: a-package-of-seed\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[leanboard.families]\nseed = a_package_of_seed:SEED_OSS\nlost = a_package_of_seed:LOST\n"
        "wrong = a_package_of_seed:ATTENTION\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    model = make_checkpoint(tmp_path / "seed", **variants(known()["seed_oss"])["mha"], channels=256)
    assert families.broken().keys() == {"lost", "wrong"}
    with pytest.raises(UsageError, match=r"'opt' is of no known family.*family lost could not be loaded"):
        of_config({"model_type": "opt"})
    made = bench.compress(
        model,
        "magnitude",
        config={"global_ranking": True},
        target={"basis": "params", "value": 0.2},
        out=tmp_path / "left",
    )
    config = json.loads((made.path / "config.json").read_text())
    assert config["model_type"] == "lean_seed_oss"
    stored = sum(weight.numel() for weight in load_file(made.path / "model.safetensors").values())
    assert stored == Shape.of(config).params() == made.sizes["params.stored"]
    sizes = {metric.id: metric.value for metric in bench.evaluate(made.path, ["size"])}
    assert sizes["params.stored"] == stored


def test_a_fresh_file_could_define_mistral(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "built_in", lambda: {"llama": LLAMA})
    with pytest.raises(UsageError, match="'mistral' is of no known family; known are llama"):
        of_config({"model_type": "mistral"})
    (tmp_path / "mistral.py").write_text(MISTRAL)
    assert load_registry([tmp_path]).broken == {}
    holds(known()["mistral"], monkeypatch)


@pytest.mark.parametrize("model_type", ["mistral", "seed_oss"])
def test_a_second_definition_of_a_model_type_is_refused(model_type: str, seed: Family, tmp_path: Path) -> None:
    text = MISTRAL.replace("4096", "1024").replace('"mistral"', f'"{model_type}"')
    (tmp_path / "again.py").write_text(text)
    before = known()[model_type]
    broken = load_registry([tmp_path]).broken
    assert f"family '{model_type}' exists already, and is another" in broken["again"]
    assert known()[model_type] == before


@pytest.mark.slow
def test_where_plug_ins_are_named_transformers_knows_the_lean_type(tmp_path: Path) -> None:
    code = (
        "import bench.model\nfrom transformers import AutoConfig\n"
        "print(AutoConfig.for_model('lean_seed_oss', per_layer_config={}).model_type)"
    )
    env = os.environ | {"LEANBOARD_PLUGINS": str(PLUGIN)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=240)
    assert done.stdout.strip() == "lean_seed_oss", done.stderr
