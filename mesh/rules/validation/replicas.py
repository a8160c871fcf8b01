"""Replicas and layers ahead: what must not be declared, above all nothing that crosses a border of jurisdictions."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from schemas.declared import Declared
from schemas.names import Region
from schemas.rules import NameFilter, Rule
from schemas.topology import Instance, RegionDeclaration, Replica

Path = tuple[str | int, ...]
_Everything = Mapping[str, Declared]
_PORTS = {"http": 80, "https": 443}


class _Placed(Protocol):
    @property
    def path(self) -> Path: ...
    @property
    def thing(self) -> Declared: ...


class _Refusal(NamedTuple):
    field: str
    text: str
    by: str | None = None  # the key of what it says is in the way


def problems(placed: Sequence[_Placed], everything: _Everything) -> Iterable[tuple[Path, str]]:
    """Also what was declared earlier and would be parted from its instance by what is declared now."""
    said = set[str]()
    for item in placed:
        for refusal in _own(item.thing, everything):
            said.add(item.thing.key)
            yield (*item.path, refusal.field), refusal.text
    for key in sorted(everything.keys() - said - {item.thing.key for item in placed}):
        for refusal in _own(everything[key], everything):
            ground = {*_ground(everything[key], everything), refusal.by}
            for item in placed:
                if item.thing.key in ground:
                    yield item.path, f"with it {key} would not be allowed any more: {refusal.text}"


def _ground(thing: Declared, everything: _Everything) -> set[str]:
    """The keys of what it stands on: its instances, and the regions of all of them."""
    named = {thing.instance} if isinstance(thing, Replica) else set[str]()
    named |= {thing.source, thing.destination} if isinstance(thing, Rule) else set()
    keys = {f"instance/{name}" for name in named}
    homes = [thing, *(everything[key] for key in keys & everything.keys())]
    return keys | {f"region/{home.region}" for home in homes if isinstance(home, Instance | Replica)}


def _own(thing: Declared, everything: _Everything) -> Iterable[_Refusal]:
    if isinstance(thing, Replica):
        yield from _of_replica(thing, everything)
    if isinstance(thing, Rule) and thing.prefetch:
        yield from _of_prefetch(thing, everything)


def _of_replica(replica: Replica, everything: _Everything) -> Iterable[_Refusal]:
    instance = everything.get(f"instance/{replica.instance}")
    if not isinstance(instance, Instance):
        return
    own = _registry(replica)
    for key, other in sorted(everything.items()):
        if isinstance(other, Instance | Replica) and key != replica.key and _registry(other) == own:
            text = f"is the registry of {key} already; a replica is filled and emptied by us alone"
            yield _Refusal("url", text, by=key)
    if instance.region == replica.region:
        yield _Refusal("region", f"is the region of {instance.name!r} itself; a replica stands in another")
    elif border := _border(instance.region, replica.region, everything):
        yield _Refusal(
            "region",
            f"{border}: a replica stays in its instance's jurisdiction; a synchronization rule may leave it",
        )


def _registry(holder: Instance | Replica) -> tuple[str, int]:
    """Host and port: one registry, in however many ways its URL is written."""
    url = urlsplit(holder.url)
    return str(url.hostname).rstrip("."), url.port or _PORTS[url.scheme]


def _of_prefetch(rule: Rule, everything: _Everything) -> Iterable[_Refusal]:
    if any(not isinstance(part, NameFilter) for part in rule.filters):
        yield _Refusal(
            "prefetch",
            "goes with name filters alone: when a layer comes nobody knows yet what else holds of its image",
        )
    if rule.public_only or rule.trigger.type != "event_based":
        yield _Refusal(
            "prefetch",
            "is for rules that wait for events, and that need not ask whether the source is public",
        )
    source, destination = (everything.get(f"instance/{name}") for name in (rule.source, rule.destination))
    if not isinstance(source, Instance) or not isinstance(destination, Instance):
        return
    if source.account != destination.account:
        yield _Refusal(
            "prefetch",
            f"never leaves an account, and {rule.destination!r} belongs to {destination.account!r}",
        )
    elif border := _border(source.region, destination.region, everything):
        yield _Refusal("prefetch", f"never leaves a jurisdiction, and {border}")


def _border(one: Region, other: Region, everything: _Everything) -> str | None:
    here, there = everything.get(f"region/{one}"), everything.get(f"region/{other}")
    if not isinstance(here, RegionDeclaration) or not isinstance(there, RegionDeclaration):
        return None  # told as a name that nothing has
    if here.jurisdiction == there.jurisdiction:
        return None
    return f"{one!r} is in {here.jurisdiction!r} and {other!r} in {there.jurisdiction!r}"
