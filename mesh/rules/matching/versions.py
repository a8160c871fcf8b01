"""Semantic versions in tags, and ranges of them in npm's notation.

A tag is a version when all of it is: `1.4.2`, `v1.4.2`, `1.5.0-rc.1`, but not `1.4` or `latest`. As in Helm, `_` in a
tag stands for the `+` of a version, which a tag cannot contain.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import chain
from typing import Any

import nodesemver

from mesh.rules.matching.patterns import BadPattern

_IDENTIFIERS = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_VERSION = re.compile(
    rf"v?[0-9]{{1,9}}\.[0-9]{{1,9}}\.[0-9]{{1,9}}(?:-{_IDENTIFIERS})?(?:\+{_IDENTIFIERS})?", re.ASCII
)


class BadRange(BadPattern):
    """The text is no range of versions; the message says why."""


@lru_cache(maxsize=20_000)
def compile_range(text: str) -> Callable[[str], bool]:
    """Returns a check whether a tag's version is within the range.

    As in npm, a pre-release is within it only where the range names a pre-release of the same version.

    Raises:
        BadRange: The text is no range.
    """
    parsed = _parse(text)

    def holds(tag: str) -> bool:
        version = _version(tag)
        return version is not None and bool(parsed.test(version))

    return holds


def can_hold(ranges: Iterable[str]) -> bool:
    """Checks whether some version is within all of the ranges.

    A range begins and ends at the versions that it names: it is enough to try these, and the versions next to them.

    Raises:
        BadRange: One of the texts is no range.
    """
    parsed = [_parse(text) for text in ranges]
    edges = chain.from_iterable(_edges(one) for one in parsed)
    return any(
        all(one.test(version) for one in parsed) for text in ("0.0.0", *edges) if (version := _version(text))
    )


def _parse(text: str) -> Any:
    if not text.strip() or not text.isascii():
        raise BadRange(f"{text!r} is no range of versions")
    try:
        return nodesemver.make_range(text, loose=False)
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        hint = "; alternatives are joined by '||', what must hold together by a blank" if "," in text else ""
        raise BadRange(
            f"{text!r} is no range of versions such as '>=1.2 <2', '~1.2' or '^1.2.3'{hint}"
        ) from error


@lru_cache(maxsize=20_000)
def _version(tag: str) -> Any:
    """Returns the parsed version; None when the tag is no version."""
    text = tag.replace("_", "+", 1)
    if _VERSION.fullmatch(text) is None:
        return None
    try:
        return nodesemver.make_semver(text.removeprefix("v"), loose=False)
    except ValueError:
        return None  # leading zeros


def _edges(parsed: Any) -> Iterable[str]:
    named = [one.semver for one in chain.from_iterable(parsed.set) if one.operator is not None]
    for version in named:
        core, following = (f"{version.major}.{version.minor}.{version.patch + more}" for more in (0, 1))
        yield from (version.version, core, following, f"{core}-0", f"{following}-0")
        if version.prerelease:
            yield f"{version.version}.0"
