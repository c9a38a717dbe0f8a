"""Signal of gold answers: the dense model says them at lower cost after their own contexts than after others'."""

import math

import numpy as np
import pytest

from bench.protocol import with_flag
from bench.record.schema import ArtifactRecord, Evidence, MeasureRecord, Metric, Windows
from bench.record.text import AnyRecord
from bench.report.build import build
from bench.report.gates import Signal
from bench.report.stats import lower
from tests.record.records import artifact, measure

TASK, BASELINE = "quiz@5shot/limit20", "quiz@5shot+shuffled/limit20"
DENSE = artifact("dense", target="none", removed=0.0)


def gold(made: ArtifactRecord, task: str, gain: float, n: int = 20, noise: float = 1.0) -> MeasureRecord:
    """Losses of answers of 3 to 9 bytes; the same ones for all, less `gain` nats, and noise of each task's own."""
    losses = np.random.default_rng(0).gamma(4, 2.0, n) - gain + noise * np.random.default_rng(len(task)).normal(size=n)
    windows = Windows(nll=[float(loss) for loss in losses], targets=[3 + i % 7 for i in range(n)])
    metric = Metric(
        id=task.replace("@", ".bpb@"),
        value=sum(windows.nll) / sum(windows.targets) / math.log(2),
        unit="bits/byte",
        direction="lower",
        n=sum(windows.targets),
    )
    return measure(made, task, [metric], evidence=Evidence(sums={"bpb": windows}))


def signals(*records: AnyRecord) -> dict[str, Signal]:
    return dict(build([DENSE, *records], []).signals["tiny"])


def test_a_dense_model_that_uses_the_question_has_signal() -> None:
    own, other = gold(DENSE, TASK, gain=2.0), gold(DENSE, BASELINE, gain=0.0)
    found = signals(own, other)
    assert list(found) == ["quiz.bpb@5shot/limit20"]
    [signal] = found.values()
    assert signal.has_signal is True
    assert (signal.value, signal.chance) == pytest.approx((own.metrics[0].value, other.metrics[0].value))
    assert signal.n == 20
    assert signal.p is not None
    assert signal.p < 1e-3


def test_one_that_does_not_has_none() -> None:
    [signal] = signals(gold(DENSE, TASK, gain=0.0), gold(DENSE, BASELINE, gain=0.0)).values()
    assert signal.has_signal is False
    assert signal.reason.startswith("no signal: dense ")


def test_without_the_baseline_or_on_other_answers_it_is_not_known() -> None:
    own = gold(DENSE, TASK, gain=2.0)
    for records in ([own], [own, gold(DENSE, BASELINE, gain=0.0, n=19)]):
        [signal] = signals(*records).values()
        assert signal.has_signal is None
        assert signal.reason == "signal not known: quiz.bpb@5shot+shuffled/limit20 of the dense model is missing"


def test_few_answers_say_nothing() -> None:
    [signal] = signals(gold(DENSE, TASK, gain=9.0, n=9), gold(DENSE, BASELINE, gain=0.0, n=9)).values()
    assert (signal.has_signal, signal.reason) == (None, "smoke: 9 items say nothing of signal")


def test_the_test_errs_as_often_as_it_says_and_finds_what_is_there() -> None:
    random = np.random.default_rng(0)
    losses = random.gamma(2, 2.0, (2, 4000, 20))
    p = [lower(a, b) for a, b in zip(*losses, strict=True)]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.015)
    assert lower(losses[0, 0] - 3, losses[0, 0]) == 0.0
    assert lower(losses[0, 0], losses[0, 0]) == 1.0


def test_a_flag_is_put_in_its_place() -> None:
    assert with_flag("quiz.bpb@5shot+nobos/limit20", "shuffled") == "quiz.bpb@5shot+nobos+shuffled/limit20"
    assert with_flag("quiz@5shot", "shuffled") == "quiz@5shot+shuffled"
