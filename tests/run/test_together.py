"""Two runs on one results folder at the same time: each cell is done by one of them, and both end well."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bench.record.store import Store
from tests.suites import environment, make_suite

pytestmark = pytest.mark.slow

RUN = """
import os, sys
from pathlib import Path
import bench.run.compress
from bench.run.executors import run_jobs
from bench.run.worker import Worker
from tests.run.bad import jobs_of

def logged(function):
    def call(self, *rest):
        with open("done-by-any", "a") as log:
            print(rest[0].key if rest else self.job.artifact.key, file=log)
        return function(self, *rest)
    return call

Worker._compress = logged(Worker._compress)
Worker._measure = logged(Worker._measure)
jobs = jobs_of(Path.cwd(), plugins=())
os.fork()  # the two have their imports and their plan in common
events = []
run_jobs(jobs, 1, events.append, executor="inline")
said = sum(e["event"] == "done" and e["status"] == "ok" for e in events)
os.write(1, f"{said}\\n".encode())
"""


def test_no_cell_is_done_twice_and_both_runs_know_of_all(tmp_path: Path) -> None:
    make_suite(tmp_path, methods=["dense", "random"], tasks=["size", "wikitext2@128/limit2", "piqa/limit4"])
    both = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=240,
    )
    said = [int(line) for line in both.stdout.split()]
    assert len(said) == 2, both.stderr
    records, problems = Store(tmp_path / "results").read_all()
    assert problems == []
    assert {record.status for record in records} == {"ok"}
    assert Counter((tmp_path / "done-by-any").read_text().split()) == Counter(record.key for record in records)
    assert max(said) <= 8 <= sum(said)
