"""Where an image should be, by what is declared, and what is said of each place."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mesh.control.images import where
from mesh.control.images.merge import TagEntry, TagKey
from schemas.events import Cause
from schemas.names import Repository, Tag
from tests.support.control_site import NOW
from tests.unit.mesh.control.status.test_diagnosis import state_of

DIGEST, OTHER = "sha256:" + "ab" * 32, "sha256:" + "cd" * 32
REPOSITORY, TAG = Repository("team/app"), Tag("v1")
MESH: dict[str, Any] = {
    "regions": [{"name": name, "jurisdiction": "x"} for name in ("cn", "eu")],
    "instances": [
        {"name": name, "account": "x", "region": region, "url": f"http://127.0.0.1:{port}"}
        for name, region, port in (("a", "cn", 1), ("b", "eu", 2), ("c", "eu", 3))
    ],
    "replicas": [{"instance": "a", "region": "eu", "url": "http://127.0.0.1:4"}],
    "rules": [
        {"name": "one", "source": "a", "destination": "b", "filters": [{"type": "tag", "value": "v*"}]},
        {"name": "two", "source": "a", "destination": "b", "filters": [{"type": "tag", "value": "*1"}]},
        {"name": "flat", "source": "a", "destination": "c", "destination_namespace": "n"},
        {
            "name": "others",
            "source": "a",
            "destination": "c",
            "filters": [{"type": "name", "value": "web/*"}],
        },
        {"name": "off", "source": "a", "destination": "c", "enabled": False},
    ],
}


def expected() -> list[where.ExpectedPlace]:
    state = state_of(MESH)
    source = state.place("a")
    assert source is not None
    return where.expected_places(state, source, REPOSITORY)


def entry(digest: str, ago: int, by: Cause = Cause.ARRIVAL) -> TagEntry:
    since = NOW - timedelta(seconds=ago)
    return TagEntry(digest, since, by, 1, None if by is Cause.NOTIFICATION else since)


def rows(
    rebuilt_from: dict[str, set[str]] | None = None, tag: Tag = TAG, **places: TagEntry
) -> dict[str, dict[str, Any]]:
    """Of what places hold under the tag, by their names (`a_eu` for a@eu)."""
    names = {"a": "team/app", "b": "team/app", "c": "n/app", "a_eu": "team/app"}
    found = {TagKey(name.replace("_", "@"), names[name], str(tag)): one for name, one in places.items()}
    known = where.KnownTags(NOW, found, {("b", "team/app", DIGEST): 3}, rebuilt_from or {})
    item = where.tag_as_json(expected(), REPOSITORY, tag, known)
    return {row["place"]: row for row in item["places"]} | {"": item}


def test_the_instance_its_replicas_and_the_destinations_of_rules_each_once() -> None:
    found = [(one.place.name, one.repository, [it.rule.name for it in one.rules]) for one in expected()]
    assert [(name, repository, sorted(by)) for name, repository, by in found] == [
        ("a", "team/app", []),
        ("a@eu", "team/app", ["a@eu"]),
        ("b", "team/app", ["one", "two"]),
        ("c", "n/app", ["flat"]),
    ]
    assert [one.is_exclusive for one in expected()] == [True, True, True, False]
    assert [one.place.name for one in where.expecting(expected(), REPOSITORY, Tag("x9"))] == [
        "a",
        "a@eu",
        "c",
    ]


def test_current_behind_and_missing() -> None:
    found = rows(a=entry(DIGEST, 60, Cause.NOTIFICATION), a_eu=entry(OTHER, 90), b=entry(DIGEST, 58))
    assert {name: (row["state"], row["lag_ms"]) for name, row in found.items() if name} == {
        "a": ("announced", 0), "a@eu": ("behind", 60_000), "b": ("current", 2_000), "c": ("missing", 60_000),
    }  # fmt: skip
    assert (found["b"]["referrers"], found["a@eu"]["referrers"], found["a"]["referrers"]) == (3, 0, None)
    assert (found["b"]["rules"], found["a@eu"]["rules"]) == (["one", "two"], [])
    assert [found[name]["seen_by"] for name in ("a", "b", "c")] == ["notification", "agent", None]
    assert (found[""]["digest"], found[""]["note"]) == (DIGEST, None)


def test_only_what_was_seen_is_current_with_the_time_when_it_was_seen() -> None:
    seen = replace(entry(DIGEST, 60, Cause.NOTIFICATION), seen_at=NOW - timedelta(seconds=5))
    found = rows(a=seen, a_eu=entry(DIGEST, 50, Cause.NOTIFICATION), b=entry(DIGEST, 40))
    assert {
        name: (row["state"], row["seen_by"], row["seen_at"]) for name, row in found.items() if name
    } == {
        "a": ("current", "agent", "2026-03-01T07:59:55Z"), "a@eu": ("announced", "notification", None),
        "b": ("current", "agent", "2026-03-01T07:59:20Z"), "c": ("missing", None, None),
    }  # fmt: skip
    assert found["a@eu"]["lag_ms"] == 10_000


def test_a_place_that_had_it_before_the_instance_announced_it_has_no_lag() -> None:
    assert rows(a=entry(DIGEST, 10), b=entry(DIGEST, 20))["b"]["lag_ms"] == 0


def test_an_unknown_digest_of_the_instance_is_stated() -> None:
    found = rows(b=entry(DIGEST, 5))
    assert {(row["state"], row["lag_ms"]) for name, row in found.items() if name} == {("unknown", None)}
    assert (found[""]["digest"], found["b"]["digest"]) == (None, DIGEST)
    assert "it is not known that a holds this tag" in found[""]["note"]


@pytest.mark.parametrize(("rebuilt_from", "state"), [({OTHER: {DIGEST}}, "current"), ({}, "behind")])
def test_an_index_rebuilt_from_the_instances_is_current(rebuilt_from, state) -> None:
    found = rows(rebuilt_from, a=entry(DIGEST, 60), b=entry(OTHER, 50))
    assert found["b"]["state"] == state
    assert found["b"]["rebuilt_from"] == (DIGEST if rebuilt_from else None)
