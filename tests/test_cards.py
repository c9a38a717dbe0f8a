"""What cards say was seen on the full board is what its records give."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.suite import load_suite

ROOT = Path(__file__).parents[1]
FULL = ROOT / "results" / "full"
PERPLEXITY = "wikitext2.ppl_token@128/limit64"
ACCURACY = "commonsense7.signal_mean@0shot/limit500/arc_easy+hellaswag+openbookqa+piqa"
METHODS = (
    "magnitude",
    "layer_drop",
    "wanda_sp",
    "llm_pruner",
    "saap",
    "compresso",
    "pruning_adapter",
    "trawl",
    "laser",
    "lora",
    "capaboost",
)
OF_SUITE = [(method.name, method.preset) for method in load_suite("smollm-full").methods]
MAIN = dict(reversed(OF_SUITE))


def read(name: str) -> list[dict[str, str]]:
    with (FULL / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def difference(rows: list[dict[str, str]], metric: str, scale: float, digits: int) -> str:
    """Of the one row of `metric` in `rows`, with its 95 % interval."""
    found = [row for row in rows if row["metric"] == metric]
    if not found:
        return "–"
    mean, low, high = (f"{scale * float(found[0][name]):+.{digits}f}" for name in ("difference", "low", "high"))
    return f"{mean} ({low} to {high})"


def seen(method: str) -> Iterator[str]:
    """The table of a card: a line for each size and recovery, or for each way to train alone, that is measured."""
    paired = read("paired.csv")
    for row in read("leaderboard.csv"):
        mine = {name: row[name] for name in ("model", "method", "preset", "recovery", "target")}
        if row["method"] != method or (method, row["preset"]) not in OF_SUITE or not row[ACCURACY]:
            continue
        if row["target"] == "none":
            cells = [f"`{row['preset']}`", f"{float(row['cost.trainable_parameters']):,.0f}"]
            controls = ("dense", "lora")
        else:
            size = f"{float(row['target'].removeprefix('params=')):.0%}".replace("%", " %")
            cells = [size + f" `{row['preset']}`" * (row["preset"] != MAIN[method]), row["recovery"]]
            controls = ("random", "magnitude")
        cells += [f"{float(row[PERPLEXITY]):,.0f}", f"{100 * float(row[ACCURACY]):.1f}"]
        for control in controls:
            against = [r for r in paired if mine.items() <= r.items() and r["against"] == control]
            cells += [difference(against, PERPLEXITY, 1, 2), difference(against, ACCURACY, 100, 1)]
        yield f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("method", METHODS)
def test_a_card_has_the_figures_of_the_full_board(method: str) -> None:
    card = (ROOT / "methods" / method / "card.md").read_text(encoding="utf-8")
    lines = [line for line in card.splitlines() if line.startswith(("| 20 % ", "| 35 % ", "| 50 % ", "| `"))]
    in_card = [line for line in lines if line.count("|") == 9]
    assert in_card
    assert sorted(in_card) == sorted(seen(method))


def test_the_readme_tells_what_lora_changes_at_half_the_size() -> None:
    four = {"llm_pruner", "saap", "wanda_sp", "pruning_adapter"}
    found: dict[str, list[float]] = {"none": [], "lora": []}
    for row in read("leaderboard.csv"):
        if row["target"] == "params=0.5" and row["method"] in four and row["preset"] == MAIN[row["method"]]:
            found[row["recovery"]].append(float(row[PERPLEXITY]))
    assert [len(values) for values in found.values()] == [4, 4]
    before, after = (f"between {min(values):,.0f} and {max(values):,.0f}" for values in found.values())
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"lie {before} in perplexity, and after sixty steps of LoRA {after}." in readme
