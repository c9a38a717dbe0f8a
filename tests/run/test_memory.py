"""Compressing takes hardly more memory than the model: no second copy of it, and never all gradients."""

from pathlib import Path

import pytest

from bench.measure import memory
from bench.model import random
from tests.run.peaks import peaks

SHAPE = {
    "vocab_size": 256,
    "hidden_size": 768,
    "intermediate_size": 4096,
    "num_hidden_layers": 8,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
}


@pytest.mark.slow
def test_a_checkpoint_is_made_in_little_more_than_the_models_own_bytes(tmp_path: Path) -> None:
    if not memory._reset_high_water():
        pytest.skip("this kernel cannot reset the high-water mark of memory")
    random.write(SHAPE, "float32", 0, tmp_path / "dense")
    size = sum(file.stat().st_size for file in (tmp_path / "dense").glob("*.safetensors"))
    found = peaks(tmp_path / "dense", "llm_pruner", "float32", tmp_path / "out")
    assert found["removed"]["params"] == pytest.approx(0.2, abs=0.005)
    assert size > 350e6
    limits = {"load": 1.1, "compress": 1.45, "save": 1.15, "reload": 1.15}
    shares = {stage: found["peaks"][stage] / size for stage in limits}
    assert all(shares[stage] <= limit for stage, limit in limits.items()), shares
    assert shares["load"] > 0.9
