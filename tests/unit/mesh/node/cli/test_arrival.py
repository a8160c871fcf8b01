"""What `regmesh wait` waits for, and why it waits in vain."""

from typing import Any

import pytest

from mesh.node.cli.arrival import has_come, waited_for, why_not, without_place

DIGEST, OTHER = "sha256:" + "ab" * 32, "sha256:" + "cd" * 32


def row(place: str = "cn@shanghai", region: str = "shanghai", **changes: Any) -> dict[str, Any]:
    told = {"place": place, "region": region, "repository": "app", "digest": DIGEST, "rebuilt_from": None}
    told["state"] = "behind"
    return told | {"seen_by": "agent"} | changes


ITEM = {"places": [row("cn", "beijing", seen_by="notification"), row(), row("eu", "frankfurt")]}


def agent(place: str = "Ready", tasks: int = 0) -> dict[str, Any]:
    waiting = {"cn@shanghai": {"tasks": tasks}} if tasks else {}
    return {"region": "shanghai", "places": {"cn@shanghai": place}, "waiting": waiting}


def end(
    status: str = "Skipped", destination: str = "cn@shanghai/app:v1", code: str | None = "filtered"
) -> dict[str, Any]:
    error = {"code": code, "message": "not wanted"} if code else None
    return {"status": status, "destination": destination, "error": error}


def test_all_that_is_filled_is_waited_for_or_the_regions_that_are_named() -> None:
    assert [it["place"] for it in waited_for(ITEM, "cn", [])] == ["cn@shanghai", "eu"]
    assert [it["place"] for it in waited_for(ITEM, "cn", ["beijing", "frankfurt"])] == ["cn", "eu"]
    assert without_place(ITEM, ["frankfurt", "oslo"]) == ["oslo"]


@pytest.mark.parametrize(
    ("changes", "wanted", "come"),
    [
        ({}, DIGEST, True),
        ({}, OTHER, False),
        ({}, None, False),
        ({"digest": None, "seen_by": None}, DIGEST, False),
        ({"seen_by": "notification"}, DIGEST, False),  # nobody of ours looked
        ({"seen_by": "notification", "place": "cn"}, DIGEST, True),
        ({"rebuilt_from": OTHER}, OTHER, True),
    ],
)
def test_what_counts_is_what_an_agent_saw(changes: dict[str, Any], wanted: str | None, come: bool) -> None:
    assert has_come(row(**changes), "cn", wanted) is come


@pytest.mark.parametrize(
    ("agents", "ends", "changes", "wanted", "reason"),
    [
        ([agent()], [], {}, None, "it is not known which digest"),
        ([], [end()], {}, OTHER, "no agent runs in region shanghai"),
        ([agent(), agent("Failed: no answer", 3)], [end()], {}, OTHER, "Failed: no answer"),
        ([agent(tasks=2), agent(tasks=1)], [end()], {}, OTHER, "still 3 tasks before it"),
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
            "sha256:abababababab is there, and no task is known",
        ),
        ([agent()], [end()], {"state": "current"}, OTHER, "sha256:abababababab is there, as at the instance"),
        ([agent()], [], {"digest": None}, OTHER, "nothing is there under this tag"),
        ([agent()], [], {"seen_by": "notification"}, DIGEST, "is there by its registry's word alone"),
    ],
)
def test_the_first_reason_that_somebody_has_to_see_to(agents, ends, changes, wanted, reason) -> None:
    assert reason in why_not(row(**changes), wanted, agents, ends)
