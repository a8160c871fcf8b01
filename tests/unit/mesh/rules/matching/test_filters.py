"""Filters of a rule: matching against a plain reference, the index of rules, and what is refused when declared."""

import re
import time
from functools import cmp_to_key
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.rules.matching.compiled_rule import CompiledRule
from mesh.rules.matching.patterns import compile_label, compile_pattern
from mesh.rules.matching.platforms import covers
from mesh.rules.matching.versions import can_hold, compile_range
from mesh.rules.validation import impossible_patterns
from mesh.rules.validation.declarations import judge
from schemas.names import Repository, Tag
from schemas.platforms import Platform
from schemas.rules import Rule

BASE = {
    "regions": [{"name": "b", "jurisdiction": "cn"}],
    "instances": [
        {"name": name, "account": "game", "region": "b", "url": "http://127.0.0.1:5001"}
        for name in ("cn", "eu")
    ],
}


def rule(*filters: dict[str, Any], name: str = "r", **fields: Any) -> CompiledRule:
    document = {"name": name, "source": "cn", "destination": "eu", "filters": list(filters), **fields}
    return CompiledRule(Rule.model_validate(document))


def problems(*filters: dict[str, Any]) -> dict[str, str]:
    declared = {"name": "r", "source": "cn", "destination": "eu", "filters": list(filters)}
    return {found.where: found.message for found in judge({**BASE, "rules": [declared]})[1]}


@pytest.mark.parametrize(
    ("wanted", "tags", "others"),
    [
        (">=1.2 <2", "1.2.0 v1.9.9 1.2.0_build.7", "2.0.0 1.1.9 1.5.0-rc.1 1.2 latest vv1.2.0 01.2.0"),
        ("~1.2", "1.2.0 1.2.9", "1.3.0 1.1.0"),
        ("^0.2.3", "0.2.3 0.2.9", "0.3.0 0.2.2"),
        ("1.2 - 2.3", "1.2.0 2.3.9", "2.4.0"),
        ("1.x || >= 3", "1.0.0 3.1.0", "2.0.0"),
        ("^1.2.3-beta.2", "1.2.3-beta.3 1.2.3 1.9.0", "1.2.3-beta.1 1.3.0-beta.3"),
        ("<2.0.0-beta", "2.0.0-alpha 1.0.0", "2.0.0-rc 2.0.0"),
        ("*", "0.0.1 v10.20.30", "1.0.0-rc latest 1.0.0.0"),
    ],
)
def test_what_ranges_mean(wanted: str, tags: str, others: str) -> None:
    holds = compile_range(wanted)
    assert [tag for tag in tags.split() if not holds(tag)] == []
    assert [tag for tag in others.split() if holds(tag)] == []


_SMALL = st.integers(0, 2)
_PRE = st.sampled_from(["", "", "-0", "-1", "-a", "-a.0", "-a.1", "-b"])
_VERSIONS = st.builds(lambda a, b, c, pre: f"{a}.{b}.{c}{pre}", _SMALL, _SMALL, _SMALL, _PRE)
_COMPARATORS = st.lists(
    st.tuples(st.sampled_from(["<", "<=", ">", ">=", "="]), _VERSIONS), min_size=1, max_size=3
)
_RANGES = st.lists(_COMPARATORS, min_size=1, max_size=2)


def _written(alternatives: list[list[tuple[str, str]]]) -> str:
    return " || ".join(" ".join(f"{operator}{text}" for operator, text in part) for part in alternatives)


def _split(version: str) -> tuple[tuple[int, ...], list[str]]:
    core, _, pre = version.partition("-")
    return tuple(int(part) for part in core.split(".")), pre.split(".") if pre else []


def _compare(one: str, other: str) -> int:
    """Precedence as semver.org, section 11, has it."""
    (core, pre), (core_2, pre_2) = _split(one), _split(other)
    if core != core_2:
        return -1 if core < core_2 else 1
    if not pre or not pre_2:
        return bool(pre_2) - bool(pre)
    for part, part_2 in zip(pre, pre_2, strict=False):
        if part == part_2:
            continue
        if part.isdigit() and part_2.isdigit():
            return -1 if int(part) < int(part_2) else 1
        if part.isdigit() or part_2.isdigit():
            return -1 if part.isdigit() else 1
        return -1 if part < part_2 else 1
    return (len(pre) > len(pre_2)) - (len(pre) < len(pre_2))


_HOLDS = {
    "<": lambda order: order < 0, "<=": lambda order: order <= 0, "=": lambda order: order == 0,
    ">": lambda order: order > 0, ">=": lambda order: order >= 0,
}  # fmt: skip


