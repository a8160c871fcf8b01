"""Answers where an image should be, and whether it is there. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mesh.control.images.merge import TagEntry, TagKey
from mesh.control.sync_log.entry import rfc3339
from mesh.rules import naming
from mesh.rules.matching.compiled_rule import CompiledRule
from mesh.rules.state import MeshState
from schemas.names import Repository, Tag
from schemas.topology import Place

_UNKNOWN = "it is not known that {} holds this tag: its registry announced none, and no task has read it"


@dataclass(frozen=True, slots=True)
class ExpectedPlace:
    """A place that should hold a repository, the repository's name there, and the rules that copy it (none: origin)."""

    place: Place
    repository: Repository
    rules: tuple[CompiledRule, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """The names of place and repository."""
        return str(self.place.name), str(self.repository)

    @property
    def is_exclusive(self) -> bool:
        """Whether no other repository of the instance is copied to this name, so that all tags here are of one."""
        return all(naming.is_injective(compiled.rule) for compiled in self.rules)


@dataclass(frozen=True, slots=True)
class KnownTags:
    """What is known of the tags in question.

    Attributes:
        now: The present time.
        entries: What places hold.
        referrers: The number of referrers by place, repository and digest.
        rebuilt_from: By the digest of a rebuilt index, the digests that it was made from.
    """

    now: datetime
    entries: Mapping[TagKey, TagEntry]
    referrers: Mapping[tuple[str, str, str], int]
    rebuilt_from: Mapping[str, Collection[str]]


def expected_places(state: MeshState, instance: Place, repository: Repository) -> list[ExpectedPlace]:
    """Returns the places that should hold a repository of an instance: the instance first, then by name.

    A place that several rules fill under the same name comes once.
    """
    by_key: dict[tuple[str, Repository], tuple[Place, list[CompiledRule]]] = {}
    for compiled in state.candidate_rules(instance.name, repository):
        place = state.place(compiled.rule.destination)
        if place is None or not compiled.wants_repository(repository):
            continue
        try:
            name = naming.destination_of(compiled.rule, repository)
        except naming.Unmappable:
            continue
        by_key.setdefault((str(place.name), name), (place, []))[1].append(compiled)
    copies = [ExpectedPlace(by_key[key][0], key[1], tuple(by_key[key][1])) for key in sorted(by_key)]
    return [ExpectedPlace(instance, repository), *copies]


def expecting(places: Collection[ExpectedPlace], repository: Repository, tag: Tag) -> list[ExpectedPlace]:
    """Returns the places that should hold the tag: the instance, and those whose rules want it."""
    return [one for one in places if not one.rules or any(rule.wants(repository, tag) for rule in one.rules)]


def tag_as_json(
    places: Collection[ExpectedPlace], repository: Repository, tag: Tag, known: KnownTags
) -> dict[str, Any]:
    """Returns one tag as the API shows it."""
    wanted = expecting(places, repository, tag)
    first = wanted[0]
    origin = known.entries.get(TagKey(*first.key, str(tag)))
    return {
        "tag": str(tag),
        "digest": origin.digest if origin is not None else None,
        "since": rfc3339(origin.since) if origin is not None else None,
        "note": None if origin is not None else _UNKNOWN.format(first.place.name),
        "places": [_place_as_json(one, tag, origin, known) for one in wanted],
    }


def _place_as_json(
    expected: ExpectedPlace, tag: Tag, origin: TagEntry | None, known: KnownTags
) -> dict[str, Any]:
    entry = known.entries.get(TagKey(*expected.key, str(tag)))
    digest = entry.digest if entry is not None else None
    originals = known.rebuilt_from.get(digest or "", ())
    rebuilt_from = origin.digest if origin is not None and origin.digest in originals else None
    state, lag = _state(entry, origin, rebuilt_from, known.now)
    referrers = known.referrers.get((*expected.key, digest or ""), 0)
    return {
        "place": str(expected.place.name),
        "region": str(expected.place.region),
        "repository": str(expected.repository),
        "digest": digest,
        "rebuilt_from": rebuilt_from,
        "since": rfc3339(entry.since) if entry is not None else None,
        "state": state,
        "lag_ms": lag,
        "referrers": referrers
        if expected.rules or referrers
        else None,  # not counted where nothing is copied to
        "seen_by": _seen_by(entry),
        "seen_at": rfc3339(entry.seen_at) if entry is not None else None,
        "rules": sorted(str(rule.rule.name) for rule in expected.rules if rule.rule.replica is None),
    }


def _state(
    entry: TagEntry | None, origin: TagEntry | None, rebuilt_from: str | None, now: datetime
) -> tuple[str, int | None]:
    """Returns the state and the lag in ms.

    `current`: the place was seen to hold the origin's digest; `announced`: it only announced so. `behind`, `missing`;
    `unknown` when the origin's digest is not known.
    """
    if origin is None:
        return "unknown", None
    if entry is not None and origin.digest in (entry.digest, rebuilt_from):
        state = "current" if entry.seen_at is not None else "announced"
        return state, _milliseconds(entry.since - origin.since)
    return ("missing" if entry is None else "behind"), _milliseconds(now - origin.since)


def _milliseconds(time: timedelta) -> int:
    return max(0, time // timedelta(milliseconds=1))


def _seen_by(entry: TagEntry | None) -> str | None:
    if entry is None:
        return None
    return "agent" if entry.seen_at is not None else "notification"
