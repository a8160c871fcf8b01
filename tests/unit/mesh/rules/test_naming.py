"""Namespace mapping: Harbor's own table, one name for one repository where it says so, and never a wrong name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.rules import naming
from mesh.rules.matching.patterns import compile_pattern
from mesh.rules.naming import Unmappable, mapped
from mesh.rules.validation.declarations import judge
from schemas.names import Repository
from schemas.rules import Rule

_LETTERS = st.text("az09", min_size=1, max_size=12)
_WORDS = _LETTERS | st.tuples(_LETTERS, st.sampled_from("._-"), _LETTERS).map("".join)
REPOSITORIES = st.lists(_WORDS, min_size=1, max_size=12).map("/".join).map(Repository)
COUNTS = st.integers(-1, 12)


@pytest.mark.parametrize(
    ("count", "name"),
    [(-1, "n/image"), (0, "n/a/b/c/image"), (1, "n/b/c/image"), (2, "n/c/image"), (3, "n/image")],
)
def test_as_harbor_maps(count: int, name: str) -> None:
    assert mapped(Repository("a/b/c/image"), Repository("n"), count) == name


def test_more_components_than_there_are_is_no_name() -> None:
    with pytest.raises(Unmappable, match="has 3 components before its last"):
        mapped(Repository("a/b/c/image"), Repository("n"), 4)


def test_a_name_that_would_be_too_long_is_no_name() -> None:
    with pytest.raises(Unmappable, match="257 characters"):
        mapped(Repository("a" * 255), Repository("n"), 0)
    assert len(mapped(Repository("a" * 253), Repository("n"), 0)) == 255


@given(REPOSITORIES, REPOSITORIES, COUNTS)
def test_every_repository_has_a_right_name_or_a_stated_refusal(
    repository: Repository, namespace: Repository, count: int
) -> None:
    try:
        name = mapped(repository, namespace, count)
    except Unmappable:
        assert count > repository.count("/") or len(namespace) + len(repository) >= 255
        return
    assert Repository(str(name)) == name
    assert name.startswith(f"{namespace}/")
    assert name.rpartition("/")[2] == repository.rpartition("/")[2]
    kept = name.removeprefix(f"{namespace}/")
    assert repository == kept or repository.endswith(f"/{kept}")


@given(REPOSITORIES, REPOSITORIES, st.none() | REPOSITORIES)
def test_nothing_replaced_keeps_different_names_different(
    one: Repository, other: Repository, namespace: Repository | None
) -> None:
    rule = _rule(destination_namespace=namespace, count=0 if namespace else -1)
    assert naming.is_injective(rule)
    try:
        names = [naming.destination_of(rule, it) for it in (one, other)]
    except Unmappable:
        return
    assert (names[0] == names[1]) == (one == other)
    assert naming.source_of(rule, names[0]) == one


@pytest.mark.parametrize("count", [-1, 1])
def test_what_replaces_components_may_bring_two_under_one_name(count: int) -> None:
    rule = _rule(destination_namespace="n", count=count)
    assert not naming.is_injective(rule)
    assert naming.destination_of(rule, Repository("a/x")) == naming.destination_of(rule, Repository("b/x"))


@given(st.from_regex(r"(?:[a-c*?]{1,3}/){0,3}[a-c*?]{1,3}", fullmatch=True), REPOSITORIES, st.integers(0, 5))
def test_a_rule_refused_for_its_patterns_maps_nothing_that_they_match(
    glob: str, repository: Repository, count: int
) -> None:
    rule = _rule(destination_namespace="n", count=count, filters=[{"type": "name", "value": glob}])
    if list(naming.problems(rule)) and compile_pattern(glob)(repository):
        with pytest.raises(Unmappable):
            naming.destination_of(rule, repository)


@pytest.mark.parametrize(
    ("fields", "path", "message"),
    [
        ({"destination_namespace_replace_count": 1}, "_replace_count", "does nothing without"),
        (
            {"destination_namespace": "n", "destination_namespace_replace_count": 2},
            "_replace_count",
            "too many",
        ),
        ({"destination_namespace": "n" * 253}, "", "would be 257 characters"),
        ({"destination_namespace": "N"}, "", "is not a repository name"),
        ({"destination_namespace": ""}, "", "is not a repository name"),
        (
            {"destination_namespace": "n", "destination_namespace_replace_count": -2},
            "_replace_count",
            "greater",
        ),
        (
            {"destination_namespace": "n", "destination_namespace_replace_count": True},
            "_replace_count",
            "whole number",
        ),
    ],
)
def test_what_can_be_decided_is_refused_when_declared(
    fields: dict[str, object], path: str, message: str
) -> None:
    rule = {"name": "r", "source": "a", "destination": "b", "filters": [{"type": "name", "value": "a/app"}]}
    where = {problem.where: problem.message for problem in judge({"rules": [rule | fields]})[1]}
    assert message in where[f"rules[0].destination_namespace{path}"]


def _rule(
    *, destination_namespace: str | None, count: int, filters: list[dict[str, str]] | None = None
) -> Rule:
    return Rule.model_validate(
        {
            "name": "r", "source": "a", "destination": "b", "filters": filters or [],
            "destination_namespace": destination_namespace, "destination_namespace_replace_count": count,
        }
    )  # fmt: skip
