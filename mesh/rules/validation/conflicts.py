"""Rule conflicts: rules that would write one destination tag from different sources.

Where the patterns decide it, such rules are refused when they are declared (`problems`). Where only the artifacts can
decide, the agent asks which source owns a tag, and only where two routes can end at one name (`is_contested`).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from mesh.rules import naming
from mesh.rules.matching.compiled_rule import compile_text_filter
from mesh.rules.matching.patterns import BadPattern
from mesh.rules.problems import PlacedDeclaration, Problem
from schemas.declared import Declared
from schemas.names import ObjectName, Repository
from schemas.rules import NameFilter, PlatformFilter, ResourceFilter, Rule, TagFilter

_RebuildFilters = frozenset[PlatformFilter]

_COMPARED_APART: frozenset[str] = frozenset({"name", "tag", "semver", "resource"})


class Route(NamedTuple):
    """How names get from a source to a destination. Rules of one route give a repository the same name."""

    source: ObjectName
    namespace: Repository | None
    replace_count: int

    @property
    def is_injective(self) -> bool:
        """Checks whether no two repositories of the source get one name."""
        return self.namespace is None or self.replace_count == 0

    def may_end_at(self, repository: Repository) -> bool:
        """Checks whether some repository of the source may get this name at the destination."""
        return self.namespace is None or repository.startswith(f"{self.namespace}/")


def route_of(rule: Rule) -> Route:
    """Returns the route of a rule's copies."""
    count = rule.destination_namespace_replace_count if rule.destination_namespace is not None else 0
    return Route(rule.source, rule.destination_namespace, count)


def is_contested(routes: Iterable[Route], repository: Repository) -> bool:
    """Checks whether artifacts of more than one source may get this name at the destination of these routes."""
    found = [route for route in routes if route.may_end_at(repository)]
    return len(found) > 1 or any(not route.is_injective for route in found)


def problems(new: Sequence[PlacedDeclaration], everything: Mapping[str, Declared]) -> Iterable[Problem]:
    """Yields each new rule that certainly writes tags which another rule writes from elsewhere, or as another index."""
    conflicts = _Conflicts(
        thing for thing in everything.values() if isinstance(thing, Rule) and thing.enabled
    )
    for path, rule in new:
        if isinstance(rule, Rule) and rule.enabled and (found := conflicts.of(rule)) is not None:
            other, name = found
            advice = "narrow the filters of one, or give it a destination_namespace"
            text = f"rule {other.name!r} writes the same tags of {name} {_difference(rule, other)}; {advice}"
            yield Problem((*path, "destination"), text)


def _difference(rule: Rule, other: Rule) -> str:
    if rule.source != other.source:
        return f"from another source ({other.source!r})"
    if _differ_in_index(rule, other):
        return "with other platforms in a rebuilt index"
    names = _literal_name(other)
    return (
        f"from {other.source}/{names[0]}"
        if names is not None
        else f"from another repository of {other.source!r}"
    )


