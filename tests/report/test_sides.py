"""The four sides of quality: which metric stands for each, who leads on it, and whether the order holds."""

from bench.report.build import build
from tests.record.records import scored
from tests.report.boards import KNOWN, PAIR, PPL, answers, cells, dense, row


def test_each_side_has_its_own_headline() -> None:
    records = [r for m in ("dense", "saap", "random") for r in cells(m, 20.0)]
    headline = build(records, [PAIR]).headlines["tiny"]
    assert headline.metric == "wikitext2.ppl_token@2048/limit4"
    assert headline.sides == {"knows": "pair.mean@0shot/limit20", "models text": headline.metric}
    assert build(dense(), [PAIR]).headlines["tiny"].sides == {"models text": PPL}


def test_one_task_with_signal_stands_for_what_a_model_knows() -> None:
    records = dense()
    records += [scored(records[0], f"{t}@0shot/limit200", answers(s)) for t, s in (("boolq", 0.5), ("piqa", 0.8))]
    records += [*row("saap", 0.2, share=0.8), *row("random", 1.0, share=0.3)]
    board = build(records, [], KNOWN)
    headline = board.headlines["tiny"]
    assert headline.sides == {"knows": "piqa.acc@0shot/limit200", "models text": PPL}
    found = {r.identity.method: [board.on_side(r.identity, side).text for side in headline.sides] for r in board.rows}
    assert found == {"dense": ["–", "–"], "saap": ["1", "1"], "random": ["2", "2"]}
