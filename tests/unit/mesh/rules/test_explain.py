"""Why a rule takes an image or not, by the same checks as `match`."""

from datetime import UTC, datetime
from typing import Any

import pytest

from mesh.rules.explain import explain
from mesh.rules.state import MeshState
from mesh.rules.validation.declarations import judge
from schemas import codec
from schemas.names import Repository, Tag
from schemas.state import StateRecord


def _state(
    rules: list[dict[str, Any]],
    grants: list[dict[str, Any]] | None = None,
    replicas: list[dict[str, Any]] | None = None,
) -> MeshState:
    document = {
        "regions": [{"name": name, "jurisdiction": "cn"} for name in ("beijing", "tianjin")],
        "instances": [
            {"name": name, "account": account, "region": "beijing", "url": f"http://127.0.0.1:{port}"}
            for name, account, port in (("cn", "game", 5001), ("eu", "game", 5002), ("other", "team", 5003))
        ],
        "rules": rules,
        "grants": grants or [],
        "replicas": replicas or [],
    }
    placed, problems = judge(document)
    assert problems == []
    state = MeshState()
    for rev, (_, thing) in enumerate(placed):
        record = StateRecord(
            id="x", time=datetime(2026, 1, 1, tzinfo=UTC), noun=thing.noun,
            value=thing.model_dump(mode="json", by_alias=True),
        )  # fmt: skip
        state.apply(thing.key, codec.encode(record), rev)
    return state


@pytest.mark.parametrize(
    ("rule", "verdict", "because"),
    [
        ({}, "yes", "all its filters hold"),
        ({"filters": [{"type": "name", "value": "web/**"}]}, "no", "filters[0] (name web/**)"),
        ({"filters": [{"type": "tag", "value": "v*", "decoration": "excludes"}]}, "no", "excludes v*"),
        ({"filters": [{"type": "resource", "value": "image"}]}, "maybe", "resource"),
        ({"enabled": False}, "no", "not enabled"),
        ({"destination": "other"}, "no", "no grant"),
        ({"trigger": {"type": "manual"}}, "yes", "manual"),
    ],
)
def test_each_rule_says_why(rule: dict[str, Any], verdict: str, because: str) -> None:
    state = _state([{"name": "r", "source": "cn", "destination": "eu", **rule}])
    source = state.instance("cn")
    assert source is not None
    (found,) = explain(state, source, Repository("game/app"), Tag("v1"))
    assert (found.verdict, because in found.because) == (verdict, True), found


def test_destination_names_are_included_and_rules_that_copy_come_first() -> None:
    rules: list[dict[str, Any]] = [
        {"name": "a", "source": "cn", "destination": "eu", "enabled": False},
        {"name": "b", "source": "cn", "destination": "eu", "destination_namespace": "mirror"},
        {"name": "elsewhere", "source": "eu", "destination": "other"},
    ]
    state = _state(rules)
    source = state.instance("cn")
    assert source is not None
    found = explain(state, source, Repository("game/app"), Tag("v1"))
    assert [(it.rule, it.verdict) for it in found] == [("b", "yes"), ("a", "no")]
    assert found[0].destination == "eu/mirror/app:v1"


def test_a_rule_that_does_not_want_an_image_is_not_blamed_for_its_mapping() -> None:
    mapped = {"destination_namespace": "n", "destination_namespace_replace_count": 3}
    web = [{"type": "name", "value": "web/**"}]
    rules = [{"name": name, "source": "cn", "destination": "eu", **mapped} for name in ("all", "web")]
    state = _state([rules[0], {**rules[1], "filters": web}])
    source = state.instance("cn")
    assert source is not None
    found = {it.rule: it.because for it in explain(state, source, Repository("game/app"), Tag("v1"))}
    assert "components before its last" in found["all"]
    assert found["web"] == "filters[0] (name web/**) does not hold of game/app"


def test_a_contested_tag_is_mentioned() -> None:
    name = [{"type": "name", "value": "game/**"}]
    rules = [
        {"name": "own", "source": "cn", "destination": "eu", "filters": name},
        {
            "name": "other",
            "source": "other",
            "destination": "eu",
            "filters": [{"type": "name", "value": "game/a*"}],
        },
    ]
    state = _state(rules[:1])
    source = state.instance("cn")
    assert source is not None
    (found,) = explain(state, source, Repository("game/app"), Tag("v1"))
    assert found.because == "all its filters hold; copied on push"
    (found,) = explain(_state(rules), source, Repository("game/app"), Tag("v1"))
    assert (found.verdict, found.because) == (
        "yes", "all its filters hold; copied on push, unless another image holds the tag there (owned_by)",
    )  # fmt: skip


def test_a_replica_is_named_as_one_and_takes_everything() -> None:
    state = _state([], replicas=[{"instance": "cn", "region": "tianjin", "url": "http://127.0.0.1:5004"}])
    source = state.place("cn")
    assert source is not None
    (found,) = explain(state, source, Repository("game/app"), Tag("v1"))
    assert (found.rule, found.replica, found.verdict) == (None, "cn@tianjin", "yes")
    assert (found.destination, found.because) == (
        "cn@tianjin/game/app:v1", "a replica takes everything; copied on push",
    )  # fmt: skip
