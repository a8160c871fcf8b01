"""Enabled rules whose instances form a cycle: refused, because concurrent pushes would not converge."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from mesh.rules.problems import PlacedDeclaration, Problem
from schemas.declared import Declared
from schemas.names import ObjectName
from schemas.rules import Rule


def problems(placed: Sequence[PlacedDeclaration], everything: Mapping[str, Declared]) -> Iterable[Problem]:
    """Yields each new rule that closes a cycle, with the instances on it. Disabled rules close none."""
    onward: dict[ObjectName, set[ObjectName]] = {}  # instances: they are few, whatever the number of rules
    for thing in everything.values():
        if isinstance(thing, Rule) and thing.enabled and thing.source != thing.destination:
            onward.setdefault(thing.source, set()).add(thing.destination)
    for path, rule in placed:
        if (
            isinstance(rule, Rule)
            and rule.enabled
            and (route := _path(rule.destination, rule.source, onward))
        ):
            text = (
                f"makes a cycle of rules ({' -> '.join([rule.source, *route])}); cycles are not supported yet"
            )
            yield Problem((*path, "destination"), text)


def _path(
    start: ObjectName, goal: ObjectName, onward: Mapping[ObjectName, AbstractSet[ObjectName]]
) -> list[ObjectName]:
    """Returns the instances along the rules from `start` to `goal`, both included; empty when there is no path."""
    if start == goal:
        return []
    paths, seen = [[start]], {start}
    while paths:
        path = paths.pop()
        for following in sorted(onward.get(path[-1], ())):
            if following == goal:
                return [*path, goal]
            if following not in seen:
                seen.add(following)
                paths.append([*path, following])
    return []
