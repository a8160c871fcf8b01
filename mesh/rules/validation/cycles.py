"""Enabled rules whose instances form a circle: refused until convergence of concurrent pushes is built. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

from schemas.declared import Declared
from schemas.names import ObjectName
from schemas.rules import Rule

Path = tuple[str | int, ...]


class _Placed(Protocol):
    @property
    def path(self) -> Path: ...
    @property
    def thing(self) -> Declared: ...


def problems(placed: Sequence[_Placed], everything: Mapping[str, Declared]) -> Iterable[tuple[Path, str]]:
    """Each new rule that closes a circle, with the way round it. A rule that is not enabled copies nothing on."""
    onward: dict[ObjectName, set[ObjectName]] = {}  # instances: they are few, whatever the number of rules
    for thing in everything.values():
        if isinstance(thing, Rule) and thing.enabled and thing.source != thing.destination:
            onward.setdefault(thing.source, set()).add(thing.destination)
    for item in placed:
        rule = item.thing
        if not isinstance(rule, Rule) or not rule.enabled:
            continue
        if way := _way(rule.destination, rule.source, onward):
            names = " -> ".join([rule.source, *way])
            yield (
                (*item.path, "destination"),
                f"makes a cycle of rules ({names}); cycles are not supported yet",
            )


def _way(
    start: ObjectName, goal: ObjectName, onward: Mapping[ObjectName, AbstractSet[ObjectName]]
) -> list[str]:
    """The instances on a way along the rules from `start` to `goal`, both included; empty when there is none."""
    if start == goal:
        return []
    ways: list[list[ObjectName]] = [[start]]
    seen = {start}
    while ways:
        way = ways.pop()
        for following in sorted(onward.get(way[-1], ())):
            if following == goal:
                return [*way, goal]
            if following not in seen:
                seen.add(following)
                ways.append([*way, following])
    return []
