"""What a plan says of memory, disk and time, against what running it takes; and what cannot fit is refused."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from bench.catalogue import CATALOGUE
from bench.data.files import read_json
from bench.errors import UsageError
from bench.paths import artifact_path, cache_dir
from bench.record.provenance import fingerprint_of, machine_fingerprint
from bench.record.store import Store
from bench.registry import load_registry
from bench.run import estimate
from bench.run.plan import Plan, make_plan
from bench.shape import Shape
from bench.suite import load_suite
from bench.task_accuracy import BEGINNING_BYTES
from tests.packs import make_pack, tables
from tests.suites import CALIBRATION, environment, here, make_suite, passages

SMOLLM = cache_dir() / "models" / "smollm2-135m"
TOKEN = 2 * 4096 * 4 * 32
METHODS = [{"name": name, "preset": "quick"} for name in ("dense", "random", "llm_pruner", "saap", "lora", "trawl")]
PEAKS = """
import os, sys, threading
from pathlib import Path
import psutil, torch, transformers, peft
import bench.measure.generation, bench.run.compress
from bench.measure import memory
from bench.run.cells import Job
from bench.run.worker import Worker

memory._reset_high_water = lambda: False  # a reset would hide the peaks before it
for file in sys.argv[1:]:
    job = Job.model_validate_json(Path(file).read_text())
    if not os.fork():  # a worker is a process of its own; the imports are shared, and count in each
        together, done = [0], threading.Event()

        def follow():  # those that generate are processes of their own; one that is just started looks like its parent
            me, before = psutil.Process(), 0
            while not done.wait(0.05):
                try:
                    seen = sum(p.memory_info().rss for p in [me, *me.children(recursive=True)])
                    together.append(min(before, seen))
                    before = seen
                except psutil.Error:
                    pass

        threading.Thread(target=follow, daemon=True).start()
        Worker(job, lambda event: event.get("status", "ok") == "ok" or sys.exit(event["message"])).run()
        status = Path("/proc/self/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        done.set()
        print(max(int(line.split()[1]) * 1024, *together), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""


def planned(root: Path, **changes: Any) -> Plan:
    return make_plan(
        load_suite(str(make_suite(root, **changes))),
        load_registry(),
        root / "results",
        model_paths={},
        plugins=[],
        only={},
        offline=True,
        command=["leanboard"],
        say=lambda line: None,
    )


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny model, a pack and a cache of its own."""
    make_suite(tmp_path)
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path


def peaks(plan: Plan, root: Path) -> list[int]:
    """Peak resident bytes of the worker of each job."""
    if not Path("/proc/self/status").exists():
        pytest.skip("this platform does not tell the high-water mark of memory")
    files = [root / f"{job.artifact.key}.json" for job in plan.jobs]
    for file, job in zip(files, plan.jobs, strict=True):
        file.write_text(job.model_dump_json())
    done = subprocess.run([sys.executable, "-c", PEAKS, *files], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [int(line) for line in done.stdout.split()]


def compared(plan: Plan, root: Path) -> dict[str, tuple[float, float]]:
    """Estimated over measured memory and disk, by what makes the checkpoint."""
    measured = peaks(plan, root)
    ratios = {}
    for job, peak in zip(plan.jobs, measured, strict=True):
        takes = plan.estimates[job.artifact.key]
        disk = sum(f.stat().st_size for f in artifact_path(job.artifact.key).rglob("*") if f.is_file())
        ratios[f"{job.artifact.method} {job.artifact.recovery_name}"] = (takes.memory / peak, takes.disk / disk)
        print(job.artifact.label, f"{takes.memory / 1e6:.0f} {peak / 1e6:.0f} MB", f"{takes.disk} {disk} B")
    return ratios


@pytest.mark.slow
def test_estimates_of_the_tiny_model(cached: Path) -> None:
    small = {
        "llm_pruner": {"seq_len": 16},
        "saap": {"seq_len": 16, "round_to": 1},
        "trawl": {"seq_len": 16, "ranks": [2, 4, 8, 16]},
    }
    methods = [m | {"config": small.get(m["name"], {}), "recovery": "none"} for m in METHODS]
    methods[3]["tasks"] = ["generate@hf/b1/p8/n4"]
    plan = planned(cached, methods=methods, tasks=["size"], training={"data": CALIBRATION})
    ratios = compared(plan, cached)
    assert len(ratios) == len(METHODS)
    assert {name: r for name, r in ratios.items() if not all(0.75 < x < 1.25 for x in r)} == {}


@pytest.mark.perf
@pytest.mark.skipif(not SMOLLM.is_dir(), reason="smollm2-135m is not in the cache")
def test_estimates_of_a_real_model(cached: Path) -> None:
    (cached / "cache" / "models").mkdir(parents=True)
    (cached / "cache" / "models" / "smollm2-135m").symlink_to(SMOLLM)
    methods = [m | ({"tasks": ["generate@hf/b1/p8/n4"]} if m["name"] == "dense" else {}) for m in METHODS]
    plan = planned(
        cached,
        models=["smollm2-135m"],
        methods=methods,
        recoveries=["none"],
        training={"data": CALIBRATION},
        tasks=["size"],
    )
    ratios = compared(plan, cached)
    assert {name: r for name, r in ratios.items() if not all(0.75 < x < 1.25 for x in r)} == {}


def test_what_gradients_take_is_what_scoring_allows_itself() -> None:
    gradients: Any = import_module("bench.blocks.gradients")
    ours: Any = estimate
    assert (ours.KEPT_SHARE, ours.KEPT_LEAST) == (gradients.KEPT_SHARE, gradients.KEPT_LEAST)


@pytest.mark.parametrize("kind", ["mha", "gqa-tied", "uneven"])
def test_a_shape_from_json_is_that_of_the_model(kind: str, tmp_path: Path) -> None:
    from bench.conformance.tiny import make_checkpoint, make_uneven_checkpoint
    from bench.model.layers import shape_of
    from bench.model.load import load_folder

    if kind == "uneven":
        make_uneven_checkpoint(tmp_path, kv_heads=2, tied=True)
    elif kind == "mha":
        make_checkpoint(tmp_path)
    else:
        make_checkpoint(tmp_path, kv_heads=2, tied=True)
    assert Shape.of(read_json(tmp_path / "config.json")) == shape_of(load_folder(tmp_path)[0])


def test_a_config_without_a_width_is_one_sentence(cached: Path) -> None:
    file = cached / "tiny" / "config.json"
    file.write_text(json.dumps({k: v for k, v in read_json(file).items() if k != "hidden_size"}))
    with pytest.raises(UsageError, match=r"config\.json: hidden_size: missing or not a positive number"):
        planned(cached)


def of(plan: Plan, method: str) -> estimate.Estimate:
    [key] = [job.artifact.key for job in plan.jobs if job.artifact.method == method]
    return plan.estimates[key]


def test_llama_7b_takes_what_its_parameters_say(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against arithmetic by hand: 6.74 G parameters of 2 bytes, adapters of 20 M numbers."""
    lora = {"name": "lora", "max_length": 256, "micro_batch": 4}
    methods = ["dense", "random", "llm_pruner", "lora", {"name": "magnitude", "recovery": lora}]
    plan = make_plan(
        load_suite(
            str(
                make_suite(
                    cached,
                    models=["llama-7b"],
                    methods=methods,
                    tasks=["size"],
                    dtype="bfloat16",
                    training={"data": CALIBRATION},
                )
            )
        ),
        load_registry(),
        cached / "results",
        model_paths={},
        plugins=[],
        only={},
        offline=True,
        command=["leanboard"],
        say=lambda line: None,
        random_weights=True,
    )
    weights, runtime = 2 * 6.738e9, 0.43e9
    assert of(plan, "dense").memory == pytest.approx(weights + runtime, rel=0.01)
    assert of(plan, "dense").disk == pytest.approx(weights, rel=0.001)
    assert of(plan, "random").disk == pytest.approx(0.8 * weights, rel=0.001)
    scoring = 640 * ((32 + 10) * 4096 * 2 + 4 * 11008 * 2 + 16 * 32000)
    assert of(plan, "llm_pruner").memory == pytest.approx(weights + runtime + scoring, rel=0.01)
    adapters = 20e6 * 16
    activations = 1024 * (32 * (10 * 4096 + 4 * 11008) * 2 + 16 * 32000)
    assert of(plan, "lora").memory == pytest.approx(weights + runtime + adapters + activations, rel=0.02)
    assert of(plan, "magnitude").memory == pytest.approx(0.8 * weights + runtime + adapters + activations, rel=0.02)


def test_of_two_models_in_turn_one_counts_with_a_vector_for_each_token_and_a_head(cached: Path) -> None:
    """By hand: LLaMA-7B's 4096 numbers of 2 bytes for 2 x 128 tokens, and for 32000 of its head."""
    plan = planned(cached, methods=["dense", "random"], tasks=["divergence@wikitext2/128/limit2"])
    shape = Shape.of(CATALOGUE["llama-7b"].config)
    job = plan.jobs[1].model_copy(update={"artifact": plan.jobs[1].artifact.model_copy(update={"dtype": "bfloat16"})})
    [cell] = job.cells
    takes = estimate.estimate(job, shape, load_registry().method("random").cls.traits, {})
    kept = 4096 * 2 * (2 * 128 + 32_000)
    assert takes.needs[cell.key] - takes.needs[job.artifact.key] == pytest.approx(kept)


def asked(root: Path, task: str, kind: str = "accuracy") -> int:
    """What a task takes on LLaMA-7B, whose token has 2 x 4096 numbers of 4 bytes in each of 32 layers."""
    [job] = planned(root, methods=["dense"], tasks=["arc_easy@0shot"]).jobs
    job = job.model_copy(update={"cells": [job.cells[0].model_copy(update={"task": task, "kind": kind})]})
    shape, traits = Shape.of(CATALOGUE["llama-7b"].config), load_registry().method("dense").cls.traits
    return estimate.estimate(job, shape, traits, {}).needs[job.cells[0].key]


def test_examples_that_are_kept_count_with_their_keys_and_values(cached: Path) -> None:
    kept = asked(cached, "arc_easy@5shot") - asked(cached, "arc_easy@0shot")
    assert kept % TOKEN == 0 < kept < 10**9


@pytest.mark.parametrize(("task", "kind"), [("csqa@5shot", "rendered_accuracy"), ("gsm8k_gold@5shot", "gold")])
def test_examples_of_rendered_prompts_count_as_they_are_read(task: str, kind: str, cached: Path) -> None:
    """By hand: half as many tokens as the longest context has bytes.

    The file is much smaller, as all contexts begin alike; where it is not here, what is kept at most counts.
    """
    most = asked(cached, task, kind)
    text = "".join(f"Number {i} is odd. " for i in range(100))
    rows = [{"item": f"q{i}", "context": f"{text}{i % 9}", "choices": [" a", " b"], "gold": 0} for i in range(50)]
    make_pack(cached / "pack", tables() | {CALIBRATION: passages(), task.replace("@", "/"): rows})
    assert most - asked(cached, task, kind) == BEGINNING_BYTES - (len(text) + 1) / 2 * TOKEN


def test_a_batch_that_is_answered_counts_with_its_keys_and_values(cached: Path) -> None:
    assert asked(cached, "nq_open@0shot", "exact_match") - asked(cached, "arc_easy@0shot") == 4096 * TOKEN


def test_gradients_of_one_row_take_the_room_of_one_row(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`param_first` passes ten windows of 64 tokens at once, `param_second` one after the other."""
    orders = [{"name": "llm_pruner", "config": {"importance": order}} for order in ("param_first", "param_second")]
    plan = make_plan(
        load_suite(str(make_suite(cached, models=["llama-7b"], methods=orders, tasks=["size"], dtype="bfloat16"))),
        load_registry(),
        cached / "results",
        model_paths={},
        plugins=[],
        only={},
        offline=True,
        command=["leanboard"],
        say=lambda line: None,
        random_weights=True,
    )
    whole, single = (plan.estimates[job.artifact.key].memory for job in plan.jobs)
    a_row = 64 * ((32 + 10) * 4096 * 2 + 4 * 11008 * 2 + 12 * 32000)
    assert whole - single == pytest.approx(9 * a_row, rel=0.01)


@pytest.mark.slow
def test_time_is_the_median_of_the_same_machine_else_a_count(tmp_path: Path) -> None:
    make_suite(tmp_path, methods=["random"], tasks=["size"])
    assert here(tmp_path, "run", "suite.yaml", "--executor", "inline").returncode == 0
    make_suite(tmp_path, methods=["random"], tasks=["size", "piqa/limit4"], seeds=[0, 1])

    def rows() -> list[dict[str, Any]]:
        done = here(tmp_path, "plan", "suite.yaml", "--cells", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    records = {getattr(r, "task", "compress"): r for r in Store(tmp_path / "results").read_all()[0]}
    first, second = rows()[:3], rows()[3:]
    assert [row["what"] for row in second] == ["compress", "size@64", "piqa@0shot/limit4"]
    seconds = [round(records[what].provenance.seconds, 1) for what in ("compress", "size@64")]
    for three in (first, second):
        assert [row["time (s)"] for row in three[:2]] == seconds
        assert [row["time by"] for row in three] == ["record", "record", "count"]
    assert 0.3 < second[0]["memory (GB)"] < 0.7
    for file in (tmp_path / "results").rglob("*.json"):
        content = json.loads(file.read_text())
        content["provenance"]["machine"]["cpu"] = "another"
        file.write_text(json.dumps(content) + "\n")
    assert {row["time by"] for row in rows()} == {"count"}


def test_the_machine_of_a_record_has_the_fingerprint_of_the_machine() -> None:
    from bench.record.provenance import provenance

    assert fingerprint_of(provenance(1.0, ["x"], "a GPU").machine) == machine_fingerprint("a GPU")
    assert fingerprint_of(provenance(1.0, ["x"]).machine) != machine_fingerprint("a GPU")


def test_what_does_not_fit_is_listed_and_refused_before_anything_is_made(tmp_path: Path) -> None:
    make_suite(tmp_path, models=["llama-13b"], methods=["dense"], dtype="float32", tasks=["size"])
    config = tmp_path / "tiny" / "config.json"
    config.write_text(json.dumps(read_json(config) | {"vocab_size": 10**9}))
    arguments = ("suite.yaml", "--weights", "random", "--model-path", "llama-13b=tiny")
    listed, refused = (here(tmp_path, verb, *arguments) for verb in ("plan", "run"))
    assert listed.returncode == 0, listed.stderr
    assert "2 cells do not fit: needs about 256" in listed.stdout
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1), refused.stderr
    row = "llama-13b-random · dense · default · seed 0"
    assert f"nothing that is to be done fits: {row}: needs about 256" in refused.stderr
    assert not (tmp_path / "results").exists()
    assert not list((tmp_path / "cache").glob("models/*"))
