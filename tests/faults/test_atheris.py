"""A fuzzer that looks for new paths through the code, on what reads records, suites and wheels."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.record.text import render
from tests.data.helpers import make_wheel
from tests.faults.conftest import Tally
from tests.record.records import accuracy, artifact, perplexity
from tests.suites import environment, make_suite

RUNS = {"record": 3000, "suite": 1000, "wheel": 3000}


@pytest.mark.faults
@pytest.mark.parametrize("name", RUNS)
def test_nothing_but_a_result_or_a_sentence_comes_out(tmp_path: Path, name: str, tally: Tally) -> None:
    pytest.importorskip("atheris", reason="atheris has no build for this platform")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    if name == "record":
        for i, record in enumerate((artifact(), perplexity(artifact(), 20.0), accuracy(artifact(), "piqa@0shot", 0.5))):
            (corpus / str(i)).write_text(render(record))
    elif name == "suite":
        (corpus / "0").write_bytes(make_suite(tmp_path).read_bytes())
    else:
        make_wheel(corpus / "0", {"a/one": b"1" * 50, "a/two": b"2"})
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.atheris_target", name, str(RUNS[name]), str(corpus)],
        cwd=Path(__file__).parents[2],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert f"Done {RUNS[name]} runs" in done.stderr
    tally(f"{name} fuzzed with Atheris", RUNS[name], "a result or one sentence")
