"""Filters of a rule that can never all hold, as far as that can be told without an image. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from mesh.rules import naming, platforms, versions
from mesh.rules.patterns import BadPattern, compile_pattern
from schemas.rules import (
    Filter,
    LabelFilter,
    NameFilter,
    PlatformFilter,
    ResourceFilter,
    Rule,
    SemverFilter,
    TagFilter,
)

Problem = tuple[tuple[str | int, ...], str]
F = TypeVar("F")


def problems(rule: Rule) -> Iterable[Problem]:
    """Each with the path of the filter that is one too many."""
    yield from _resources(rule.filters)
    yield from _opposites(rule.filters)
    yield from _versions(rule.filters)
    yield from _platforms(rule.filters)
    for kind in (NameFilter, TagFilter):
        yield from _literals(rule.filters, kind)


def _resources(filters: Sequence[Filter]) -> Iterator[Problem]:
    found = list(_all(filters, ResourceFilter))
    if len({part.value for _, part in found}) > 1:
        yield _value(found[-1][0]), "two different resource filters can never both hold; use two rules"
    charts = [at for at, part in found if part.value == "chart"]
    if charts and any(_all(filters, PlatformFilter)):
        yield (
            _value(charts[-1]),
            "a chart runs on no platform: this and the platform filter can never both hold",
        )


def _opposites(filters: Sequence[Filter]) -> Iterator[Problem]:
    seen: dict[tuple[str, str], str] = {}
    for at, part in enumerate(filters):
        if isinstance(part, NameFilter | TagFilter | LabelFilter):
            key = (part.type, part.value)
            if seen.setdefault(key, part.decoration) != part.decoration:
                message = f"one {part.type} filter matches {part.value!r} and another excludes it: nothing passes both"
                yield ("filters", at, "decoration"), message


def _versions(filters: Sequence[Filter]) -> Iterator[Problem]:
    found = list(_all(filters, SemverFilter))
    try:
        if not found or versions.can_hold([part.value for _, part in found]):
            return
    except BadPattern:
        return  # told where it stands
    at, part = found[-1]
    together = " together with the other semver filter" if len(found) > 1 else ""
    yield _value(at), f"no version is within {part.value!r}{together}"


def _platforms(filters: Sequence[Filter]) -> Iterator[Problem]:
    found = list(_all(filters, PlatformFilter))
    for at, part in found:
        for one in part.value:
            if (mistake := platforms.mistake(one)) is not None:
                yield _value(at), mistake
    if len(found) > 1:
        yield ("filters", found[-1][0]), "one platform filter is enough: name all platforms in its list"


def _literals(filters: Sequence[Filter], kind: type[NameFilter] | type[TagFilter]) -> Iterator[Problem]:
    """A filter that takes one text only, which another one does not take."""
    found = [(at, part) for at, part in _all(filters, kind)]
    for _, one in found:
        if one.decoration == "excludes" or (text := naming.literal(one.value)) is None:
            continue
        for at, part in found:
            if part.value != one.value and not _holds(part, text):
                yield _value(at), f"nothing passes this and the {part.type} filter {one.value!r} too"
                return


def _holds(part: NameFilter | TagFilter, text: str) -> bool:
    try:
        return compile_pattern(part.value)(text) is (part.decoration == "matches")
    except BadPattern:
        return True  # told where it stands


def _all(filters: Sequence[Filter], kind: type[F]) -> Iterator[tuple[int, F]]:
    return ((at, part) for at, part in enumerate(filters) if isinstance(part, kind))


def _value(at: int) -> tuple[str | int, ...]:
    return ("filters", at, "value")
