"""Decides whether an image has arrived in regions, and if not, why; pure, from answers of control's API."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]  # a place of an item of `/api/v1/images`


def expected_places(item: Row, instance: str, regions: Sequence[str]) -> list[Row]:
    """Returns the places to wait for: those in `regions`, or without any all but the instance itself."""
    if regions:
        return [row for row in item["places"] if row["region"] in regions]
    return [row for row in item["places"] if row["place"] != instance]


def regions_without_place(item: Row, regions: Iterable[str]) -> list[str]:
    """Returns the regions in which no place should hold the image."""
    return sorted(set(regions) - {row["region"] for row in item["places"]})


def has_arrived(row: Row, instance: str, digest: str | None) -> bool:
    """Checks whether an agent has read the digest from the place; for the instance a notification is enough."""
    if digest is None or digest not in (row["digest"], row["rebuilt_from"]):
        return False
    return bool(row["place"] == instance or row["seen_by"] == "agent")


def missing_reason(row: Row, digest: str | None, agents: Sequence[Row], entries: Sequence[Row]) -> str:
    """Returns the first reason that needs action. `entries` are of the sync log, the newest first."""
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
        return f"{waiting} task{'s' if waiting > 1 else ''} for this place still waiting or running"
    if row["digest"] is not None and row["state"] == "current" and row["seen_by"] == "agent":
        return f"it holds {row['digest'][:19]}, as the instance does"  # and --digest names another one
    return _failed_task(row, entries) or _what_it_holds(row)


def _failed_task(row: Row, entries: Sequence[Row]) -> str | None:
    """Returns how the newest task of the image ended at the place, unless it succeeded."""
    name = f"{row['place']}/{row['repository']}"
    newest = next((it for it in entries if it["destination"].startswith((f"{name}:", f"{name}@"))), None)
    if newest is None or newest["error"] is None:
        return None
    return f"its task ended {newest['status']}: {newest['error']['code']}: {newest['error']['message']}"


def _what_it_holds(row: Row) -> str:
    if row["digest"] is None:
        return "it has no such tag, and no task is known that would copy it"
    source = " according to its registry" if row["seen_by"] != "agent" else ""
    return f"it holds {row['digest'][:19]}{source}, and no task is known that would copy another digest"
