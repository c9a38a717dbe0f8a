"""The suite that a rehearsal runs is the suite itself in small."""

import pytest

from bench.catalogue import CATALOGUE
from bench.model.stand_in import small_config
from bench.paths import SUITES
from bench.registry import load_registry, tasks_named
from bench.rehearse.amounts import Scale
from bench.rehearse.small import refs_of, small_suite, small_task
from bench.run.entries import PlanEntry
from bench.shape import Shape
from bench.suite import FirstOf, Suite, load_suite

NAMES = sorted(file.stem for file in SUITES.glob("*.yaml"))


def scale(model: str) -> Scale:
    config = CATALOGUE[model].config
    return Scale(Shape.of(config), Shape.of(small_config(config)))


def rows(suite: Suite) -> set[tuple[object, ...]]:
    """What each checkpoint of the suite is, its amounts aside."""
    registry = load_registry()
    entries = [entry for item in suite.methods for entry in PlanEntry.all_of(item, registry, suite)]
    return {
        (
            entry.entry.name,
            entry.item.preset,
            (entry.recovery or {}).get("name"),
            entry.calibration and entry.calibration.data,
            entry.training and entry.training.data,
            str(target),
            seed,
        )
        for entry in entries
        for target, seed in entry.points(suite)
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_row_and_task_is_rehearsed(name: str) -> None:
    suite = load_suite(name)
    for model in suite.models:
        small = small_suite(suite, model, load_registry(), scale(model), [])
        assert small.models == [model]
        assert rows(small) == rows(suite)
        real = [entry.first_of[0] if isinstance(entry, FirstOf) else entry for entry in suite.tasks]
        ours = {task.spec.name for text in small.tasks for task in tasks_named(str(text))}
        assert ours == {task.spec.name for text in real for task in tasks_named(text)}


@pytest.mark.parametrize(
    ("task", "small"),
    [
        ("piqa", "piqa@0shot/limit2"),
        ("piqa@0shot+notice/limit1", "piqa@0shot+notice/limit1"),
        ("wikitext2@2048", "wikitext2@2048/limit2"),
        ("size", "size@64"),
        ("continuations", "continuations@n4"),
        ("generate@hf/b1/p64/n128", "generate@hf/b1/p4/n4"),
        ("generate@hf/b8/p512/n128", "generate@hf/b2/p32/n4"),
        ("generate@vllm/b32/p32/n12", "generate@vllm/b2/p2/n2"),
        ("generate@hf/b1-64/p64/n32", "generate@hf/b1-2/p4/n2"),
    ],
)
def test_tasks_in_small(task: str, small: str) -> None:
    assert small_task(tasks_named(task)[0]).id == small


def test_of_alternatives_the_first_with_real_data_is_rehearsed() -> None:
    suite, registry, ours = load_suite("smollm"), load_registry(), scale("smollm2-135m")
    text = {"wikitext2@128/limit2", "lambada_text@128/limit2"}
    assert text & {*small_suite(suite, "smollm2-135m", registry, ours, []).tasks} == {"wikitext2@128/limit2"}
    found = small_suite(suite, "smollm2-135m", registry, ours, ["wikitext2_raw/test"]).tasks
    assert text & {*found} == {"lambada_text@128/limit2"}


def test_all_that_a_suite_reads() -> None:
    assert refs_of(load_suite("glue-pruning-adapter"), load_registry()) == [
        "glue_mrpc/train",
        "glue_mrpc/validation",
        "glue_rte/train",
        "glue_rte/validation",
        "glue_sst2/train",
        "glue_sst2/validation",
    ]
