"""The notice says what Compresso's says, and ends where a text can follow."""

from bench.blocks.notice import NOTICE


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


def test_it_is_a_paragraph_of_its_own():
    assert NOTICE.strip() + "\n\n" == NOTICE
