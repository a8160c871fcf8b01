"""Parked tasks in a private database of SQLite, whose pages go to a temporary file where they are many.

A destination that is away for a day may have hundreds of thousands, so they are not kept in memory. The log has them
too: what is here is a view of it, made anew at each start, and never flushed to the disk. A question about one task is
answered by an index; one about all of them reads an index to its end.
"""

import sqlite3
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from mesh.errors import LogUnavailable
from schemas import codec
from schemas.parked import Parked

_START = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CACHE_KIB = 4096

Column = str | int | None


class ParkedStore:
    """The newest record of each parked task, with columns of it to ask for many at once. For one thread.

    Every method raises `LogUnavailable` when the temporary file cannot be used, for example as its disk is full.
    """

    def __init__(self, columns: Mapping[str, Callable[[Parked], Column]], indexes: Sequence[str]) -> None:
        """`columns` says how each is made of a record; each of `indexes` lists some of them, separated by commas."""
        self._columns, self._indexes = columns, indexes
        self._opened: sqlite3.Connection | None = None  # from the first record on
        marks = ", ".join("?" * (len(columns) + 2))
        names = ", ".join(("task_id", "record", *columns))
        self._insert = f"INSERT INTO parked ({names}) VALUES ({marks})"  # noqa: S608  # names from the code

    def __contains__(self, task_id: str) -> bool:
        return bool(self.rows("SELECT 1 FROM parked WHERE task_id = ?", task_id))

    def get(self, task_id: str) -> Parked | None:
        """Returns a task by its id."""
        return next(self.records("WHERE task_id = ?", task_id), None)

    def replace(self, task_id: str, parked: Parked | None) -> None:
        """Takes the newest record of a task, None when it has ended."""
        with _translated():
            if self._opened is not None:
                self._opened.execute("DELETE FROM parked WHERE task_id = ?", (task_id,))
            if parked is not None:
                packed = zlib.compress(codec.encode(parked), 1)
                values = (make(parked) for make in self._columns.values())
                self._database().execute(self._insert, (task_id, packed, *values))

    def rows(self, statement: str, *values: Column) -> list[Any]:
        """Returns the rows that a statement finds; none while there has been no task."""
        if self._opened is None:
            return []
        with _translated():
            return self._opened.execute(statement, values).fetchall()

    def change(self, statement: str, *values: Column) -> int:
        """Changes columns by a statement, and returns of how many tasks."""
        if self._opened is None:
            return 0
        with _translated():
            return self._opened.execute(statement, values).rowcount

    def records(self, condition: str, *values: Column) -> Iterator[Parked]:
        """Yields the records that a condition finds, which are read at once and unpacked one by one."""
        statement = f"SELECT record FROM parked {condition}"  # noqa: S608  # conditions are literals in the code
        for (packed,) in self.rows(statement, *values):
            yield codec.decode(zlib.decompress(packed), Parked)

    def _database(self) -> sqlite3.Connection:
        if self._opened is None:
            opened = sqlite3.connect(
                "", isolation_level=None
            )  # "": a temporary file that is deleted by itself
            for pragma in ("journal_mode = MEMORY", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}"):
                opened.execute(f"PRAGMA {pragma}")
            names = ", ".join(self._columns)
            opened.execute(f"CREATE TABLE parked (task_id PRIMARY KEY, record BLOB NOT NULL, {names})")
            for number, index in enumerate(self._indexes):
                opened.execute(f"CREATE INDEX index_{number} ON parked ({index})")
            self._opened = opened
        return self._opened


def microseconds(time: datetime) -> int:
    """Returns a time as the database has it: microseconds since 1970."""
    return (time - _START) // _MICROSECOND


def time_of(number: int) -> datetime:
    """Returns the time that `microseconds` made a number of."""
    return _START + number * _MICROSECOND


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise LogUnavailable(
            f"the temporary file of parked tasks cannot be used: {error}; TMPDIR names the folder of temporary files"
        ) from error
