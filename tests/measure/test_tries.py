import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.measure.beginnings import Beginning
from bench.measure.tries import Trie, batches, build_rows
from bench.measure.tries import build_tries as build_numbered

TOKEN_LISTS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=1, max_size=25)
CPU = torch.device("cpu")


def build_tries(sequences: list[list[int]]) -> list[Trie]:
    return build_numbered(dict(enumerate(sequences)))


def ancestors(trie: Trie, node: int) -> list[int]:
    """By walking back: the last node before that lies one higher, and so on."""
    line = [node]
    for before in range(node - 1, -1, -1):
        if trie.depth[before] == trie.depth[line[0]] - 1:
            line.insert(0, before)
    return line


@given(TOKEN_LISTS)
@settings(max_examples=100, deadline=None)
def test_every_path_is_its_sequence_and_no_token_is_stored_twice(sequences: list[list[int]]) -> None:
    tries = build_tries(sequences)
    assert sorted(index for trie in tries for index in trie.paths) == list(range(len(sequences)))
    for trie in tries:
        mine = [sequences[index] for index in trie.paths]
        assert len(trie.tokens) == len({tuple(s[: i + 1]) for s in mine for i in range(len(s))})
        for index, path in trie.paths.items():
            assert [trie.tokens[node] for node in path] == sequences[index]
            assert [trie.depth[node] for node in path] == list(range(len(path)))
            assert path == sorted(path)
            assert ancestors(trie, path[-1]) == path


@given(TOKEN_LISTS, st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_a_token_sees_itself_and_its_ancestors_alone(sequences: list[list[int]], budget: int) -> None:
    for batch in batches(build_tries(sequences), budget, CPU):
        arguments = batch.attention(torch.float32)
        if not arguments:
            assert all(list(range(len(t.tokens))) == max(t.paths.values(), key=len) for t in batch.tries)
            continue
        assert arguments["attention_mask"].shape == (len(batch.tries), 1, *[batch.tokens.shape[1]] * 2)
        for row, trie in enumerate(batch.tries):
            seen = arguments["attention_mask"][row, 0] == 0
            assert arguments["position_ids"][row, : len(trie.tokens)].tolist() == trie.depth
            assert seen.any(dim=1).all(), "a token that sees nothing has no attention"
            for node in range(len(trie.tokens)):
                assert seen[node].nonzero().flatten().tolist() == ancestors(trie, node)


@given(TOKEN_LISTS, st.integers(1, 30), st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_in_a_row_all_tokens_see_the_beginning_within_the_window(
    sequences: list[list[int]], before: int, window: int
) -> None:
    beginning = Beginning(list(range(before)), list(range(len(sequences))))
    rows = build_rows(dict(enumerate(sequences)), before, 64)
    assert sorted(index for row in rows for index in row.paths) == list(range(len(sequences)))
    for batch in batches(rows, 64, CPU, beginning):
        arguments = batch.attention(torch.float32, window)
        assert arguments["attention_mask"].shape[3] == before + batch.tokens.shape[1]
        for row, trie in enumerate(batch.tries):
            seen = arguments["attention_mask"][row, 0] == 0
            for index, path in trie.paths.items():
                assert [trie.tokens[node] for node in path] == sequences[index]
                for length, node in enumerate(path, 1):
                    text = [*range(before), *(before + ancestor for ancestor in path[:length])]
                    assert seen[node].nonzero().flatten().tolist() == text[-window:]
                    assert arguments["position_ids"][row, node] == before + length - 1


def test_small_tries_share_a_row_and_large_ones_do_not() -> None:
    small = {i: [i, *range(100, 119)] for i in range(40)}
    large = {i: [i, *range(100, 399)] for i in range(4)}
    assert len(build_rows(small, 400, 1024)) < 8
    assert len(build_rows(small, 20, 1024)) > 15
    assert len(build_rows(large, 400, 1024)) == 4


def test_a_shared_row_is_within_the_budget_however_long_the_beginning() -> None:
    rows = build_rows({i: [i, *range(1000, 1024)] for i in range(200)}, 3000, 1024)
    assert [len(row.tokens) for row in rows] == [1000] * 5
    assert len(build_rows({i: [i, *range(1000, 2000)] for i in range(3)}, 3000, 512)) == 3, "no larger than one trie"


def test_a_batch_reads_a_bounded_number_of_tokens() -> None:
    rows = build_rows({i: [i, *range(100, 110)] for i in range(200)}, 0, 1024)
    beginning = Beginning(list(range(1000)), list(range(200)))
    assert max(len(batch.tries) for batch in batches(rows, 1024, CPU, beginning)) == 4


@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), st.integers(1, 200))
@settings(max_examples=50, deadline=None)
def test_batches_hold_every_trie_once_within_their_budget(lengths: list[int], budget: int) -> None:
    tries = build_tries([[number, *range(100, 99 + length)] for number, length in enumerate(lengths)])
    made = list(batches(tries, budget, CPU))
    assert sorted(index for batch in made for trie in batch.tries for index in trie.paths) == list(range(len(lengths)))
    for batch in made:
        padding = batch.tokens.numel() - sum(len(trie.tokens) for trie in batch.tries)
        assert len(batch.tries) == 1 or batch.tokens.numel() <= budget
        assert padding <= budget // 32
    assert [b.tokens.shape[1] for b in made] == sorted((b.tokens.shape[1] for b in made), reverse=True)


def test_documents_that_share_little_stay_apart() -> None:
    one, other = [7, *range(100, 300)], [7, *range(500, 700)]
    assert len(build_tries([one, other])) == 2, "one token saved, 200 x 200 to attend to"
    (trie,) = build_tries([[*range(100), 1], [*range(100), 2]])
    assert len(trie.tokens) == 102


def test_equal_sequences_and_beginnings_of_others_add_nothing() -> None:
    (trie,) = build_tries([[1, 2, 3], [1, 2], [1, 2, 3], [1]])
    assert trie.tokens == [1, 2, 3]
    assert trie.paths == {0: [0, 1, 2], 1: [0, 1], 2: [0, 1, 2], 3: [0]}
    assert not trie.branches
