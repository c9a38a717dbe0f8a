"""The rules of the house (ARCHITECTURE.md), kept by reading the source."""

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest

from bench.families import PROJECTIONS
from bench.family import known

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*ROOT.glob("bench/**/*.py"), *ROOT.glob("methods/**/*.py")])
CHEAP = [
    "bench/*.py",
    "bench/catalogue/*.py",
    "bench/data/*.py",
    "bench/record/*.py",
    "bench/report/**/*.py",
    "methods/*/__init__.py",
    "bench/scaffold/*.py",
    "bench/scaffold/template/__init__.py",
    "bench/blocks/settings.py",
    "bench/blocks/recoveries.py",
    "bench/run/plan.py",
    "bench/run/cells.py",
    "bench/run/estimate.py",
    "bench/run/executors/*.py",
    "bench/run/progress.py",
    "bench/run/worker.py",
    "bench/run/outcome.py",
    "bench/run/status.py",
    "bench/run/retry.py",
    "bench/run/interrupt.py",
]
TEMPLATE = "bench/scaffold/template"  # what new-method writes: a method, which knows no name of its own to import by
EXECUTES = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "torch.hub.load",
    "torch.jit.load",
    "np.load",
    "numpy.load",
    "pd.read_pickle",
    "pandas.read_pickle",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "os.system",
    "os.popen",
    "runpy.run_path",
    "runpy.run_module",
}
READS_PICKLES = "bench/model/bin_files.py"  # as tensors alone, in a process of its own
UNPICKLES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
KNOW_THE_FLAG = ("resolve", "make_plan")  # ours: they hand on what the user said
FOREIGN = {"LlamaFileType"}  # of the library gguf
KNOW_MODULES = {"bench/family.py", "bench/model/lean.py"}
HEAVY = {"torch", "transformers", "lm_eval", "peft", "datasets"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path, *, everywhere: bool) -> Iterator[str]:
    """Modules that `path` imports: when it is imported, or (everywhere) at any time but for type checking."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= inside(path, "methods", TEMPLATE), f"{name(path)}: relative import"
            yield node.module or ""
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            todo += node.orelse
        elif everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            todo += ast.iter_child_nodes(node)


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def asked(path: Path, known: Collection[str]) -> set[str]:
    """Modules of ours whose names `path` asks for: at any time, for types too. `from package import x` asks for the
    module `x` where there is one, else for the package's `__init__`.
    """
    found = set[str]()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            found |= {name if name in known else node.module or "" for name in names}
    return found & set(known) - {module(path)}


def circles(graph: Mapping[str, Collection[str]]) -> Iterator[list[str]]:
    """One circle for each module from which a way leads back to itself."""
    for start in graph:
        ways = [[start]]
        seen = set[str]()
        while ways:
            way = ways.pop(0)
            for other in sorted(graph[way[-1]]):
                if other == start:
                    yield [*way, start]
                    ways = []
                    break
                if other not in seen:
                    seen.add(other)
                    ways.append([*way, other])


def inside(path: Path, *folders: str) -> bool:
    return any(name(path).startswith(folder + "/") for folder in folders)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_data_flows_one_way(path: Path) -> None:
    used = set(imports(path, everywhere=True))
    mine = {module for module in used if module.startswith(("bench", "methods"))}
    if inside(path, "bench/report", "bench/record"):
        assert not {m for m in used if m.split(".")[0] in HEAVY or m.startswith("bench.measure")}
    if inside(path, "methods", TEMPLATE):
        allowed = ("bench.method", "bench.blocks", "bench.errors")
        assert not {m for m in mine - {"bench.families"} if not m.startswith(allowed)}
    if inside(path, "bench/blocks", "bench/model", "bench/data", "bench/measure", "bench/record", "bench/report"):
        assert not {m for m in mine if m.startswith(("methods", "bench.run", "bench.api", "bench.views"))}
    if not inside(path, "bench/cli"):
        assert not {m for m in mine if m.startswith("bench.cli")}


def test_no_import_goes_in_a_circle() -> None:
    """Neither between modules nor through the `__init__` of a package, in functions and for types included.

    A method's package is left out: its `__init__` is what the registry reads without torch, and compress() then imports
    the work from `method.py`, which knows the settings.
    """
    files = {module(path): path for path in SOURCES if inside(path, "bench")}
    assert list(circles({name: asked(path, files) for name, path in files.items()})) == []


def test_circles_are_found() -> None:
    graph = {"a": ["b"], "b": ["c", "d"], "c": ["a"], "d": [], "e": ["d", "a"]}
    assert list(circles(graph)) == [["a", "b", "c", "a"], ["b", "c", "a", "b"], ["c", "a", "b", "c"]]


@pytest.mark.parametrize("path", sorted({p for pattern in CHEAP for p in ROOT.glob(pattern)}), ids=name)
def test_importing_is_cheap(path: Path) -> None:
    loaded = set(imports(path, everywhere=False))
    assert not {m for m in loaded if m.split(".")[0] in HEAVY or m.startswith(("bench.model.load", "bench.model.lean"))}


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_nothing_foreign_is_ever_executed(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in EXECUTES, called
            assert not called.startswith(tuple(f"{module}." for module in UNPICKLES)), called
            if called == "torch.load":
                assert name(path) == READS_PICKLES
                assert ("weights_only", "True") in {(k.arg, ast.unparse(k.value)) for k in node.keywords}
            assert called.split(".")[-1] != "exec_module" or name(path) == "bench/registry.py"
            for keyword in node.keywords:
                assert keyword.arg not in ("allow_pickle", "shell"), keyword.arg
                assert keyword.arg != "weights_only" or ast.unparse(keyword.value) == "True"
    assert not UNPICKLES & {module.split(".")[0] for module in imports(path, everywhere=True)}


def test_one_place_alone_runs_the_code_of_a_model() -> None:
    """Not in disguise either: the name is no text that could be a key of keyword arguments."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.Constant) and node.value == "trust_remote_code"), name(path)
            if isinstance(node, ast.Call) and not ast.unparse(node.func).startswith(KNOW_THE_FLAG):
                found += [(name(path), ast.unparse(k.value)) for k in node.keywords if k.arg == "trust_remote_code"]
    assert {path for path, value in found if value != "False"} == {"bench/model/compare_foreign.py"}