def _within(version: str, alternatives: list[list[tuple[str, str]]]) -> bool:
    core, pre = _split(version)

    def together(part: list[tuple[str, str]]) -> bool:
        named = any(_split(text)[0] == core and _split(text)[1] for _, text in part)
        in_order = all(_HOLDS[operator](_compare(version, text)) for operator, text in part)
        return in_order and (named or not pre)

    return any(together(part) for part in alternatives)


@given(_RANGES, _VERSIONS)
def test_ranges_agree_with_a_plain_reference(alternatives: list[list[tuple[str, str]]], version: str) -> None:
    assert compile_range(_written(alternatives))(f"v{version}") is _within(version, alternatives)


_ALL = [
    f"{a}.{b}.{c}{pre}"
    for a in range(4) for b in range(4) for c in range(4)
    for pre in ("", "-0", "-0.0", "-1", "-1.0", "-2", "-a", "-a.0", "-a.0.0", "-a.1", "-a.1.0", "-b", "-b.0")
]  # fmt: skip


@given(_RANGES, _RANGES)
def test_a_range_is_called_empty_only_when_no_version_is_within_it(
    one: list[list[tuple[str, str]]], other: list[list[tuple[str, str]]]
) -> None:
    found = any(_within(version, one) and _within(version, other) for version in _ALL)
    assert can_hold([_written(one), _written(other)]) is found


def test_versions_are_ordered_as_the_specification_says() -> None:
    ordered = [
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0",
    ]
    shuffled = ordered[3:] + ordered[:3]
    assert sorted(shuffled, key=cmp_to_key(_compare)) == ordered


@pytest.mark.parametrize(
    ("label", "labels", "expected"),
    [
        ("team", {"team": ""}, True),
        ("team", {"Team": "x"}, False),
        ("team=core-*", {"team": "core-net"}, True),
        ("team=core-*", {"team": "web"}, False),
        ("note=**", {"note": "one line\nand another"}, True),
        ("note=**/end", {"note": "one line\nand/end"}, True),
        ("url=https://git/**", {"url": "https://git/a/b"}, True),
        ("v=re:[0-9]+", {"v": "12"}, True),
        ("a=b=c", {"a": "b=c"}, True),
        ("a=", {"a": ""}, True),
        ("a=", {"a": "b"}, False),
    ],
)
def test_what_labels_mean(label: str, labels: dict[str, str], expected: bool) -> None:
    assert compile_label(label)([{}, labels]) is expected


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm64/v9", "linux/arm64", False),
        ("linux/arm", "linux/arm/v6", True),
        ("linux/arm/v7", "linux/arm", True),
        ("linux/arm/v7", "linux/arm/v6", False),
        ("linux/amd64", "windows/amd64", False),
    ],
)
def test_what_platforms_mean(wanted: str, found: str, expected: bool) -> None:
    assert covers([Platform(wanted)], Platform(found)) is expected
    assert not covers([Platform(wanted)], None)


_SEGMENTS = st.sampled_from(["a", "b", "ab", "*", "**", "?", "a*", "{a,b}", "[ab]b"])
_NAMES = st.lists(_SEGMENTS, min_size=1, max_size=3).map("/".join) | st.sampled_from(
    ["re:a.*", "re:(?i)A/b", "re:.*b"]
)
_REPOSITORIES = st.lists(st.sampled_from(["a", "b", "ab", "ba"]), min_size=1, max_size=3).map("/".join)
_FILTERS = st.lists(
    st.builds(lambda value, how: {"type": "name", "value": value, "decoration": how}, _NAMES,
              st.sampled_from(["matches", "matches", "excludes"])), max_size=2,
)  # fmt: skip


@given(
    st.lists(_FILTERS.map(lambda parts: [(one["value"], one["decoration"]) for one in parts]), min_size=1, max_size=1),
    st.lists(st.tuples(st.sampled_from(["v*", "*-rc", "v1", "re:v[0-9]"]), st.sampled_from(["matches", "excludes"])),
             max_size=2),
    _REPOSITORIES,
    st.sampled_from(["v1", "v2-rc", "x"]),
)  # fmt: skip
def test_a_rule_wants_what_all_its_filters_hold_of(
    names: list[list[tuple[str, str]]], tags: list[tuple[str, str]], repository: str, tag: str
) -> None:
    made = rule(
        *({"type": "name", "value": value, "decoration": how} for value, how in names[0]),
        *({"type": "tag", "value": value, "decoration": how} for value, how in tags),
    )
    expected = all(
        compile_pattern(value)(text) is (how == "matches")
        for text, parts in ((repository, names[0]), (tag, tags))
        for value, how in parts
    )
    assert made.wants(Repository(repository), Tag(tag)) is expected
    assert (made.early_miss(Repository(repository), Tag(tag)) is None) is expected


