"""What `regmesh wait` waits for, and the reason it gives for an image that has not arrived."""

from typing import Any

import pytest

from mesh.node.cli.arrival import expected_places, has_arrived, missing_reason, regions_without_place

DIGEST, OTHER = "sha256:" + "ab" * 32, "sha256:" + "cd" * 32


def row(place: str = "cn@shanghai", region: str = "shanghai", **changes: Any) -> dict[str, Any]:
    values = {"place": place, "region": region, "repository": "app", "digest": DIGEST, "rebuilt_from": None}
    values["state"] = "behind"
    return values | {"seen_by": "agent"} | changes


ITEM = {"places": [row("cn", "beijing", seen_by="notification"), row(), row("eu", "frankfurt")]}


def agent(place: str = "Ready", tasks: int = 0) -> dict[str, Any]:
    waiting = {"cn@shanghai": {"tasks": tasks}} if tasks else {}
    return {"region": "shanghai", "places": {"cn@shanghai": place}, "waiting": waiting}


def end(
    status: str = "Skipped", destination: str = "cn@shanghai/app:v1", code: str | None = "filtered"
) -> dict[str, Any]:
    error = {"code": code, "message": "not wanted"} if code else None
    return {"status": status, "destination": destination, "error": error}


def test_all_places_are_expected_or_those_of_the_named_regions() -> None:
    assert [it["place"] for it in expected_places(ITEM, "cn", [])] == ["cn@shanghai", "eu"]
    assert [it["place"] for it in expected_places(ITEM, "cn", ["beijing", "frankfurt"])] == ["cn", "eu"]
    assert regions_without_place(ITEM, ["frankfurt", "oslo"]) == ["oslo"]


@pytest.mark.parametrize(
    ("changes", "wanted", "come"),
    [
        ({}, DIGEST, True),
        ({}, OTHER, False),
        ({}, None, False),
        ({"digest": None, "seen_by": None}, DIGEST, False),
        ({"seen_by": "notification"}, DIGEST, False),  # no agent has read it
        ({"seen_by": "notification", "place": "cn"}, DIGEST, True),
        ({"rebuilt_from": OTHER}, OTHER, True),
    ],
)
def test_an_image_has_arrived_when_an_agent_has_read_it(
    changes: dict[str, Any], wanted: str | None, come: bool
) -> None:
    assert has_arrived(row(**changes), "cn", wanted) is come


@pytest.mark.parametrize(
    ("agents", "ends", "changes", "wanted", "reason"),
    [
        ([agent()], [], {}, None, "it is not known which digest"),
        ([], [end()], {}, OTHER, "no agent runs in region shanghai"),
        ([agent(), agent("Failed: no answer", 3)], [end()], {}, OTHER, "Failed: no answer"),
        ([agent(tasks=2), agent(tasks=1)], [end()], {}, OTHER, "3 tasks for this place still waiting"),
        (
            [agent()],
            [end(destination="eu/app:v1"), end()],
            {},
            OTHER,
            "its task ended Skipped: filtered: not wanted",
        ),
        (
            [agent()],
            [end("Succeed", code=None)],
            {},
            OTHER,
            "it holds sha256:abababababab, and no task is known",
        ),
        (
            [agent()],
            [end()],
            {"state": "current"},
            OTHER,
            "it holds sha256:abababababab, as the instance does",
        ),
        ([agent()], [], {"digest": None}, OTHER, "it has no such tag, and no task"),
        (
            [agent()],
            [],
            {"seen_by": "notification"},
            DIGEST,
            "it holds sha256:abababababab according to its registry",
        ),
    ],
)
def test_the_first_reason_that_needs_action_is_given(agents, ends, changes, wanted, reason) -> None:
    assert reason in missing_reason(row(**changes), wanted, agents, ends)
