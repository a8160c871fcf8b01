"""Rules that would write one tag from two sources: refused when the patterns say so, else left to the agent."""

from typing import Any

import pytest

from mesh.rules.problems import PlacedDeclaration
from mesh.rules.validation import conflicts
from mesh.rules.validation.declarations import judge
from schemas.names import Repository
from schemas.rules import Rule

ALL: list[dict[str, str]] = []


def _name(value: str) -> dict[str, str]:
    return {"type": "name", "value": value}


def _tag(value: str, decoration: str = "matches") -> dict[str, str]:
    return {"type": "tag", "value": value, "decoration": decoration}


def _rule(name: str, source: str, filters: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"name": name, "source": source, "destination": "hub", "filters": filters, **more}


def _conflicts(*rules: dict[str, Any]) -> list[str]:
    document = {
        "regions": [{"name": "eu", "jurisdiction": "global"}],
        "instances": [
            {"name": name, "account": "game", "region": "eu", "url": "http://127.0.0.1:5000"}
            for name in ("cn", "us", "hub")
        ],
        "rules": list(rules),
    }
    problems = judge(document)[1]
    assert all("writes the same tags" in problem.message for problem in problems), problems
    return [problem.where for problem in problems]


def _rebuilt(*platforms: str) -> dict[str, Any]:
    return {"type": "platform", "value": list(platforms), "mode": "rebuilt"}