def words_of_families() -> re.Pattern[str]:
    """What only tables may say: names of modules (of two words), their paths, fields of biases, types, classes.

    The tables themselves are asked, so that a new family's words are watched over too. A single word, such as `mlp`, is
    everybody's; so are ids like llama-7b, and llama.cpp.
    """
    modules: set[str] = set()
    for family in known().values():
        paths = [family.attention_norm, family.mlp_norm, family.layers, family.embedding, family.final_norm]
        paths += [family.head, family.rotary, *family.head_norms.values(), *(p.path for p in family.projections)]
        biases = (bias for bias in family.biases.values() if isinstance(bias, str))
        modules |= {*paths, *biases, *(part for path in paths for part in path.split("."))}
    modules = {module for module in modules if re.search(r"[._]", module)}
    ends = {name[name.index("_") :] for name in PROJECTIONS}
    types = {kind for family in known().values() for kind in (family.model_type, family.lean_type)}
    classes = {family.architecture.removesuffix("ForCausalLM") for family in known().values()}

    def any_of(found: set[str]) -> str:
        return "|".join(map(re.escape, sorted(found)))

    parts = (
        rf"(?<!\w)(?<!bench\.)({any_of(modules)})(?!\w)",
        rf"^({any_of(ends)})$",
        rf"(?<![\w/-])({any_of(types)})(?![\w.-])",
        rf"({any_of(classes)})[A-Z]",
    )
    return re.compile("|".join(parts))


WORDS = words_of_families()


def texts_of(path: Path) -> Iterator[str]:
    """All names and texts of a file but its docstrings, and from where it imports a family."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str) and id(node) not in statements:
                yield node.value
        else:
            texts = (value for field, value in ast.iter_fields(node) if isinstance(value, str))
            yield from (text for text in texts if not text.startswith("bench.families."))


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_only_families_know_what_modules_are_called(path: Path) -> None:
    if not name(path).startswith("bench/families/") and name(path) not in KNOW_MODULES:
        assert [text for text in texts_of(path) if WORDS.search(text) and text not in FOREIGN] == []


def test_the_words_of_families_are_found_in_disguise() -> None:
    for text in ("q_proj", "model.layers.0.self_attn", "_proj", "lean_qwen2", "LlamaConfig", "mlp_bias"):
        assert WORDS.search(text), text
    for text in ("llama-7b", "huggyllama/llama-7b", "llama.cpp", "mlp", "layers", "LLaMA 7B", "block_tokens"):
        assert not WORDS.search(text), text


METRICS = "ppl|acc|bpb|wikitext2|commonsense|generate|speedup|removed|params|macs|bytes|cost|mean|signal_mean"
GUESS = re.compile(
    rf"""(startswith|endswith|includes|match|test)\(.?["'/^.]*({METRICS})\b"""
    rf"""|["'][.@]({METRICS})\w*[.@]?["'] (not )?in\b""",
    re.IGNORECASE,
)
READERS = sorted(path for path in ROOT.glob("bench/**/*") if path.suffix in (".py", ".js", ".html"))


@pytest.mark.parametrize("line", ['x.startswith("ppl")', '".ppl" in x', 'x.startsWith("removed.")', '".acc" in x'])
def test_a_guess_is_seen(line: str) -> None:
    assert GUESS.search(line)


@pytest.mark.parametrize("path", READERS, ids=name)
def test_one_place_alone_tells_a_metric_by_its_id(path: Path) -> None:
    if name(path) != "bench/record/kinds.py":
        assert [line for line in path.read_text(encoding="utf-8").splitlines() if GUESS.search(line)] == []


@pytest.mark.parametrize("path", [*SOURCES, *sorted(ROOT.glob("tests/**/*.py"))], ids=name)
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 330


def test_no_function_outgrows_a_screen() -> None:
    long = [
        f"{name(path)}:{node.lineno} {node.name}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 60
    ]
    assert long == []
