"""Every name of a row that we print is a name that finds it."""

from pathlib import Path

import pytest

from bench.errors import UsageError
from bench.record.rows import RowName, command, find, labels
from bench.record.schema import ArtifactRecord
from bench.record.store import Store
from bench.report.find import Rows
from bench.report.frame import current
from bench.run.cells import ArtifactCell
from bench.serve.find import label_of
from tests.record.records import artifact, provenance
from tests.suites import here

RESULTS = Path(__file__).parents[2] / "results"
SAAP = RowName("tiny", "saap", "quick", "none", "params=0.2")


def progress_label(made: ArtifactRecord) -> str:
    """What `leanboard run` calls the checkpoint."""
    name, value = made.target.split("=") if made.target != "none" else ("", "")
    return ArtifactCell(
        model=made.model,
        weights=Path(),
        method=made.method,
        preset=made.preset,
        config={},
        recovery={"name": made.recovery} if made.recovery != "none" else None,
        target={"basis": name, "value": float(value)} if name else None,
        seed=made.seed,
        dtype="float32",
        device="cpu",
        calibration=None,
        training=None,
        ingredients={},
    ).label


@pytest.mark.parametrize("folder", ["", "full", "serving", "saap-ablation"])
def test_every_printed_name_finds_its_row(folder: str) -> None:
    """The full name, that in words, the label of tables and plots, that of progress and errors, that of notes."""
    records, _ = Store(RESULTS / folder).read_all()
    runs, _ = current(records)
    rows = list(runs)
    assert len(rows) > 10
    for model in {row.model for row in rows}:
        for row, label in labels(row for row in rows if row.model == model).items():
            for name in (str(row), row.title, " / ".join(row), label, f"{model} {label}", "/".join(reversed(row))):
                assert find(name, rows) == (row, None), name
            for seed, run in runs[row].items():
                assert run.artifact is not None
                for name in (label_of(run.artifact), progress_label(run.artifact), f"{' / '.join(row)}, seed {seed}"):
                    assert find(name, rows) == (row, seed), name


def test_the_commands_take_them(tmp_path: Path) -> None:
    """`why` and `compare` by the labels of the table; a row of several seeds is one checkpoint only with its seed."""
    store = Store(tmp_path / "results")
    for record in (artifact("saap"), artifact("saap", recovery="lora"), artifact("trawl"), artifact("trawl", seed=1)):
        store.write(record)
    done = here(tmp_path, "why", "saap", "trawl seed 1")
    assert done.returncode == 0, done.stderr
    assert "method" in done.stdout
    assert here(tmp_path, "compare", "saap", "saap + lora").returncode == 0
    done = here(tmp_path, "why", "saap", "trawl")
    assert done.returncode == 2
    assert "has the seeds 0, 1; add 'seed N'" in done.stderr


def test_a_name_that_holds_more_than_the_label_still_means_that_row() -> None:
    rows = [SAAP, SAAP._replace(recovery="lora"), SAAP._replace(model="other")]
    assert find("tiny saap quick", rows)[0] == SAAP
    assert find("saap + lora", rows)[0].recovery == "lora"
    assert find("lora/tiny", rows)[0].recovery == "lora"
    with pytest.raises(UsageError, match=r"'saap quick' names 2 rows \(other/saap/quick/none/params=0.2, tiny/saap"):
        find("saap quick", rows)
    with pytest.raises(UsageError, match="'tiny saap laser' names no row; a name is MODEL/METHOD/PRESET"):
        find("tiny saap laser", rows)
    with pytest.raises(UsageError, match="'' names no row"):
        find("", rows)


def test_names_with_separators_in_them_are_found(tmp_path: Path) -> None:
    rows = [SAAP._replace(model="org/some model"), SAAP._replace(model="org/other")]
    for row in rows:
        assert find(str(row), rows) == find(row.title, rows) == (row, None)
    store = Store(tmp_path)
    store.write(artifact("saap", model="org/other"))
    assert Rows(tmp_path).row("org/other/saap/quick/none/params=0.2")[0].model == "org/other"


def test_the_command_asks_for_the_row_alone() -> None:
    typed = ["leanboard", "retry", "smollm", "--code", "oom", "--only", "recovery=lora", "--jobs", "2"]
    made = artifact("saap", provenance=provenance().model_copy(update={"command": typed}))
    chosen = " ".join(f"--only {name}={value}" for name, value in SAAP._asdict().items() if value)
    assert command(made) == f"leanboard run smollm --jobs 2 {chosen}"
    assert command(made, "--results", "x", without=["--jobs"]) == f"leanboard run smollm {chosen} --results x"


def test_names_with_a_slash_in_the_model_find_their_rows() -> None:
    """Hub ids: of one owner, of one name, with a revision, and of a name that is a method's."""
    models = ("lab/tiny", "lab/tiny@v1.0", "other/tiny", "tiny", "lab/saap")
    rows = [SAAP._replace(model=m, method=method) for m in models for method in ("saap", "dense")]
    for row in rows:
        mine = labels(other for other in rows if other.model == row.model)
        for name in (str(row), row.title, " / ".join(row), f"{row.model} {mine[row]}"):
            assert find(name, rows) == (row, None), name
            assert find(f"{name} seed 3", rows) == (row, 3), name
    again = artifact("saap").model_copy(update={"model": "lab/tiny@v1.0"})
    assert "--only model=lab/tiny@v1.0 " in command(again)
