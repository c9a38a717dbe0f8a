"""What the harness adds to the work that it does: a worker's cell of SmolLM2-135M, and the same work by hand.

By hand is once a bare script over the harness's own engines, and once lm-eval's own command with a plain loop for
perplexity. Each is a process of its own, its start counted; the checkpoint is made before. Data and model are the
user's own.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from bench.data.pack import Pack
from bench.errors import LeanboardError
from bench.lm_eval_files import stock_yaml
from bench.paths import artifact_path
from bench.record.store import Store
from bench.registry import load_registry, tasks_named
from bench.run.cells import Job
from bench.run.executors import run_jobs
from bench.run.plan import make_plan
from bench.suite import Suite
from bench.task_accuracy import AccuracyTask
from tests.benchmarks.conftest import Limit

pytestmark = pytest.mark.perf

HERE = Path(__file__).parent
SUITE = Suite.model_validate(
    {
        "name": "overhead",
        "description": "one checkpoint",
        "models": ["smollm2-135m"],
        "device": "cpu",
        "calibration": {"data": "lambada_passages/test"},
        "methods": ["dense"],
        "tasks": ["size", "lambada_text@128/limit32", "arc_easy/limit100", "piqa/limit100"],
    }
)
LM_EVAL_BATCH = 8
MOST_ADDED = 5.0
ROUNDS = 2
"""Of harness, by hand, by hand, harness; lm-eval's command, which is far slower, goes once in the middle."""

Way = Callable[[], dict[str, float]]
"""Does the work in processes of its own and gives the values by metric id."""


def lm_eval_file(spec: AccuracyTask, pack: Pack) -> dict[str, Any]:
    """A task file that lm-eval's command line takes: the stock task on the pack's data."""
    files = {split: str(pack.path(ref)) for split, ref in spec.splits.items()}
    roles = {f"{name}_split": name if name in files else None for name in ("validation", "test")}
    return {
        "include": str(stock_yaml(spec.lm_eval)),
        "task": spec.name,
        "dataset_path": "parquet",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files},
        "num_fewshot": 0,
        "training_split": None,
        "fewshot_split": None,
        **roles,
    }


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Pack]:
    """The cell, and the user's data."""
    results = tmp_path_factory.mktemp("overhead") / "results"
    try:
        plan = make_plan(
            SUITE,
            load_registry([]),
            results,
            model_paths={},
            plugins=[],
            only={},
            offline=True,
            command=["leanboard", "run", "overhead"],
            say=print,
        )
    except LeanboardError as error:
        pytest.skip(str(error))
    return plan.jobs[0], Pack.default()


@pytest.fixture
def ways(planned: tuple[Job, Pack], monkeypatch: pytest.MonkeyPatch) -> dict[str, Way]:
    """In a cache of their own, with the user's data; the checkpoint is there and files have been read."""
    job, pack = planned
    folder = job.results.parent
    (folder / "cache").mkdir(exist_ok=True)
    (folder / "cache" / "data").symlink_to(pack.roots[-1])
    monkeypatch.setenv("LEANBOARD_CACHE", str(folder / "cache"))
    monkeypatch.setenv("LEANBOARD_DATA", str(pack.roots[0]))
    for name, value in {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}.items():
        monkeypatch.setenv(name, value)
    checkpoint = artifact_path(job.artifact.key)
    files = [folder / f"{task}.yaml" for task in ("arc_easy", "piqa")]
    for file in files:
        [task] = tasks_named(file.stem)
        file.write_text(yaml.safe_dump(lm_eval_file(cast(Any, task.spec), pack)))

    def harness() -> dict[str, float]:
        run_jobs([job], 1, lambda event: None)
        records: list[Any] = [Store(job.results).load(cell.key) for cell in job.cells]
        assert [record.status for record in records] == ["ok"] * len(records)
        return {metric.id: metric.value for record in records for metric in record.metrics}

    def by_hand() -> dict[str, float]:
        return json.loads(output(HERE / "by_hand.py", checkpoint))

    def lm_eval() -> dict[str, float]:
        output(
            "-m",
            "lm_eval",
            "run",
            "--model",
            "hf",
            "--model_args",
            f"pretrained={checkpoint},dtype=float32",
            "--device",
            "cpu",
            "--batch_size",
            LM_EVAL_BATCH,
            "--limit",
            100,
            "--output_path",
            folder / "lm_eval.json",
            "--tasks",
            *files,
        )
        ppl = float(output(HERE / "plain_perplexity.py", checkpoint))
        newest = max(folder.glob("lm_eval*.json"), key=lambda file: file.stat().st_mtime)
        results = json.loads(newest.read_text())["results"]
        return {"lambada_text.ppl_token@128/limit32": ppl} | {
            f"{task}.{metric}@0shot/limit100": results[task][f"{metric},none"]
            for task in results
            for metric in ("acc", "acc_norm")
        }

    harness()
    return {"harness": harness, "by hand": by_hand, "lm-eval": lm_eval}


def output(*command: object) -> str:
    """The last line that a Python program prints."""
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()[-1]


def test_the_harness_adds_little(benchmark: Any, limits: list[Limit], ways: dict[str, Way]) -> None:
    benchmark.group = "harness"
    wall, compute = defaultdict(list), defaultdict(list)
    values: dict[str, dict[str, float]] = {}

    def once(way: str) -> None:
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        values[way] = ways[way]()
        wall[way].append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        compute[way].append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)

    between = iter([[], ["by hand", "lm-eval", "by hand"]] * ROUNDS)
    benchmark.pedantic(
        once, args=("harness",), setup=lambda: [once(way) for way in next(between)] and None, rounds=2 * ROUNDS
    )
    fastest = {way: min(seconds) for way, seconds in wall.items()}
    added = 100 * (fastest["harness"] / fastest["by hand"] - 1)
    ratio = fastest["lm-eval"] / fastest["harness"]
    benchmark.extra_info.update(seconds=dict(wall), processor_seconds=dict(compute))
    limits += [
        ("the harness: % of time more than by hand", added, MOST_ADDED, "most"),
        ("the harness: times as fast as lm-eval's command", ratio, 1, "least"),
    ]
    assert values["harness"] == pytest.approx(values["by hand"], rel=1e-6)
    assert values["lm-eval"] == pytest.approx({id_: values["harness"][id_] for id_ in values["lm-eval"]}, rel=1e-4)
    assert added <= MOST_ADDED, dict(wall)
    assert ratio >= 1, dict(wall)
