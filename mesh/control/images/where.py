"""Where an image should be, and whether it is there. Pure: from what is declared and what is held to an answer."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mesh.control.images.merge import Held, Key
from mesh.control.sync_log.entry import rfc3339
from mesh.rules import naming
from mesh.rules.matching.compiled_rule import CompiledRule
from mesh.rules.state import MeshState
from schemas.events import Cause
from schemas.names import Repository, Tag
from schemas.topology import Place

_UNKNOWN = "it is not known that {} holds this tag: its registry announced none, and no task has read it"


@dataclass(frozen=True, slots=True)
class Spot:
    """A place that should hold a repository, and what brings it there; nothing: it is the instance itself."""

    place: Place
    repository: Repository  # its name here
    by: tuple[CompiledRule, ...] = ()

    @property
    def holder(self) -> tuple[str, str]:
        return str(self.place.name), str(self.repository)

    @property
    def has_no_others(self) -> bool:
        """No other repository of the instance gets this name, so every tag here is one of it."""
        return all(naming.is_injective(compiled.rule) for compiled in self.by)


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known of the tags that are asked for. `made_from`: digests of which a place holds parts as another."""

    now: datetime
    held: Mapping[Key, Held]
    referrers: Mapping[tuple[str, str, str], int]
    made_from: Mapping[str, Collection[str]]


def spots(state: MeshState, instance: Place, repository: Repository) -> list[Spot]:
    """The instance first, then by name; a place that several rules fill alike stands once."""
    by: dict[tuple[str, Repository], tuple[Place, list[CompiledRule]]] = {}
    for compiled in state.candidate_rules(instance.name, repository):
        place = state.place(compiled.rule.destination)
        if place is None or not compiled.wants_repository(repository):
            continue
        try:
            name = naming.destination_of(compiled.rule, repository)
        except naming.Unmappable:
            continue
        by.setdefault((str(place.name), name), (place, []))[1].append(compiled)
    found = [
        Spot(place, name, tuple(rules))
        for (_, name), (place, rules) in sorted(by.items(), key=lambda it: it[0])
    ]
    return [Spot(instance, repository), *found]


def wanted(found: Collection[Spot], repository: Repository, tag: Tag) -> list[Spot]:
    """Those that should hold the tag: the instance, and where a rule wants it."""
    return [spot for spot in found if not spot.by or any(rule.wants(repository, tag) for rule in spot.by)]


def answer(found: Collection[Spot], repository: Repository, tag: Tag, sight: Sight) -> dict[str, Any]:
    """One tag as the API shows it."""
    first, *others = wanted(found, repository, tag)
    origin = sight.held.get(Key(*first.holder, str(tag)))
    return {
        "tag": str(tag),
        "digest": origin.digest if origin is not None else None,
        "since": rfc3339(origin.since) if origin is not None else None,
        "note": None if origin is not None else _UNKNOWN.format(first.place.name),
        "places": [_row(spot, tag, origin, sight) for spot in (first, *others)],
    }


def _row(spot: Spot, tag: Tag, origin: Held | None, sight: Sight) -> dict[str, Any]:
    held = sight.held.get(Key(*spot.holder, str(tag)))
    digest = held.digest if held is not None else None
    made_from = sight.made_from.get(digest or "", ())
    original = origin.digest if origin is not None and origin.digest in made_from else None
    state, lag = _state(held, origin, original, sight.now)
    known = sight.referrers.get((*spot.holder, digest or ""), 0)
    return {
        "place": str(spot.place.name),
        "region": str(spot.place.region),
        "repository": str(spot.repository),
        "digest": digest,
        "rebuilt_from": original,
        "since": rfc3339(held.since) if held is not None else None,
        "state": state,
        "lag_ms": lag,
        "referrers": known if spot.by or known else None,  # of what only pushes to it nobody counts them
        "seen_by": _seen_by(held),
        "rules": sorted(str(rule.rule.name) for rule in spot.by if rule.rule.replica is None),
    }


def _state(
    held: Held | None, origin: Held | None, original: str | None, now: datetime
) -> tuple[str, int | None]:
    """`current`, `behind` or `missing`, and by how much; `unknown` while what the instance holds is not known."""
    if origin is None:
        return "unknown", None
    if held is not None and origin.digest in (held.digest, original):
        return "current", _ms(held.since - origin.since)
    return ("missing" if held is None else "behind"), _ms(now - origin.since)


def _ms(time: timedelta) -> int:
    return max(0, time // timedelta(milliseconds=1))


def _seen_by(held: Held | None) -> str | None:
    if held is None:
        return None
    return "notification" if held.written_by is Cause.NOTIFICATION else "agent"
