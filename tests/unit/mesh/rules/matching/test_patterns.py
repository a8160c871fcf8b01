"""Globs and expressions: against a plain reference, and never slow."""

import re
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mesh.rules.matching.patterns import (
    BadPattern,
    compile_pattern,
    compile_union,
    literal_prefix,
    literal_suffix,
)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("game/**", "game/web", True),
        ("game/**", "game/web/front", True),
        ("game/**", "game", False),
        ("game/**", "games/web", False),
        ("game/*", "game/web", True),
        ("game/*", "game/web/front", False),
        ("**", "a/b/c", True),
        ("**/web", "web", True),
        ("**/web", "a/b/web", True),
        ("**/web", "a/bweb", False),
        ("a/**/z", "a/z", True),
        ("a/**/z", "a/b/c/z", True),
        ("v?.0", "v1.0", True),
        ("v?.0", "v10.0", False),
        ("{dev,test}-*", "test-7", True),
        ("{dev,test}-*", "prod-7", False),
        ("{a,b{c,d}}", "bd", True),
        ("v[0-9]*", "v1.2", True),
        ("v[!0-9]*", "vnext", True),
        ("v[!0-9]*", "v1", False),
        ("[!-z]*", "a", True),  # neither '-' nor 'z', and no range
        ("[!-z]*", "-", False),
        ("[-z]*", "-", True),
        ("1.2", "1x2", False),
        (r"a\*b", "a*b", True),
        (r"a\*b", "axb", False),
        ("a,b", "a,b", True),
        ("re:^v[0-9]+$", "v12", True),
        ("re:v[0-9]+", "xv12", False),  # the whole string, anchored or not
        ("re:(?i)LATEST", "latest", True),
    ],
)
def test_what_patterns_mean(pattern: str, text: str, expected: bool) -> None:
    assert compile_pattern(pattern)(text) is expected


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("a/{b", "not closed"),
        ("a}", "nothing opens"),
        ("a[b", "not closed"),
        ("a[]]", "class"),
        ("a\\", "backslash"),
        ("{{{{{a}}}}}", "deeper"),
        ("re:(", "RE2"),
        ("re:(?=x)", "RE2"),
        (r"re:(a)\1", "RE2"),
        ("re:a{1,2000}", "RE2"),
    ],
)
def test_what_cannot_run_is_refused_with_the_reason(pattern: str, reason: str) -> None:
    with pytest.raises(BadPattern, match=reason):
        compile_pattern(pattern)


def _reference(glob: str, text: str) -> bool:
    """The same meaning by plain backtracking, for globs of `*`, `**`, `?` and letters."""
    if not glob:
        return not text
    if glob.startswith("**"):
        return any(_reference(glob[2:], text[cut:]) for cut in range(len(text) + 1))
    if glob[0] == "*":
        end = text.find("/") if "/" in text else len(text)
        return any(_reference(glob[1:], text[cut:]) for cut in range(end + 1))
    if not text or (glob[0] == "?" and text[0] == "/"):
        return False
    return glob[0] in ("?", text[0]) and _reference(glob[1:], text[1:])


_GLOBS = st.lists(st.sampled_from(["a", "b", "/", "*", "?", "x**", "."]), max_size=6).map("".join)
_TEXTS = st.text(alphabet="abx./", max_size=8)


@given(_GLOBS, _TEXTS)
def test_globs_agree_with_a_plain_reference(glob: str, text: str) -> None:
    # At a segment's start `**/` may match nothing at all, which the reference does not know.
    assume(not re.search(r"(^|/|\*)\*\*", glob))
    assert compile_pattern(glob)(text) is _reference(glob, text)


_ANY_TEXT = st.text(alphabet="ab/*?.[]{},^$|()+\\é", max_size=8)
_WRITTEN = st.builds(
    lambda pattern, is_regex: f"re:{pattern}" if is_regex else pattern, _ANY_TEXT, st.booleans()
)


def _is_taken(pattern: str) -> bool:
    try:
        compile_pattern(pattern)
    except BadPattern:
        return False
    return True


@given(_WRITTEN.filter(_is_taken), st.text(alphabet="ab/.é", max_size=6))
def test_what_a_pattern_matches_begins_and_ends_with_its_literals(pattern: str, text: str) -> None:
    if compile_pattern(pattern)(text):
        assert text.startswith(literal_prefix(pattern))
        assert text.endswith(literal_suffix(pattern))


