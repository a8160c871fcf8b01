"""What a reader of the sync log asks for, parsed once. Pure: SQL narrows down, `admits` decides."""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import orjson

from mesh.control.sync_log.entry import Row
from mesh.errors import InvalidInput
from mesh.rules.matching.patterns import BadPattern, compile_pattern
from schemas.completions import Status
from schemas.names import Digest, ObjectName, PlaceName, Region

DEFAULT_LIMIT, MOST = 100, 1000
_UNENDED = frozenset({Status.PENDING, Status.IN_PROGRESS})
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"(?:\d{1,9}[smhdw])+", re.ASCII)
_EXECUTION = re.compile(r"[!-~]{1,128}", re.ASCII)
# What a glob may stand for, as LIKE says it; each at least as wide as what it replaces.
_GLOB = re.compile(
    r"\\(?P<plain>.)|(?P<any>\*+/?|\{.*\}|\[.[^\]]*\])|(?P<one>\?)|(?P<special>[%_\\])", re.DOTALL
)


class Position(NamedTuple):
    """Where an entry stands in the order of reading: the newest first, and among equals by id."""

    time: datetime
    task_id: str


@dataclass(frozen=True, slots=True)
class Pattern:
    """A name, a doublestar glob, or `re:` and an expression."""

    text: str
    matches: Callable[[str], bool]

    @property
    def is_literal(self) -> bool:
        return not self.text.startswith("re:") and not any(char in "*?[]{}\\" for char in self.text)

    @property
    def like(self) -> str:
        r"""A LIKE pattern (escape `\`) that holds wherever this one does."""
        if self.text.startswith("re:"):
            return "%"
        return _GLOB.sub(_as_like, self.text)


@dataclass(frozen=True, slots=True)
class LogQuery:
    """None, or an empty set, asks for nothing in particular."""

    equal: Mapping[str, str]  # column and value: rule, replica, digest, execution_id
    patterns: Mapping[str, Pattern]  # column and pattern: repository, tag
    statuses: frozenset[Status]
    region: Region | None
    since: datetime | None
    limit: int
    after: Position | None

    @property
    def is_exact(self) -> bool:
        """SQL alone can answer it."""
        return all(pattern.is_literal for pattern in self.patterns.values())

    @property
    def asks_for_unended(self) -> bool:
        return bool(self.statuses & _UNENDED)

    def admits(self, row: Row) -> bool:
        return (
            all(row[column] == value for column, value in self.equal.items())
            and all(pattern.matches(row[column] or "") for column, pattern in self.patterns.items())
            and (not self.statuses or row["status"] in self.statuses)
            and self.region in (None, row["source_region"], row["destination_region"])
            and (self.since is None or position(row).time >= self.since)
        )


def position(row: Row) -> Position:
    return Position(row["end_time"] or row["start_time"], row["task_id"])


def parse(parameters: Mapping[str, str], now: datetime) -> LogQuery:
    """The query of these URL parameters; `InvalidInput`, naming the parameter, when one is wrong or unknown."""
    for name in parameters:
        if name not in PARAMETERS:
            raise InvalidInput(f"{name}: unknown parameter; known are {', '.join(PARAMETERS)}")
    found = {name: PARAMETERS[name](name, text, now) for name, text in parameters.items()}
    columns = {"rule": "rule", "replica": "replica", "digest": "digest", "execution": "execution_id"}
    return LogQuery(
        equal={column: found[name] for name, column in columns.items() if name in found},
        patterns={name: found[name] for name in ("repository", "tag") if name in found},
        statuses=found.get("status", frozenset()),
        region=found.get("region"),
        since=found.get("since"),
        limit=found.get("limit", DEFAULT_LIMIT),
        after=found.get("cursor"),
    )


def cursor_of(at: Position | None) -> str | None:
    """Opaque to readers; None when there is nothing more."""
    if at is None:
        return None
    return base64.urlsafe_b64encode(orjson.dumps([at.time.isoformat(), at.task_id])).decode().rstrip("=")


def parse_cursor(text: str) -> Position:
    """What `cursor_of` gave; `InvalidInput` for anything else."""
    return _cursor("cursor", text)


def _named(kind: type[str]) -> Callable[[str, str, datetime], str]:
    def parse_name(name: str, text: str, _: datetime) -> str:
        try:
            return str(kind(text))
        except ValueError as error:
            raise InvalidInput(f"{name}: {error}") from error

    return parse_name


def _execution(name: str, text: str, _: datetime) -> str:
    if not _EXECUTION.fullmatch(text):
        raise InvalidInput(f"{name}: {text[:80]!r} is not an execution id")
    return text


def _pattern(name: str, text: str, _: datetime) -> Pattern:
    if not 0 < len(text) <= 512:
        raise InvalidInput(f"{name}: must have 1 to 512 characters")
    try:
        return Pattern(text, compile_pattern(text))
    except BadPattern as error:
        raise InvalidInput(f"{name}: {error}") from error


def _statuses(name: str, text: str, _: datetime) -> frozenset[Status]:
    try:
        statuses = frozenset(Status(part) for part in text.split(","))
    except ValueError as error:
        known = ", ".join(status.value for status in Status)
        raise InvalidInput(f"{name}: {text[:80]!r} is not one or several, with commas, of {known}") from error
    if statuses & _UNENDED and statuses - _UNENDED:
        raise InvalidInput(
            f"{name}: Pending and InProgress are no part of the sync log yet: ask without others"
        )
    return statuses


def moment(name: str, text: str, now: datetime) -> datetime:
    """A time with its zone, or how long ago; `InvalidInput`, naming the parameter, for anything else."""
    try:
        if _DURATION.fullmatch(text):
            spans = re.findall(r"(\d+)([smhdw])", text)
            return now - sum((timedelta(**{_UNITS[unit]: int(n)}) for n, unit in spans), timedelta())
        time = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(
            f"{name}: {text[:80]!r} is neither an RFC 3339 time nor a duration such as 30m, 2h or 7d"
        ) from error
    if time.tzinfo is None:
        raise InvalidInput(f"{name}: a time needs a zone, such as Z (a + is written %2B in a URL)")
    return time


def limit(name: str, text: str, _: datetime | None = None) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 8 and 1 <= int(text) <= MOST):
        raise InvalidInput(f"{name}: {text[:80]!r} is not a number from 1 to {MOST}")
    return int(text)


def _cursor(name: str, text: str, _: datetime | None = None) -> Position:
    try:
        time, task_id = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        at = Position(datetime.fromisoformat(time), str(task_id))
    except (ValueError, TypeError, binascii.Error) as error:
        raise InvalidInput(f"{name}: is not a `next` that this API gave") from error
    if at.time.tzinfo is None or "\0" in at.task_id:
        raise InvalidInput(f"{name}: is not a `next` that this API gave")
    return at


def _as_like(found: re.Match[str]) -> str:
    if found["any"]:
        return "%"
    if found["one"]:
        return "_"
    plain = found["plain"] or found["special"]
    return f"\\{plain}" if plain in "%_\\" else plain


PARAMETERS: Mapping[str, Callable[[str, str, datetime], Any]] = {
    "rule": _named(ObjectName),
    "replica": _named(PlaceName),
    "repository": _pattern,
    "tag": _pattern,
    "digest": _named(Digest),
    "status": _statuses,
    "region": _named(Region),
    "execution": _execution,
    "since": moment,
    "cursor": _cursor,
    "limit": limit,
}
