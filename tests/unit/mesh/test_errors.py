"""What peers say is shown to people: nothing of it moves a cursor or turns the text round."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import clean


def test_what_would_disturb_a_line_becomes_a_blank() -> None:
    assert clean("no\x1b[31m\x00 \u202egnp.exe\u2028next\u2066\ufeff") == "no [31m   gnp.exe next"
    assert clean("größe 大小") == "größe 大小"


@given(st.text(max_size=600))
def test_what_is_cleaned_is_short_and_stays_as_it_is(text: str) -> None:
    found = clean(text)
    assert len(found) <= 256
    assert clean(found) == found.strip()
    assert not any(ord(char) < 0x20 or char in "\u202e\u2028\u2029\x7f" for char in found)
