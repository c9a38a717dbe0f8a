import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bench.errors import UsageError
from bench.measure.subject import Subject
from bench.record.kinds import split
from bench.task import KINDS, spec_of
from bench.task_accuracy import AccuracyTask
from bench.task_group import TaskGroup
from bench.task_kind import TaskSpec
from tests.tiny import make_model

FILES = sorted((Path(__file__).parents[2] / "tasks").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_task_file_is_valid_and_named_after_itself(file: Path) -> None:
    spec = spec_of(yaml.safe_load(file.read_text()), "tasks")
    assert spec.name == file.stem
    if isinstance(spec, TaskGroup):
        by_name = {f.stem: spec_of(yaml.safe_load(f.read_text()), "tasks") for f in FILES}
        for member in spec.members:
            name, metric, protocol = split(member)
            task = by_name[name]
            assert isinstance(task, TaskSpec)
            task.protocol(protocol or None)
            if isinstance(task, AccuracyTask):
                assert task.headline == metric
                assert metric in task.metrics
    else:
        spec.protocol(None)
        assert KINDS[spec.kind] is type(spec)


def test_engine_versions_are_readable_without_torch() -> None:
    code = "import sys, bench.measure; sys.exit(bool({'torch', 'lm_eval', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_subject_loads_once_until_it_is_released(tiny_mha: Path) -> None:
    subject = Subject(tiny_mha)
    model = subject.model
    assert subject.model is model
    assert not model.training
    subject.release()
    subject.release()
    assert subject.model is not model


def test_a_missing_tokenizer_is_one_sentence(tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="the checkpoint has no tokenizer"):
        _ = Subject(tmp_path).tokenizer
