"""What can go wrong cheaply goes wrong at once, in one sentence that names file and field."""

from pathlib import Path
from typing import Any

import pytest

from bench.errors import UsageError
from bench.registry import load_registry
from bench.run.plan import Plan, make_plan
from bench.suite import load_suite
from bench.views import plan_cells
from tests.packs import make_pack, tables
from tests.suites import CALIBRATION, make_suite, passages


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    make_suite(folder)
    return folder


@pytest.fixture
def planned(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LEANBOARD_DATA", str(root / "pack"))

    def plan(only: dict[str, str] | None = None, listing: bool = False, **changes: Any) -> Plan:
        return make_plan(
            load_suite(str(make_suite(root, **changes))),
            load_registry(),
            root / "results",
            model_paths={},
            plugins=[],
            only=only or {},
            offline=True,
            command=["leanboard"],
            say=lambda line: None,
            listing=listing,
        )

    return plan


def test_every_cell_has_a_key_of_its_own(planned: Any) -> None:
    plan = planned(tasks=["size", "wikitext2@128/limit2", "commonsense7/limit4", "generate@hf/b1/p8/n4"])
    keys = plan.all_keys()
    assert len(keys) == 2 * (1 + 10) == len(set(keys))
    assert [job.artifact.method for job in plan.jobs] == ["dense", "random"]


def test_dense_has_no_target_and_deterministic_methods_one_seed(planned: Any) -> None:
    plan = planned(methods=["dense", "random", "magnitude"], seeds=[0, 1])
    assert [(j.artifact.method, str(j.artifact.target), j.artifact.seed) for j in plan.jobs] == [
        ("dense", "None", 0),
        ("random", "params=0.2", 0),
        ("random", "params=0.2", 1),
        ("magnitude", "params=0.2", 0),
    ]


LORA = {"name": "lora", "steps": 2, "holdout": 0}


def test_recoveries_cross_with_what_removes_something(planned: Any) -> None:
    methods = ["dense", "random", {"name": "magnitude", "recovery": "none"}]
    grouped = LORA | {"name": "grouped"}
    plan = planned(methods=methods, recoveries=["none", LORA, grouped], training={"data": CALIBRATION})
    assert [(j.artifact.method, j.artifact.recovery_name) for j in plan.jobs] == [
        ("dense", "none"),
        ("random", "none"),
        ("random", "lora"),
        ("random", "grouped"),
        ("magnitude", "none"),
    ]
    plain, recovered = plan.jobs[1].artifact, plan.jobs[2].artifact
    assert plain.training is None
    assert recovered.training is not None
    assert recovered.ingredients["recovery"]["steps"] == 2


def test_a_method_may_have_tasks_and_training_text_of_its_own(planned: Any) -> None:
    own = {"data": "piqa/validation", "column": "goal"}
    item = {"name": "random", "recovery": LORA, "training": own, "tasks": ["commonsense7@0shot+notice/limit2"]}
    plan = planned(methods=["dense", item], tasks=["size", "piqa/limit4"], training={"data": CALIBRATION})
    assert [cell.task for cell in plan.jobs[0].cells] == ["size@64", "piqa@0shot/limit4"]
    mine = [cell.task for cell in plan.jobs[1].cells]
    assert mine[:3] == ["size@64", "piqa@0shot/limit4", "boolq@0shot+notice/limit2"]
    assert len(mine) == 2 + 7
    assert plan.jobs[1].artifact.ingredients["training"]["data"] == "piqa/validation"


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "bfloat16"},
        {"seeds": [1]},
        {"targets": [{"basis": "params", "value": 0.21}]},
        {"methods": [{"name": "random", "config": {"layers": [1, 3]}}]},
        {"tasks": ["wikitext2@128/limit3"]},
        {"tasks": ["wikitext2@64/limit2"]},
    ],
)
def test_whatever_changes_a_number_changes_the_key(planned: Any, changes: dict[str, Any]) -> None:
    base = {"methods": ["random"], "tasks": ["wikitext2@128/limit2"]}
    before, after = planned(**base), planned(**(base | changes))
    assert before.jobs[0].cells[0].key != after.jobs[0].cells[0].key
    assert (before.jobs[0].artifact.key == after.jobs[0].artifact.key) == ("tasks" in changes)


def test_names_and_descriptions_do_not_change_keys(planned: Any) -> None:
    assert planned().all_keys() == planned(name="other", description="other").all_keys()


def test_calibration_enters_only_the_keys_of_methods_that_use_it(planned: Any) -> None:
    methods = ["random", {"name": "llm_pruner", "config": {"seq_len": 16}}]
    whole, part = (
        planned(methods=methods),
        planned(methods=methods, calibration={"data": "lambada_passages/test", "rows": [0, 100]}),
    )
    same = [a.artifact.key == b.artifact.key for a, b in zip(whole.jobs, part.jobs, strict=True)]
    assert same == [True, False]


