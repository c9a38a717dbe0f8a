import csv
import io

import pytest
from rich.console import Console

from bench.report.board import Board
from bench.report.build import build
from bench.report.formats import broken, cell_text, escape, number
from bench.report.frame import LONG
from bench.report.markdown import markdown
from bench.report.tables import board_csv, long_csv, print_table
from bench.task_group import TaskGroup
from tests.record.records import FAILURE, accuracy, artifact, failed, failed_artifact, perplexity, scored
from tests.report.boards import KNOWN, PAIR, answers, cells, dense, row, smollm

NASTY = "a|b<script>alert(1)</script>`x`\n| [y](z) *b* $x$ _u_ \u2028 [red]"


def parsed(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def tables(text: str) -> list[list[list[str]]]:
    """The Markdown tables as lists of rows of cells."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append([part.strip() for part in line.replace("\\|", "\0").strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def test_csv_has_full_precision_and_a_column_for_each_metric() -> None:
    value = 0.1 + 0.2
    made = artifact("dense", target="none")
    [line] = parsed(board_csv(build([made, perplexity(made, value, stderr=1 / 3)], [])))
    assert line["wikitext2.ppl_token@2048/limit4"] == repr(value)
    assert line["wikitext2.ppl_token@2048/limit4 stderr"] == repr(1 / 3)
    assert line["wikitext2.ppl_token@2048/limit4 n"] == "8188"
    assert (line["method"], line["status"], line["seeds"]) == ("dense", "ok", "1")
    assert not [name for name in line if name.endswith(" std")]


def test_csv_shows_codes_where_numbers_are_missing() -> None:
    made, lost = artifact("saap"), failed_artifact("trawl")
    board = build([*smollm(), made, failed(made, "piqa@0shot/limit20"), lost], [PAIR])
    lines = {(line["method"], line["recovery"]): line for line in parsed(board_csv(board))}
    assert lines["saap", "none"]["piqa.acc@0shot/limit20"] == "failed:nan_loss"
    assert lines["saap", "none"]["pair.mean@0shot/limit20"] == ""
    assert lines["trawl", "none"]["status"] == "failed:nan_loss"
    assert "the loss is not a number" in lines["trawl", "none"]["notes"]
    assert lines["dense", "none"]["generate.speedup@hf/b1/p64/n128 low"] == "0.97"
    assert "piqa.acc@0shot/limit20" in lines["dense", "none"]["smoke"].split()


def test_long_csv_has_the_named_columns() -> None:
    lines = parsed(long_csv(build(smollm(), [PAIR])))
    assert list(lines[0]) == [column for column in LONG if column != "calibration"]
    assert {line["metric"] for line in lines} >= {"removed.params", "cost.seconds", "piqa.acc@0shot/limit20"}


def test_markdown_tables_are_well_formed_whatever_names_and_messages_hold() -> None:
    error = FAILURE.model_copy(update={"code": NASTY, "message": NASTY})
    bad = failed_artifact(NASTY, model=NASTY, preset=NASTY, recovery=NASTY, target=NASTY)
    made = artifact("random", model=NASTY)
    records = [bad.model_copy(update={"error": error}), made, failed(made, NASTY, "failed", NASTY), *smollm()]
    text = markdown(build(records, [PAIR]))
    for table in tables(text):
        assert len({len(row) for row in table}) == 1, table
    assert "<script" not in text
    assert "[y](z)" not in text
    assert "\u2028" not in text
    for line in text.splitlines():
        begins = ("Made by", "In the order", "the best by point", "The rank stands first")
        assert line == "" or line[0] in "#|-✓" or line.startswith(begins)
    lines = parsed(board_csv(build(records, [PAIR])))
    assert {line["method"] for line in lines} >= {NASTY, "random"}


def test_markdown_says_what_stands_where() -> None:
    made = artifact("saap")
    text = markdown(build([*smollm(), made, accuracy(made, "piqa@0shot/limit20", 0.5)], [PAIR]))
    sides, key, accuracies, others, detail, _matrix, against, _cards = tables(text)
    head = key[0]
    assert sides[0] == [
        "row",
        "knows<br>pair mean (%) ↑<br>0shot/limit20 smoke",
        "can say<br>not measured",
        "models text<br>wikitext2 ppl ↓<br>2048/limit4",
        "stays itself<br>not measured",
    ]
    assert head[:4] == ["method", "preset", "recovery", "target"]
    assert "wikitext2 ppl ↓<br>2048/limit4" in head
    assert "pair mean (%) ↑<br>0shot/limit20 smoke" in head
    dense = dict(zip(head, key[2], strict=True))
    assert dense["wikitext2 ppl ↓<br>2048/limit4"] == "20.00 ± 0.40"
    assert dense["speed-up ↑<br>hf/b1/p64/n128"] == "1.00× (0.97–1.02)"
    assert dense["parameters ↓"] == "100 M"
    assert dict(zip(head, key[3], strict=True))["removed (% of parameters)"] == "20.0"
    assert any("magnitude ▼" in row[0] for row in key)
    assert accuracies[2][4] == "50.0 ± 10.0"
    assert len(others[0]) == 6
    assert any("checkpoint on disk" in cell for cell in detail[0])
    assert against[0][5] == "wikitext2 loss (nats/token) ↓<br>2048/limit4"
    assert [row[4] for row in against[2:5]] == ["no recovery", "magnitude", "random"]
    assert "- saap: no pair.mean@0shot/limit20: it lacks hellaswag.acc_norm@0shot/limit20" in text
    assert "- magnitude: worse than random (point estimate)" in text
    assert "n = 20: `pair.mean@0shot/limit20`" in text
    assert "No row is ranked: dense gate not known" in text
    assert "### Ranks" not in text


def test_the_flags_of_the_protocols_here_are_explained_and_no_others() -> None:
    made = artifact("dense", target="none")
    text = markdown(build([made, accuracy(made, "piqa@0shot+nobos+notice/limit20", 0.5)], [PAIR]))
    assert "- `+nobos`: no BOS, though the tokenizer may add one by itself." in text
    assert "- `+notice`: " in text
    assert "`+bos`" not in text


def test_a_text_that_stands_in_is_named() -> None:
    made = artifact("dense", target="none")
    text = markdown(build([made, perplexity(made, 20.0, "lambada_text@2048")], []))
    assert "no WikiText-2 perplexity here: lambada_text is another text" in text
    assert "another text, and" not in markdown(build(smollm(), []))


def test_nothing_to_show_is_said() -> None:
    board = build([], [])
    assert "No records yet" in markdown(board)
    assert parsed(board_csv(board)) == []
    assert board_csv(board).startswith("model,method,preset,recovery,target,seeds,status")
    assert long_csv(board) == ",".join(column for column in LONG if column != "calibration") + "\n"


def test_the_terminal_table_fits_120_columns_and_takes_names_as_they_are() -> None:
    lost = failed_artifact("[red]bad[/red]")
    cut_short = failed(lost, "wikitext2@2048/limit4", "skipped", "artifact_failed")
    file = io.StringIO()
    console = Console(width=120, file=file, force_terminal=False)
    print_table(build([*smollm(), lost, cut_short], [PAIR]), console)
    text = file.getvalue()
    assert max(map(len, text.splitlines())) <= 120
    assert "[red]bad[/red]" in text
    assert "llm_pruner + lora" in text
    assert "1.18× (1.14–1.20)" in text
    assert "32.00 ± 0.40" in text
    assert "failed:nan_loss" in text.replace("\n", "")
    assert "magnitude: worse than random" in text


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_a_narrow_terminal_gets_fewer_columns_and_whole_names(width: int) -> None:
    file = io.StringIO()
    console = Console(width=width, file=file, force_terminal=False)
    print_table(build(smollm(), [PAIR]), console)
    text = file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    for whole in ("method", "status", "llm_pruner + lora", "magnitude", "removed", "32.00 ± 0.40"):
        assert whole in text
    assert ("no room here for: compress" in text.replace("\n", "")) == (width <= 100)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.4567, "fraction", "45.7"),
        (134_515_008, "parameters", "134.5 M"),
        (8.6e9, "MACs", "8.6 G"),
        (12, "steps", "12"),
        (0, "bytes", "0 B"),
        (538e6, "bytes", "538 MB"),
        (1.234, "ratio", "1.23×"),
        (21.613, "ppl", "21.61"),
        (312.34, "ppl", "312.3"),
        (12345.6, "ppl", "12,346"),
        (1.5e9, "ppl", "1.50e+09"),
        (None, "ppl", "–"),
    ],
)
def test_numbers_are_written_for_people(value: float | None, unit: str, text: str) -> None:
    assert number(value, unit) == text


def test_an_empty_cell_is_a_dash() -> None:
    assert cell_text(None, "ppl") == "–"


def test_escaping_leaves_plain_names_alone() -> None:
    assert escape("llm_pruner + lora 0shot/limit20") == "llm_pruner + lora 0shot/limit20"
    assert escape("a|b") == "a\\|b"
    assert escape("_x_ __init__") == "\\_x\\_ \\_\\_init\\_\\_"


def test_seeds_have_a_column_of_their_own() -> None:
    records = [record for seed in range(3) for record in cells("random", 300.0 + seed, seed=seed)]
    text = markdown(build(records, [PAIR]))
    _, key, *_ = tables(text)
    assert key[0][4] == "seeds"
    assert key[2][4] == "3"
    assert "301.0 ± 1.0" in key[2]


TRIO = TaskGroup(
    name="trio", kind="group", description="three tasks", members=("boolq.acc", "piqa.acc", "hellaswag.acc_norm")
)


def ranked() -> Board:
    """A board that passes its gate: two rows that tie and one that is worse; piqa has signal and boolq has none."""
    records = dense()
    rows = {"dense": (0.0, 0.9), "saap": (0.2, 0.8), "llm_pruner": (0.201, 0.79), "random": (1.0, 0.3)}
    for method, (shift, share) in rows.items():
        made = records[:1] if method == "dense" else row(method, shift)
        records += made if method != "dense" else []
        noise = sum(map(ord, method))
        records += [
            scored(made[0], "piqa@0shot/limit200", answers(share, seed=noise)),
            scored(made[0], "hellaswag@0shot/limit200", answers(share, seed=noise + 1), ("acc_norm",)),
            scored(made[0], "boolq@0shot/limit200", answers(0.5, seed=noise)),
        ]
    return build(records, [TRIO], KNOWN)


def test_markdown_shows_ranks_ties_gate_and_signal() -> None:
    text = markdown(ranked())
    assert "Dense gate **passed**: 1 of 1 known scores were measured, and all reproduced." in text
    assert "Left out, since the dense model has no signal there: `boolq.acc@0shot/limit200`." in text
    sides, key, knows, ranks, _, accuracies, *_ = tables(text)
    assert key[0][4] == "rank"
    assert {line[0].removesuffix(" ▼"): line[4] for line in key[2:]} == {
        "dense": "–",
        "saap": "1–2",
        "llm_pruner": "1–2",
        "random": "3",
    }
    assert "trio mean (%) ↑<br>0shot/limit200 no signal" in key[0]
    assert ranks[0][:3] == ["row", "among", "wikitext2 ppl ↓<br>128/limit64"]
    assert {line[0]: line[1:3] for line in knows[2:]}["saap"] == ["params=0.2, recovery none", "1–2 of 3"]
    shown = {line[0].removesuffix(" ▼"): [cell.partition(" ± ")[0] for cell in line[1:]] for line in sides[2:]}
    assert shown["dense"] == ["89.5", "–", "20.00", "0.0"]
    assert [cell.partition(" · ")[0] for cell in shown["saap"]] == ["**1–2**", "–", "**1–2**", "**1–2**"]
    assert {line[0]: line[1:3] for line in ranks[2:]}["saap"] == ["params=0.2, recovery none", "1–2 of 3"]
    assert not any("boolq" in head for head in ranks[0])
    assert "boolq acc (%) ↑<br>0shot/limit200 no signal" in accuracies[0]
    assert "| `wikitext2.ppl_token@128/limit64` | 20.00 ± " in text
    assert "| `boolq.acc@0shot/limit200` |" in text
    assert "✗ 1 |" in text.partition("## Report cards")[2]


def test_csv_names_rank_group_ties_and_reason() -> None:
    lines = {line["method"]: line for line in parsed(board_csv(ranked()))}
    assert (lines["saap"]["rank"], lines["saap"]["ties"]) == ("1–2", "llm_pruner")
    assert (lines["random"]["rank"], lines["random"]["ties"], lines["random"]["not ranked"]) == ("3", "", "")
    assert lines["random"]["ranked among"] == "params=0.2, recovery none"
    assert lines["dense"]["not ranked"] == "reference"
    assert lines["random"]["piqa.acc@0shot/limit200 rank"] == "3"
    assert "boolq.acc@0shot/limit200 rank" not in lines["random"]


def test_the_terminal_shows_ranks_too() -> None:
    file = io.StringIO()
    console = Console(width=140, file=file, force_terminal=False)
    print_table(ranked(), console)
    text = file.getvalue()
    assert "rank" in text
    assert "1–2" in text
    assert "not ranked" not in text


def test_heads_break_where_one_would_break_them() -> None:
    assert broken("0shot/limit500/arc_easy+piqa smoke", 14) == ["0shot/", "limit500/", "arc_easy+piqa", "smoke"]
    assert broken("mean with signal ↑", 14) == ["mean with", "signal ↑"]
    assert broken("arc_challenge", 10) == ["arc_", "challenge"]
    assert broken("", 14) == []
