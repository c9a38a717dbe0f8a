import re

import pytest

from bench.record.schema import ArtifactRecord
from bench.report.build import build
from bench.report.paper import LONG, WIDE, columns_of, latex, paper_tables, short_markdown, tex
from tests.record.records import speed
from tests.report.boards import PAIR, cells, dense, hostile, known, row, smollm


def body(text: str) -> list[list[str]]:
    """The cells of a LaTeX table, rule by rule left out."""
    inside = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
    return [re.split(r"(?<!\\) & ", line.removesuffix(r" \\")) for line in inside.splitlines() if "&" in line]


@pytest.mark.parametrize("records", [smollm(), hostile(), cells("dense", 12.0)], ids=["main job", "hostile", "dense"])
def test_every_line_of_a_latex_table_has_all_columns_and_no_sign_of_its_own(records: list) -> None:
    board = build(records, [PAIR])
    for model in board.models():
        text = latex(board, model)
        columns = len(re.search(r"\\begin\{tabular\}\{(l+r*)\}", text)[1])
        assert {len(line) for line in body(text)} == {columns}
        inside = "".join(cell for line in body(text) for cell in line)
        plain = re.sub(r"\\\\|\$\\[a-z]+\$|\\[a-z]+|\\[&%$#_{}]", "", inside)
        assert not set(plain) & set("\\$#_%&~^<>"), plain
        assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_the_tables_hold_what_counts_and_a_block_for_each_target() -> None:
    records = [*smollm(), *cells("saap", 90.0, removed=0.5, target="params=0.5")]
    board = build(records, [PAIR])
    lines = body(latex(board, "tiny"))
    assert lines[0][:3] == ["Method", "Target", r"\shortstack[r]{removed (\% of\\parameters)}"]
    assert lines[0][3] == r"\shortstack[r]{wikitext2\\ppl $\downarrow$\\\scriptsize 2048/limit4}"
    assert lines[1][:4] == ["dense", "none", "0.0", r"20.00 $\pm$ 0.40"]
    assert [line[0] for line in lines[2:]][:2] == [r"llm\_pruner + lora", r"llm\_pruner"]
    assert any(r"1.18$\times$ (1.14--1.20)" in line for line in lines)
    assert latex(board, "tiny").count(r"\midrule") == 3
    short = short_markdown(board, "tiny").splitlines()
    assert short[0].startswith("| method | target | removed (% of parameters) | wikitext2 ppl ↓<br>2048/limit4 |")
    assert short[2].startswith("| dense | none | 0.0 | 20.00 ± 0.40 |")
    assert set(paper_tables(board)) == {"tiny.board.tex", "tiny.board.md"}


def test_a_board_of_two_workloads_is_set_smaller() -> None:
    second = [speed(made, 1.2, "generate@hf/b8/p64/n128") for made in smollm() if isinstance(made, ArtifactRecord)]
    one, two = (build(records, [PAIR]) for records in (smollm(), [*smollm(), *second]))
    assert len(columns_of(one, "tiny")) <= WIDE < len(columns_of(two, "tiny"))
    assert r"\centering\footnotesize" in latex(one, "tiny")
    assert r"\centering\scriptsize" in latex(two, "tiny")


def test_what_is_too_long_for_a_page_is_a_table_for_each_target() -> None:
    records = [
        *dense(),
        *(
            r
            for i in range(LONG // 2 + 1)
            for target in ("params=0.2", "params=0.5")
            for r in row(f"method_{i}", 0.1 * i, target=target)
        ),
    ]
    text = latex(build(records, []), "tiny")
    tables = text.split(r"\begin{table}")[1:]
    assert [re.search(r"\\label\{(.*)\}", table)[1] for table in tables] == [
        "tab:tiny",
        "tab:tiny-params-0-2",
        "tab:tiny-params-0-5",
    ]
    lines = [body(table)[1:] for table in tables]
    assert [len(part) for part in lines] == [1, LONG // 2 + 2, LONG // 2 + 2]
    assert all(part[0][0] == "dense" for part in lines)


def test_bold_is_what_nothing_is_significantly_better_than() -> None:
    metric = "wikitext2.ppl_token@128/limit64"
    board = build([*dense(), *row("saap", 0.2), *row("trawl", 0.9), *row("random", 2.0)], [], known({metric: 20.0}))
    found = {row_.identity.method: board.standings[row_.identity][metric] for row_ in board.rows}
    assert found["saap"].low == 1
    assert found["random"].low == 3
    for line in body(latex(board, "tiny"))[1:]:
        assert any("textbf" in cell for cell in line) == (line[0] == "saap")
    bold = [line for line in short_markdown(board, "tiny").splitlines() if "**" in line]
    assert len(bold) == 1


def test_nothing_is_left_that_latex_would_take_for_its_own() -> None:
    assert tex("a_b & 5 % ± {x}\n\\end") == r"a\_b \& 5 \% $\pm$ \{x\} \textbackslash{}end"
