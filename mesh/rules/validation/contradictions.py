"""Filters of one rule that can never all hold, as far as the declaration alone shows it.

It stays because such a rule would copy nothing, silently, and its operator would look for the fault in the network.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import TypeVar

from mesh.rules import naming
from mesh.rules.matching import platforms, versions
from mesh.rules.matching.compiled_rule import compile_text_filter
from mesh.rules.matching.patterns import BadPattern, compile_pattern, literal_prefix, literal_suffix
from mesh.rules.problems import FieldPath, Problem
from mesh.rules.validation import impossible_patterns
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

F = TypeVar("F")
TextFilter = NameFilter | TagFilter


def problems(rule: Rule) -> Iterable[Problem]:
    """Yields each contradiction, at the path of the filter that is one too many."""
    yield from _resources(rule.filters)
    yield from _platforms(rule.filters)
    yield from _opposites(rule.filters)
    yield from _labels(rule.filters)
    yield from _versions(rule.filters)
    for kind in (NameFilter, TagFilter):
        yield from _texts(list(_all(rule.filters, kind)))


def _resources(filters: Sequence[Filter]) -> Iterator[Problem]:
    found = list(_all(filters, ResourceFilter))
    if len({part.value for _, part in found}) > 1:
        text = "two different resource filters can never both hold; use two rules"
        yield Problem(_value(found[-1][0]), text)
    without_platform = [(at, part.value) for at, part in found if part.value != "image"]
    if without_platform and any(_all(filters, PlatformFilter)):
        at, resource = without_platform[-1]
        one = "an artifact" if resource == "artifact" else "a chart"
        text = f"{one} runs on no platform: this and the platform filter can never both hold"
        yield Problem(_value(at), text)


def _platforms(filters: Sequence[Filter]) -> Iterator[Problem]:
    found = list(_all(filters, PlatformFilter))
    for at, part in found:
        for platform in part.value:
            if (mistake := platforms.mistake(platform)) is not None:
                yield Problem(_value(at), mistake)
    if len(found) > 1:
        text = "one platform filter is enough: name all platforms in its list"
        yield Problem(("filters", found[-1][0]), text)


def _opposites(filters: Sequence[Filter]) -> Iterator[Problem]:
    seen: dict[tuple[str, str], str] = {}
    for at, part in enumerate(filters):
        if isinstance(part, NameFilter | TagFilter | LabelFilter):
            key = (part.type, part.value)
            if seen.setdefault(key, part.decoration) != part.decoration:
                text = f"one {part.type} filter matches {part.value!r} and another excludes it: nothing passes both"
                yield Problem(("filters", at, "decoration"), text)


def _labels(filters: Sequence[Filter]) -> Iterator[Problem]:
    """Finds excluded label keys of which another filter wants a value."""
    wanted = {part.value.partition("=")[0]: part for _, part in _all(filters, LabelFilter) if _wants(part)}
    for at, part in _all(filters, LabelFilter):
        other = wanted.get(part.value)
        if not _wants(part) and other is not None and other.value != part.value:
            yield Problem(_value(at), f"nothing passes this and the label filter {other.value!r} too")


def _versions(filters: Sequence[Filter]) -> Iterator[Problem]:
    found = list(_all(filters, SemverFilter))
    ranges = [part.value for _, part in found]
    try:
        if not found or versions.can_hold(ranges):
            yield from _tags_outside(filters, ranges)
            return
    except BadPattern:
        return  # reported by the check of patterns
    joined = " together with the other semver filter" if len(found) > 1 else ""
    yield Problem(_value(found[-1][0]), f"no version is within {ranges[-1]!r}{joined}")


def _tags_outside(filters: Sequence[Filter], ranges: Sequence[str]) -> Iterator[Problem]:
    """Finds the first filter for one tag only, which is no version within the ranges."""
    for at, part in _all(filters, TagFilter):
        tag = naming.literal(part.value) if _wants(part) else None
        missed = [text for text in ranges if tag is not None and not versions.compile_range(text)(tag)]
        if missed:
            text = f"{tag!r} is no version within the semver filter {missed[0]!r}: nothing passes both"
            yield Problem(_value(at), text)
            return


def _texts(parts: Sequence[tuple[int, TextFilter]]) -> Iterator[Problem]:
    for at, part in parts:
        if (mistake := impossible_patterns.mistake(part.value, part.type)) is not None:
            yield Problem(_value(at), mistake)
        elif not _wants(part) and _excluded_prefix(part) == "":
            yield Problem(_value(at), f"every {part.type} is excluded: nothing passes")
    sound = [(at, part) for at, part in parts if _is_sound(part)]
    for (wanted_at, wanted), (at, part) in product(sound, sound):
        is_new_pair = wanted.value != part.value and (at > wanted_at or not _wants(part))
        if is_new_pair and _wants(wanted) and _are_disjoint(wanted, part):
            text = f"nothing passes this and the {part.type} filter {wanted.value!r} too"
            yield Problem(_value(at), text)
            return


def _are_disjoint(wanted: TextFilter, other: TextFilter) -> bool:
    """Checks whether certainly nothing that `wanted` matches passes `other`."""
    for one, two in ((wanted, other), (other, wanted)):
        if _wants(one) and (text := naming.literal(one.value)) is not None:
            return not compile_text_filter(two)(text)
    start = literal_prefix(wanted.value)
    if not _wants(other):
        excluded = _excluded_prefix(other)
        return bool(excluded) and start.startswith(str(excluded))
    other_start, ends = (
        literal_prefix(other.value),
        sorted(map(literal_suffix, (wanted.value, other.value)), key=len),
    )
    return not (start.startswith(other_start) or other_start.startswith(start)) or not ends[1].endswith(
        ends[0]
    )


def _excluded_prefix(part: TextFilter) -> str | None:
    """Returns `a/` for `a/**`, an empty text for `**` (of tags, `*` too), and None for other patterns."""
    if part.value in ("re:.*", "re:.+"):
        return ""
    start = part.value.rstrip("*")
    is_everything_below = len(part.value) - len(start) >= (1 if isinstance(part, TagFilter) else 2)
    return start if is_everything_below and (not start or naming.literal(start) == start) else None


def _is_sound(part: TextFilter) -> bool:
    """Checks that the pattern has no problem of its own, which is reported already."""
    try:
        compile_pattern(part.value)
    except BadPattern:
        return False
    return impossible_patterns.mistake(part.value, part.type) is None


def _wants(part: TextFilter | LabelFilter) -> bool:
    return part.decoration == "matches"


def _all(filters: Sequence[Filter], kind: type[F]) -> Iterator[tuple[int, F]]:
    return ((at, part) for at, part in enumerate(filters) if isinstance(part, kind))


def _value(at: int) -> FieldPath:
    return ("filters", at, "value")
