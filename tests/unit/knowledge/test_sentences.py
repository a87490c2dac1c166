"""Where sentences begin and end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shield.knowledge.sentences import sentences, words


def test_a_sentence_ends_at_its_mark_and_at_a_line_end() -> None:
    text = 'One two. "Three four!" Five\nSix? Seven'
    assert [s.text for s in sentences(text)] == ["One two.", '"Three four!"', "Five", "Six?", "Seven"]


def test_abbreviations_initials_numbers_and_versions_end_no_sentence() -> None:
    text = "Use e.g. version 1.5 by J. Smith, see Fig. 3. Then stop."
    assert [s.text for s in sentences(text)] == ["Use e.g. version 1.5 by J. Smith, see Fig. 3.", "Then stop."]


@given(st.text(alphabet=st.sampled_from('aB. !?\n"e.g)'), max_size=200))
def test_every_sentence_is_a_verbatim_slice_and_nothing_is_lost(text: str) -> None:
    found = list(sentences(text))
    assert all(s.text == text[s.start : s.end] == s.text.strip() != "" for s in found)
    assert "".join("".join(s.text.split()) for s in found) == "".join(text.split())


def test_words_are_lower_case_without_punctuation() -> None:
    assert words("The E4711-fault,\nagain!") == ["the", "e4711", "fault", "again"]