@pytest.mark.parametrize("wanted", ["re:(a|a)*b", "re:(a*)*b", "re:([a-z]+)+!", "**a**a**a**a**b"])
def test_a_rule_with_a_bad_expression_stalls_nothing(wanted: str) -> None:
    made = rule({"type": "name", "value": wanted}, {"type": "semver", "value": "^1"})
    began = time.process_time()
    assert not made.wants(Repository("a" * 255), Tag("1.0.0-" + "a-" * 60))
    assert not compile_range("^1")("1.0.0-" + "a." * 60 + "_")
    assert time.process_time() - began < 1  # a backtracking engine would not end in a lifetime


NAME, TAG = {"type": "name"}, {"type": "tag"}


@pytest.mark.parametrize(
    ("filters", "where", "message"),
    [
        ([{"type": "semver", "value": ">2 <1"}], "filters[0].value", "no version is within"),
        ([{"type": "semver", "value": "^1"}, {"type": "semver", "value": ">=2"}], "filters[1].value", "together"),
        ([{"type": "semver", "value": "latest"}], "filters[0].value", "no range"),
        ([{"type": "semver", "value": ">=1, <2"}], "filters[0].value", "by a blank"),
        ([{"type": "semver", "value": 1.2}], "filters[0].value", "must be text"),
        ([{"type": "SemVer", "value": "^1"}], "filters[0].type", "did you mean 'semver'"),
        ([{"type": "resource", "value": "Image"}], "filters[0].value", "'image', 'chart' or 'artifact'"),
        ([{"type": "resource", "value": "image"}, {"type": "resource", "value": "chart"}], "filters[1].value", "never"),
        ([{"type": "label", "value": "=x"}], "filters[0].value", "KEY"),
        ([{"type": "label", "value": "a=[x"}], "filters[0].value", "not closed"),
        ([{"type": "label", "value": "a", "decoration": "Excludes"}], "filters[0].decoration", "'excludes'"),
        (
            [{"type": "label", "value": "a"}, {"type": "label", "value": "a", "decoration": "excludes"}],
            "filters[1].decoration", "nothing passes both",
        ),
        ([{"type": "platform", "value": []}], "filters[0].value", "must not be empty"),
        ([{"type": "platform", "value": 7}], "filters[0].value", "a list of platforms"),
        ([{"type": "platform", "value": "Linux/amd64"}], "filters[0].value", "lower case"),
        ([{"type": "platform", "value": ["linux/x86_64"]}], "filters[0].value", "did you mean 'amd64'"),
        ([{"type": "platform", "value": "linux/arm64", "mode": "Sparse"}], "filters[0].mode", "'sparse'"),
        ([{"type": "platform", "value": "linux/arm64", "mod": "full"}], "filters[0].mod", "did you mean 'mode'"),
        ([{"type": "platform", "value": "linux/arm64"}] * 2, "filters[1]", "one platform filter"),
        (
            [{"type": "resource", "value": "chart"}, {"type": "platform", "value": "linux/arm64"}],
            "filters[0].value", "runs on no platform",
        ),
        ([{**NAME, "value": "a"}, {**NAME, "value": "b/**"}], "filters[1].value", "nothing passes"),
        ([{"value": "x"}], "filters[0].type", "is required"),
        ([{**NAME, "value": "Game/**"}], "filters[0].value", "did you mean 'game/**'?"),
        ([{**NAME, "value": "Game/**", "decoration": "excludes"}], "filters[0].value", "can never match"),
        ([{**NAME, "value": "/game/**"}], "filters[0].value", "can never match"),
        ([{**NAME, "value": "game/"}], "filters[0].value", "can never match"),
        ([{**NAME, "value": "game/app:v1"}], "filters[0].value", "can never match"),
        ([{**NAME, "value": "registry:5000/game/**"}], "filters[0].value", "can never match"),
        ([{**NAME, "value": "re:Game/.*"}], "filters[0].value", "can never match"),
        ([{**TAG, "value": "release/1"}], "filters[0].value", "can never match"),
        ([{**TAG, "value": "-rc*"}], "filters[0].value", "can never match"),
        ([{**TAG, "value": "*", "decoration": "excludes"}], "filters[0].value", "every tag is excluded"),
        ([{**NAME, "value": "**", "decoration": "excludes"}], "filters[0].value", "every name is excluded"),
        ([{**NAME, "value": "a/**"}, {**NAME, "value": "b/**"}], "filters[1].value", "nothing passes"),
        ([{**TAG, "value": "*-a"}, {**TAG, "value": "re:.*-b"}], "filters[1].value", "nothing passes"),
        (
            [{**NAME, "value": "a/**", "decoration": "excludes"}, {**NAME, "value": "a/b/**"}],
            "filters[0].value", "nothing passes this and the name filter 'a/b/**'",
        ),
        ([{**TAG, "value": "latest"}, {"type": "semver", "value": ">=1"}], "filters[0].value", "no version within"),
        (
            [{"type": "label", "value": "a=b"}, {"type": "label", "value": "a", "decoration": "excludes"}],
            "filters[1].value", "nothing passes",
        ),
        (
            [{"type": "resource", "value": "artifact"}, {"type": "platform", "value": "linux/arm64"}],
            "filters[0].value", "an artifact runs on no platform",
        ),
        ([{**TAG, "value": "v1"}, {**TAG, "value": "v*", "decoration": "excludes"}], "filters[1].value", "nothing"),
    ],
)  # fmt: skip
def test_filters_that_can_never_match_are_refused_with_their_path(
    filters: list[Any], where: str, message: str
) -> None:
    found = problems(*filters)
    assert list(found) == [f"rules[0].{where}"]
    assert re.search(re.escape(message), found[f"rules[0].{where}"])


