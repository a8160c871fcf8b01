"""Rules that would write one destination tag from different sources.

Where the patterns decide it, such rules are refused when they are declared (`problems`). Where only an artifact that
comes along can tell, the agent asks who wrote the tag, and only where two ways can end at one name (`is_contested`).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from mesh.rules import naming
from mesh.rules.matching.patterns import BadPattern, compile_pattern
from schemas.declared import Declared
from schemas.names import ObjectName, Repository
from schemas.rules import NameFilter, PlatformFilter, ResourceFilter, Rule, TagFilter

Path = tuple[str | int, ...]

_Rebuilt = frozenset[PlatformFilter]

_JUDGED_APART: frozenset[str] = frozenset({"name", "tag", "semver", "resource"})


class Route(NamedTuple):
    """How names get from a source to a destination; rules of one way give one repository one name."""

    source: ObjectName
    namespace: Repository | None
    replace_count: int

    @property
    def is_injective(self) -> bool:
        return self.namespace is None or self.replace_count == 0

    def may_end_at(self, repository: Repository) -> bool:
        return self.namespace is None or repository.startswith(f"{self.namespace}/")


def route_of(rule: Rule) -> Route:
    count = rule.destination_namespace_replace_count if rule.destination_namespace is not None else 0
    return Route(rule.source, rule.destination_namespace, count)


def is_contested(ways: Iterable[Route], repository: Repository) -> bool:
    """True when artifacts of more than one source may come to be `repository` at the destination of these ways."""
    found = [way for way in ways if way.may_end_at(repository)]
    return len(found) > 1 or any(not way.is_injective for way in found)


def problems(
    new: Sequence[tuple[Path, Rule]], everything: Mapping[str, Declared]
) -> Iterable[tuple[Path, str]]:
    """Each new rule that certainly writes tags which another rule writes from another source, or as another index."""
    rivals = _Conflicts(thing for thing in everything.values() if isinstance(thing, Rule) and thing.enabled)
    for path, rule in new:
        if rule.enabled and (found := rivals.of(rule)) is not None:
            other, name = found
            why = _why(rule, other)
            advice = "narrow the filters of one, or give it a destination_namespace"
            message = f"rule {other.name!r} writes the same tags of {name} {why}; {advice}"
            yield (*path, "destination"), message


def _why(rule: Rule, other: Rule) -> str:
    if rule.source != other.source:
        return f"from another source ({other.source!r})"
    if route_of(rule) == route_of(other) and _rebuilt(rule) != _rebuilt(other):
        return "with other platforms in a rebuilt index"
    theirs = _literal_name(other)
    return f"from {f'{other.source}/{theirs[0]}' if theirs is not None else f'another repository of {other.source!r}'}"


class _Conflicts:
    """Rules by where they write, so that a rule is compared with few."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._at: dict[tuple[str, str], set[Route]] = defaultdict(set)  # by destination and namespace
        self._below: dict[tuple[str, str], set[Route]] = defaultdict(
            set
        )  # the same, and every namespace above
        self._by_way: dict[tuple[str, Route], list[Rule]] = defaultdict(list)
        self._by_name: dict[tuple[str, str], list[Rule]] = defaultdict(list)
        self._by_index: dict[tuple[str, Route], dict[_Rebuilt, list[Rule]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for rule in rules:
            way = route_of(rule)
            self._by_way[rule.destination, way].append(rule)
            self._by_index[rule.destination, way][_rebuilt(rule)].append(rule)
            self._at[rule.destination, way.namespace or ""].add(way)
            for root in _roots(way.namespace):
                self._below[rule.destination, root].add(way)
            if (name := _literal_name(rule)) is not None:
                self._by_name[rule.destination, name[1]].append(rule)

    def of(self, rule: Rule) -> tuple[Rule, str] | None:
        """One that certainly fights with `rule`, and about what."""
        for other in self._near(rule):
            if other.name != rule.name and (about := _conflict_about(rule, other)) is not None:
                return other, about
        return None

    def _near(self, rule: Rule) -> Iterable[Rule]:
        own, destination = route_of(rule), rule.destination
        ways = set(self._below[destination, own.namespace or ""])
        for root in _roots(own.namespace):
            ways |= self._at[destination, root]
        for way in sorted(ways - {own}, key=str):
            yield from self._by_way[destination, way]
        for index, rules in self._by_index[destination, own].items():
            if index != _rebuilt(rule):
                yield from rules
        if (name := _literal_name(rule)) is not None:
            yield from self._by_name[destination, name[1]]


def _roots(namespace: Repository | None) -> list[str]:
    """The namespace and all above it, with the empty one."""
    parts = namespace.split("/") if namespace is not None else []
    return ["/".join(parts[:end]) for end in range(len(parts) + 1)]


def _conflict_about(one: Rule, other: Rule) -> str | None:
    """What both certainly write from different sources; None when they do not, or when only artifacts can tell."""
    if not _artifacts_meet(one, other):
        return None
    if route_of(one) == route_of(other) and _rebuilt(one) != _rebuilt(other):
        return f"{one.destination!r}" if _names_meet(one, other) else None
    names = _literal_name(one), _literal_name(other)
    if names[0] is None and names[1] is None:
        alike = naming.same_mapping(one, other) and one.source != other.source and _names_meet(one, other)
        return f"{one.destination!r}" if alike else None
    for literal, rule, counterpart in ((names[0], one, other), (names[1], other, one)):
        if literal is not None and _also_writes(counterpart, literal[1], (rule.source, literal[0])):
            return f"'{one.destination}/{literal[1]}'"
    return None


def _also_writes(rule: Rule, name: Repository, rival: tuple[ObjectName, Repository]) -> bool:
    """True when `rule` certainly brings something other than `rival` to `name`."""
    own = _literal_name(rule)
    if own is not None:
        return own[1] == name and (rule.source, own[0]) != rival
    if not naming.is_injective(rule):
        return False
    found = naming.source_of(rule, name)
    return found is not None and (rule.source, found) != rival and _wants_name(rule, found)


def _literal_name(rule: Rule) -> tuple[Repository, Repository] | None:
    """The one repository that the rule is about, at its source and at its destination."""
    for part in rule.filters:
        if (
            isinstance(part, NameFilter)
            and _matches(part)
            and (text := naming.literal(part.value)) is not None
        ):
            try:
                repository = Repository(text)
                return (
                    (repository, naming.destination_of(rule, repository))
                    if _wants_name(rule, repository)
                    else None
                )
            except ValueError:
                return None
    return None


def _wants_name(rule: Rule, repository: Repository) -> bool:
    return all(_holds(part, repository) for part in rule.filters if isinstance(part, NameFilter))


def _names_meet(one: Rule, other: Rule) -> bool:
    """True when both certainly want some repository: equal filters, or none on one side."""
    return _equal_or_open(_filters(one, "name"), _filters(other, "name"))


def _artifacts_meet(one: Rule, other: Rule) -> bool:
    """True when both certainly want some tag of a repository that both want."""
    resources = [
        {part.value for part in rule.filters if isinstance(part, ResourceFilter)} for rule in (one, other)
    ]
    if resources[0] and resources[1] and resources[0] != resources[1]:
        return False
    return _equal_or_open(_further_filters(one), _further_filters(other)) and _tags_meet(one, other)


def _tags_meet(one: Rule, other: Rule) -> bool:
    """True for equal filters, for none on one side, and for a literal tag that all of both hold of."""
    if _equal_or_open(*(_filters(rule, "tag", "semver") for rule in (one, other))):
        return True
    if any(_filters(rule, "semver") for rule in (one, other)):
        return False
    tags = [part for rule in (one, other) for part in rule.filters if isinstance(part, TagFilter)]
    literals = {part.value for part in tags if _matches(part) and naming.literal(part.value)}
    return any(_holds_all(tags, text) for text in literals)


def _holds_all(parts: Iterable[NameFilter | TagFilter], text: str) -> bool:
    return all(_holds(part, text) for part in parts)


def _holds(part: NameFilter | TagFilter, text: str) -> bool:
    try:
        return compile_pattern(part.value)(text) is _matches(part)
    except BadPattern:
        return False  # told where it stands


def _matches(part: NameFilter | TagFilter) -> bool:
    return part.decoration == "matches"


def _equal_or_open(one: frozenset[object], other: frozenset[object]) -> bool:
    return one == other or not one or not other


def _filters(rule: Rule, *types: str) -> frozenset[object]:
    return frozenset(part for part in rule.filters if part.type in types)


def _further_filters(rule: Rule) -> frozenset[object]:
    """Those by what an artifact is: different ones may or may not meet. Which index is made of it chooses nothing."""
    return frozenset(
        part for part in rule.filters if part.type not in _JUDGED_APART and part not in _rebuilt(rule)
    )


def _rebuilt(rule: Rule) -> _Rebuilt:
    """By what it makes indexes of its own; rules that differ in this bring different digests under one tag."""
    return frozenset(
        part for part in rule.filters if isinstance(part, PlatformFilter) and part.mode == "rebuilt"
    )
