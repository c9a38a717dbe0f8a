"""A measurement that was cut off goes on where it was, with the numbers of an undisturbed one and never a wrong one."""

from pathlib import Path
from typing import Any

import pytest

from bench.data.pack import Pack
from bench.measure import answers, measure, scorer
from bench.measure.answers import Answer, Answers
from bench.measure.scorer import PackedLM
from bench.measure.subject import Subject
from bench.task import Task
from tests.measure.test_accuracy import spec
from tests.measure.test_scorer import ask
from tests.packs import ADJECTIVES, make_pack
from tests.tiny import make_model, make_tokenizer

KEY = "0123456789abcdef"
QUESTIONS = [([1, 2], [3]), ([1, 2], [4, 5]), ([6], [7])]
LINES: list[dict[int, Answer]] = [{2: (-0.1, True), 0: (-1e-300, False)}, {1: (-123.45678901234567, False)}]
ALL = LINES[0] | LINES[1]


class Killed(BaseException):
    """No handler of errors sees it, as none sees a crash."""


@pytest.fixture(autouse=True)
def _save_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "SAVE_SECONDS", 0.0)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return Pack([make_pack(tmp_path_factory.mktemp("pack"))])


def opened(file: Path, key: str = KEY, questions: Any = QUESTIONS) -> tuple[Answers, dict[int, Answer]]:
    kept = Answers(file, key)
    return kept, kept.load(questions)


def written(file: Path) -> bytes:
    kept, _ = opened(file)
    for line in LINES:
        kept.keep(line)
    return file.read_bytes()


def test_answers_come_back_as_they_were(tmp_path: Path) -> None:
    written(tmp_path / "a")
    kept, got = opened(tmp_path / "a")
    assert got == ALL
    assert all(type(greedy) is bool for _, greedy in got.values())
    assert kept.earlier_seconds > 0
    kept.done()
    assert list(tmp_path.iterdir()) == []
    assert opened(tmp_path / "a")[1] == {}


def test_a_file_cut_off_at_any_byte_gives_fewer_answers_or_the_same_and_can_be_gone_on_with(tmp_path: Path) -> None:
    content = written(tmp_path / "a")
    found = set()
    for end in range(len(content) + 1):
        (tmp_path / "a").write_bytes(content[:end])
        kept, got = opened(tmp_path / "a")
        assert got in ({}, LINES[0], ALL)
        found.add(len(got))
        kept.keep(LINES[1])
        assert opened(tmp_path / "a")[1] == got | LINES[1]
    assert found == {0, 2, 3}


def test_a_damaged_byte_costs_its_line_and_changes_no_answer(tmp_path: Path) -> None:
    content = written(tmp_path / "a")
    for at in range(len(content)):
        for byte in {content[at] ^ 1, ord("0"), ord("\n"), ord(" ")} - {content[at]}:
            (tmp_path / "a").write_bytes(content[:at] + bytes([byte]) + content[at + 1 :])
            assert opened(tmp_path / "a")[1] in ({}, *LINES, ALL)


def test_the_answers_of_another_measurement_are_ignored(tmp_path: Path) -> None:
    content = written(tmp_path / "a")
    assert opened(tmp_path / "a", key="f" * 16)[1] == {}
    assert opened(tmp_path / "a", questions=[*QUESTIONS[:2], ([6], [8])])[1] == {}
    assert opened(tmp_path / "a", questions=QUESTIONS[:2])[1] == {}
    without_hash = b"\n".join(line.partition(b" ")[2] for line in content.splitlines())
    for foreign in (without_hash, b"[1.0, [[0, -1.0, true]]]\n", b"\x00\xff\n" * 9, b"[" * 100_000):
        (tmp_path / "a").write_bytes(foreign)
        assert opened(tmp_path / "a")[1] == {}


def test_what_is_not_finite_is_not_kept(tmp_path: Path) -> None:
    kept, _ = opened(tmp_path / "a")
    kept.keep({0: (float("nan"), False), 1: (-2.0, True), 2: (float("-inf"), False)})
    assert opened(tmp_path / "a")[1] == {1: (-2.0, True)}


def test_lines_are_seconds_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "SAVE_SECONDS", 60.0)
    kept, _ = opened(tmp_path / "a")
    kept.keep(LINES[0])
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(answers, "SAVE_SECONDS", 0.0)
    kept.keep(LINES[1])
    assert opened(tmp_path / "a")[1] == ALL
    assert len((tmp_path / "a").read_bytes().splitlines()) == 2  # the first is empty


REQUESTS = ask(*[(f"{word} number {i % 5} is", f" {word}.") for word in ADJECTIVES for i in range(7)])


class Scoring:
    """One scoring with a fresh model, in small batches, that may be cut off after some of them."""

    def __init__(self, kept: Answers | None, cut_after: int | None = None) -> None:
        self.model, self.batches, self.seen = make_model(kv_heads=2), 0, [0]
        self.cut_after = cut_after
        lm = PackedLM(self.model, make_tokenizer()).following(self._progress, kept)
        self.model.model.register_forward_pre_hook(self._count)
        self.answers = lm.loglikelihood(REQUESTS)

    def _count(self, *args: object) -> None:
        self.batches += 1

    def _progress(self, done: int, total: int) -> None:
        self.seen.append(done)
        if self.batches == self.cut_after:
            raise Killed


@pytest.fixture
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "CPU_TOKENS", 64)


@pytest.mark.usefixtures("_small_batches")
@pytest.mark.parametrize("cuts", [[1], [5], [3, 1, 4]], ids=str)
def test_finished_batches_are_not_computed_again_and_no_bit_changes(cuts: list[int], tmp_path: Path) -> None:
    whole = Scoring(None)
    for cut in cuts:
        with pytest.raises(Killed):
            Scoring(Answers(tmp_path / "a", KEY), cut)
    again = Scoring(Answers(tmp_path / "a", KEY))
    assert again.batches == whole.batches - sum(cuts) > 0
    assert again.answers == whole.answers
    assert again.seen == sorted(again.seen) == whole.seen


@pytest.mark.usefixtures("_small_batches")
def test_a_lost_line_costs_its_batch(tmp_path: Path) -> None:
    whole = Scoring(Answers(tmp_path / "a", KEY))
    lines = (tmp_path / "a").read_bytes().split(b"\n")
    (tmp_path / "a").write_bytes(b"\n".join(lines[:3] + lines[4:]))
    again = Scoring(Answers(tmp_path / "a", KEY))
    assert again.batches == 1
    assert again.answers == whole.answers


@pytest.mark.usefixtures("_small_batches")
@pytest.mark.parametrize("protocol", ["0shot", "0shot+notice"])
def test_a_measurement_goes_on_with_the_same_evidence(
    protocol: str, pack: Pack, tiny_gqa: Path, tmp_path: Path
) -> None:
    task = Task(spec("piqa"), protocol)

    def cut(done: int, total: int) -> None:
        if done > total / 2:
            raise Killed

    with pytest.raises(Killed):
        measure(task, Subject(tiny_gqa), pack, cut, Answers(tmp_path / "a", KEY))
    kept = Answers(tmp_path / "a", KEY)
    assert measure(task, Subject(tiny_gqa), pack, answers=kept) == measure(task, Subject(tiny_gqa), pack)
    assert kept.earlier_seconds > 0