_GLOB_PARTS = [
    ("a", "a"), ("-", "-"), (",", ","), ("/", "/"), (".", "."), ("*", "b"), ("*", ""), ("**", "b/b"), ("**/", ""),
    ("**/", "b/"), ("?", "b"), ("[a-b]", "b"), ("[!a]", "b"), ("{a,b/a}", "a"), ("{a,{b,}}", ""), (r"\a", "a"),
    (r"\*", "*"), (r"\\", "\\"), (r"\{", "{"), ("]", "]"),
]  # fmt: skip
_EXPRESSION_PARTS = [
    ("a", "a"), ("-", "-"), ("/", "/"), (".*", "b"), (".", "b"), ("a*", ""), ("a?", ""), ("b+", "bb"), ("a*?", ""),
    ("[a-b]", "b"), ("[a-b]*", ""), ("[]a]", "]"), ("a{0}", ""), ("(?:a|b)", "b"), ("(?:a|b)?", ""), (r"\d", "7"),
    (r"\x61", "a"), (r"\.", "."), ("(?i)", ""), ("(?i:a)", "A"), (r"\Qa*\E", "a*"), ("^*", ""), ("$", ""),
]  # fmt: skip


@given(
    st.lists(st.sampled_from(_GLOB_PARTS), min_size=1, max_size=5).map(lambda parts: ("", parts))
    | st.lists(st.sampled_from(_EXPRESSION_PARTS), min_size=1, max_size=5).map(lambda parts: ("re:", parts))
)
def test_a_text_made_for_a_pattern_begins_and_ends_with_its_literals(
    made: tuple[str, list[tuple[str, str]]],
) -> None:
    kind, parts = made
    pattern, text = kind + "".join(part for part, _ in parts), "".join(text for _, text in parts)
    assume(_is_taken(pattern) and compile_pattern(pattern)(text))
    assert text.startswith(literal_prefix(pattern))
    assert text.endswith(literal_suffix(pattern))


@pytest.mark.parametrize(
    ("pattern", "end"),
    [
        ("**/web-1", "web-1"),
        ("game/**/web", "web"),
        ("x**/web", "web"),
        ("*/web", "/web"),
        ("{a,b}-1", "-1"),
        ("web-[0-9]", ""),
        ("re:.*-1$", "-1"),
        ("re:.*/web-[a-z]+-1", "-1"),
        ("re:.*-1?", ""),
        ("re:.*-1|.*-2", ""),
        (r"re:.*\d1", ""),
        ("re:(?i).*-a", ""),
    ],
)
def test_how_what_matches_ends(pattern: str, end: str) -> None:
    assert literal_suffix(pattern) == end


@given(st.lists(_WRITTEN.filter(_is_taken), max_size=8), st.text(alphabet="ab/.é", max_size=6))
def test_a_union_finds_the_same_as_each_pattern_alone(patterns: list[str], text: str) -> None:
    which = compile_union(patterns)
    assert which is not None
    alone = [number for number, pattern in enumerate(patterns) if compile_pattern(pattern)(text)]
    assert sorted(which(text) or []) == alone


def test_a_union_reports_when_re2_gives_up() -> None:
    """Of more than its memory takes there is no function, instead of one that says that nothing matches."""
    gave_up = set()
    for size in range(40, 400, 40):
        which = compile_union([f"re:(?:[a-z]{{{size}}}|b){number}" for number in range(60)])
        gave_up.add(which is None)
        assert which is None or which("b7") == [7]
    assert gave_up == {True, False}


def test_no_union_stalls() -> None:
    which = compile_union([f"re:(.*)*[ab].{{{number}}}x" for number in range(16)])
    began = time.process_time()
    assert which is not None
    assert which("ab" * 100 + "!") == []
    assert time.process_time() - began < 5  # a backtracking engine would not end in a lifetime


@pytest.mark.parametrize("pattern", ["re:(a+)+$", "re:(a|aa)*b", "re:(.*)*x", "*a*a*a*a*a*a*a*b"])
def test_no_pattern_stalls(pattern: str) -> None:
    matches = compile_pattern(pattern)
    began = time.process_time()
    assert not matches("a" * 20_000 + "!")
    assert time.process_time() - began < 5  # a backtracking engine would not end in a lifetime
