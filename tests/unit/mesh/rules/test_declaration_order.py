"""The order of instances: the document's for those it lists, and nothing else moves."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.rules.declaration_order import positions

KEYS = st.lists(st.sampled_from("abcdefgh"), unique=True)


def _order(places: dict[str, int]) -> list[str]:
    return sorted(places, key=lambda key: places[key])


def test_what_is_put_alone_stays_and_what_is_new_comes_last() -> None:
    before = positions(["a", "b", "c"], {})
    assert _order(before) == ["a", "b", "c"]
    assert positions(["b"], before) == {"b": before["b"]}
    assert _order(before | positions(["d"], before)) == ["a", "b", "c", "d"]


def test_a_document_that_lists_a_new_one_first_has_it_first() -> None:
    before = positions(["a", "b"], {})
    assert _order(before | positions(["new", "a", "b"], before)) == ["new", "a", "b"]


@given(KEYS, KEYS)
def test_the_listed_have_the_documents_order_and_the_others_keep_theirs(
    first: list[str], second: list[str]
) -> None:
    before = positions(first, {})
    after = before | positions(second, before)
    order = _order(after)
    assert [key for key in order if key in second] == second
    assert [key for key in order if key not in second] == [key for key in first if key not in second]
    assert len(set(after.values())) == len(after)
    assert positions(second, after) == {key: after[key] for key in second}  # again changes nothing