@pytest.mark.parametrize(
    ("settings", "text", "sentence"),
    [
        ({"seq_len": 500}, {}, "{text}: 10 windows of 500 tokens are asked for, and 0 of its 2400 documents are"),
        ({}, {"rows": [0, 3]}, "{text}[0:3]: 10 windows of 64 tokens are asked for, and 3 of its 3 documents"),
        ({"seq_len": 4000}, {"rows": [0, 3], "sampler": "joined"}, "{text}[0:3]+joined: 10 windows of 4000 tokens are"),
    ],
)
def test_too_short_a_text_is_refused_before_any_work(
    planned: Any, root: Path, settings: dict[str, Any], text: dict[str, Any], sentence: str
) -> None:
    item = {"name": "llm_pruner", "config": {"group_ratio": 0.5} | settings}
    with pytest.raises(UsageError) as caught:
        planned(methods=["dense", item], calibration={"data": CALIBRATION} | text)
    where = "suite tiny: methods: llm_pruner (default): calibration: "
    assert str(caught.value).startswith(where + sentence.format(text=CALIBRATION))
    assert planned({"method": "dense"}, methods=["dense", item], calibration={"data": CALIBRATION} | text).jobs


def test_without_the_weights_a_text_is_too_short_by_its_bytes(planned: Any) -> None:
    item = {"name": "llm_pruner", "config": {"group_ratio": 0.5, "seq_len": 2000}}
    with pytest.raises(UsageError, match="10 windows of 2000 tokens are asked for, and 0 of its 2400 documents are"):
        planned(models=["llama-7b"], methods=[item], listing=True)


TEXTS = [{"data": CALIBRATION}, {"data": "wikitext2_raw/test", "sampler": "joined"}]
PRUNER = {"name": "llm_pruner", "config": {"seq_len": 16}}


