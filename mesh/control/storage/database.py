"""Control's database: every call is one transaction, in a thread of its own, so that the event loop is not blocked.

SQLite for a process with all roles, PostgreSQL for a fleet. The errors of both are translated only here.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    NoSuchModuleError,
    SQLAlchemyError,
    StatementError,
)

from mesh import sqlite_file
from mesh.clock import Clock, SystemClock
from mesh.control.settings import ControlSettings
from mesh.control.storage.tables import OLD_INDEXES, metadata
from mesh.errors import DatabaseRefused, DatabaseUnavailable, InvalidInput, clean

R = TypeVar("R")

_CONNECT_TIMEOUT = 10  # seconds
_LOCK_TIMEOUT = 10  # seconds to wait for another process that writes to the same SQLite file
_VACUUM_PAGES = 500  # free pages that one transaction gives back
_KEPT_PAGES = 2048  # 8 MiB, so that ordinary work does not grow and shrink the file
_PERMANENT = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_CORRUPT,
    }
)
_APPLICATION = 0x72676D63  # "rgmc": distinguishes the file from other SQLite files
_VERSION = 1
_FAILING_SECONDS = 120.0  # after a failure that no success has followed; retries come more often


def check(url: str) -> None:
    """Checks that `url` names a database that can be used.

    A server that does not answer, or a locked file, passes: control waits for it.

    Raises:
        InvalidInput: Waiting would not make it usable.
    """
    engine = _engine(url, ControlSettings())
    if engine.dialect.name == "sqlite":
        _check_file(engine)


class Database:
    """Opened at its first use, so that an unavailable database stops only what needs it."""

    def __init__(self, url: str, settings: ControlSettings | None = None, clock: Clock | None = None) -> None:
        """Parses the URL; the connection is opened at the first use.

        Raises:
            InvalidInput: `url` is not the URL of a supported database.
        """
        self._engine = _engine(url, settings or ControlSettings())
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="control-database")
        self._has_tables = False
        self._closed = False
        self._clock = clock or SystemClock()
        self._failures: dict[str, tuple[float, str]] = {}  # by step: when it failed last, and how

    @property
    def failure(self) -> str | None:
        """Why something that is tried again and again does not succeed; None while everything does."""
        oldest = self._clock.monotonic() - _FAILING_SECONDS
        return next((message for at, message in list(self._failures.values()) if at > oldest), None)

    async def run(self, step: Callable[[Connection], R]) -> R:
        """Runs `step` in one transaction, which is committed when it returns and rolled back when it raises.

        Raises:
            DatabaseUnavailable: The transaction failed. If the connection broke at the very end it may be committed
                all the same, so a step must be harmless to repeat.
            DatabaseRefused: The database cannot store a value of the step.
        """
        if self._closed:
            raise DatabaseUnavailable("the sync log's database is closed")
        name: str = getattr(step, "func", step).__qualname__
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._thread, self._transaction, step)
        except DatabaseUnavailable as error:
            self._failures[name] = self._clock.monotonic(), str(error)
            raise
        self._failures.pop(name, None)
        return result

    async def give_back(self) -> None:
        """Gives free pages of a SQLite file back to the file system, in small transactions.

        Raises:
            DatabaseUnavailable: A transaction failed.
        """
        if self._engine.dialect.name == "sqlite":
            while await self.run(_give_back):
                pass

    async def close(self) -> None:
        """Waits for the running transaction, then closes the database."""
        if not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.dispose)
            self._thread.shutdown(wait=False)

    def _transaction(self, step: Callable[[Connection], R]) -> R:
        try:
            with self._engine.begin() as connection:
                if not self._has_tables:
                    _make_tables(connection)
                result = step(connection)
        except (SQLAlchemyError, OverflowError, UnicodeError) as error:
            kind = DatabaseRefused if _is_refusal(error) else DatabaseUnavailable
            raise kind(_describe(error)) from error
        self._has_tables = True
        return result


def _give_back(connection: Connection) -> bool:
    """Returns whether there are more pages to give back. A file of an earlier version has none, it only reuses them."""
    pragmas = ("auto_vacuum", "freelist_count")
    mode, free = (connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in pragmas)
    if mode == 0 or free <= _KEPT_PAGES:
        return False
    connection.exec_driver_sql(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").all()
    return True


def _make_tables(connection: Connection) -> None:
    """Creates missing tables, and the columns (always nullable) and indexes that older versions did not have."""
    if connection.dialect.name == "sqlite":
        for statement in sqlite_file.mark(_APPLICATION, _VERSION):
            connection.exec_driver_sql(statement)
    if connection.dialect.name == "postgresql":  # to build an index of millions of rows takes time
        connection.execute(text("SET LOCAL statement_timeout = 0"))
    metadata.create_all(connection)
    for table in metadata.sorted_tables:
        existing = {column["name"] for column in inspect(connection).get_columns(table.name)}
        for column in table.columns:
            if column.name not in existing:
                kind = column.type.compile(connection.dialect)
                connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}"))
        for index in table.indexes:
            index.create(connection, checkfirst=True)
    for name in OLD_INDEXES:
        connection.execute(text(f"DROP INDEX IF EXISTS {name}"))


def _engine(url: str, settings: ControlSettings) -> Engine:
    try:
        parsed = make_url(url)
        return _sqlite(parsed) if parsed.get_backend_name() == "sqlite" else _postgresql(parsed, settings)
    except (ArgumentError, NoSuchModuleError) as error:
        raise InvalidInput(
            "the URL of the sync log's database must be sqlite:///FILE or postgresql://USER@HOST/NAME"
        ) from error
    except ModuleNotFoundError as error:
        raise InvalidInput("PostgreSQL needs a driver: pip install 'regmesh[postgresql]'") from error


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": _LOCK_TIMEOUT}, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _: Any) -> None:
        # FULL: offsets are committed on the log after the entry, so a power cut must not lose the entry.
        for pragma in ("auto_vacuum=INCREMENTAL", "journal_mode=WAL", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def _check_file(engine: Engine) -> None:
    """Opens the file for writing, as later, and leaves it unchanged."""
    (file, *_), options = engine.dialect.create_connect_args(engine.url)
    at_once: dict[str, Any] = {**options, "timeout": 0}
    try:
        with closing(sqlite3.connect(file, **at_once)) as connection:
            reason = sqlite_file.why_unfit(
                connection, application=_APPLICATION, version=_VERSION, adopted=("sync_log", "executions")
            )
            if reason is not None:
                raise InvalidInput(f"the sync log's database {engine.url.database!r} {reason}")
            for statement in (
                "PRAGMA auto_vacuum=INCREMENTAL",
                "PRAGMA journal_mode=WAL",
                "BEGIN IMMEDIATE",
                "ROLLBACK",
            ):
                connection.execute(statement)
    except sqlite3.Error as error:
        if error.sqlite_errorcode & 0xFF in _PERMANENT:
            raise InvalidInput(_why_unusable(Path(engine.url.database or ""), error)) from error


def _why_unusable(file: Path, error: sqlite3.Error) -> str:
    database = f"the sync log's database {str(file)!r}"
    if file.is_dir():
        return f"{database} is a folder: name a file in it"
    if not file.parent.is_dir():
        return f"{database} is in a folder that does not exist: create it, or name another file"
    if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
        return f"{database} is not an SQLite file: name another one"
    if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CORRUPT:
        return f"{database} {sqlite_file.damaged(str(error))}"
    return f"{database} cannot be written: check the permissions of the file and of its folder, or name another one"


def _postgresql(url: URL, settings: ControlSettings) -> Engine:
    milliseconds = int(settings.database_statement_timeout * 1000)
    if url.get_backend_name() != "postgresql":
        raise ArgumentError("not PostgreSQL")
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={
            "connect_timeout": _CONNECT_TIMEOUT,
            "tcp_user_timeout": milliseconds,
            "options": f"-c statement_timeout={milliseconds}",
        },
        hide_parameters=True,
        pool_pre_ping=True,
        pool_size=1,
    )


def _is_refusal(error: Exception) -> bool:
    """Checks whether a value is at fault, which every repetition would have again."""
    return isinstance(error, DataError | OverflowError | UnicodeError) or (
        isinstance(error, StatementError) and not isinstance(error, DBAPIError)
    )


def _describe(error: Exception) -> str:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return f"the sync log's database failed: {type(cause).__name__}: {clean(str(cause), 200)}"
