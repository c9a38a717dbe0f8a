"""What is asked of a method at work: one function per question, and `CHECKS`, all of them in an author's order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from bench.conformance.declared import Failed, NotAsked, bad_values, metadata, presets, unknown_key
from bench.conformance.oracle import zero_all_but
from bench.conformance.reload import logits_of
from bench.conformance.trial import ENDS, MODELS, UNEVEN, Trial, models_of_families
from bench.data.files import read_json
from bench.errors import BudgetExceeded, Cancelled, LeanboardError, MethodError
from bench.method import TARGET_TOLERANCE, Basis, Target
from bench.model.load import load_folder
from bench.shape import Shape

TARGETS = (0.1, 0.2, 0.3)
LOGITS_TOLERANCE = 1e-4
NEW_TOKENS = 8
WEIGHTS = "model.safetensors"


def runs(trial: Trial) -> str:
    """Through the harness on every model: the first check that needs the method to work."""
    models = [*MODELS, *models_of_families()]
    for model in models:
        with _named(model):
            trial.run(model, trial.usual)
    return f"compressed, saved and loaded again: {', '.join(models)}"


def without_target(trial: Trial) -> str:
    if not trial.sized:
        raise NotAsked("the method has no size to set")
    removed = trial.run("gqa-tied", None).manifest.achieved["params"]
    if not removed > 0:
        raise Failed("without a target its own settings must say how much goes, and nothing went")
    return f"its own settings remove {removed:.1%} of the parameters"


def targets(trial: Trial) -> str:
    """Three sizes, each within the tolerance; the harness itself refuses what is not."""
    if not trial.sized:
        raise NotAsked("the method changes no shapes, or is compared by its adapters")
    for model in ENDS:
        achieved = []
        for value in TARGETS:
            with _named(model):
                run = trial.run(model, Target(value=value))
            achieved.append(run.manifest.achieved["params"])
        if achieved != sorted(set(achieved)):
            raise Failed(f"{model}: more asked must be more removed, not {achieved}")
        worst = max(abs(a - value) for a, value in zip(achieved, TARGETS, strict=True))
        if worst > TARGET_TOLERANCE:
            raise Failed(f"{model}: the size is {worst:.4f} off, more than {TARGET_TOLERANCE}")
    return f"{', '.join(f'{value:.0%}' for value in TARGETS)} of the parameters, within {TARGET_TOLERANCE:.1%}"


def other_bases(trial: Trial) -> str:
    if not trial.sized:
        raise NotAsked("the method changes no shapes, or is compared by its adapters")
    bases: tuple[Basis, ...] = ("block_params", "macs")
    for basis in bases:
        achieved = trial.run("gqa", Target(basis=basis, value=0.2)).manifest.achieved[basis]
        if abs(achieved - 0.2) > TARGET_TOLERANCE:
            raise Failed(f"{basis}: {achieved:.4f} is removed where 0.2 was asked")
    return "20 % of the blocks' parameters, and of the multiply-accumulates"


def same_seed(trial: Trial) -> str:
    for model in ENDS:
        run, again = trial.run(model, trial.usual), trial.run(model, trial.usual, again="-again")
        if _weights(run.path) != _weights(again.path):
            raise Failed(f"{model}: two runs with the same seed gave different weights")
    return "two runs with one seed give the same weights, bit for bit"


def seeds(trial: Trial) -> str:
    if not trial.traits.deterministic:
        raise NotAsked("its traits say that the seed matters")
    first, other = (trial.run("gqa", trial.usual, seed=seed) for seed in (0, 1))
    if _weights(first.path) != _weights(other.path):
        raise Failed("its traits say deterministic, and another seed gave other weights")
    return "another seed gives the same weights, as its traits say"


def clean(trial: Trial) -> str:
    for model, run in trial.usual_runs():
        if run.sight.left_behind:
            raise Failed(f"{model}: {run.sight.left_behind[0]}")
    return "evaluation mode, no hook, no gradient; global random states as they were"


def loss(trial: Trial) -> str:
    values = []
    for model, run in trial.usual_runs():
        values.append(run.sight.loss)
        if not math.isfinite(values[-1]):
            raise Failed(f"{model}: the loss on random text is {values[-1]}")
    return f"{min(values):.2f} to {max(values):.2f} on random text"


def counts(trial: Trial) -> str:
    """What the manifest says, what is there, and the closed form agree."""
    for model, run in trial.usual_runs():
        dense, stored = _stored(trial.weights(model)), _stored(run.path)
        counted = Shape.of(read_json(run.path / "config.json")).params()
        manifest = run.manifest
        removed = 1 - stored / dense
        if not stored == manifest.sizes["params.stored"] == counted:
            said = f"{manifest.sizes['params.stored']:.0f} in the manifest, {counted} in closed form"
            raise Failed(f"{model}: {stored} parameters are stored, {said}")
        if abs(removed - manifest.achieved["params"]) > 1e-9:
            raise Failed(f"{model}: {removed:.4f} of the parameters are gone, not {manifest.achieved['params']:.4f}")
        if trial.traits.changes.isdisjoint({"shapes", "adds_parameters"}) and removed:
            raise Failed(f"{model}: its traits say that shapes stay, and {removed:.4f} of the parameters are gone")
        if bool(trial.traits.changes) == (_weights(run.path) == _weights(trial.weights(model))):
            raise Failed(f"{model}: its traits say that {sorted(trial.traits.changes) or 'nothing'} changes; not so")
    return "manifest, stored weights and closed form agree"


def reload(trial: Trial) -> str:
    worst = 0.0
    for model, run in trial.usual_runs():
        logits = trial.reader.logits(run.path)
        error = float((logits - run.sight.logits).abs().max() / run.sight.logits.abs().max())
        if not error <= LOGITS_TOLERANCE:
            raise Failed(f"{model}: loaded by transformers in a fresh process, logits differ by {error:.2g}")
        worst = max(worst, error)
    return f"transformers in a fresh process gives the same logits (relative difference {worst:.1g})"


def only_removed(trial: Trial) -> str:
    """The logits are those of the dense model in which all that is not kept is zero."""
    if trial.traits.changes != {"shapes"}:
        raise NotAsked("its traits do not say that shapes alone change")
    worst = 0.0
    for model, run in trial.usual_runs():
        expected, _ = load_folder(trial.weights(model))
        zero_all_but(expected, run.manifest.as_kept())
        logits = logits_of(expected)
        error = float((logits - run.sight.logits).abs().max() / logits.abs().max())
        if not error <= LOGITS_TOLERANCE:
            raise Failed(f"{model}: the dense model without what was removed has other logits, by {error:.2g}")
        worst = max(worst, error)
    return f"the dense model with zeros for what was removed gives the same logits (relative difference {worst:.1g})"


def generation(trial: Trial) -> str:
    for model in ENDS:
        loaded, _ = load_folder(trial.run(model, trial.usual).path)
        vocab = loaded.config.vocab_size
        prompts = [torch.arange(3 + 7 * i, 3 + 7 * i + length) % vocab for i, length in enumerate((5, 9, 2))]
        longest = max(map(len, prompts))
        padded = torch.stack([torch.nn.functional.pad(prompt, (longest - len(prompt), 0)) for prompt in prompts])
        mask = torch.stack([(torch.arange(longest) >= longest - len(prompt)).long() for prompt in prompts])
        batch = _generate(loaded, padded, mask, cache=True)
        for row, prompt in zip(batch, prompts, strict=True):
            alone = _generate(loaded, prompt[None], torch.ones(1, len(prompt), dtype=torch.long), cache=True)[0]
            slow = _generate(loaded, prompt[None], torch.ones(1, len(prompt), dtype=torch.long), cache=False)[0]
            if not torch.equal(alone, slow):
                raise Failed(f"{model}: greedy generation with the cache is not that without")
            if not torch.equal(row, alone):
                raise Failed(f"{model}: a prompt padded on the left in a batch is not continued as it is alone")
    return "with the cache, in a batch and padded on the left as alone and without"


def metering(trial: Trial) -> str:
    """The meter agrees with the traits and with torch's own count of steps; the field `steps` bounds them.

    A second phase of training may take as many steps again.
    """
    sight, needs = trial.run("gqa", trial.usual).sight, trial.traits.needs
    meter, steps = sight.meter, getattr(trial.config, "steps", 0)
    if (meter.calibration_tokens > 0) != ("calibration" in needs):
        raise Failed(f"it read {meter.calibration_tokens} calibration tokens; its traits need {sorted(needs)}")
    if meter.optimiser_steps != sight.steps:
        counted = meter.optimiser_steps
        raise Failed(f"{sight.steps} optimiser steps were made, and {counted} reported by ctx.count_step()")
    if (sight.steps > 0) != ("training" in needs) or (meter.trainable_parameters > 0) != ("training" in needs):
        trained = f"{sight.steps} steps on {meter.trainable_parameters} parameters"
        raise Failed(f"it made {trained}; its traits need {sorted(needs)}")
    if "training" in needs and not steps <= sight.steps <= 2 * steps:
        raise Failed(f"it made {sight.steps} optimiser steps where its settings say steps={steps}")
    return f"{meter.calibration_tokens} calibration tokens, {meter.optimiser_steps} steps, as its traits say"


def budget(trial: Trial) -> str:
    if "training" not in trial.traits.needs:
        raise NotAsked("the method does not train")
    try:
        trial.build(trial.watched(max_steps=1), "budget", "gqa", trial.usual)
    except BudgetExceeded:
        return "a second step where one is allowed is refused"
    raise Failed("with a budget of one step it made more and went on")


def cancelling(trial: Trial) -> str:
    looks = trial.run("gqa", trial.usual).sight.looks
    if not looks:
        raise NotAsked("it tells no progress and takes no steps, so there is nothing to interrupt")
    try:
        trial.build(trial.watched(cancel_at=(looks + 1) // 2), "cancelled", "gqa", trial.usual)
    except Cancelled:
        if left := [path for path in trial.folder.glob("cancelled*") if not path.name.endswith(".work")]:
            raise Failed(f"an interrupted run left {left[0].name}") from None
        return "an interruption half-way ends it and leaves no checkpoint"
    raise Failed("it was interrupted and went on")


def uneven(trial: Trial) -> str:
    try:
        trial.run(UNEVEN, trial.usual)
    except MethodError as error:
        return f"refuses a model whose layers differ: {error}"
    return "a model whose layers already differ is compressed too"


Check = Callable[[Trial], str]
CHECKS: dict[str, Check] = {
    "metadata": metadata,
    "unknown key": unknown_key,
    "bad values": bad_values,
    "presets and card": presets,
    "runs": runs,
    "without a target": without_target,
    "size targets": targets,
    "other bases": other_bases,
    "same seed": same_seed,
    "other seeds": seeds,
    "nothing left behind": clean,
    "finite loss": loss,
    "honest counts": counts,
    "reload": reload,
    "only removed": only_removed,
    "generation": generation,
    "metering": metering,
    "step budget": budget,
    "interruption": cancelling,
    "uneven layers": uneven,
}


@contextmanager
def _named(model: str) -> Iterator[None]:
    """An error of ours gets the model's name in front."""
    try:
        yield
    except LeanboardError as error:
        raise Failed(f"{model}: {error}") from error


def _stored(folder: Path) -> int:
    """Numbers in the file of the weights."""
    return sum(weight.numel() for weight in load_file(folder / WEIGHTS).values())


def _weights(folder: Path) -> bytes:
    content: bytes = (folder / WEIGHTS).read_bytes()
    return content


def _generate(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, *, cache: bool) -> torch.Tensor:
    """The new tokens, greedy: int64 [batch, NEW_TOKENS]."""
    with torch.no_grad():
        out: torch.Tensor = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            use_cache=cache,
            pad_token_id=0,
        )
    return out[:, ids.shape[1] :]
