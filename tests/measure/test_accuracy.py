import math
from pathlib import Path

import pytest
import yaml
from lm_eval.models.huggingface import HFLM

from bench.blocks.notice import NOTICE
from bench.data.pack import Pack
from bench.errors import DataError, UsageError
from bench.lm_eval_files import stock_yaml
from bench.measure import measure, scorer, stock_tasks
from bench.measure.scorer import PackedLM
from bench.measure.subject import Subject
from bench.registry import tasks_named
from bench.task import Task, spec_of
from bench.task_accuracy import AccuracyTask
from tests.packs import make_pack, tables

TASKS = Path(__file__).parents[2] / "tasks"
NAMES = ["boolq", "piqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa", "lambada_openai"]


def spec(name: str) -> AccuracyTask:
    loaded = spec_of(yaml.safe_load((TASKS / f"{name}.yaml").read_text()), "tasks")
    assert isinstance(loaded, AccuracyTask)
    return loaded


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return Pack([make_pack(tmp_path_factory.mktemp("pack"))])


@pytest.fixture(scope="module")
def subject(tiny_mha: Path) -> Subject:
    return Subject(tiny_mha)


def stock_task(name: str, rows: list[dict[str, object]]):
    """lm-eval's own task, built without our code, on `rows` in memory."""
    import datasets
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    config = load_yaml(stock_yaml(name))
    for key in ("tag", "dataset_path", "dataset_name"):
        config.pop(key, None)
    roles = ("training_split", "validation_split", "test_split", "fewshot_split")
    splits = [config[role] for role in roles if config.get(role)]
    data = datasets.DatasetDict(dict.fromkeys(splits, datasets.Dataset.from_list(rows)))
    return ConfigurableTask(config={**config, "custom_dataset": lambda **_: data})


@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_those_of_the_stock_task(name: str, pack: Pack) -> None:
    task = spec(name)
    (ref,) = task.data("0shot")
    ours = stock_tasks.build_requests(stock_tasks.build_tasks(task, pack)[""], None)
    theirs = stock_tasks.build_requests(stock_task(task.lm_eval, tables()[ref]), None)
    assert len(ours) >= 12
    assert [request.args for request in ours] == [request.args for request in theirs]


@pytest.mark.parametrize("name", NAMES)
def test_metrics_are_all_that_the_stock_task_gives(name: str, pack: Pack) -> None:
    stock = stock_tasks.build_tasks(spec(name), pack)[""]
    assert set(spec(name).metrics) == set(stock._metric_fn_list) - {"perplexity"}


@pytest.mark.parametrize("name", ["hellaswag", "winogrande", "lambada_openai"])
def test_results_equal_lm_evals_own_evaluation(name: str, pack: Pack, subject: Subject) -> None:
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    task = spec(name)
    result = measure(Task(task, "0shot", 10), subject, pack)
    theirs = simple_evaluate(
        model=HFLM(pretrained=subject.model, tokenizer=subject.tokenizer, batch_size=1),
        tasks=[stock_task(task.lm_eval, tables()[task.data()[0]])],
        limit=10,
        bootstrap_iters=0,
        task_manager=TaskManager(include_defaults=False),
    )
    samples = sorted(theirs["samples"][task.lm_eval], key=lambda sample: sample["doc_id"])
    for metric in task.metrics:
        assert result.evidence.items[metric] == "".join(str(int(sample[metric])) for sample in samples)
    scores = theirs["results"][task.lm_eval]
    assert [m.value for m in result.metrics] == pytest.approx([scores[f"{name},none"] for name in task.metrics])


def test_metrics_carry_their_protocol_and_error(pack: Pack, subject: Subject) -> None:
    seen: list[tuple[int, int]] = []
    result = measure(Task(spec("arc_easy"), "0shot", 7), subject, pack, lambda done, total: seen.append((done, total)))
    assert [m.id for m in result.metrics] == ["arc_easy.acc@0shot/limit7", "arc_easy.acc_norm@0shot/limit7"]
    for metric in result.metrics:
        bits = result.evidence.items[metric.id.split("@")[0].split(".")[1]]
        p = bits.count("1") / 7
        assert (metric.n, metric.unit, metric.direction) == (7, "fraction", "higher")
        assert metric.value == pytest.approx(p)
        assert metric.stderr == pytest.approx(math.sqrt(p * (1 - p) / 6))
    assert seen[-1] == (28, 28)
    assert seen == sorted(seen)


