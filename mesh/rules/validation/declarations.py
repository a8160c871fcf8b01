"""What an operator declares, checked as a whole: every problem at once, each with its path.

`judge` reads a document (`mesh.yaml`, or the same as JSON) into typed things and checks them together with what is
declared already. It returns problems instead of raising, so that one run shows all of them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from mesh.rules import naming
from mesh.rules.matching.patterns import BadPattern, compile_label, compile_pattern
from mesh.rules.matching.versions import compile_range
from mesh.rules.problems import FieldPath, PlacedDeclaration, Problem
from mesh.rules.schedule import BadSchedule, next_tick
from mesh.rules.validation import (
    conflicts,
    contradictions,
    cycles,
    impossible_patterns,
    messages,
    replicas,
)
from schemas.declared import Declared, Noun
from schemas.grants import Grant
from schemas.rules import EventBased, Rule, Scheduled
from schemas.state import KINDS
from schemas.topology import Instance, RegionDeclaration, Replica

SECTIONS: Mapping[str, Noun] = {f"{noun}s": noun for noun in KINDS}

# Fields that are designed and not built yet: refused with a message of their own, never ignored.
PLANNED: Mapping[str, frozenset[str]] = {
    "regions": frozenset({"log"}),
    "rules": frozenset({"conflict"}),
}

REFERENCES: Mapping[str, Mapping[str, Noun]] = {
    "instances": {"region": "region"},
    "replicas": {"instance": "instance", "region": "region"},
    "rules": {"source": "instance", "destination": "instance"},
}
FILTER_TYPES = ("name", "tag", "semver", "resource", "label", "platform")
_COMPILERS: Mapping[str, Callable[[str], object]] = {
    "name": compile_pattern, "tag": compile_pattern, "semver": compile_range, "label": compile_label,
}  # fmt: skip
_INNER: Mapping[str, Sequence[str]] = {
    "filters": ("type", "value", "decoration", "mode"),
    "trigger": ("type", "cron", "timezone"),
    "links": ("to", "speed", "cost"),
    "relay": ("secret", "url"),
}
TRIGGER_TYPES = ("event_based", "manual", "scheduled")

Item = tuple[FieldPath, str, dict[str, Any]]  # path, section, the raw mapping


def judge(
    document: object, declared: Iterable[Declared] = ()
) -> tuple[list[PlacedDeclaration], list[Problem]]:
    """Returns the things in a document, and all that is wrong with it beside what is `declared` already."""
    if document is None:
        return [], []
    if not isinstance(document, dict):
        return [], [Problem((), "must be a mapping with the sections " + ", ".join(SECTIONS))]
    items, problems = _items(document)
    placed: list[PlacedDeclaration] = []
    for path, section, item in items:
        thing, found = _parse_item(section, path, item)
        placed += [PlacedDeclaration(path, thing)] if thing is not None else []
        problems += found
    everything = {thing.key: thing for thing in declared} | {thing.key: thing for _, thing in placed}
    names = everything.keys() | {f"{SECTIONS[section]}/{item.get('name')}" for _, section, item in items}
    problems += _duplicates(placed)
    for path, section, item in items:
        problems += _references(path, section, item, names)
        problems += _patterns(path, item)
    for path, thing in placed:
        problems += [problem.below(path) for problem in _problems_of(thing, everything)]
    new = [item for item in placed if not _goes_nowhere(item.thing)]
    others = {key: thing for key, thing in everything.items() if not _goes_nowhere(thing)}
    problems += conflicts.problems(new, others)
    problems += replicas.problems(placed, everything)
    problems += cycles.problems(placed, everything)
    return placed, problems


def check_removal(key: str, declared: Iterable[Declared]) -> str | None:
    """Returns why the thing at `key` cannot be removed: all things that name it; None when it can."""
    users = sorted(thing.key for thing in declared if key in set(_named_by(thing)))
    if not users:
        return None
    return f"{key} is used by {', '.join(users)}; remove {'that' if len(users) == 1 else 'those'} first"


def _named_by(thing: Declared) -> Iterator[str]:
    """Yields the keys of what a thing depends on."""
    match thing:
        case Instance():
            yield f"region/{thing.region}"
        case Replica():
            yield from (f"region/{thing.region}", f"instance/{thing.instance}")
        case Rule():
            yield from (f"instance/{thing.source}", f"instance/{thing.destination}")
        case RegionDeclaration():
            yield from (f"region/{link.to}" for link in thing.links)


def _items(document: Mapping[str, Any]) -> tuple[list[Item], list[Problem]]:
    items: list[Item] = []
    problems: list[Problem] = []
    for section, listed in document.items():
        if section not in SECTIONS:
            problems.append(Problem((str(section),), _unknown("", str(section), SECTIONS)))
        elif not isinstance(listed, list):
            problems.append(Problem((section,), "must be a list"))
        else:
            for index, item in enumerate(listed):
                if isinstance(item, dict):
                    items.append(((section, index), section, item))
                else:
                    problems.append(Problem((section, index), "must be a mapping"))
    return items, problems


def _parse_item(
    section: str, path: FieldPath, item: Mapping[str, Any]
) -> tuple[Declared | None, list[Problem]]:
    model = KINDS[SECTIONS[section]]
    try:
        return model.model_validate(item), []
    except ValidationError as error:
        found = messages.without_followups(error.errors(include_url=False))
        return None, [_problem(section, path, one, model) for one in found]


def _problem(section: str, path: FieldPath, found: Mapping[str, Any], model: type[Declared]) -> Problem:
    # In pydantic's location the type of a filter, which selects its model, follows the index; it is not in the path.
    # The same holds for a trigger.
    chosen = {"filters": 2, "trigger": 1}.get(str(found["loc"][0])) if found["loc"] else None
    loc = tuple(part for at, part in enumerate(found["loc"]) if at != chosen)
    if found["type"] == "extra_forbidden":
        if len(loc) == 1:
            return Problem((*path, *loc), _unknown(section, str(loc[0]), model.model_fields))
        if chosen is not None and loc[-1] in _INNER[str(loc[0])]:  # of another type
            message = f"a {str(loc[0]).removesuffix('s')} of type {found['loc'][chosen]} has no {loc[-1]!r}"
            return Problem((*path, *loc), message)
        return Problem((*path, *loc), _unknown(f"{section}.{loc[0]}", str(loc[-1]), _INNER[str(loc[0])]))
    if found["type"] == "union_tag_invalid":
        what, types = ("trigger", TRIGGER_TYPES) if loc[0] == "trigger" else ("filter", FILTER_TYPES)
        tag = found["ctx"]["tag"]
        message = (
            f"{tag!r} is not a {what} type; known are {', '.join(types)}{messages.did_you_mean(tag, types)}"
        )
        return Problem((*path, *loc, "type"), message)
    if found["type"] == "union_tag_not_found":
        return Problem((*path, *loc, "type"), "is required")
    return Problem((*path, *loc), messages.message_of(found))


def _references(
    path: FieldPath, section: str, item: Mapping[str, Any], names: AbstractSet[str]
) -> Iterable[Problem]:
    """Yields names that nothing has. It reads the raw mapping, so that a broken item is checked too."""
    for field, noun in REFERENCES.get(section, {}).items():
        name = item.get(field)
        if isinstance(name, str) and f"{noun}/{name}" not in names:
            known = messages.names_of(noun, names)
            hint = messages.did_you_mean(name, known, f"; declared are: {', '.join(known) or 'none'}")
            yield Problem((*path, field), f"no {noun} is named {name!r}{hint}")


def _patterns(path: FieldPath, item: Mapping[str, Any]) -> Iterable[Problem]:
    """Yields patterns that do not compile; from the raw mapping too."""
    filters = item.get("filters")
    for index, part in enumerate(filters if isinstance(filters, list) else []):
        compiler = _COMPILERS.get(str(part.get("type"))) if isinstance(part, dict) else None
        if compiler is not None and isinstance(part.get("value"), str):
            try:
                compiler(part["value"])
            except BadPattern as error:
                yield Problem((*path, "filters", index, "value"), str(error))


def _unknown(section: str, field: str, known: Iterable[str]) -> str:
    if field in PLANNED.get(section, ()):
        return f"{field!r} is planned but not built in this version; remove it"
    hint = messages.did_you_mean(field, known, f"; known are {', '.join(known)}")
    return f"unknown field {field!r}{hint}"


def _duplicates(placed: Sequence[PlacedDeclaration]) -> Iterable[Problem]:
    first: dict[str, FieldPath] = {}
    for path, thing in placed:
        if thing.key in first:
            where = Problem(first[thing.key], "").where
            yield Problem((*path, "name"), f"{thing.key.split('/')[1]!r} is declared at {where} already")
        first.setdefault(thing.key, path)


def _goes_nowhere(thing: Declared) -> bool:
    return isinstance(thing, Rule) and thing.source == thing.destination


def _problems_of(thing: Declared, everything: Mapping[str, Declared]) -> Iterable[Problem]:
    match thing:
        case Rule():
            if _goes_nowhere(thing):
                yield Problem(("destination",), "is the source itself")
            yield from naming.problems(thing)
            yield from contradictions.problems(thing)
            yield from _trigger_problems(thing)
        case Grant():
            yield from _grant_problems(thing, everything)
        case RegionDeclaration():
            yield from _link_problems(thing, everything)


def _trigger_problems(rule: Rule) -> Iterable[Problem]:
    if rule.backfill and not isinstance(rule.trigger, EventBased):
        text = "is for event_based rules; run this one with `regmesh sync`, or wait for its schedule"
        yield Problem(("backfill",), text)
    if rule.freshness is not None and not isinstance(rule.trigger, EventBased):
        text = "is for event_based rules; this one copies a push when it is run, however long after it"
        yield Problem(("freshness",), text)
    if rule.deletion and not isinstance(rule.trigger, EventBased):
        text = f"follows events, and none runs a rule that is {rule.trigger.type}; remove one of both"
        yield Problem(("deletion",), text)
    if isinstance(rule.trigger, Scheduled):
        try:
            next_tick(rule.trigger, datetime(2000, 1, 1, tzinfo=UTC))
        except BadSchedule as error:
            yield Problem(("trigger", error.field), str(error))


def _grant_problems(grant: Grant, everything: Mapping[str, Declared]) -> Iterable[Problem]:
    """Yields accounts that no instance has, and bad or impossible globs."""
    accounts = sorted({thing.account for thing in everything.values() if isinstance(thing, Instance)})
    for field, account in (("account", grant.account), ("from", grant.from_account)):
        if account not in accounts:
            known = ", ".join(accounts) or "none"
            text = f"no instance belongs to account {account!r}; accounts with instances: {known}"
            yield Problem((field,), text)
    for index, glob in enumerate(grant.namespaces):
        try:
            compile_pattern(glob)
        except BadPattern as error:
            yield Problem(("namespaces", index), str(error))
        if (mistake := impossible_patterns.mistake(glob, "name")) is not None:
            yield Problem(("namespaces", index), mistake)


def _link_problems(region: RegionDeclaration, everything: Mapping[str, Declared]) -> Iterable[Problem]:
    """Yields links to undeclared regions, to the region itself, and second links to one region."""
    seen = set[str]()
    for index, link in enumerate(region.links):
        where = ("links", index, "to")
        if link.to == region.name:
            yield Problem(where, "is the region itself")
        elif link.to in seen:
            yield Problem(where, f"a link to {link.to!r} is there already")
        elif f"region/{link.to}" not in everything:
            known = ", ".join(messages.names_of("region", everything))
            yield Problem(where, f"no region is named {link.to!r}; declared are: {known}")
        seen.add(link.to)