_PIECES = [
    "a",
    "b9",
    "A",
    "-",
    "--",
    "_",
    "__",
    ".",
    "/",
    ":",
    "*",
    "**",
    "**/",
    "?",
    "[a-z]",
    "{a,B}",
    "{-,a/}",
]
_GLOBS = st.lists(st.sampled_from(_PIECES), min_size=1, max_size=5).map("".join)
_EXPRESSIONS = st.sampled_from(["re:A.*", "re:(?i)A", "re:.*-", "re:a.*b9", "re:[Aa]b9", "re:a-?", "re:/a|a"])
_WORDS = st.lists(st.sampled_from(["a", "b9", "-", "--", "_", "__", ".", "/", "A"]), min_size=1, max_size=5)


@given(_GLOBS | _EXPRESSIONS, _WORDS.map("".join))
@settings(max_examples=300)
def test_patterns_called_impossible_match_no_name_and_no_tag(pattern: str, text: str) -> None:
    for kind, parse in (("name", Repository), ("tag", Tag)):
        if (message := impossible_patterns.mistake(pattern, kind)) is not None:
            assert pattern in message or repr(pattern) in message
            assert not (_is(parse, text) and compile_pattern(pattern)(text)), (kind, pattern, text)


_PATTERNS = (
    _GLOBS | _EXPRESSIONS | st.sampled_from(["a/**", "a/b9/**", "**/a", "a*", "*a", "b*", "re:.*", "a", "*"])
)
_PARTS = st.fixed_dictionaries({"value": _PATTERNS, "decoration": st.sampled_from(["matches", "excludes"])})


@given(
    st.sampled_from([("name", Repository), ("tag", Tag)]), st.lists(_PARTS, min_size=1, max_size=3), _WORDS
)
@settings(max_examples=300)
def test_filters_called_contradictory_pass_nothing(
    kind: tuple[str, type], parts: list[dict[str, str]], words: list[str]
) -> None:
    filters, text = [{"type": kind[0], **part} for part in parts], "".join(words)
    messages = " ".join(problems(*filters).values())
    if not _is(kind[1], text) or "not a pattern" in messages or "closed" in messages:
        return
    wanted = all(compile_pattern(it["value"])(text) is (it["decoration"] == "matches") for it in parts)
    if "nothing passes" in messages:
        assert not wanted, (filters, text)


def _is(parse: type, text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def test_sound_filters_are_accepted() -> None:
    assert not problems(
        {"type": "name", "value": "game/**"},
        {"type": "name", "value": "game/old/**", "decoration": "excludes"},
        {"type": "semver", "value": ">1.2.3 <1.2.4-rc"},
        {"type": "label", "value": "team=core-*"},
        {"type": "label", "value": "internal", "decoration": "excludes"},
        {"type": "resource", "value": "image"},
        {"type": "platform", "value": ["linux/amd64", "linux/arm/v7"], "mode": "rebuilt"},
    )