class _Conflicts:
    """Enabled rules by where they write, so that a rule is compared with few of them."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        # The keys begin with the destination. `below` has a route at its namespace and at every namespace above it.
        self._at, self._below = (
            defaultdict[tuple[str, str], set[Route]](set),
            defaultdict[tuple[str, str], set[Route]](set),
        )
        self._by_route = defaultdict[tuple[str, Route], dict[_RebuildFilters, list[Rule]]](dict)
        self._by_name = defaultdict[tuple[str, str], list[Rule]](list)
        for rule in rules:
            route = route_of(rule)
            self._by_route[rule.destination, route].setdefault(_rebuild_filters(rule), []).append(rule)
            self._at[rule.destination, route.namespace or ""].add(route)
            for namespace in _with_parents(route.namespace):
                self._below[rule.destination, namespace].add(route)
            if (name := _literal_name(rule)) is not None:
                self._by_name[rule.destination, name[1]].append(rule)

    def of(self, rule: Rule) -> tuple[Rule, str] | None:
        """Returns a rule that certainly conflicts with `rule`, and the name that both write."""
        for other in self._candidates(rule):
            if other.name != rule.name and (name := _contested_name(rule, other)) is not None:
                return other, name
        return None

    def _candidates(self, rule: Rule) -> Iterable[Rule]:
        own, destination = route_of(rule), rule.destination
        routes = set(self._below[destination, own.namespace or ""])
        for namespace in _with_parents(own.namespace):
            routes |= self._at[destination, namespace]
        for route in sorted(routes - {own}, key=str):
            for rules in self._by_route[destination, route].values():
                yield from rules
        for rebuilt, rules in self._by_route[destination, own].items():
            if rebuilt != _rebuild_filters(rule):
                yield from rules
        if (name := _literal_name(rule)) is not None:
            yield from self._by_name[destination, name[1]]


def _with_parents(namespace: Repository | None) -> list[str]:
    """Returns the namespace and all above it, the empty one first."""
    parts = namespace.split("/") if namespace is not None else []
    return ["/".join(parts[:end]) for end in range(len(parts) + 1)]


def _contested_name(one: Rule, other: Rule) -> str | None:
    """Returns what both certainly write from different sources; None when they do not, or only artifacts can decide."""
    try:
        if not _artifacts_meet(one, other):
            return None
        if _differ_in_index(one, other):
            return f"{one.destination!r}" if _names_meet(one, other) else None
        names = _literal_name(one), _literal_name(other)
        if names[0] is None and names[1] is None:
            meet = naming.same_mapping(one, other) and one.source != other.source and _names_meet(one, other)
            return f"{one.destination!r}" if meet else None
        for literal, rule, counterpart in ((names[0], one, other), (names[1], other, one)):
            if literal is not None and _also_writes(counterpart, literal[1], (rule.source, literal[0])):
                return f"'{one.destination}/{literal[1]}'"
    except BadPattern:
        pass  # the rule is refused for that
    return None


def _also_writes(rule: Rule, name: Repository, other: tuple[ObjectName, Repository]) -> bool:
    """Checks whether `rule` certainly copies something other than `other` to `name`."""
    own = _literal_name(rule)
    if own is not None:
        return own[1] == name and (rule.source, own[0]) != other
    if not naming.is_injective(rule):
        return False
    found = naming.source_of(rule, name)
    return found is not None and (rule.source, found) != other and _wants_name(rule, found)


def _literal_name(rule: Rule) -> tuple[Repository, Repository] | None:
    """Returns the one repository that the rule is about, at its source and at its destination."""
    names = (part for part in rule.filters if isinstance(part, NameFilter) and part.decoration == "matches")
    text = next((text for part in names if (text := naming.literal(part.value)) is not None), None)
    if text is None:
        return None
    try:
        repository = Repository(text)
        return (
            (repository, naming.destination_of(rule, repository)) if _wants_name(rule, repository) else None
        )
    except ValueError:
        return None


def _wants_name(rule: Rule, repository: Repository) -> bool:
    return all(compile_text_filter(part)(repository) for part in rule.filters if isinstance(part, NameFilter))


def _names_meet(one: Rule, other: Rule) -> bool:
    """Checks whether both certainly want some repository: equal filters, or none on one side."""
    return _equal_or_open(_filters(one, "name"), _filters(other, "name"))


def _artifacts_meet(one: Rule, other: Rule) -> bool:
    """Checks whether both certainly want some tag of a repository that both want."""
    resources = [
        {part.value for part in rule.filters if isinstance(part, ResourceFilter)} for rule in (one, other)
    ]
    if resources[0] and resources[1] and resources[0] != resources[1]:
        return False
    return _equal_or_open(_further_filters(one), _further_filters(other)) and _tags_meet(one, other)


def _tags_meet(one: Rule, other: Rule) -> bool:
    """Checks for equal filters, for none on one side, and for a literal tag that passes all filters of both."""
    if _equal_or_open(*(_filters(rule, "tag", "semver") for rule in (one, other))):
        return True
    if any(_filters(rule, "semver") for rule in (one, other)):
        return False
    tags = [part for rule in (one, other) for part in rule.filters if isinstance(part, TagFilter)]
    literals = {part.value for part in tags if part.decoration == "matches" and naming.literal(part.value)}
    return any(all(compile_text_filter(part)(text) for part in tags) for text in literals)


def _equal_or_open(one: frozenset[object], other: frozenset[object]) -> bool:
    return one == other or not one or not other


def _filters(rule: Rule, *types: str) -> frozenset[object]:
    return frozenset(part for part in rule.filters if part.type in types)


def _further_filters(rule: Rule) -> frozenset[object]:
    """Returns the filters on what an artifact is, of which different ones may or may not meet."""
    return frozenset(
        part
        for part in rule.filters
        if part.type not in _COMPARED_APART and part not in _rebuild_filters(rule)
    )


def _differ_in_index(one: Rule, other: Rule) -> bool:
    """Checks whether both copy the same names, and write different rebuilt indexes under one tag."""
    return route_of(one) == route_of(other) and _rebuild_filters(one) != _rebuild_filters(other)


def _rebuild_filters(rule: Rule) -> _RebuildFilters:
    """Returns the filters by which the rule makes indexes of its own."""
    return frozenset(
        part for part in rule.filters if isinstance(part, PlatformFilter) and part.mode == "rebuilt"
    )
