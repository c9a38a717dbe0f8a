"""A row is found by key, file or words, or one sentence says what is in the way."""

from pathlib import Path

import pytest

from bench.errors import UsageError
from bench.paths import artifact_path
from bench.record.store import Store
from bench.serve.find import find_row
from tests.record.records import artifact, failed_artifact, perplexity
from tests.suites import here, make_suite


@pytest.fixture
def results(tmp_path: Path) -> Path:
    store = Store(tmp_path)
    made = [artifact("random"), artifact("saap"), artifact("saap", recovery="lora")]
    for record in (*made, failed_artifact("magnitude")):
        store.write(record)
        (artifact_path(record.key)).mkdir(parents=True, exist_ok=True)
        (artifact_path(record.key) / "leanboard.json").touch()
    store.write(perplexity(artifact("random"), 10.0))
    return tmp_path


@pytest.mark.parametrize("words", ["random", "random params=0.2", "tiny random quick params=0.2 seed 0"])
def test_by_words_of_one_row(words: str, results: Path) -> None:
    found = find_row(words, results)
    assert found.label == "tiny random quick params=0.2 seed 0"
    assert [record.task for record in found.measures] == ["wikitext2@2048/limit4"]


def test_by_key_its_start_a_measurement_and_a_file(results: Path) -> None:
    record = artifact("random")
    score = perplexity(record, 10.0)
    paths = [str(Store(results).path_of(r)) for r in (record, score)]
    for row in (record.key, record.key[:6], score.key, *paths, str(Path(paths[0]).parent)):
        assert find_row(row, results).record.key == record.key


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("quick", r"'quick' names 4 rows \(tiny/magnitude/quick/none/params=0.2, .* give more words"),
        ("randm", "'randm' names no row"),
        ("random params=0.5", "names no row"),
        ("", "names no row"),
        ("00000000", "names no row"),
        ("random seed 3", "tiny/random/quick/none/params=0.2 has no seed 3; it has 0"),
        (failed_artifact("magnitude").key, "has no checkpoint, its making ended as failed"),
    ],
)
def test_what_is_in_the_way_is_one_sentence(row: str, sentence: str, results: Path) -> None:
    with pytest.raises(UsageError, match=sentence):
        find_row(row, results)


def test_words_tell_the_recovery(results: Path) -> None:
    assert find_row("saap + lora", results).record.recovery == "lora"
    assert find_row("saap", results).record.recovery == "none"  # so is that row called on the board


@pytest.mark.slow
def test_the_command_for_a_checkpoint_that_is_gone_makes_it_again(tmp_path: Path) -> None:
    make_suite(tmp_path, methods=["random"], tasks=["size"])
    assert here(tmp_path, "run", "suite.yaml", "--executor", "inline").returncode == 0
    (folder,) = [p.parent for p in (tmp_path / "results").glob("runs/*/random/*/artifact.json")]
    checkpoint = tmp_path / "cache" / "artifacts" / folder.name
    checkpoint.rename(tmp_path / "gone")
    done = here(tmp_path, "export", "random", "--to", "out")
    assert done.returncode == 2
    assert f"its checkpoint is not on this machine ({checkpoint}); make it again with: " in done.stderr
    again = done.stderr.strip().rpartition("make it again with: ")[2].split()
    assert again[:3] == ["leanboard", "run", "suite.yaml"]
    assert here(tmp_path, *again[1:], "--executor", "inline").returncode == 0
    done = here(tmp_path, "export", folder.name[:8], "--to", "out")
    assert done.returncode == 0, done.stderr
    assert "| `params.stored` | " in (tmp_path / "out" / "README.md").read_text()