def test_the_notice_stands_before_every_context_and_names_the_metric(pack: Pack, subject: Subject) -> None:
    """Against lm-eval's own requests and backend, with the notice put before each context by hand."""
    plain = measure(Task(spec("piqa"), "0shot", 6), subject, pack)
    noticed = measure(Task(spec("piqa"), "0shot+notice", 6), subject, pack)
    assert [m.id for m in noticed.metrics] == ["piqa.acc@0shot+notice/limit6", "piqa.acc_norm@0shot+notice/limit6"]
    assert [m.id for m in plain.metrics] == ["piqa.acc@0shot/limit6", "piqa.acc_norm@0shot/limit6"]
    stock = stock_tasks.build_tasks(spec("piqa"), pack)[""]
    requests = stock_tasks.build_requests(stock, 6)
    for request in requests:
        request.arguments = (NOTICE + request.args[0], request.args[1])
    with scorer.quiet():
        answers = HFLM(pretrained=subject.model, tokenizer=subject.tokenizer).loglikelihood(requests)
    chosen = [
        "1" if (b[0] > a[0]) == bool(request.doc["label"]) else "0"
        for request, a, b in zip(requests[::2], answers[::2], answers[1::2], strict=True)
    ]
    assert noticed.evidence.items["acc"] == "".join(chosen)


def test_flags_go_together_and_say_so_in_the_metric(pack: Pack, tiny_mha: Path) -> None:
    subject = Subject(tiny_mha)
    seen: list[list[int]] = []
    stock = subject.scorer._loglikelihood_tokens
    subject.scorer._loglikelihood_tokens = lambda requests, **_: seen.extend(r[1] for r in requests) or stock(requests)
    [task] = tasks_named("piqa@0shot+notice+bos/limit2")
    assert measure(task, subject, pack).metrics[0].id == "piqa.acc@0shot+bos+notice/limit2"
    notice = subject.tokenizer(NOTICE)["input_ids"]
    assert [ids[: len(notice)] for ids in seen] == [[1, *notice[:-1]]] * 4
    measure(Task(spec("piqa"), "0shot", 2), subject, pack)
    assert all(ids[0] != 1 for ids in seen[4:])


def test_a_tokenizer_without_bos_is_one_sentence(pack: Pack, tiny_mha: Path) -> None:
    subject = Subject(tiny_mha)
    subject.tokenizer.bos_token = None
    for task in tasks_named("piqa@0shot+bos/limit2") + tasks_named("wikitext2@32+bos"):
        with pytest.raises(UsageError, match=r"^the tokenizer has no BOS, which \+bos asks for$"):
            measure(task, subject, pack)


def test_a_limited_run_is_the_head_of_the_full_run(pack: Pack, subject: Subject) -> None:
    whole = measure(Task(spec("hellaswag"), "0shot"), subject, pack).evidence.items
    part = measure(Task(spec("hellaswag"), "0shot", 5), subject, pack).evidence.items
    assert len(whole["acc"]) == 12
    assert {name: bits[:5] for name, bits in whole.items()} == part


def test_the_size_of_batches_does_not_matter(pack: Pack, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = stock_tasks.build_requests(stock_tasks.build_tasks(spec("piqa"), pack)[""], None)
    many = PackedLM(subject.model, subject.tokenizer).loglikelihood(requests)
    monkeypatch.setattr(scorer, "CPU_TOKENS", 1)
    one = PackedLM(subject.model, subject.tokenizer).loglikelihood(requests)
    assert [p for p, _ in one] == pytest.approx([p for p, _ in many], abs=1e-4)


def test_scoring_by_lm_evals_own_backend_is_noted(pack: Pack, tiny_mha: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(spec("arc_easy"), "0shot", 3)
    packed = measure(task, Subject(tiny_mha), pack)
    monkeypatch.setattr(PackedLM, "_obstacle", lambda self, pack: [f"{scorer.STOCK}: the reason"])
    stock = measure(task, Subject(tiny_mha), pack)
    assert packed.evidence.notes == []
    assert stock.evidence.notes == ["scored by lm-eval's own backend: the reason"]
    assert stock.evidence.items == packed.evidence.items


def test_nothing_is_printed_and_nothing_is_written(
    pack: Pack, subject: Subject, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEANBOARD_CACHE", str(tmp_path))
    measure(Task(spec("hellaswag"), "0shot", 3), subject, pack)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_an_unknown_stock_task_is_one_sentence() -> None:
    with pytest.raises(UsageError, match=r"unknown task of lm-eval 'arc_eazy'; did you mean .*arc_easy"):
        stock_yaml("arc_eazy")


def test_data_of_another_form_is_one_sentence(tmp_path: Path) -> None:
    pack = Pack([make_pack(tmp_path, {"arc_easy/test": [{"text": "x"}, {"text": "y"}]})])
    with pytest.raises(DataError, match=r"test\.parquet: not as lm-eval's 'arc_easy' reads it"):
        stock_tasks.build_tasks(spec("arc_easy"), pack)[""]


def test_whether_packing_suits_the_model_is_asked_once_for_all_tasks(
    tiny_mha: Path, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    subject = Subject(tiny_mha)
    monkeypatch.setattr(PackedLM, "_obstacle", lambda self, pack: asked.append(1))
    for task in (Task(spec("arc_easy"), "0shot", 2), Task(spec("piqa"), "0shot", 2)):
        measure(task, subject, pack)
    assert asked == [1]
