"""Deletes many rows in small transactions, so that nobody waits long behind them for control's only database thread."""

from typing import Any

from sqlalchemy import Column, ColumnElement, delete, select

from mesh.control.storage.database import Database

_ROWS = 1000  # of one transaction


async def delete_in_pieces(database: Database, key: Column[Any], condition: ColumnElement[bool]) -> int:
    """Deletes the rows that meet a condition, which should be served by an index; returns how many.

    Args:
        database: Where they are.
        key: The primary key of their table, of one column.
        condition: Which rows are deleted.

    Raises:
        DatabaseUnavailable: The database does not answer; what was deleted stays deleted.
    """
    some = select(key).where(condition).limit(_ROWS)
    deleting = delete(key.table).where(key.in_(some))
    deleted = 0
    while True:
        count = await database.run(lambda connection: connection.execute(deleting).rowcount)
        deleted += count
        if count < _ROWS:
            return deleted
