"""What an operator declares, checked whole: every problem at once, each with its path.

`judge` reads a document (`mesh.yaml`, or the same as JSON) into typed things and judges them together with what is
declared already. It gives problems instead of raising, so that one run shows all of them.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pydantic import ValidationError

from mesh.rules import consent, links, naming
from mesh.rules.matching.labels import compile_label
from mesh.rules.matching.patterns import BadPattern, compile_pattern
from mesh.rules.matching.versions import compile_range
from mesh.rules.schedule import BadSchedule, next_tick
from mesh.rules.validation import conflicts, contradictions, cycles, mistakes, replicas
from schemas.declared import Declared, Noun
from schemas.grants import Grant
from schemas.rules import EventBased, Rule, Scheduled
from schemas.state import KINDS
from schemas.topology import Instance, RegionDeclaration, Replica

SECTIONS: Mapping[str, Noun] = {f"{noun}s": noun for noun in KINDS}

# Fields and sections of the full design: refused with a word of their own, never ignored.
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

Path = tuple[str | int, ...]


class Problem(NamedTuple):
    """What is wrong, and where: `("rules", 0, "filters", 1, "value")`."""

    path: Path
    message: str

    @property
    def where(self) -> str:
        """The path for people: `rules[0].filters[1].value`."""
        parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        return "".join(parts).lstrip(".")


class Placed(NamedTuple):
    """A declared thing and its place in the document."""

    path: Path
    thing: Declared


def judge(document: object, declared: Iterable[Declared] = ()) -> tuple[list[Placed], list[Problem]]:
    """The things in a document, and everything that is wrong with it beside what is `declared` already."""
    if document is None:
        return [], []
    if not isinstance(document, dict):
        return [], [Problem((), "must be a mapping with the sections " + ", ".join(SECTIONS))]
    items, problems = _items(document)
    placed: list[Placed] = []
    for path, section, item in items:
        thing, found = _parse_item(section, path, item)
        placed += [Placed(path, thing)] if thing is not None else []
        problems += found
    everything = {thing.key: thing for thing in declared} | {item.thing.key: item.thing for item in placed}
    names = everything.keys() | {f"{SECTIONS[section]}/{item.get('name')}" for _, section, item in items}
    problems += _duplicates(placed)
    for path, section, item in items:
        problems += _references(path, section, item, names)
        problems += _patterns(path, item)
    for path, thing in placed:
        if isinstance(thing, Rule):
            problems += [Problem((*path, *where), text) for where, text in _rule_problems(thing)]
        if isinstance(thing, Grant):
            problems += [
                Problem((*path, *where), text) for where, text in consent.problems(thing, everything)
            ]
        if isinstance(thing, RegionDeclaration):
            problems += [Problem((*path, *where), text) for where, text in links.problems(thing, everything)]
    new_rules = [
        (path, thing) for path, thing in placed if isinstance(thing, Rule) and not _goes_nowhere(thing)
    ]
    others = {key: thing for key, thing in everything.items() if not _goes_nowhere(thing)}
    problems += [Problem(where, text) for where, text in conflicts.problems(new_rules, others)]
    problems += [Problem(where, text) for where, text in replicas.problems(placed, everything)]
    problems += [Problem(where, text) for where, text in cycles.problems(placed, everything)]
    return placed, problems


def check_removal(key: str, declared: Iterable[Declared]) -> str | None:
    """Why the thing at `key` cannot be removed: all that still names it; None when it can."""
    users = sorted(thing.key for thing in declared if key in set(_named_by(thing)))
    return (
        f"{key} is used by {', '.join(users)}; remove {'that' if len(users) == 1 else 'those'} first"
        if users
        else None
    )


def _named_by(thing: Declared) -> Iterator[str]:
    """The keys of what a thing cannot be without."""
    match thing:
        case Instance():
            yield f"region/{thing.region}"
        case Replica():
            yield from (f"region/{thing.region}", f"instance/{thing.instance}")
        case Rule():
            yield from (f"instance/{thing.source}", f"instance/{thing.destination}")
        case RegionDeclaration():
            yield from (f"region/{link.to}" for link in thing.links)


Item = tuple[Path, str, dict[str, Any]]  # path, section, the raw mapping


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


def _parse_item(section: str, path: Path, item: Mapping[str, Any]) -> tuple[Declared | None, list[Problem]]:
    model = KINDS[SECTIONS[section]]
    try:
        return model.model_validate(item), []
    except ValidationError as error:
        found = mistakes.own(error.errors(include_url=False))
        return None, [_problem(section, path, one, model) for one in found]


def _problem(section: str, path: Path, found: Mapping[str, Any], model: type[Declared]) -> Problem:
    # A filter's type, by which its model is chosen, follows its index in the location; it is no part of the path.
    # So it is with a trigger.
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
        message = f"{tag!r} is not a {what} type; known are {', '.join(types)}{mistakes.meant(tag, types)}"
        return Problem((*path, *loc, "type"), message)
    if found["type"] == "union_tag_not_found":
        return Problem((*path, *loc, "type"), "is required")
    return Problem((*path, *loc), mistakes.told(found))


def _references(path: Path, section: str, item: Mapping[str, Any], names: AbstractSet[str]) -> list[Problem]:
    """Names of other things that nothing has; asked of the raw mapping, so that a broken item is judged too."""
    problems = []
    for field, noun in REFERENCES.get(section, {}).items():
        name = item.get(field)
        if isinstance(name, str) and f"{noun}/{name}" not in names:
            problems.append(Problem((*path, field), _nothing_named(noun, name, names)))
    return problems


def _patterns(path: Path, item: Mapping[str, Any]) -> list[Problem]:
    """Patterns that cannot run; asked of the raw mapping too."""
    problems = []
    filters = item.get("filters")
    for index, part in enumerate(filters if isinstance(filters, list) else []):
        compiler = _COMPILERS.get(str(part.get("type"))) if isinstance(part, dict) else None
        if compiler is not None and isinstance(part.get("value"), str):
            try:
                compiler(part["value"])
            except BadPattern as error:
                problems.append(Problem((*path, "filters", index, "value"), str(error)))
    return problems


def _unknown(section: str, field: str, known: Iterable[str]) -> str:
    if field in PLANNED.get(section, ()):
        return f"{field!r} is planned but not built in this version; remove it"
    near = difflib.get_close_matches(field, list(known), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
    return f"unknown field {field!r}{hint}"


def _duplicates(placed: Sequence[Placed]) -> list[Problem]:
    first: dict[str, Path] = {}
    problems = []
    for path, thing in placed:
        if thing.key in first:
            where = Problem(first[thing.key], "").where
            problems.append(
                Problem((*path, "name"), f"{thing.key.split('/')[1]!r} is declared at {where} already")
            )
        first.setdefault(thing.key, path)
    return problems


def _nothing_named(noun: str, name: str, everything: Iterable[str]) -> str:
    names = sorted(key.partition("/")[2] for key in everything if key.startswith(f"{noun}/"))
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"declared are: {', '.join(names) or 'none'}"
    return f"no {noun} is named {name!r}; {hint}"


def like(noun: str, name: str, everything: Iterable[str]) -> str:
    """What to do about a name that is not among the keys of `everything`: the one that was meant, or where they are."""
    names = [key.partition("/")[2] for key in everything if key.startswith(f"{noun}/")]
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"`regmesh get {noun}s` shows what is"


def _goes_nowhere(thing: Declared) -> bool:
    return isinstance(thing, Rule) and thing.source == thing.destination


def _rule_problems(rule: Rule) -> Iterable[tuple[Path, str]]:
    if _goes_nowhere(rule):
        yield ("destination",), "is the source itself"
    yield from naming.problems(rule)
    yield from contradictions.problems(rule)
    yield from _trigger_problems(rule)


def _trigger_problems(rule: Rule) -> Iterable[tuple[Path, str]]:
    if rule.backfill and not isinstance(rule.trigger, EventBased):
        yield ("backfill",), "is for event_based rules; run this one with `regmesh sync`, or let its schedule"
    if rule.deletion and not isinstance(rule.trigger, EventBased):
        yield (
            ("deletion",),
            f"follows events, and none runs a rule that is {rule.trigger.type}; remove one of both",
        )
    if isinstance(rule.trigger, Scheduled):
        try:
            next_tick(rule.trigger, datetime(2000, 1, 1, tzinfo=UTC))
        except BadSchedule as error:
            yield ("trigger", error.field), str(error)