def test_several_calibration_texts_give_a_row_each_to_methods_that_read_one(planned: Any) -> None:
    plan = planned(methods=["random", PRUNER], calibration=None, calibrations=TEXTS)
    names = [(job.artifact.method, job.artifact.calibration_name) for job in plan.jobs]
    assert names == [("random", "none"), ("llm_pruner", CALIBRATION), ("llm_pruner", "wikitext2_raw/test+joined")]
    assert len({job.artifact.key for job in plan.jobs}) == 3
    assert "wikitext2_raw/test+joined" in plan.jobs[2].artifact.label
    assert [row["calibration"] for row in plan_cells(plan) if row["what"] == "compress"] == [n for _, n in names]
    assert plan.jobs[1].artifact.key == planned(methods=[PRUNER]).jobs[0].artifact.key
    [job] = planned({"calibration": CALIBRATION}, methods=[PRUNER], calibration=None, calibrations=TEXTS).jobs
    assert job.artifact.key == plan.jobs[1].artifact.key


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"calibrations": TEXTS}, "suite.yaml: calibrations: give either one text as calibration, or several here"),
        ({"calibration": None}, "suite.yaml: calibrations: give either one text as calibration, or several here"),
        ({"calibration": None, "calibrations": TEXTS[:1] * 2}, f"calibrations: {CALIBRATION} is there twice"),
    ],
)
def test_a_suite_names_its_calibration_texts_in_one_way(root: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_suite(str(make_suite(root, **changes)))
    assert sentence in str(caught.value)


def test_a_text_that_is_missing_is_replaced_loudly_and_under_its_own_name(
    planned: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [{"first_of": ["wikitext2@128", "lambada_text@256"]}]
    plan = planned(tasks=wanted)
    assert ([cell.task for cell in plan.jobs[0].cells], plan.notes) == (["wikitext2@128"], [])
    without = {ref: rows for ref, rows in tables().items() if not ref.startswith("wikitext2")}
    make_pack(root / "no-wikitext", without | {CALIBRATION: passages()})
    monkeypatch.setenv("LEANBOARD_DATA", str(root / "no-wikitext"))
    plan = planned(tasks=wanted)
    assert [cell.task for cell in plan.jobs[0].cells] == ["lambada_text@256"]
    assert len(plan.notes) == 1
    assert "wikitext2@128 is left out" in plan.notes[0]
    assert "lambada_text@256 is measured instead, under its own metric id" in plan.notes[0]


def test_divergence_reads_the_first_text_that_is_there_and_its_key_that_text_alone(
    planned: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [{"first_of": ["divergence@wikitext2/128/limit2", "divergence@lambada_text/128/limit2"]}]
    cells = planned(tasks=wanted).jobs[0].cells
    assert [(cell.task, list(cell.ingredients["data"])) for cell in cells] == [
        ("divergence@wikitext2/128/limit2", ["wikitext2_raw/test"])
    ]
    without = {ref: rows for ref, rows in tables().items() if not ref.startswith("wikitext2")}
    monkeypatch.setenv("LEANBOARD_DATA", str(make_pack(root / "no-wikitext", without | {CALIBRATION: passages()})))
    assert [cell.task for cell in planned(tasks=wanted).jobs[0].cells] == ["divergence@lambada_text/128/limit2"]


def test_only_filters_cells(planned: Any) -> None:
    plan = planned(only={"method": "random", "task": "piqa"})
    assert [[cell.task for cell in job.cells] for job in plan.jobs] == [["piqa@0shot/limit4"]]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"methods": ["llm_prunner"]}, "suite tiny: methods: unknown method 'llm_prunner'; did you mean llm_pruner?"),
        ({"tasks": ["hellaswga"]}, "suite tiny: tasks: unknown task 'hellaswga'; did you mean hellaswag"),
        ({"tasks": ["wikitext2@0"]}, "task wikitext2: protocol '0' is not a window length"),
        ({"tasks": ["generate@vllm"]}, "task generate: protocol 'vllm' is not hf|vllm/b<batch>"),
        ({"tasks": ["piqa", "hellaswag@few"]}, "task hellaswag: protocol 'few' is not <n>shot, with or without +bos"),
        ({"tasks": ["piqa", "hellaswag@5shot"]}, "suite tiny: data hellaswag/train is not available: "),
        ({"tasks": ["piqa@0shot+bos+nobos"]}, "protocol '0shot+bos+nobos': +bos and +nobos exclude each other"),
        ({"targets": [{"basis": "params", "value": 1.2}]}, "suite.yaml: targets.0.value: Input should be less than 1"),
        ({"targets": [{"value": 0}]}, "suite.yaml: targets.0.value: Input should be greater than 0"),
        ({"sedes": [1]}, "suite.yaml: sedes: unknown key; did you mean 'seeds'?"),
        ({"methods": [{"name": "random", "presset": "quick"}]}, "presset: unknown key; did you mean 'preset'?"),
        ({"methods": [{"name": "random", "preset": "quik"}]}, "unknown preset 'quik'; did you mean quick"),
        ({"methods": [{"name": "random", "config": {"layer": [1, 2]}}]}, "layer: unknown key; did you mean 'layers'?"),
        ({"methods": [{"name": "random", "recovery": {"name": "lorra"}}]}, "unknown recovery 'lorra'"),
        ({"methods": [{"name": "random", "recovery": {"name": "lora"}}]}, "suite tiny: training: missing"),
        ({"models": ["smollm2-153m"]}, "unknown model 'smollm2-153m'; did you mean smollm2-135m?"),
        ({"calibration": {"data": "../secret"}, "methods": ["llm_pruner"]}, "suite.yaml: calibration.data"),
        ({"device": "cuda"}, "device: the suite asks for cuda"),
    ],
)
def test_bad_suites_end_in_one_sentence(planned: Any, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        planned(**changes)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_engine_that_is_not_installed_is_named(planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.task.find_spec", lambda name: None)
    tasks = ["size", "generate@vllm/b8/p64/n32"]
    with pytest.raises(UsageError, match=r"task generate@vllm/b8/p64/n32: vLLM .*tox -e vllm.*leanboard\[vllm\]"):
        planned(tasks=tasks)
    assert planned(tasks=tasks, only={"task": "size"}).open_jobs()
    monkeypatch.setattr("bench.task.find_spec", lambda name: name == "vllm")
    assert planned(tasks=tasks).open_jobs()


def test_data_that_cannot_be_had_is_named(planned: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pack(root / "few", {CALIBRATION: passages()})
    monkeypatch.setenv("LEANBOARD_DATA", str(root / "few"))
    with pytest.raises(UsageError, match=r"suite tiny: data .* is not available: .*offline"):
        planned()


def test_unknown_filter_and_filter_without_cells(planned: Any) -> None:
    with pytest.raises(UsageError, match="--only: unknown filter 'methd'; did you mean method"):
        planned(only={"methd": "random"})
    with pytest.raises(UsageError, match="no cell of the suite fits"):
        planned(only={"method": "magnitude"})


def test_a_missing_suite_is_named() -> None:
    with pytest.raises(UsageError, match="unknown suite 'smolm'; did you mean smollm"):
        load_suite("smolm")
    with pytest.raises(UsageError, match=r"nowhere/x\.yaml: there is no such suite file"):
        load_suite("nowhere/x.yaml")
