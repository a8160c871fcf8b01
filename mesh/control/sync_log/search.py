"""Searches the sync log step by step, so that no statement scans all of it, however rare the wanted entries are.

One filter, the driver, is served by an index in the order of reading. The others are applied to the rows that it
yields, a limited number in each step. After a limited number of steps the page ends, so that the writer is not blocked.
"""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, func, or_, select, tuple_

from mesh.control.settings import ControlSettings
from mesh.control.storage import paging
from mesh.control.storage.paging import Page, Position
from mesh.control.storage.tables import sync_log
from mesh.control.sync_log.entry import Row
from mesh.control.sync_log.log_query import LogQuery, position
from schemas.completions import Status

_EXACT_FACTOR = 3  # rows that SQL alone can filter are cheaper, so a step reads so many times more of them
_RARE = frozenset({Status.FAILED, Status.STOPPED})


def search(connection: Connection, query: LogQuery, settings: ControlSettings) -> Page[Row]:
    """Returns a page of the rows that match the query, newest first.

    A page may have fewer rows than asked for and still have a next one.
    """
    driver, others = _split_filters(query)
    if not others:  # the driver yields only wanted rows
        rows = _rows(connection, _window(driver, query, query.after).limit(query.limit + 1))
        return paging.first_page(rows, query.limit, position)
    found: list[Row] = []
    at, size = query.after, settings.log_search_rows * (_EXACT_FACTOR if query.is_exact else 1)
    for _ in range(settings.log_search_steps):
        end = _end_of_step(connection, driver, query, at, size)
        piece = _window(driver, query, at).where(*others)
        if end is not None:
            piece = piece.where(tuple_(sync_log.c.end_time, sync_log.c.task_id) >= paging.sql_position(end))
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


def _split_filters(query: LogQuery) -> tuple[dict[str, str], list[ColumnElement[bool]]]:
    """Returns the driver, as columns and values, and the other filters in a form that no index serves."""
    exactly = dict(query.equal) | {name: one.text for name, one in query.patterns.items() if one.is_literal}
    if len(query.statuses) == 1:
        exactly |= {"status": next(iter(query.statuses)).value}
    is_rare = exactly.get("status") in _RARE
    driver = {name: exactly.pop(name) for name in _driver(exactly, is_rare=is_rare)}
    others = [_without_index(sync_log.c[name]) == value for name, value in exactly.items()]
    for name, pattern in query.patterns.items():
        if not pattern.is_literal:
            others.append(_without_index(sync_log.c[name]).like(pattern.like, escape="\\"))
    if len(query.statuses) > 1:
        statuses = sorted(status.value for status in query.statuses)
        others.append(_without_index(sync_log.c.status).in_(statuses))
    if query.region is not None:
        region = str(query.region)
        others.append(or_(sync_log.c.source_region == region, sync_log.c.destination_region == region))
    return driver, others


def _driver(exactly: Collection[str], *, is_rare: bool) -> Sequence[str]:
    """Returns the columns of the index that probably selects the fewest rows."""
    selective = [("execution_id",), ("digest",), ("repository", "tag")]
    broad = ["repository", "replica", "rule", "status"]
    candidates = [*selective, *((name,) for name in (["status"] if is_rare else []) + broad)]
    return next((columns for columns in candidates if all(name in exactly for name in columns)), ())


def _without_index(column: Column[Any]) -> ColumnElement[Any]:
    return func.coalesce(column, "")


def _window(driver: dict[str, str], query: LogQuery, after: Position | None) -> Select[Any]:
    """Selects the rows of the driver after a position, newest first."""
    column = sync_log.c
    wanted = select(sync_log).order_by(column.end_time.desc(), column.task_id.desc())
    wanted = wanted.where(*(column[name] == value for name, value in driver.items()))
    if query.since is not None:
        wanted = wanted.where(column.end_time >= query.since)
    return wanted if after is None else wanted.where(paging.after(column.end_time, column.task_id, after))


def _end_of_step(
    connection: Connection, driver: dict[str, str], query: LogQuery, after: Position | None, size: int
) -> Position | None:
    """Returns the position of row number `size`; None when there are fewer."""
    column = sync_log.c
    at = _window(driver, query, after).with_only_columns(column.end_time, column.task_id)
    last = connection.execute(at.offset(size - 1).limit(1)).first()
    return None if last is None else Position(last.end_time, last.task_id)


def _rows(connection: Connection, wanted: Select[Any]) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(wanted).mappings()]
