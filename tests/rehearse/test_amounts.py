"""A rehearsal shrinks amounts, and nothing else."""

from typing import Any

import pytest
from pydantic import Field

from bench.blocks.recoveries import RECOVERIES
from bench.blocks.settings import TrainingConfig
from bench.catalogue import CATALOGUE
from bench.method import MethodConfig
from bench.model.stand_in import small_config
from bench.registry import load_registry
from bench.rehearse.amounts import CAPS, LENGTHS, LISTS, MOST_TOKENS, Scale, shrunk
from bench.shape import Shape

CONFIG = CATALOGUE["llama-7b"].config
SCALE = Scale(Shape.of(CONFIG), Shape.of(small_config(CONFIG)))
SCALED = {"layers", "round_to"}
HOW = {
    "alpha", "beta", "bits", "d", "density", "dropout", "finetune_lr", "global_ranking", "grad_clip", "group_ratio",
    "group_size", "high", "high_share", "init_channels", "init_heads", "init_hidden", "init_spread", "limit", "low",
    "lr", "mask_lr", "mask_seed", "min_channels", "mode", "multiplier_lr", "oversampling", "param_ratio",
    "prune_ratio", "r", "rank0", "rank_high", "rank_low", "ratio", "reduction", "ridge", "segments",
    "sparsity_epsilon", "stability", "target_sparsity", "tolerance", "validation_share", "weight_decay",
}  # fmt: skip
"""Numbers that say how, and not how much."""
PHASES = {"epochs", "finetune_epochs", "prepruning_epochs", "ramp_epochs"}
"""Where steps are given, they are shares of those."""


def numbers(settings: type[MethodConfig]) -> set[str]:
    """Fields that may hold numbers."""
    return {
        name
        for name, field in settings.model_fields.items()
        if any(word in str(field.annotation) for word in ("int", "float"))
    }


ALL = {**{name: entry.cls.Config for name, entry in load_registry().methods.items()}}
ALL |= {name: recovery.settings for name, recovery in RECOVERIES.items()}


@pytest.mark.parametrize("name", ALL)
def test_every_number_of_a_setting_is_known_as_an_amount_or_not(name: str) -> None:
    assert numbers(ALL[name]) - {*CAPS, *LISTS, *LENGTHS} - SCALED - HOW - PHASES == set()
    assert not PHASES & ALL[name].model_fields.keys() or "steps" in ALL[name].model_fields


def test_nothing_is_known_that_no_setting_has() -> None:
    everywhere = {name for settings in ALL.values() for name in settings.model_fields}
    assert {*CAPS, *LISTS, *LENGTHS, *SCALED, *HOW, *PHASES} - everywhere == set()


def test_every_preset_takes_its_caps() -> None:
    for entry in load_registry().methods.values():
        for name, preset in entry.presets().items():
            given = entry.config(preset)
            small = given.model_copy(update=shrunk(given, SCALE))
            type(small).model_validate(small.model_dump())
            for field, most in CAPS.items():
                value = getattr(small, field, None)
                assert value is None or value <= most, (entry.name, name, field)
            if hasattr(small, "steps"):
                assert small.steps is not None, (entry.name, name)


def test_what_says_how_stays() -> None:
    entry = load_registry().method("saap")
    given = entry.config(entry.preset("paper"))
    assert shrunk(given, SCALE) == {"layers": (1, 8), "round_to": 1, "calibration_samples": 4, "seq_len": 32}


@pytest.mark.parametrize(
    ("real", "small"),
    [((0, 32), (0, 8)), ((4, 30), (1, 8)), ((3, 31), (1, 8)), ((27, 32), (7, 8)), ((31, 32), (7, 8)), ((0, 1), (0, 1))],
)
def test_blocks_keep_their_place(real: tuple[int, int], small: tuple[int, int]) -> None:
    assert SCALE.layers(*real) == small


def test_blocks_that_the_model_does_not_have_are_beyond_the_stand_in_too() -> None:
    assert SCALE.layers(30, 33) == (8, 9)


def test_settings_in_epochs_get_steps() -> None:
    changed = shrunk(TrainingConfig(max_length=100), SCALE)
    assert changed == {
        "warmup_steps": 1,
        "batch_size": 2,
        "micro_batch": 2,
        "steps": 2,
        "max_length": 200,
        "holdout": 2,
        "evaluate_every": 1,
    }
    assert "max_length" not in shrunk(TrainingConfig(max_length=MOST_TOKENS), SCALE)


def test_a_plug_in_keeps_what_it_does_not_let_be_capped() -> None:
    class Own(MethodConfig):
        steps: int = Field(500, ge=100, description="its own minimum")
        seq_len: int = Field(512, description="as everywhere")
        passes: int = Field(700, description="not a name of the house")
        layers: int | None = Field(None, description="not a range")

    changed: dict[str, Any] = shrunk(Own(), SCALE)
    assert changed == {"seq_len": 32}
