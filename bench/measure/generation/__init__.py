"""Speed and memory of greedy generation, always in turn with the dense model.

One generation is a prefill of `prompt` tokens, which gives the first new token, and `new - 1` decoding steps of one
token over the key/value cache. An end-of-sequence token never stops it, so every generation does the same work. Each
checkpoint has a process of its own (`worker`), driven from here (`process_client`) in rounds A-B-B-A between the dense
model and the subject (`rounds`), each generation timed and checked where it runs (`timing`). Where memory does not hold
both, a turn ends the other process and loads its own (`turns`). Engines are modules that
implement `backend.Backend`; they and `probe`, and no other module here, import torch when they are imported.
"""

from __future__ import annotations

from bench.measure.generation.backend import Workload
from bench.measure.generation.in_process import InProcessClient
from bench.measure.generation.metrics import metrics_of, samples_of
from bench.measure.generation.process_client import ProcessClient
from bench.measure.generation.session import Candidate, play
from bench.measure.measurement import Measurement, Resources
from bench.measure.subject import Subject
from bench.record.schema import Evidence
from bench.task import GENERATION, GenerationTask, Task


def measure(task: Task, spec: GenerationTask, subject: Subject, resources: Resources) -> Measurement:
    """Speed, speed-up over the dense model (where the subject names one), and peak memory.

    The subject's own model is dropped first: it would take memory from those that generate.
    """
    subject.release()
    match = GENERATION.match(task.protocol)
    assert match is not None, task.protocol
    candidates = {"measured": Candidate(subject.path, subject.dtype, subject.device)}
    if subject.dense is not None:
        candidates = {"dense": Candidate(subject.dense, subject.dtype, subject.device)} | candidates
    work = Workload(int(match["batch"]), int(match["prompt"]), int(match["new"]))
    most = int(match["most"]) if match["most"] else None
    kind, rounds = (InProcessClient, 2) if resources.is_rehearsal else (ProcessClient, spec.rounds)
    session = play(match["backend"], candidates, work, rounds, most, resources.on_progress, kind)
    least = {"least" if name == "measured" else f"{name}_least": value for name, value in session.least.items()}
    evidence = Evidence(
        samples=samples_of(session), machine=session.machine | least, disturbed=session.disturbed, notes=session.notes
    )
    return Measurement(metrics_of(task, session), evidence)
