"""Protocols: one form for each, and one sentence for what is none."""

import json
import re
from pathlib import Path

import pytest

from bench.errors import UsageError
from bench.protocol import NO_DEFAULT, Protocol, flags_of, why_not_for
from bench.registry import load_tasks, tasks_named
from bench.run.cells import chat_ingredients
from bench.task_kind import TaskSpec


@pytest.mark.parametrize(
    ("given", "one_form"),
    [
        ("piqa", "piqa@0shot"),
        ("piqa@0shot+notice", "piqa@0shot+notice"),
        ("piqa@0shot+nobos", "piqa@0shot+nobos"),
        ("piqa@0shot+notice+nobos/limit3", "piqa@0shot+nobos+notice/limit3"),
        ("piqa@0shot+bos+bos", "piqa@0shot+bos"),
        ("piqa@0shot+notice+separate+nobos", "piqa@0shot+nobos+separate+notice"),
        ("piqa@05shot+seed07+chat", "piqa@5shot+chat+seed7"),
        ("piqa@5shot+seed1234", "piqa@5shot"),
        ("piqa@5shot+first_n+nobos/limit3", "piqa@5shot+nobos+first_n/limit3"),
        ("wikitext2@2048+nobos", "wikitext2@2048+nobos"),
        ("wikitext2@0128+bos/limit4", "wikitext2@128+bos/limit4"),
        ("wikitext2.ppl_token@128+bos", "wikitext2@128+bos"),
    ],
)
def test_a_protocol_has_one_form(given: str, one_form: str) -> None:
    assert [task.id for task in tasks_named(given)] == [one_form]
    assert [task.id for task in tasks_named(one_form)] == [one_form]


def test_a_group_hands_its_flags_to_its_members() -> None:
    found = tasks_named("commonsense7@0shot+nobos/limit5")
    assert len(found) == 7
    assert all(task.id.endswith("@0shot+nobos/limit5") for task in found)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("piqa@0shot+bos+nobos", "task piqa: protocol '0shot+bos+nobos': +bos and +nobos exclude each other"),
        ("piqa@0shot+notic", "task piqa: protocol '0shot+notic': unknown flag 'notic'; did you mean notice?"),
        (
            "piqa@+bos",
            "task piqa: protocol '+bos' is not <n>shot, with or without +bos, +nobos, +separate, +notice, +chat, "
            "+first_n, +seed",
        ),
        ("piqa@0shot+seed7", "task piqa: protocol '0shot+seed7': +seed is about examples, and 0shot has none"),
        ("piqa@5shot+seed", "task piqa: protocol '5shot+seed': unknown flag 'seed'; did you mean seed<n>?"),
        ("piqa@5shot+seed7+seed8", "task piqa: protocol '5shot+seed7+seed8': it has more than one seed"),
        (
            "piqa@5shot+seed7+first_n",
            "task piqa: protocol '5shot+seed7+first_n': +first_n and +seed exclude each other",
        ),
        ("piqa@0shot+chat+notice", "task piqa: protocol '0shot+chat+notice': +notice and +chat exclude each other"),
        (
            "mmlu_anatomy@5shot+seed7",
            "task mmlu_anatomy: protocol '5shot+seed7': +seed changes nothing, as its examples are always the first "
            "ones",
        ),
        ("wikitext2@64+notice", "task wikitext2: protocol '64+notice': unknown flag 'notice'; known are: bos, nobos."),
        ("wikitext2@+bos", "task wikitext2: protocol '+bos' is not a window length of 2 tokens or more"),
        ("csqa@05shot", "task csqa: protocol '05shot' is not 5shot or 0shot"),
        ("gsm8k_gold@05shot", "task gsm8k_gold: protocol '05shot' is not 5shot or 8shot"),
        ("piqa@5shot/limit0", "'piqa@5shot/limit0': the limit is not a number from 1 to 999999999"),
        ("piqa/limit", "'piqa/limit': the limit is not a number from 1 to 999999999"),
    ],
)
def test_what_is_no_protocol_is_one_sentence(wrong: str, sentence: str) -> None:
    with pytest.raises(UsageError) as raised:
        tasks_named(wrong)
    assert str(raised.value) == sentence


@pytest.mark.parametrize(
    "task",
    [
        "piqa@{}shot",
        "csqa@{}shot",
        "gsm8k_gold@{}shot",
        "gsm8k@{}shot",
        "piqa@5shot+seed{}",
        "wikitext2@{}",
        "divergence@wikitext2/{}",
        "size@{}",
        "generate@hf/b{}/p8/n8",
        "piqa@0shot/limit{}",
    ],
)
def test_a_number_of_thousands_of_digits_is_one_sentence(task: str) -> None:
    with pytest.raises(UsageError):
        tasks_named(task.format("9" * 5000))


def test_the_flags_of_an_id_are_those_before_its_limit_and_tasks() -> None:
    assert flags_of("0shot+notice+nobos/limit20") == ["nobos", "notice"]
    assert flags_of("0shot/limit20/boolq+piqa") == []
    assert [Protocol.parse(text).bos for text in ("0shot", "0shot+bos", "2048+nobos")] == [None, True, False]


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ({"bos_token": None}, "the tokenizer has no BOS, which +bos asks for"),
        ({"bos_token": "<s>"}, None),
        ({"bos_token": {"content": "<s>"}}, None),
        ({}, None),
    ],
)
def test_a_model_without_bos_is_known_by_its_files(says: dict[str, object], why: str | None, tmp_path: Path) -> None:
    assert why_not_for("0shot+bos", tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(says))
    assert why_not_for("0shot+bos/limit4", tmp_path) == why
    assert why_not_for("0shot+nobos", tmp_path) is None


def test_a_model_without_chat_template_is_known_by_its_files(tmp_path: Path) -> None:
    """In either place where tokenizers keep one; what it says is part of the key of what is asked with it alone."""
    [chat], [plain] = tasks_named("piqa@0shot+chat"), tasks_named("piqa@0shot")
    assert why_not_for(chat.suffix, tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert why_not_for(chat.suffix, tmp_path) == "the tokenizer has no chat template, which +chat asks for"
    found = []
    for name, text in (("tokenizer_config.json", '{"chat_template": "one"}'), ("chat_template.jinja", "two")):
        (tmp_path / name).write_text(text)
        assert why_not_for(chat.suffix, tmp_path) is None
        found.append(chat_ingredients(chat, tmp_path)["chat_template"])
    assert found[0] != found[1]
    (tmp_path / "chat_template.jinja").unlink()
    for names, why in ((["default", "rag"], None), (["rag"], NO_DEFAULT)):
        templates = [{"name": name, "template": "one"} for name in names]
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))
        assert why_not_for(chat.suffix, tmp_path) == why
    assert chat_ingredients(plain, tmp_path) == {}


def test_the_page_on_ranking_says_which_kinds_of_task_have_which_flags() -> None:
    page = (Path(__file__).parents[1] / "docs" / "ranking.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `+")]
    said = {(flag, kind) for part, kinds in rows for flag in re.findall(r"\+([a-z_]+)", part) for kind in names(kinds)}
    specs = [spec for spec in load_tasks().values() if isinstance(spec, TaskSpec)]
    assert said == {(flag, spec.kind) for spec in specs for flag in spec.flags}


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)
