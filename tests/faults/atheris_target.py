"""`python -m tests.faults.atheris_target NAME RUNS CORPUS`: a coverage-guided fuzzer on one reader of Leanboard's.

Whatever else than a result or a `LeanboardError` comes out ends the process with a traceback and the input.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["bench", "yaml", "zipfile", "json"]):
    import zipfile

    from bench.data.wheels import read_member
    from bench.errors import LeanboardError
    from bench.record.store import Store
    from bench.suite import load_suite

FOLDER = Path(sys.argv[-1]).parent / "work"


def record(data: bytes) -> object:
    file = FOLDER / "runs" / "any.json"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)
    records, problems = Store(FOLDER).read_all()
    assert len(records) + len(problems) == 1
    return Store(FOLDER).find(str(file))


def suite(data: bytes) -> object:
    file = FOLDER / "suite.yaml"
    file.write_bytes(data)
    return load_suite(str(file))


def wheel(data: bytes) -> object:
    file = FOLDER / "a.whl"
    file.write_bytes(data)
    names = ["a/one"]
    if zipfile.is_zipfile(file):
        try:
            names += zipfile.ZipFile(file).namelist()
        except Exception as error:
            del error  # what zipfile itself makes of it is not the question
    return [read_member(file, name) for name in names]


TARGETS: dict[str, Callable[[bytes], object]] = {"record": record, "suite": suite, "wheel": wheel}


def main() -> None:
    name, runs, corpus = sys.argv[1:]

    def once(data: bytes) -> None:
        sentence = ""
        try:
            TARGETS[name](data)
        except LeanboardError as error:
            sentence = str(error)
        assert "\n" not in sentence

    FOLDER.mkdir()
    atheris.Setup([sys.argv[0], f"-runs={runs}", "-seed=7", "-timeout=20", "-max_len=6000", corpus], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
