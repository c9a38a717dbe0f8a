"""The memory that pruning takes where it matters: a LLaMA of 1.1 billion parameters in bfloat16, random weights."""

from typing import Any

import pytest

from tests.benchmarks.conftest import Limit
from tests.run.peaks import make_model, peaks

pytestmark = pytest.mark.perf

TINY_LLAMA = {
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
}
LIMIT = 1.35


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, int]:
    folder = tmp_path_factory.mktemp("random") / "dense"
    return folder, make_model(folder, "bfloat16", **TINY_LLAMA)


@pytest.mark.parametrize(
    ("method", "config"),
    [("magnitude", {}), ("llm_pruner", {}), ("llm_pruner", {"importance": "param_mix"}), ("saap", {})],
    ids=["magnitude", "llm_pruner", "llm_pruner param_mix", "saap"],
)
def test_pruning_takes_a_third_more_than_the_model(
    benchmark: Any, limits: list[Limit], model: Any, tmp_path: Any, method: str, config: Any
) -> None:
    folder, size = model
    benchmark.group = "memory"
    found = benchmark.pedantic(
        peaks, args=(folder, method, "bfloat16", tmp_path / "out", (10, 64)), kwargs=config, rounds=1
    )
    shares = {stage: round(peak / size, 2) for stage, peak in found["peaks"].items()}
    benchmark.extra_info.update(bytes=size, shares=shares, seconds=found["seconds"])
    what = " ".join([method, *config.values()])
    limits.append((f"memory: {what}: most in use by size of the model", max(shares.values()), LIMIT, "most"))
    assert max(shares.values()) <= LIMIT, shares
