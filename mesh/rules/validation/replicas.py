"""Replicas and rules with `prefetch`: what must not be declared, above all nothing that leaves its jurisdiction."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from mesh.rules.problems import PlacedDeclaration, Problem
from schemas.declared import Declared
from schemas.names import Region
from schemas.rules import NameFilter, Rule
from schemas.topology import Instance, RegionDeclaration, Replica

_Everything = Mapping[str, Declared]
_PORTS = {"http": 80, "https": 443}


class _Violation(NamedTuple):
    field: str
    text: str
    by: str | None = None  # the key of the declaration that it collides with


def problems(placed: Sequence[PlacedDeclaration], everything: _Everything) -> Iterable[Problem]:
    """Yields what is wrong with new declarations, and new ones that make earlier declarations wrong."""
    reported = set[str]()
    for path, thing in placed:
        for violation in _violations(thing, everything):
            reported.add(thing.key)
            yield Problem((*path, violation.field), violation.text)
    for key in sorted(everything.keys() - reported - {thing.key for _, thing in placed}):
        for violation in _violations(everything[key], everything):
            causes = {*_dependencies(everything[key], everything), violation.by}
            for path, thing in placed:
                if thing.key in causes:
                    yield Problem(path, f"with it {key} would not be allowed any more: {violation.text}")


def _dependencies(thing: Declared, everything: _Everything) -> set[str]:
    """Returns the keys of a thing's instances, and of the regions of all of them."""
    named = {thing.instance} if isinstance(thing, Replica) else set[str]()
    named |= {thing.source, thing.destination} if isinstance(thing, Rule) else set()
    keys = {f"instance/{name}" for name in named}
    homes = [thing, *(everything[key] for key in keys & everything.keys())]
    return keys | {f"region/{home.region}" for home in homes if isinstance(home, Instance | Replica)}


def _violations(thing: Declared, everything: _Everything) -> Iterable[_Violation]:
    if isinstance(thing, Replica):
        yield from _of_replica(thing, everything)
    if isinstance(thing, Rule) and thing.prefetch:
        yield from _of_prefetch(thing, everything)


def _of_replica(replica: Replica, everything: _Everything) -> Iterable[_Violation]:
    instance = everything.get(f"instance/{replica.instance}")
    if not isinstance(instance, Instance):
        return
    own = _registry(replica)
    for key, other in sorted(everything.items()):
        if isinstance(other, Instance | Replica) and key != replica.key and _registry(other) == own:
            text = f"is the registry of {key} already; only the mesh may write to a replica"
            yield _Violation("url", text, by=key)
    if instance.region == replica.region:
        text = f"is the region of {instance.name!r} itself; a replica is in another region"
        yield _Violation("region", text)
    elif border := _border(instance.region, replica.region, everything):
        text = "a replica stays in its instance's jurisdiction; a synchronization rule may leave it"
        yield _Violation("region", f"{border}: {text}")


def _registry(holder: Instance | Replica) -> tuple[str, int]:
    """Returns host and port, which are the same for one registry however its URL is written."""
    url = urlsplit(holder.url)
    return str(url.hostname).rstrip("."), url.port or _PORTS[url.scheme]


def _of_prefetch(rule: Rule, everything: _Everything) -> Iterable[_Violation]:
    if any(not isinstance(part, NameFilter) for part in rule.filters):
        text = "works with name filters only: when a layer is pushed, nothing else of its image is known yet"
        yield _Violation("prefetch", text)
    if rule.public_only or rule.trigger.type != "event_based":
        text = "works only for event_based rules without public_only"
        yield _Violation("prefetch", text)
    source, destination = (everything.get(f"instance/{name}") for name in (rule.source, rule.destination))
    if not isinstance(source, Instance) or not isinstance(destination, Instance):
        return
    if source.account != destination.account:
        text = f"never leaves an account, and {rule.destination!r} belongs to {destination.account!r}"
        yield _Violation("prefetch", text)
    elif border := _border(source.region, destination.region, everything):
        yield _Violation("prefetch", f"never leaves a jurisdiction, and {border}")


def _border(one: Region, other: Region, everything: _Everything) -> str | None:
    here, there = everything.get(f"region/{one}"), everything.get(f"region/{other}")
    if not isinstance(here, RegionDeclaration) or not isinstance(there, RegionDeclaration):
        return None  # reported as an unknown name
    if here.jurisdiction == there.jurisdiction:
        return None
    return f"{one!r} is in {here.jurisdiction!r} and {other!r} in {there.jurisdiction!r}"
