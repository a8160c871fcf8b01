"""Filters of a rule that can never all hold, as far as that can be told without an image. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from mesh.rules import naming
from mesh.rules.matching import name_grammar, platforms, versions
from mesh.rules.matching.patterns import BadPattern, compile_pattern, literal_suffix
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
        yield from _unfit(rule.filters, kind)
        yield from _literals(rule.filters, kind)
        yield from _apart(rule.filters, kind)
        yield from _nothing_left(rule.filters, kind)


def _resources(filters: Sequence[Filter]) -> Iterator[Problem]:
    found = list(_all(filters, ResourceFilter))
    if len({part.value for _, part in found}) > 1:
        yield _value(found[-1][0]), "two different resource filters can never both hold; use two rules"
    others = [(at, part.value) for at, part in found if part.value != "image"]
    if others and any(_all(filters, PlatformFilter)):
        at, what = others[-1]
        one = "an artifact" if what == "artifact" else "a chart"
        yield (
            _value(at),
            f"{one} runs on no platform: this and the platform filter can never both hold",
        )


def _opposites(filters: Sequence[Filter]) -> Iterator[Problem]:
    seen: dict[tuple[str, str], str] = {}
    for at, part in enumerate(filters):
        if isinstance(part, NameFilter | TagFilter | LabelFilter):
            key = (part.type, part.value)
            if seen.setdefault(key, part.decoration) != part.decoration:
                message = f"one {part.type} filter matches {part.value!r} and another excludes it: nothing passes both"
                yield ("filters", at, "decoration"), message
    keys = {part.value.partition("=")[0]: part for _, part in _all(filters, LabelFilter) if _wants(part)}
    for at, part in _all(filters, LabelFilter):
        if not _wants(part) and (other := keys.get(part.value)) is not None and other.value != part.value:
            yield _value(at), f"nothing passes this and the label filter {other.value!r} too"


def _versions(filters: Sequence[Filter]) -> Iterator[Problem]:
    found = list(_all(filters, SemverFilter))
    try:
        if not found or versions.can_hold([part.value for _, part in found]):
            yield from _unversioned(filters, [part.value for _, part in found])
            return
    except BadPattern:
        return  # told where it stands
    at, part = found[-1]
    together = " together with the other semver filter" if len(found) > 1 else ""
    yield _value(at), f"no version is within {part.value!r}{together}"


def _unversioned(filters: Sequence[Filter], ranges: Sequence[str]) -> Iterator[Problem]:
    """A tag by its name that is not within the range."""
    for at, part in _all(filters, TagFilter):
        tag = naming.literal(part.value) if _wants(part) else None
        for text in ranges if tag is not None else ():
            if not versions.compile_range(text)(str(tag)):
                yield (
                    _value(at),
                    f"{tag!r} is no version within the semver filter {text!r}: nothing passes both",
                )
                return


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
        if not _wants(one) or (text := naming.literal(one.value)) is None:
            continue
        for at, part in found:
            if part.value != one.value and not _holds(part, text):
                yield _value(at), f"nothing passes this and the {part.type} filter {one.value!r} too"
                return


def _unfit(filters: Sequence[Filter], kind: type[NameFilter] | type[TagFilter]) -> Iterator[Problem]:
    """What nothing can ever fit: as `matches` it copies nothing in silence, as `excludes` it leaves nothing out."""
    for at, part in _all(filters, kind):
        if (mistake := name_grammar.mistake(part.value, part.type)) is not None:
            yield _value(at), mistake


def _apart(filters: Sequence[Filter], kind: type[NameFilter] | type[TagFilter]) -> Iterator[Problem]:
    """Two patterns of which what fits begins, or ends, in different ways."""
    wanted = [it for it in _all(filters, kind) if _wants(it[1]) and _is_sound(it[1])]
    for number, (at, part) in enumerate(wanted):
        for _, earlier in wanted[:number]:
            values = part.value, earlier.value
            if any(naming.literal(value) is not None for value in values):
                continue  # told of the literals
            (head, head_2), (tail, tail_2) = map(name_grammar.head, values), map(literal_suffix, values)
            heads = head.startswith(head_2) or head_2.startswith(head)
            tails = tail.endswith(tail_2) or tail_2.endswith(tail)
            if not (heads and tails):
                yield _value(at), f"nothing passes this and the {part.type} filter {earlier.value!r} too"
                return


def _nothing_left(filters: Sequence[Filter], kind: type[NameFilter] | type[TagFilter]) -> Iterator[Problem]:
    """Excluded is all that another one wants, or everything there is."""
    wanted = [part for _, part in _all(filters, kind) if _wants(part) and _is_sound(part)]
    for at, part in _all(filters, kind):
        start = None if _wants(part) else _all_that_begins_with(part)
        if start == "":
            yield _value(at), f"every {part.type} is excluded: nothing passes"
        patterns = [it.value for it in wanted if it.value != part.value and naming.literal(it.value) is None]
        covered = [it for it in patterns if start and name_grammar.head(it).startswith(start)]
        if covered:
            yield _value(at), f"nothing passes this and the {part.type} filter {covered[0]!r} too"


def _all_that_begins_with(part: NameFilter | TagFilter) -> str | None:
    """`a/` of `a/**`, nothing of `**`; None of a pattern of another kind. A tag has no '/', so `*` is all of it."""
    if part.value in ("re:.*", "re:.+"):
        return ""
    start = part.value.rstrip("*")
    everything = len(part.value) - len(start) >= (1 if isinstance(part, TagFilter) else 2)
    return start if everything and (not start or naming.literal(start) == start) else None


def _is_sound(part: NameFilter | TagFilter) -> bool:
    """Not told where it stands already."""
    try:
        compile_pattern(part.value)
    except BadPattern:
        return False
    return name_grammar.mistake(part.value, part.type) is None


def _wants(part: NameFilter | TagFilter | LabelFilter) -> bool:
    return part.decoration == "matches"


def _holds(part: NameFilter | TagFilter, text: str) -> bool:
    try:
        return compile_pattern(part.value)(text) is (part.decoration == "matches")
    except BadPattern:
        return True  # told where it stands


def _all(filters: Sequence[Filter], kind: type[F]) -> Iterator[tuple[int, F]]:
    return ((at, part) for at, part in enumerate(filters) if isinstance(part, kind))


def _value(at: int) -> tuple[str | int, ...]:
    return ("filters", at, "value")
