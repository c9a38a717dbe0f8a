"""Examples in the prompt: those that lm-eval itself would choose, in its order, for the same items."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import pytest
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from bench.data.pack import Pack
from bench.errors import UsageError
from bench.lm_eval_files import examples_of, stock_yaml
from bench.measure import measure
from bench.measure.chat import NO_SYSTEM
from bench.measure.scorer import PackedLM
from bench.measure.stock_tasks import build_requests, build_tasks
from bench.measure.subject import Subject
from bench.protocol import Protocol
from bench.registry import tasks_named
from bench.task import Task
from bench.task_accuracy import AccuracyTask, RenderedTask
from bench.yamlfile import validated
from tests.packs import make_pack, tables

NAMES = ["arc_easy", "boolq", "hellaswag", "winogrande", "lambada_openai"]
"""Drawn from a training split; the same without a test split, where lm-eval leaves room for the item itself (three);
drawn from the evaluated split itself."""
CHAT = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)

REFUSES_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"


def spec_named(name: str) -> AccuracyTask:
    spec = tasks_named(name)[0].spec
    assert isinstance(spec, AccuracyTask)
    return spec


def rows_of(name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Items, and rows of the training split, which has one of the items too."""
    spec = spec_named(name)
    rows = tables(24)[spec.data()[0]]
    return rows[:6], rows[5:]


def pack_of(name: str, root: Path) -> Pack:
    spec = spec_named(name)
    items, train = rows_of(name)
    return Pack([make_pack(root, dict(zip(spec.data(), [items, train], strict=False)))])


def stock(name: str) -> ConfigurableTask:
    """lm-eval's own task, built without our code, on the same rows in memory."""
    config = load_yaml(stock_yaml(name))
    for key in ("tag", "dataset_path", "dataset_name"):
        config.pop(key, None)
    items, train = rows_of(name)
    rows = {config.get("training_split"): train, config.get("validation_split"): items, config.get("test_split"): items}
    data = datasets.DatasetDict({split: datasets.Dataset.from_list(found) for split, found in rows.items() if split})
    return ConfigurableTask(config={**config, "custom_dataset": lambda **_: data})


def asked(task: ConfigurableTask) -> list[tuple[str, str]]:
    return [request.args for request in task.instances]


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_those_of_the_stock_task(name: str, tmp_path: Path) -> None:
    """In the order of the items, as the random numbers run through them; a limit does not change the first ones."""
    spec, pack = spec_named(name), pack_of(name, tmp_path)
    for text, seed in (("3shot", 1234), ("3shot+seed7", 7)):
        protocol = Protocol.parse(text)
        theirs = stock(name)
        theirs.set_config("num_fewshot", 3)
        theirs.set_fewshot_seed(seed)
        theirs.build_all_requests(rank=0, world_size=1)
        ours = build_tasks(spec, pack, protocol)[""]
        found = [request.args for request in build_requests(ours, None, protocol)]
        assert found == asked(theirs)
        again = [request.args for request in build_requests(ours, 4, protocol)]
        assert again == found[: len(again)]
        assert len(again) == len(found) * 4 // 6


def test_the_first_examples_for_every_item(tmp_path: Path) -> None:
    """As lm-eval's sampler of that name takes them: the item itself is none of its own examples."""
    pack, protocol = pack_of("hellaswag", tmp_path), Protocol.parse("2shot+first_n")
    theirs = stock("hellaswag")
    theirs.config.fewshot_config.sampler = "first_n"
    theirs = ConfigurableTask(config={**vars(theirs.config), "num_fewshot": 2})
    theirs.build_all_requests(rank=0, world_size=1)
    ours = build_tasks(spec_named("hellaswag"), pack, protocol)[""]
    assert [request.args for request in build_requests(ours, None, protocol)] == asked(theirs)
    contexts = [request.args[0] for request in ours.instances]
    head = contexts[0].rpartition("\n\n")[0]
    assert head.count("\n\n") == 1
    assert [context.startswith(head) for context in contexts[::4]] == [True] * 5 + [False]