NS = {"destination_namespace": "n"}
FLAT0 = {"destination_namespace": "n", "destination_namespace_replace_count": 0}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (_rule("a", "cn", ALL), _rule("b", "us", ALL)),
        (_rule("a", "cn", [_name("x/**")]), _rule("b", "us", [_name("x/**")])),
        (_rule("a", "cn", ALL), _rule("b", "us", [_name("x/**"), _tag("*-rc")])),
        (_rule("a", "cn", [_name("x/app")]), _rule("b", "us", [_name("x/*")])),
        (_rule("a", "cn", [_name("x/app")]), _rule("b", "us", [_name("re:x/.*")])),
        (_rule("a", "cn", [_name("n/app")]), _rule("b", "us", [_name("app")], **NS)),
        (_rule("a", "cn", [_name("n/x/app")]), _rule("b", "us", [_name("x/**")], **FLAT0)),
        (_rule("a", "cn", [_name("x/app")], **NS), _rule("b", "cn", [_name("y/app")], **NS)),
        (_rule("a", "cn", [_name("n/app")]), _rule("b", "cn", [_name("app")], **FLAT0)),
        (_rule("a", "cn", [_tag("latest")]), _rule("b", "us", [_tag("l*")])),
        (_rule("a", "cn", ALL), _rule("b", "cn", [_rebuilt("linux/amd64")])),
        (_rule("a", "cn", [_rebuilt("linux/arm64")]), _rule("b", "cn", [_rebuilt("linux/amd64")])),
        (_rule("a", "cn", [_rebuilt("linux/amd64")]), _rule("b", "us", ALL)),
    ],
)
def test_certain_conflicts_are_refused_in_either_order(one: dict[str, Any], other: dict[str, Any]) -> None:
    both = ["rules[0].destination", "rules[1].destination"]
    assert _conflicts(one, other) == _conflicts(other, one) == both


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (_rule("a", "cn", [_tag("a-*")]), _rule("b", "cn", [_tag("b-*")])),  # one source
        (_rule("a", "cn", ALL, **FLAT0), _rule("b", "cn", ALL, **FLAT0)),
        (
            _rule("a", "cn", ALL, destination_namespace="cn"),
            _rule("b", "us", ALL, destination_namespace="us"),
        ),
        (_rule("a", "cn", [_name("x/app")]), _rule("b", "us", [_name("x/web")])),
        (_rule("a", "cn", [_name("x/app")]), _rule("b", "us", [_name("y/**")])),
        (_rule("a", "cn", [_tag("one")]), _rule("b", "us", [_tag("two")])),
        (_rule("a", "cn", [_tag("one")]), _rule("b", "us", [_tag("one", "excludes")])),
        (
            _rule("a", "cn", [{"type": "resource", "value": "image"}]),
            _rule("b", "us", [{"type": "resource", "value": "chart"}]),
        ),
        (_rule("a", "cn", ALL), _rule("b", "us", ALL, enabled=False)),
        (_rule("a", "cn", ALL), _rule("b", "us", ALL) | {"destination": "cn"}),
        (_rule("a", "cn", [{"type": "semver", "value": ">=1"}]), _rule("b", "us", [_tag("latest")])),
        (
            _rule("a", "cn", [_rebuilt("linux/amd64")]),
            _rule("b", "cn", [_rebuilt("linux/amd64"), _name("x/**")]),
        ),
        (_rule("a", "cn", [_rebuilt("linux/amd64"), _tag("a")]), _rule("b", "cn", [_tag("b")])),
        # Only the artifacts can decide: these are left to the agent.
        (_rule("a", "cn", [_name("x/**")]), _rule("b", "us", [_name("x/a*")])),
        (_rule("a", "cn", [_name("x/**")], **NS), _rule("b", "us", [_name("y/**")], **NS)),
        (_rule("a", "cn", [_tag("a*")]), _rule("b", "us", [_tag("*b")])),
    ],
)
def test_uncertain_conflicts_are_accepted(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert _conflicts(one, other) == _conflicts(other, one) == []


def test_a_new_rule_is_compared_with_declared_ones() -> None:
    declared = Rule.model_validate(_rule("a", "cn", ALL))
    new = Rule.model_validate(_rule("b", "us", ALL))
    found = list(
        conflicts.problems([PlacedDeclaration(("rules", 0), new)], {it.key: it for it in (declared, new)})
    )
    assert [path for path, _ in found] == [("rules", 0, "destination")]
    assert "rule 'a'" in found[0][1]
    assert "from another source ('cn')" in found[0][1]


@pytest.mark.parametrize(
    ("rules", "repository", "contested"),
    [
        ([_rule("a", "cn", ALL)], "x/app", False),
        ([_rule("a", "cn", ALL), _rule("b", "cn", ALL)], "x/app", False),
        ([_rule("a", "cn", ALL), _rule("b", "us", ALL)], "x/app", True),
        ([_rule("a", "cn", ALL), _rule("b", "us", ALL, **NS)], "x/app", False),
        ([_rule("a", "cn", ALL), _rule("b", "us", ALL, **FLAT0)], "n/app", True),
        ([_rule("a", "cn", ALL, **NS)], "n/app", True),  # two of its own repositories can come to one name
        ([_rule("a", "cn", ALL, **FLAT0)], "n/app", False),
    ],
)
def test_where_an_agent_has_to_ask_who_owns_a_tag(
    rules: list[dict[str, Any]], repository: str, contested: bool
) -> None:
    routes = {conflicts.route_of(Rule.model_validate(rule)) for rule in rules}
    assert conflicts.is_contested(routes, Repository(repository)) is contested


def test_ten_thousand_rules_are_compared_quickly() -> None:
    rules = [
        Rule.model_validate(_rule(f"r{n}", "cn", [_name(f"team-{n}/**")], destination_namespace=f"ns-{n}"))
        for n in range(10_000)
    ]
    placed = [PlacedDeclaration(("rules", index), rule) for index, rule in enumerate(rules)]
    assert list(conflicts.problems(placed, {rule.key: rule for rule in rules})) == []


def test_a_conflict_of_two_names_of_one_source_says_which() -> None:
    document = {
        "regions": [{"name": "eu", "jurisdiction": "global"}],
        "instances": [
            {"name": name, "account": "game", "region": "eu", "url": "http://127.0.0.1:5000"}
            for name in ("cn", "hub")
        ],
        "rules": [_rule("a", "cn", [_name("x/app")], **NS), _rule("b", "cn", [_name("y/app")], **NS)],
    }
    messages = [problem.message for problem in judge(document)[1]]
    assert ["from cn/y/app;" in messages[0], "from cn/x/app;" in messages[1], len(messages)] == [
        True,
        True,
        2,
    ]
