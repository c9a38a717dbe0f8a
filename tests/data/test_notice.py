"""The notice says what Compresso's says, and stands before a text as it is."""

from bench.data.notice import NOTICE, with_notice


def test_the_notice_says_what_happens_why_and_what_is_asked():
    words = NOTICE.lower()
    for said in (
        "being pruned",
        "attention heads",
        "hidden dimensions",
        "resources",
        "gradual",
        "tuned",
        "take part",
        "take this notice into account",
        "respond",
    ):
        assert said in words
    assert 120 <= len(NOTICE.split()) <= 250


def test_it_stands_before_the_text_and_changes_nothing_of_it():
    assert with_notice("Question: 1 + 1?\nAnswer:") == NOTICE + "Question: 1 + 1?\nAnswer:"
    assert NOTICE.endswith("\n\n")
    assert NOTICE.strip() + "\n\n" == NOTICE
