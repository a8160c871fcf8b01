"""Parses `WWW-Authenticate` (RFC 9110, section 11.6.1): several challenges in one or more headers. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_LONGEST = 8192
_WORD = r"[A-Za-z0-9!#$%&'*+.^_`|~-]++"
# All quantifiers are possessive, so the time is linear in the header's length for any input.
_PART = re.compile(
    rf"[\s,]*+({_WORD})(?:\s*+(=)\s*+(?:\"((?:[^\"\\]|\\.)*+)\"|([^\s,\"]*+)))?+", re.ASCII | re.DOTALL
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One scheme with its parameters; their names are in lower case."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


def parse(headers: Iterable[str]) -> list[Challenge]:
    """Returns all challenges in order, of each header those before the first syntax error."""
    found: list[Challenge] = []
    for header in headers:
        found += _parse_one(header[:_LONGEST])
    return found


def choose(headers: Iterable[str]) -> Challenge | None:
    """Returns the challenge to answer: Bearer with a realm, else Basic, else None."""
    challenges = parse(headers)
    for challenge in challenges:
        if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
            return challenge
    return next((challenge for challenge in challenges if challenge.scheme == "basic"), None)


def _parse_one(header: str) -> list[Challenge]:
    found: list[Challenge] = []
    position = 0
    while part := _PART.match(header, position):
        name, equals, quoted, plain = part.groups()
        if not equals:
            found.append(Challenge(name.lower()))
        elif found:
            value = _ESCAPED.sub(r"\1", quoted) if quoted is not None else plain
            found[-1].parameters.setdefault(name.lower(), value)
        position = part.end()
    return found
