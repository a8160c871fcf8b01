"""The index of rules: against every rule asked one by one, and that it leaves out nearly all that do not want it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.rules.matching import rule_index
from mesh.rules.matching.compiled_rule import CompiledRule
from mesh.rules.matching.patterns import compile_union
from mesh.rules.matching.rule_index import RuleIndex
from schemas.names import Repository, Tag
from schemas.rules import Rule


def rule(name: str, *filters: dict[str, Any]) -> CompiledRule:
    return CompiledRule(
        Rule.model_validate({"name": name, "source": "cn", "destination": "eu", "filters": list(filters)})
    )


def named(pattern: str, how: str = "matches") -> dict[str, str]:
    return {"type": "name", "value": pattern, "decoration": how}


def tagged(pattern: str, how: str = "matches") -> dict[str, str]:
    return {"type": "tag", "value": pattern, "decoration": how}


_HOW = st.sampled_from(["matches", "matches", "matches", "excludes"])
_SEGMENTS = st.sampled_from(["a", "b", "ab", "*", "**", "?", "a*", "{a,b}", "[ab]b", r"\a"])
_EXPRESSIONS = ["re:a.*", "re:(?i)A/b", "re:.*b", "re:.*[ab]b$", "re:(a|b).*", "re:a|.*/b", "re:.*/ab?"]
_NAMES = st.lists(_SEGMENTS, min_size=1, max_size=3).map("/".join) | st.sampled_from(_EXPRESSIONS)
_TAGS = st.sampled_from(["v*", "*-rc", "v1", "re:v[0-9]", "re:.*1", "?1", "*", "{v,x}1"])
_RULES = st.tuples(
    st.lists(st.builds(named, _NAMES, _HOW), max_size=2), st.lists(st.builds(tagged, _TAGS, _HOW), max_size=2)
)
_REPOSITORIES = st.lists(st.sampled_from(["a", "b", "ab", "ba"]), min_size=1, max_size=3).map("/".join)
_ASKED = st.tuples(_REPOSITORIES.map(Repository), st.sampled_from(["v1", "v2-rc", "x", "x1"]).map(Tag))
_NUMBERS = st.integers(0, 11)


@given(
    st.lists(_RULES, max_size=12),
    st.lists(st.tuples(_NUMBERS, st.none() | _RULES), max_size=6),
    st.lists(_ASKED, min_size=1, max_size=4),
)
def test_the_index_finds_every_rule_that_wants_an_image_through_all_changes(
    first: list[Any], changes: list[tuple[int, Any]], asked: list[tuple[Repository, Tag]]
) -> None:
    with pytest.MonkeyPatch.context() as small:  # so that a dozen rules are many
        small.setattr(rule_index, "_FEW_PATTERNS", 1)
        small.setattr(rule_index, "_FEW_RULES", 1)
        small.setattr(rule_index, "_BATCH", 3)
        small.setattr(rule_index, "_CACHE_SIZE", 9)
        rules, made = {}, RuleIndex()
        for number, filters in [*enumerate(first), *changes]:
            name = f"r{number}"
            if filters is None:
                rules.pop(name, None)
                made.discard(name)
            else:
                rules[name] = rule(name, *filters[0], *filters[1])
                made.add(rules[name])
            assert {one.rule.name for one in made.all()} == rules.keys()
            for repository, tag in asked:  # some for the second time, after a change
                _leaves_out_none(made, rules, repository, tag)


def _leaves_out_none(
    made: RuleIndex, rules: dict[str, CompiledRule], repository: Repository, tag: Tag
) -> None:
    by_name, by_both = list(made.candidates(repository)), list(made.candidates(repository, tag))
    for found in (by_name, by_both):
        assert len(found) == len({id(one) for one in found})
        assert all(rules[one.rule.name] is one for one in found)
    assert {name for name, one in rules.items() if one.wants_repository(repository)} <= {
        one.rule.name for one in by_name
    }
    assert {name for name, one in rules.items() if one.wants(repository, tag)} <= {
        one.rule.name for one in by_both
    }


SHAPES = {
    "begin otherwise": (named("team-{}/**"),),
    "end otherwise": (named("**/web-{}"),),
    "an expression's end": (named("re:.*-{}$"),),
    "an expression's middle": (named("re:(?:a|b|.*)/web-{}(x|y)?"),),
    "neither end": (named("**/web-{}**"),),
    "and one more for all": (named("**"), named("**/web-{}**"), named("**/old", "excludes")),
    "by tags alone": (tagged("*-{}-*"),),
    "by tags, and names for all": (named("team-*/**"), tagged("re:.*-{}-.?"), tagged("*-rc", "excludes")),
}


@pytest.mark.parametrize("filters", SHAPES.values(), ids=SHAPES)
def test_few_of_many_rules_are_candidates_for_any_shape_of_pattern(filters: Any) -> None:
    made = RuleIndex()
    for number in range(500):
        written = [part | {"value": part["value"].replace("{}", f"{number:03}")} for part in filters]
        made.add(rule(f"r{number:03}", *written))
    made.add(rule("all"))
    asked = (Repository("team-007/web-007"), Tag("v-007-1"))
    found = [one.rule.name for one in made.candidates(*asked)]
    assert {"all", "r007"} <= set(found)
    assert len(found) <= 4
    for number in range(500):
        made.discard(f"r{number:03}")
    assert [one.rule.name for one in made.candidates(*asked)] == ["all"]
    left = made._by_name  # nothing of them
    assert not [*left._groups, *left._batches_of]
    assert left._pattern_of.keys() == {"all"}
    assert not [
        *left._by_prefix._by_prefix,
        *left._by_suffix._by_prefix,
        *left._by_prefix._lengths,
        *left._by_suffix._lengths,
    ]


def test_rules_of_one_pattern_are_found_as_one_group() -> None:
    made = RuleIndex()
    for number in range(50):
        made.add(rule(f"r{number}", named("**/app")))
    assert len(made._by_name._groups) == 1
    assert len(list(made.candidates(Repository("team/app")))) == 50
    made.discard("r7")
    assert len(list(made.candidates(Repository("team/app")))) == 49
    assert list(made.candidates(Repository("team/web"))) == []


def test_a_change_of_one_rule_recompiles_only_its_own_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[int] = []

    def watched(patterns: list[str]) -> Any:
        compiled.append(len(patterns))
        return compile_union(patterns)

    monkeypatch.setattr(rule_index, "compile_union", watched)
    made = RuleIndex()
    for number in range(1000):
        made.add(rule(f"r{number}", named(f"**/web-{number}/**")))
    assert [one.rule.name for one in made.candidates(Repository("a/web-7/b"))] == ["r7"]
    assert sum(compiled) == 1000
    compiled.clear()
    made.add(rule("r7", named("**/api-7/**")))
    assert [one.rule.name for one in made.candidates(Repository("a/api-7/b"))] == ["r7"]
    assert list(made.candidates(Repository("a/web-7/b"))) == []
    assert sum(compiled) <= rule_index._BATCH


def test_a_removed_rule_is_not_found_through_its_batch() -> None:
    made = RuleIndex()
    for number in range(9):
        made.add(rule(f"r{number}", named(f"**/web-{number}**")))
    assert len(list(made.candidates(Repository("a/web-7")))) == 1
    made.discard("r7")
    for text in ("a/web-7", "b/web-7"):  # one that was asked before, and another
        assert list(made.candidates(Repository(text))) == []


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_index, "_CACHE_SIZE", 30)
    made = RuleIndex()
    for number in range(9):
        made.add(rule(f"r{number}", named(f"**/web-{number}**")))
    for number in range(100):
        assert len(list(made.candidates(Repository(f"team-{number}/web-7")))) == 1
        assert sum(1 + len(found) for found in made._by_name._found.values()) <= 30
    assert made._by_name._found.get("team-99/web-7") is not None
    assert made._by_name._found.get("team-0/web-7") is None


def test_patterns_that_exceed_the_memory_of_one_search_are_searched_in_parts() -> None:
    patterns = [f"re:(?:[a-z]{{300}}|[b-d]){number}" for number in range(100)]
    assert compile_union(patterns) is None
    made = RuleIndex()
    for number, pattern in enumerate(patterns):
        made.add(rule(f"r{number}", named(pattern)))
    assert [one.rule.name for one in made.candidates(Repository("b7"))] == ["r7"]
    assert list(made.candidates(Repository("bb"))) == []


def test_patterns_that_exceed_the_memory_in_pairs_are_checked_one_by_one() -> None:
    long = "[a-z]{999}" * 8
    patterns = [f"re:(?:{long}|[b-d]){number}" for number in range(8)]
    assert compile_union(patterns[:2]) is None
    made = RuleIndex()
    for number, pattern in enumerate(patterns):
        made.add(rule(f"r{number}", named(pattern)))
    found = made.candidates(Repository("b7"))
    assert [one.rule.name for one in found if one.wants_repository(Repository("b7"))] == ["r7"]