@pytest.mark.parametrize(("name", "flag"), [("arc_easy", ""), ("winogrande", ""), ("arc_easy", "+chat")])
def test_requests_and_results_are_those_of_lm_evals_own_evaluation(
    name: str, flag: str, tmp_path: Path, tiny_mha: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours: list[tuple[str, str]] = []
    score = PackedLM.loglikelihood
    monkeypatch.setattr(
        PackedLM,
        "loglikelihood",
        lambda self, requests: ours.extend(request.args for request in requests) or score(self, requests),
    )
    subject = Subject(tiny_mha)
    subject.tokenizer.chat_template = CHAT
    [task] = tasks_named(f"{name}@2shot{flag}/limit5")
    found = measure(task, subject, pack_of(name, tmp_path)).evidence
    theirs = simple_evaluate(
        model=HFLM(pretrained=subject.model, tokenizer=subject.tokenizer, batch_size=1),
        tasks=[stock(name)],
        num_fewshot=2,
        limit=5,
        bootstrap_iters=0,
        apply_chat_template=bool(flag),
        task_manager=TaskManager(include_defaults=False),
    )
    samples = sorted(theirs["samples"][name], key=lambda sample: sample["doc_id"])
    assert ours == [tuple(request) for sample in samples for request in sample["arguments"]]
    assert found.items["acc"] == "".join(str(int(sample["acc"])) for sample in samples)
    best = [max(range(len(s["filtered_resps"])), key=lambda i: s["filtered_resps"][i][0]) for s in samples]
    assert found.chosen["acc"] == "".join(map(str, best))
    assert [context.count("[assistant]") for context, _ in ours] == [3 * bool(flag)] * len(ours)


def test_a_template_that_writes_a_bos_gets_no_second_one(tmp_path: Path, tiny_mha: Path) -> None:
    subject = Subject(tiny_mha)
    subject.tokenizer.chat_template = "{{ bos_token }}" + CHAT
    seen: list[list[int]] = []
    stock = subject.scorer._loglikelihood_tokens
    subject.scorer._loglikelihood_tokens = lambda requests, **_: seen.extend(r[1] for r in requests) or stock(requests)
    for flags in ("+chat", "+bos+chat"):
        measure(tasks_named(f"arc_easy@1shot{flags}/limit2")[0], subject, pack_of("arc_easy", tmp_path))
    bos = subject.tokenizer.bos_token_id
    assert [(ids[0], ids.count(bos)) for ids in seen] == [(bos, 1)] * len(seen)
    assert len(seen) == 16


def test_what_was_chosen_by_the_length_of_answers(tmp_path: Path, tiny_mha: Path) -> None:
    pack = pack_of("arc_easy", tmp_path)
    found = measure(tasks_named("arc_easy@0shot")[0], Subject(tiny_mha), pack).evidence
    gold = "".join(str("ABCD".index(row["answerKey"])) for row in rows_of("arc_easy")[0])
    for metric, bits in found.items.items():
        assert bits == "".join(str(int(a == b)) for a, b in zip(found.chosen[metric], gold, strict=True))


def test_too_few_examples_are_one_sentence(tmp_path: Path, tiny_mha: Path) -> None:
    pack = pack_of("hellaswag", tmp_path)
    with pytest.raises(UsageError, match=r"^task hellaswag: protocol '19shot': there are 18 examples for an item$"):
        measure(tasks_named("hellaswag@19shot")[0], Subject(tiny_mha), pack)


def test_a_tokenizer_without_template_is_one_sentence(tmp_path: Path, tiny_mha: Path) -> None:
    with pytest.raises(UsageError, match=r"^the tokenizer has no chat template, which \+chat asks for$"):
        measure(tasks_named("arc_easy@0shot+chat")[0], Subject(tiny_mha), pack_of("arc_easy", tmp_path))


def test_examples_are_part_of_the_key_only_where_there_are_some() -> None:
    [zero], [two] = tasks_named("piqa@0shot"), tasks_named("piqa@2shot")
    assert (zero.data(), two.data()) == (["piqa/validation"], ["piqa/validation", "piqa/train"])
    assert "examples" not in zero.settings()["task"]
    assert two.settings()["task"]["examples"] == "piqa/train"
    assert "sampler" not in zero.settings()["task"], "keys of before stay as they are"
    assert two.settings()["task"]["sampler"] == f"lm-eval/{version('lm_eval')}"
    [rendered] = tasks_named("csqa@5shot")
    assert "sampler" not in rendered.settings()["task"], "its examples stand in the file"
    assert not {"by"} & two.settings()["task"].keys()


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        ({"training_split": "a", "test_split": "b"}, ("training_split", "a", False, False)),
        ({"fewshot_split": "c", "training_split": "a"}, ("fewshot_split", "c", False, False)),
        ({"fewshot_config": {"sampler": "first_n", "split": "d"}}, ("fewshot_split", "d", True, False)),
        ({"fewshot_config": {"samples": [{}]}, "test_split": "b"}, ("", "", False, False)),
        ({"validation_split": "v"}, ("validation_split", "v", False, True)),
    ],
)
def test_where_lm_eval_takes_examples_from(config: dict[str, Any], rule: tuple[str, str, bool, bool]) -> None:
    found = examples_of(config)
    assert (found.role, found.split, found.are_fixed, found.is_evaluated) == rule


