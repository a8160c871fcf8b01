"""Whether an image has come to regions, and if not, why. Pure: from what control's API answers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def waited_for(item: Row, instance: str, regions: Sequence[str]) -> list[Row]:
    """The places to wait for: those of `regions`, or of all that are filled from the instance."""
    if regions:
        return [row for row in item["places"] if row["region"] in regions]
    return [row for row in item["places"] if row["place"] != instance]


def without_place(item: Row, regions: Iterable[str]) -> list[str]:
    """Of `regions` those in which no place is to hold the image."""
    there = {row["region"] for row in item["places"]}
    return sorted(set(regions) - there)


def has_come(row: Row, instance: str, digest: str | None) -> bool:
    """An agent saw the digest at the place by HEAD; of the instance itself its registry's word is enough."""
    if digest is None or digest not in (row["digest"], row["rebuilt_from"]):
        return False
    return bool(row["place"] == instance or row["seen_by"] == "agent")


def why_not(row: Row, digest: str | None, agents: Sequence[Row], ends: Sequence[Row]) -> str:
    """One reason, the first that somebody has to see to. `ends` are of the sync log, the newest first."""
    if digest is None:
        return "it is not known which digest the instance's tag names; name one with --digest"
    here = [agent for agent in agents if agent["region"] == row["region"]]
    if not here:
        return f"no agent runs in region {row['region']}"
    states = sorted(agent["places"][row["place"]] for agent in here if row["place"] in agent["places"])
    if states and states[0].startswith("Failed"):
        return str(states[0])
    waiting = sum(agent["waiting"].get(row["place"], {"tasks": 0})["tasks"] for agent in here)
    if waiting:
        return f"still {waiting} task{'s' if waiting > 1 else ''} before it or its own"
    if row["digest"] is not None and row["state"] == "current" and row["seen_by"] == "agent":
        return f"{row['digest'][:19]} is there, as at the instance"  # and another digest was asked for
    return _last_end(row, ends) or _what_is_there(row)


def _last_end(row: Row, ends: Sequence[Row]) -> str | None:
    """What became of the newest task that was to bring it, when it brought nothing."""
    name = f"{row['place']}/{row['repository']}"
    found = next((end for end in ends if end["destination"].startswith((f"{name}:", f"{name}@"))), None)
    if found is None or found["error"] is None:
        return None
    return f"its task ended {found['status']}: {found['error']['code']}: {found['error']['message']}"


def _what_is_there(row: Row) -> str:
    if row["digest"] is None:
        return "nothing is there under this tag, and no task is known that would bring it"
    by = " by its registry's word alone" if row["seen_by"] != "agent" else ""
    return f"{row['digest'][:19]} is there{by}, and no task is known that would bring another"
