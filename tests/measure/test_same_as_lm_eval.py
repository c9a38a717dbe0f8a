"""Log-probabilities and choices of real questions, against lm-eval's own evaluation: SmolLM2-135M, float32.

Only where the model is here and LEANBOARD_TEST_DATA names the data. Three items of each task are asked, or as many as
LEANBOARD_TEST_ITEMS says.
"""

import os
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from bench.catalogue import resolve
from bench.data.pack import Pack
from bench.errors import LeanboardError
from bench.lm_eval_files import stock_yaml
from bench.measure.scorer import PackedLM, quiet
from bench.measure.stock_tasks import build_requests, build_tasks
from bench.model.load import load_folder
from bench.protocol import Protocol
from bench.registry import tasks_named
from bench.task_accuracy import AccuracyTask

NAMES = ["arc_challenge", "boolq", "openbookqa", "piqa", "winogrande"]
ITEMS, WITHIN = int(os.environ.get("LEANBOARD_TEST_ITEMS", "3")), 1e-3


def stock(name: str, refs: dict[str, str], pack: Pack) -> ConfigurableTask:
    """lm-eval's task on the pack's rows, by the names of its own splits."""
    config: dict[str, Any] = {**load_yaml(stock_yaml(name)), "tag": None}
    rows = {split: datasets.Dataset(pq.read_table(pack.path(ref))) for split, ref in refs.items()}
    rows["validation"] = rows.get("validation", rows["train"])
    with quiet():
        return ConfigurableTask(config=config | {"custom_dataset": lambda **_: datasets.DatasetDict(rows)})


def compare(model: Any, tokenizer: Any, name: str, shots: int, items: int) -> tuple[float, int, int]:
    """The largest difference of a log-probability, how many choices are the same, and how many items there are."""
    spec, pack, protocol = tasks_named(name)[0].spec, Pack.default(), Protocol(f"{shots}shot")
    assert isinstance(spec, AccuracyTask)
    assert spec.examples is not None
    theirs = simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8),
        tasks=[stock(name, {**spec.splits, "train": spec.examples}, pack)],
        num_fewshot=shots,
        limit=items,
        bootstrap_iters=0,
        task_manager=TaskManager(include_defaults=False),
    )
    samples = sorted(theirs["samples"][name], key=lambda sample: sample["doc_id"])
    requests = build_requests(build_tasks(spec, pack, protocol)[""], items, protocol)
    answers = iter(PackedLM(model, tokenizer).loglikelihood(requests))
    far, same = 0.0, 0
    for sample in samples:
        stock_logp = [logp for logp, _ in sample["filtered_resps"]]
        ours = [next(answers)[0] for _ in stock_logp]
        far = max(far, *(abs(a - b) for a, b in zip(ours, stock_logp, strict=True)))
        same += ours.index(max(ours)) == stock_logp.index(max(stock_logp))
    return far, same, len(samples)


@pytest.mark.slow
@pytest.mark.parametrize("shots", [0, 5])
@pytest.mark.parametrize("name", NAMES)
def test_real_questions_are_answered_as_by_lm_eval(
    name: str, shots: int, real: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "LEANBOARD_TEST_DATA" not in os.environ:
        pytest.skip("LEANBOARD_TEST_DATA names no data pack")
    monkeypatch.setenv("LEANBOARD_DATA", os.environ["LEANBOARD_TEST_DATA"])
    try:
        far, same, items = compare(*real, name, shots, ITEMS)
    except LeanboardError as error:
        pytest.skip(str(error))
    assert far < WITHIN
    assert same == items == ITEMS


@pytest.fixture(scope="module")
def real() -> tuple[Any, Any]:
    try:
        return load_folder(resolve("smollm2-135m", offline=True).path)
    except LeanboardError as error:
        pytest.skip(str(error))