def test_rendered_questions_are_scored_as_they_are(tmp_path: Path, tiny_mha: Path) -> None:
    """What stands before an answer is none of it: acc_norm is by the characters of 'a dog', not of ' a dog'."""
    choices = [" a", " a dog", " the old dog"]
    rows: list[dict[str, Any]] = [
        {"item": f"q{i}", "context": f"Question {i}\nAnswer:", "choices": choices, "gold": i % 3} for i in range(6)
    ]
    file = {"name": "quiz", "kind": "rendered_accuracy", "description": "", "texts": {"5shot": "quiz/5shot"}}
    spec = validated(RenderedTask, {**file, "metrics": ["acc", "acc_norm"], "headline": "acc"}, "quiz.yaml")
    pack, subject = Pack([make_pack(tmp_path, {"quiz/5shot": rows})]), Subject(tiny_mha)
    found = measure(Task(spec, spec.protocol(None), 5), subject, pack)
    assert [metric.id for metric in found.metrics] == ["quiz.acc@5shot/limit5", "quiz.acc_norm@5shot/limit5"]
    texts = [(row["context"], choice) for row in rows[:5] for choice in row["choices"]]
    assert [request.args for request in build_requests(build_tasks(spec, pack, Protocol("5shot"))[""], 5)] == texts
    lm = HFLM(pretrained=subject.model, tokenizer=subject.tokenizer, batch_size=1)
    requests = build_requests(build_tasks(spec, pack, Protocol("5shot"))[""], 5)
    logp = [answer[0] for answer in lm.loglikelihood(requests, disable_tqdm=True)]
    items = [logp[i : i + 3] for i in range(0, 15, 3)]
    assert found.evidence.chosen["acc"] == "".join(str(max(range(3), key=item.__getitem__)) for item in items)
    by_length = [[p / n for p, n in zip(item, (1, 5, 11), strict=True)] for item in items]
    assert found.evidence.chosen["acc_norm"] == "".join(str(max(range(3), key=item.__getitem__)) for item in by_length)
    for unknown in ("0shot", "05shot"):
        with pytest.raises(UsageError, match=f"task quiz: protocol '{unknown}' is not 5shot$"):
            spec.protocol(unknown)
    with pytest.raises(UsageError, match=r"unknown flag 'chat'"):
        spec.protocol("5shot+chat")


SUBJECTS = {"anatomy": 5, "virology": 3}
"""Subjects of MMLU, and how many questions of each there are here."""


