"""Parses the query parameters of the sync log. Pure: SQL selects candidates, `LogQuery.admits` decides."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mesh.control.storage.paging import DEFAULT_LIMIT, Position, parse_cursor, parse_limit
from mesh.control.sync_log.entry import Row
from mesh.errors import InvalidInput
from mesh.rules.matching.patterns import BadPattern, compile_pattern
from schemas.completions import Status
from schemas.names import Digest, ObjectName, PlaceName, Region

_NOT_ENDED = frozenset({Status.PENDING, Status.IN_PROGRESS})
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"(?:\d{1,9}[smhdw])+", re.ASCII)
_EXECUTION = re.compile(r"[!-~]{1,128}", re.ASCII)
# The parts of a glob that LIKE has to express; each LIKE part matches at least as much as the glob part.
_GLOB = re.compile(
    r"\\(?P<plain>.)|(?P<any>\*+/?|\{.*\}|\[.[^\]]*\])|(?P<one>\?)|(?P<special>[%_\\])", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A name, a doublestar glob, or `re:` and an expression."""

    text: str
    matches: Callable[[str], bool]

    @property
    def is_literal(self) -> bool:
        """Whether it matches only its own text."""
        return not self.text.startswith("re:") and not any(char in "*?[]{}\\" for char in self.text)

    @property
    def like(self) -> str:
        r"""A LIKE pattern (escape `\`) that matches at least what this pattern matches."""
        if self.text.startswith("re:"):
            return "%"
        return _GLOB.sub(_as_like, self.text)


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What to read from the sync log. None, or an empty set, is no restriction."""

    equal: Mapping[str, str]  # column and value: rule, replica, digest, execution_id
    patterns: Mapping[str, Pattern]  # column and pattern: repository, tag
    statuses: frozenset[Status]
    region: Region | None
    since: datetime | None
    limit: int
    after: Position | None

    @property
    def is_exact(self) -> bool:
        """Whether SQL alone can answer it."""
        return all(pattern.is_literal for pattern in self.patterns.values())

    @property
    def is_of_active_tasks(self) -> bool:
        """Whether it asks for tasks that have not ended, which are not in the database."""
        return bool(self.statuses & _NOT_ENDED)

    def admits(self, row: Row) -> bool:
        """Checks whether a row matches all of the query."""
        return (
            all(row[column] == value for column, value in self.equal.items())
            and all(pattern.matches(row[column] or "") for column, pattern in self.patterns.items())
            and (not self.statuses or row["status"] in self.statuses)
            and self.region in (None, row["source_region"], row["destination_region"])
            and (self.since is None or position(row).time >= self.since)
        )


def position(row: Row) -> Position:
    """Returns the position of a row: by its end time, or by its start time while it is in progress."""
    return Position(row["end_time"] or row["start_time"], row["task_id"])


def parse(parameters: Mapping[str, str], now: datetime) -> LogQuery:
    """Returns the query of these URL parameters.

    Raises:
        InvalidInput: A parameter is unknown or has a bad value; the message names it.
    """
    for name in parameters:
        if name not in PARAMETERS:
            raise InvalidInput(f"{name}: unknown parameter; use {', '.join(PARAMETERS)}")
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
        raise InvalidInput(
            f"{name}: {text[:80]!r} is not one or several (separated by commas) of {known}"
        ) from error
    if statuses & _NOT_ENDED and statuses - _NOT_ENDED:
        raise InvalidInput(
            f"{name}: Pending and InProgress cannot be combined with the status of ended tasks"
        )
    return statuses


def moment(name: str, text: str, now: datetime) -> datetime:
    """Returns the time that a parameter names: an RFC 3339 time, or a duration before now.

    Raises:
        InvalidInput: The text is neither; the message names the parameter.
    """
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
        raise InvalidInput(f"{name}: add a time zone to the time, such as Z (in a URL write + as %2B)")
    return time


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
    "cursor": lambda _, text, __: parse_cursor(text),
    "limit": lambda _, text, __: parse_limit(text),
}
