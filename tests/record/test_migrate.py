"""Records of older forms: `tests/data/old_records` holds some as they were first committed, before `cost.peaks`."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.record import migrate
from bench.record.check import check_records
from bench.record.schema import SCHEMA_VERSION, ArtifactRecord
from bench.record.store import Store
from bench.report.build import build

OLD = Path(__file__).parents[1] / "data" / "old_records"


def test_the_first_committed_records_are_read_checked_and_shown() -> None:
    texts = [path.read_text(encoding="utf-8") for path in sorted(OLD.rglob("*.json"))]
    assert not any('"peaks"' in text for text in texts)
    records, problems = Store(OLD).read_all()
    assert problems == []
    assert len(records) == len(texts) == 4
    assert check_records(OLD) == []
    [made] = [record for record in records if isinstance(record, ArtifactRecord)]
    assert made.cost is not None
    assert made.cost.peaks == {}
    assert "instructions" in made.ingredients
    [row] = build(records, []).rows
    assert row.status == "ok"
    assert row.value("cost.peak_memory") == made.cost.peak_memory_bytes


def older(tmp_path: Path) -> Path:
    """The same records as a version before theirs might have had them: another name for the peak of memory."""
    shutil.copytree(OLD, tmp_path / "results")
    [path] = (tmp_path / "results").rglob("artifact.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    data["schema_version"] = SCHEMA_VERSION - 1
    data["cost"]["memory"] = data["cost"].pop("peak_memory_bytes")
    path.write_text(json.dumps(data) + "\n", encoding="utf-8")
    return path


def renamed(data: dict[str, Any]) -> dict[str, Any]:
    cost = dict(data["cost"])
    cost["peak_memory_bytes"] = cost.pop("memory")
    return {**data, "cost": cost}


def test_an_older_version_is_brought_forward_as_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = older(tmp_path)
    before = path.read_bytes()
    monkeypatch.setitem(migrate.STEPS, SCHEMA_VERSION - 1, renamed)
    records, problems = Store(tmp_path / "results").read_all()
    assert problems == []
    assert records == Store(OLD).read_all()[0]
    assert path.read_bytes() == before


def test_a_version_that_no_step_leads_from_is_one_sentence(tmp_path: Path) -> None:
    path = older(tmp_path)
    _, [problem] = Store(tmp_path / "results").read_all()
    assert str(problem) == f"{path}: field 'schema_version' is 0, older than any that this leanboard reads"


def test_a_newer_version_asks_for_an_update(tmp_path: Path) -> None:
    path = older(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace('"schema_version": 0', '"schema_version": 7'))
    _, [problem] = Store(tmp_path / "results").read_all()
    assert str(problem).startswith(f"{path}: field 'schema_version' is 7, newer than the {SCHEMA_VERSION} that")