def questions(subject: str, count: int) -> list[dict[str, Any]]:
    answers = ["it", "a bone", "the fox", "all of them"]
    return [
        {"question": f"What is {subject} {i}?", "subject": subject, "choices": answers, "answer": i % 4}
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("template", "notes"),
    [
        (CHAT, []),
        (REFUSES_SYSTEM + CHAT, [NO_SYSTEM]),
        (CHAT.replace("messages", "messages if m.role != 'system'"), [NO_SYSTEM]),
        ({"default": CHAT, "rag": "no"}, []),
    ],
)
def test_a_description_that_the_template_leaves_out_is_noted(
    template: Any, notes: list[str], tmp_path: Path, tiny_mha: Path
) -> None:
    pack, subject = Pack([make_pack(tmp_path, {"mmlu/test": questions("virology", 4)})]), Subject(tiny_mha)
    subject.tokenizer.chat_template = template
    [task] = tasks_named("mmlu@0shot+chat/limit2")
    assert measure(task, subject, pack).evidence.notes == notes
    assert "scored by" not in " ".join(notes), "the model is packed all the same"
    assert measure(replace(task, protocol="0shot"), subject, pack).evidence.notes == []


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{{ raise_exception('no chat today') }}", "the tokenizer's chat template fails (no chat today)"),
        ("{{ 1 + 'a' }}", "the tokenizer's chat template fails (unsupported operand type(s) for +: 'int' and 'str')"),
        ({"rag": CHAT}, "the tokenizer has several chat templates, and none is its default, which +chat asks for"),
    ],
)
def test_a_template_that_renders_nothing_is_one_sentence(
    template: Any, sentence: str, tmp_path: Path, tiny_mha: Path
) -> None:
    pack, subject = pack_of("arc_easy", tmp_path), Subject(tiny_mha)
    subject.tokenizer.chat_template = template
    with pytest.raises(UsageError) as raised:
        measure(tasks_named("arc_easy@0shot+chat")[0], subject, pack)
    assert str(raised.value) == sentence


def test_each_subject_is_asked_as_lm_evals_task_of_it(tmp_path: Path, tiny_mha: Path) -> None:
    dev = [row for subject in SUBJECTS for row in questions(subject, 9)[4:]]
    test = [row for subject, count in SUBJECTS.items() for row in questions(subject, count)]
    pack, theirs = Pack([make_pack(tmp_path, {"mmlu/test": test, "mmlu/dev": dev})]), []
    for subject, count in SUBJECTS.items():
        config = load_yaml(stock_yaml(f"mmlu_{subject}"))
        rows = {"test": questions(subject, count), "dev": questions(subject, 9)[4:]}
        data = datasets.DatasetDict({split: datasets.Dataset.from_list(found) for split, found in rows.items()})
        config |= {"tag": None, "dataset_name": None, "custom_dataset": lambda data=data, **_: data, "num_fewshot": 5}
        task = ConfigurableTask(config=config)
        task.build_all_requests(limit=4, rank=0, world_size=1)
        theirs += asked(task)
    [task] = tasks_named("mmlu@5shot/limit4")
    ours = build_tasks(spec_named("mmlu"), pack, Protocol.parse(task.protocol))
    assert [request.args for one in ours.values() for request in build_requests(one, 4)] == theirs
    found = measure(task, Subject(tiny_mha), pack)
    evidence = found.evidence
    assert evidence.parts == {"anatomy": 4, "virology": 3}
    assert evidence.items["acc"] == evidence.items["acc_by_subject"] != "0" * 7
    shares = [evidence.items["acc"][:4].count("1") / 4, evidence.items["acc"][4:].count("1") / 3]
    by_question, by_subject = found.metrics
    assert by_question.value == pytest.approx((4 * shares[0] + 3 * shares[1]) / 7)
    assert by_subject.value == pytest.approx(sum(shares) / 2)
    assert [metric.n for metric in found.metrics] == [7, 7]
    for wrong in ("mmlu@5shot+seed7", "mmlu@5shot+first_n"):
        with pytest.raises(UsageError, match="changes nothing, as its examples are always the first ones"):
            tasks_named(wrong)
    with pytest.raises(UsageError, match="task mmlu: protocol '6shot': there are 5 examples for an item"):
        measure(tasks_named("mmlu@6shot")[0], Subject(tiny_mha), pack)
