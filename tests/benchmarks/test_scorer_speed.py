"""How much faster accuracy is measured than by lm-eval's own backend at its best batch size: SmolLM2-135M, float32.

Both take the same requests, in turns, in one process; making the backend, with its check of the model, counts. Data and
model are the user's own: `leanboard data fetch` gets the data.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from bench.catalogue import resolve
from bench.data.pack import Pack
from bench.errors import LeanboardError
from bench.measure import stock_tasks
from bench.measure.scorer import PackedLM, quiet
from bench.model.load import load_folder
from bench.paths import offline
from bench.task import spec_of
from tests.benchmarks.conftest import Limit

pytestmark = pytest.mark.perf

TASKS = Path(__file__).parents[2] / "tasks"
ITEMS = 100
BATCHES = (1, 8, 16, 32)
ROUNDS = 2
MANY_CHOICES = ["hellaswag", "arc_easy", "arc_challenge", "openbookqa"]
COMMONSENSE7 = ["boolq", "piqa", "winogrande", *MANY_CHOICES]


@pytest.fixture(scope="module")
def engines() -> dict[int | str, Callable[[], HFLM]]:
    """By batch size, and ours."""
    try:
        model, tokenizer = load_folder(resolve("smollm2-135m", offline=offline()).path)
    except LeanboardError as error:
        pytest.skip(str(error))

    def stock(batch: int) -> Callable[[], HFLM]:
        return lambda: HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch)

    return {"packed": lambda: PackedLM(model, tokenizer), **{batch: stock(batch) for batch in BATCHES}}


@pytest.fixture(scope="module")
def requests_of() -> dict[str, list[Instance]]:
    specs: list[Any] = [spec_of(yaml.safe_load((TASKS / f"{task}.yaml").read_text()), "tasks") for task in COMMONSENSE7]
    try:
        stock = {spec.name: stock_tasks.build_tasks(spec, Pack.default())[""] for spec in specs}
    except LeanboardError as error:
        pytest.skip(str(error))
    return {task: stock_tasks.build_requests(stock[task], ITEMS) for task in stock}


def choices(requests: list[Instance], answers: list[tuple[float, bool]]) -> list[int]:
    """The likeliest choice of each item."""
    items = defaultdict(list)
    for request, (logp, _) in zip(requests, answers, strict=True):
        items[request.task_name, request.doc_id].append(logp)
    return [logps.index(max(logps)) for logps in items.values()]


def test_common_beginnings_pay(
    benchmark: Any,
    limits: list[Limit],
    engines: dict[int | str, Callable[[], HFLM]],
    requests_of: dict[str, list[Instance]],
) -> None:
    benchmark.group = "accuracy"
    seconds: dict[str, dict[int | str, list[float]]] = {task: defaultdict(list) for task in requests_of}
    answers: dict[str, dict[int | str, list[tuple[float, bool]]]] = {task: {} for task in requests_of}

    def once(engine: int | str) -> None:
        for task, requests in requests_of.items():
            start = time.perf_counter()
            with quiet():
                lm = engines[engine]()
            answers[task][engine] = lm.loglikelihood(requests, disable_tqdm=True)
            seconds[task][engine].append(time.perf_counter() - start)

    benchmark.pedantic(once, args=("packed",), setup=lambda: [once(batch) for batch in BATCHES] and None, rounds=ROUNDS)
    fastest = {task: {engine: min(times) for engine, times in of.items()} for task, of in seconds.items()}
    benchmark.extra_info.update(seconds=fastest)
    for name, tasks, least in (("commonsense7", COMMONSENSE7, 2.0), ("many choices", MANY_CHOICES, 2.6)):
        stock = sum(min(fastest[task][batch] for batch in BATCHES) for task in tasks)
        ratio = stock / sum(fastest[task]["packed"] for task in tasks)
        limits.append((f"accuracy: {name}: times as fast as lm-eval's backend", ratio, least, "least"))
    for task in requests_of:
        ours, theirs = answers[task]["packed"], answers[task][1]
        assert [logp for logp, _ in ours] == pytest.approx([logp for logp, _ in theirs], abs=1e-3, rel=0)
        assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]
        assert choices(requests_of[task], ours) == choices(requests_of[task], theirs)
    assert all(ratio >= least for _, ratio, least, _ in limits), fastest
