"""Keyset paging of lists, newest first: positions, cursors and pages.

A position is a time and an id, so a page starts where the last one ended, whatever was added in between.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

import orjson
from sqlalchemy import Column, ColumnElement, literal, tuple_

from mesh.control.storage.tables import Moment
from mesh.errors import InvalidInput

DEFAULT_LIMIT, MAX_LIMIT = 100, 1000

T = TypeVar("T")


class Position(NamedTuple):
    """Where an item stands in a list that is ordered by time and, among equals, by id."""

    time: datetime
    id: str


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items of a list; `next` is where the next page starts, None after the last item."""

    items: Sequence[T]
    next: Position | None


def first_page(items: Sequence[T], limit: int, position: Callable[[T], Position]) -> Page[T]:
    """Returns the first `limit` items as a page; one item more shows that there is a next page."""
    page = items[:limit]
    return Page(page, position(page[-1]) if len(items) > limit else None)


def after(time: Column[Any], item_id: Column[Any], position: Position) -> ColumnElement[bool]:
    """Returns the SQL condition of rows that come after a position, newest first."""
    return tuple_(time, item_id) < sql_position(position)


def sql_position(position: Position) -> ColumnElement[Any]:
    """Returns a position as an SQL value, to be compared with a tuple of columns."""
    return tuple_(literal(position.time, Moment), literal(position.id))


def cursor_of(position: Position | None) -> str | None:
    """Returns a position as text that clients treat as opaque; None after the last page."""
    if position is None:
        return None
    return (
        base64.urlsafe_b64encode(orjson.dumps([position.time.isoformat(), position.id])).decode().rstrip("=")
    )


def parse_cursor(text: str) -> Position:
    """Returns the position that `cursor_of` wrote.

    Raises:
        InvalidInput: The text is not a cursor.
    """
    try:
        time, item_id = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        position = Position(datetime.fromisoformat(time), str(item_id))
        if position.time.tzinfo is None or "\0" in position.id:
            raise ValueError  # noqa: TRY301
    except (ValueError, TypeError, binascii.Error) as error:
        raise InvalidInput("cursor: use the value of `next` from an answer of this API") from error
    return position


def parse_limit(text: str) -> int:
    """Returns the number of items that a client wants on a page.

    Raises:
        InvalidInput: It is not a number from 1 to 1000.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 8 and 1 <= int(text) <= MAX_LIMIT):
        raise InvalidInput(f"limit: {text[:80]!r} is not a number from 1 to {MAX_LIMIT}")
    return int(text)
