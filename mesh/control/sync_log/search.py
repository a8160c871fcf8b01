"""Reading the sync log in pieces: however rare what is asked for is, no statement goes through all of it.

One filter, the driver, is served by an index in the order of reading. The others are judged on the rows that it gives,
so many at a time; when that was often enough the page ends, and the writer gets its turn.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, Connection, Select, func, literal, or_, select, tuple_

from mesh.control.storage.tables import Moment, sync_log
from mesh.control.sync_log.entry import Row
from mesh.control.sync_log.log_query import LogQuery, Position, position
from schemas.completions import Status

_EXACT_TIMES = 3  # rows that SQL alone can judge cost less: so many times more of them
_RARE = frozenset({Status.FAILED, Status.STOPPED})


class Page(NamedTuple):
    """Newest first. It may be shorter than asked for and still have a next: what is rare is searched in pieces."""

    rows: Sequence[Row]
    next: Position | None


@dataclass(frozen=True, slots=True)
class Search:
    """How far one reading goes."""

    rows: int = 1000  # at a time
    times: int = 20


def read(connection: Connection, query: LogQuery, search: Search) -> Page:
    """A page of the entries that `query` asks for."""
    driver, others = _parted(query)
    if not others:  # every row that comes is one that is wanted
        rows = _rows(connection, _window(driver, query, query.after).limit(query.limit + 1))
        page = rows[: query.limit]
        return Page(page, position(page[-1]) if len(rows) > query.limit else None)
    found: list[Row] = []
    at, size = query.after, search.rows * (_EXACT_TIMES if query.is_exact else 1)
    for _ in range(search.times):
        end = _end_of_piece(connection, driver, query, at, size)
        piece = _window(driver, query, at).where(*others)
        if end is not None:
            piece = piece.where(_place() >= _literal(end))
        for row in _rows(connection, piece.limit(query.limit + 1) if query.is_exact else piece):
            if query.admits(row):
                if len(found) == query.limit:
                    return Page(found, at)
                found.append(row)
            at = position(row)
        if end is None:
            return Page(found, None)
        at = end
    return Page(found, at)


def _parted(query: LogQuery) -> tuple[dict[str, str], list[ColumnElement[bool]]]:
    """The driver, as columns and values, and all other filters, said so that no index is taken for them."""
    exactly = dict(query.equal) | {name: one.text for name, one in query.patterns.items() if one.is_literal}
    if len(query.statuses) == 1:
        exactly |= {"status": next(iter(query.statuses)).value}
    is_rare = exactly.get("status") in _RARE
    driver = {name: exactly.pop(name) for name in _driver(exactly, is_rare=is_rare)}
    others = [_not_by_index(sync_log.c[name]) == value for name, value in exactly.items()]
    for name, pattern in query.patterns.items():
        if not pattern.is_literal:
            others.append(_not_by_index(sync_log.c[name]).like(pattern.like, escape="\\"))
    if len(query.statuses) > 1:
        statuses = sorted(status.value for status in query.statuses)
        others.append(_not_by_index(sync_log.c.status).in_(statuses))
    if query.region is not None:
        region = str(query.region)
        others.append(or_(sync_log.c.source_region == region, sync_log.c.destination_region == region))
    return driver, others


def _driver(exactly: Collection[str], *, is_rare: bool) -> Sequence[str]:
    """The columns of the index that leaves the least, as far as that can be said beforehand."""
    few = [("execution_id",), ("digest",), ("repository", "tag")]
    many = ["repository", "replica", "rule", "status"]
    candidates = [*few, *((name,) for name in (["status"] if is_rare else []) + many)]
    return next((columns for columns in candidates if all(name in exactly for name in columns)), ())


def _not_by_index(column: Column[Any]) -> ColumnElement[Any]:
    return func.coalesce(column, "")


def _window(driver: dict[str, str], query: LogQuery, after: Position | None) -> Select[Any]:
    """What the driver gives, in the order of reading."""
    column = sync_log.c
    wanted = select(sync_log).order_by(column.end_time.desc(), column.task_id.desc())
    wanted = wanted.where(*(column[name] == value for name, value in driver.items()))
    if query.since is not None:
        wanted = wanted.where(column.end_time >= query.since)
    return wanted if after is None else wanted.where(_place() < _literal(after))


def _end_of_piece(
    connection: Connection, driver: dict[str, str], query: LogQuery, after: Position | None, size: int
) -> Position | None:
    """Where the row number `size` stands; None when there are fewer."""
    column = sync_log.c
    at = _window(driver, query, after).with_only_columns(column.end_time, column.task_id)
    last = connection.execute(at.offset(size - 1).limit(1)).first()
    return None if last is None else Position(last.end_time, last.task_id)


def _place() -> ColumnElement[Any]:
    return tuple_(sync_log.c.end_time, sync_log.c.task_id)


def _literal(at: Position) -> ColumnElement[Any]:
    return tuple_(literal(at.time, Moment), literal(at.task_id))


def _rows(connection: Connection, wanted: Select[Any]) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(wanted).mappings()]
