"""What the README tells people to type works."""

import configparser
import re
import runpy
from pathlib import Path

import pytest

from tests.suites import environment, here, make_suite
from tests.test_cli import VERBS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)


def test_tox_environments_exist_and_share_one_folder() -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    named = set(re.findall(r"tox -e ([\w-]+)", README))
    assert {"bench-smollm", "bench-llama7b", "bench-vicuna7b", "leaderboard"} <= named
    serving = {"vllm", "bench-smollm-serving"}
    assert serving <= named
    for name in named:
        assert f"testenv:{name}" in tox, name
        assert ("env_dir" in tox[f"testenv:{name}"]) == (name in serving)
        assert ("deps" in tox[f"testenv:{name}"]) == (name in serving)
    for option in ("env_dir", "deps", "commands_pre"):
        assert tox["testenv:bench-smollm-serving"][option] == f"{{[testenv:vllm]{option}}}"
    assert tox["testenv"]["env_dir"] == "{work_dir}/leanboard"
    assert tox["testenv"]["runner"] == "shared"


def test_the_suites_that_tox_runs_exist() -> None:
    for suite in re.findall(r"leanboard run ([\w-]+)", (ROOT / "tox.ini").read_text()):
        assert (ROOT / "tasks" / "suites" / f"{suite}.yaml").exists()


def test_ci_calls_the_test_command_of_the_readme() -> None:
    commands = [line for kind, block in BLOCKS if not kind for line in block.splitlines()]
    assert commands[1] == "python -m pip install tox && tox"
    assert commands[1] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_readme_names_every_verb_with_options_that_exist(tmp_path: Path) -> None:
    verbs = [*(verb for verb in VERBS if verb != "data"), "data fetch", "data verify"]
    assert [verb for verb in verbs if f"leanboard {verb}" not in README] == []
    for verb in verbs:
        done = here(tmp_path, *verb.split(), "--help")
        assert done.returncode == 0
        for option in re.findall(rf"leanboard {verb} [^|`]*?(--\w[\w-]*)", README):
            assert option in done.stdout


@pytest.mark.slow
def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [code] = [block for kind, block in BLOCKS if kind == "python"]
    make_suite(tmp_path)
    code = code.replace("smollm2-135m", "tiny").replace("kept[10]", "kept[1]")
    (tmp_path / "example.py").write_text(code)
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    runpy.run_path("example.py")
    assert "lambada_text.ppl_token@128/limit8" in capsys.readouterr().out


def test_files_that_the_readme_links_to_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []
