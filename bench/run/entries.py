"""The entries of a plan: methods with their settings resolved, and the checkpoints that each makes. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from bench.blocks.recoveries import resolve_recovery
from bench.catalogue import ModelRef
from bench.errors import UsageError
from bench.method import Target
from bench.registry import MethodEntry, Registry, tasks_named
from bench.run.cells import ArtifactCell, artifact_ingredients, fingerprinted
from bench.suite import RandomTokens, RecoveryChoice, Suite, SuiteMethod, TextSource
from bench.task import Task


@dataclass(frozen=True)
class PlanEntry:
    """A method of the suite with its settings resolved, and the texts that it reads."""

    entry: MethodEntry
    item: SuiteMethod
    config: dict[str, Any]
    recovery: dict[str, Any] | None
    calibration: TextSource | None
    training: TextSource | None
    own_tasks: list[Task]

    @classmethod
    def all_of(cls, item: SuiteMethod, registry: Registry, suite: Suite) -> list[PlanEntry]:
        """One plan entry for each recovery and calibration text.

        Recoveries are the item's own, else the suite's where the method removes something. Texts are the item's own,
        else the suite's; none where the method reads none.
        """
        entry = registry.method(item.name, f"suite {suite.name}: methods")
        choices: Sequence[RecoveryChoice] = suite.recoveries if _removes(entry) else ["preset"]
        own = [item.calibration] if item.calibration else suite.texts()
        texts = own if "calibration" in entry.cls.traits.needs else [None]
        wanted = [item.recovery] if item.recovery else choices
        return [cls._of(item, entry, choice, text, suite) for choice, text in product(wanted, texts)]

    @classmethod
    def _of(
        cls, item: SuiteMethod, entry: MethodEntry, choice: RecoveryChoice, text: TextSource | None, suite: Suite
    ) -> PlanEntry:
        where = f"suite {suite.name}: methods: {item.name}"
        preset = entry.preset(item.preset)
        wanted = preset.recovery if choice == "preset" else None if choice == "none" else choice
        recovery = resolve_recovery(wanted, f"{where}: recovery")
        trains = recovery is not None or "training" in entry.cls.traits.needs
        training = item.training or suite.training
        if trains and training is None:
            raise UsageError(f"suite {suite.name}: training: missing, but {item.name} learns from text")
        return cls(
            entry,
            item,
            entry.config(preset, item.config).model_dump(mode="json"),
            recovery,
            text,
            training if trains else None,
            [task for name in item.tasks for task in tasks_named(name, where=f"{where}: tasks")],
        )

    def points(self, suite: Suite) -> list[tuple[Target | None, int]]:
        """Targets × seeds: no target where the method removes nothing, one seed where seeds change nothing."""
        targets: list[Target | None] = list(suite.targets if self.item.targets is None else self.item.targets)
        if not _removes(self.entry) or not targets:
            targets = [None]
        seeds = suite.seeds[:1] if self.entry.cls.traits.deterministic else suite.seeds
        return [(target, seed) for target in targets for seed in seeds]

    def cell(
        self, ref: ModelRef, target: Target | None, seed: int, suite: Suite, device: str, tokens: RandomTokens | None
    ) -> ArtifactCell:
        """The checkpoint to make; `tokens` replace the texts for a model with random weights."""
        calibration = self.calibration and (tokens or self.calibration)
        training = self.training and (tokens or self.training)
        ingredients = artifact_ingredients(
            ref,
            self.entry,
            self.config,
            self.recovery,
            target,
            seed,
            suite.dtype,
            fingerprinted(calibration, may_lack=True),
            fingerprinted(training, may_lack=True),
        )
        return ArtifactCell(
            model=ref.id,
            weights=ref.path,
            method=self.entry.name,
            preset=self.item.preset,
            config=self.config,
            recovery=self.recovery,
            target=target,
            seed=seed,
            dtype=suite.dtype,
            device=device,
            calibration=calibration,
            names_text=len(suite.texts()) > 1,
            training=training,
            ingredients=ingredients,
        )


def _removes(entry: MethodEntry) -> bool:
    return bool(entry.cls.traits.changes) and entry.cls.traits.track != "peft"
