"""The measured generation of vLLM: the ids of transformers, pass by pass, with the cache that it says it has."""

from pathlib import Path

import pytest

from bench.data.files import read_json
from bench.data.pack import Pack
from bench.measure import measure
from bench.measure.generation.backend import Checkpoint, Workload
from bench.measure.generation.process_client import ProcessClient
from bench.measure.subject import Subject
from bench.registry import tasks_named
from bench.shape import Shape
from tests.artefacts import make

pytestmark = pytest.mark.vllm

WORK = Workload(3, 20, 9)
BLOCK = 128
KV_HEADS = 2 + 1 + 2 + 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("uneven", "gqa", tmp_path_factory.mktemp("vllm") / "uneven")


def test_ids_are_those_of_transformers_and_the_cache_has_its_size(folder: Path) -> None:
    checkpoint = Checkpoint(folder, "float32", "cpu", WORK)
    with ProcessClient("hf") as transformers:
        transformers.load(checkpoint)
        expected = transformers.generate(WORK)
    with ProcessClient("vllm") as client:
        client.load(checkpoint)
        first, again = client.generate(WORK), client.generate(WORK)
        short = client.generate(Workload(1, 20, 4))
        memory = client.memory(WORK)
    assert first.ids == again.ids == expected.ids
    assert short.ids == [expected.ids[0][:4]]
    assert len(first.stamps) == WORK.new + 1
    assert memory.cache == 3 * BLOCK * KV_HEADS * 2 * 32 * 4
    assert memory.weights == 4 * Shape.of(read_json(folder / "config.json")).params()


def test_a_task_is_measured(folder: Path) -> None:
    [task] = tasks_named("generate@vllm/b2/p8/n4")
    got = measure(task, Subject(folder), Pack.default(), lambda done, total: None)
    values = {metric.id: metric.value for metric in got.metrics}
    assert values["generate.tokens_per_s@vllm/b2/p8/n4"] > 0
    assert values["generate.cache_memory@vllm/b2/p8/n4"] == 2 * BLOCK * KV_HEADS * 2 * 32 * 4
    assert len(got.evidence.samples["prefill"]) == task.spec.model_dump()["rounds"]
