"""Group commit: one thread writes all waiting jobs in one transaction, and reports their results after the commit.

Jobs that arrive while a transaction is synced go into the next one, so that concurrent appends share an fsync.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import structlog

from mesh.errors import LogUnavailable
from mesh.log.sqlite.file import DISK_TIMEOUT, disk_timed_out, is_fatal, translate
from mesh.log.sqlite.statements import Transaction

T = TypeVar("T")

LOG = structlog.get_logger()
_MAX_JOBS = 1000
_MAX_BYTES = 8 << 20
_CHECKPOINT_BYTES = 4 << 20
_COMMIT_BYTES = 16 << 10  # the least that a transaction adds to the write-ahead log


class _Job(NamedTuple):
    work: Callable[[Transaction], Any]
    size: int
    done: asyncio.Future[Any]


class Writer:
    """Runs jobs on the writing connection. `committed` is called in the event loop with the new ends of a commit."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        ends: Mapping[int, int],
        committed: Callable[[Mapping[int, int]], None],
    ) -> None:
        self._connection = connection
        self._ends = dict(ends)
        self._committed = committed
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self.broken: str | None = None
        self._since_checkpoint = 0
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[Transaction], T], *, size: int = 0) -> T:
        """Runs `work` in a transaction and returns its result once that is durable.

        Args:
            work: What to do; it runs in the writer's thread.
            size: The approximate number of bytes that it writes.

        Raises:
            LogUnavailable: The result may not be durable.
        """
        if self._closed or self.broken:
            raise LogUnavailable(self.broken or "the embedded log is closed")
        job = _Job(work, size, self._loop.create_future())
        self._jobs.put(job)
        try:
            async with asyncio.timeout(DISK_TIMEOUT):
                result: T = await job.done
        except TimeoutError as error:
            raise disk_timed_out() from error
        return result

    async def close(self) -> None:
        """Finishes waiting jobs; later ones are refused."""
        self._closed = True
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        more = True
        while more:
            jobs, more = self._take()
            if jobs:
                self._settle(jobs, *self._write(jobs))
                self._checkpoint_when_due(sum(job.size for job in jobs))
        if not self.broken:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _take(self) -> tuple[list[_Job], bool]:
        """Returns the waiting jobs, at least one, and whether more may follow."""
        jobs: list[_Job] = []
        size = 0
        while len(jobs) < _MAX_JOBS and size < _MAX_BYTES:
            try:
                job = self._jobs.get(block=not jobs)
            except queue.Empty:
                break
            if job is None:
                return jobs, False
            jobs.append(job)
            size += job.size
        return jobs, True

    def _write(self, jobs: list[_Job]) -> tuple[list[Any] | Exception, Mapping[int, int]]:
        """Returns the results of all jobs, or the error that rolled all of them back, and the new ends."""
        if self.broken:
            return LogUnavailable(self.broken), {}
        transaction = Transaction(self._connection, self._ends)
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            results = [job.work(transaction) for job in jobs]
            transaction.store_ends()
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001  # the thread must go on: the jobs get the error, whatever it is
            self._undo()
            if isinstance(error, sqlite3.Error) and is_fatal(error):
                self._break(error)
            return error, {}
        self._ends.update(transaction.new_ends)
        return results, transaction.new_ends

    def _undo(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._break(error)

    def _explained(self, error: Exception) -> Exception:
        """Returns a new error for each waiting job, since each one is raised with a traceback of its own."""
        if not isinstance(error, sqlite3.Error):
            return error
        found = (
            LogUnavailable(self.broken) if self.broken else translate(error, "the embedded log cannot write")
        )
        found.__cause__ = error
        return found

    def _break(self, error: sqlite3.Error) -> None:
        """Stops all writing: what is on the disk is known only after the file is opened again."""
        self.broken = (
            f"the embedded log's disk failed and its file cannot be trusted: {error}; check it and restart"
        )
        LOG.error("log failed", action="log_broken", error=str(error))

    def _settle(self, jobs: list[_Job], outcome: list[Any] | Exception, new_ends: Mapping[int, int]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._report, jobs, outcome, new_ends)

    def _report(self, jobs: list[_Job], outcome: list[Any] | Exception, new_ends: Mapping[int, int]) -> None:
        if new_ends:
            self._committed(new_ends)
        for number, job in enumerate(jobs):
            if job.done.done():
                continue  # the caller was cancelled; the write stands
            if isinstance(outcome, Exception):
                job.done.set_exception(self._explained(outcome))
            else:
                job.done.set_result(outcome[number])

    def _checkpoint_when_due(self, size: int) -> None:
        self._since_checkpoint += size + _COMMIT_BYTES
        if self._since_checkpoint < _CHECKPOINT_BYTES or self.broken:
            return
        self._since_checkpoint = 0
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            LOG.warning("checkpoint failed", action="log_checkpoint", error=str(error))
            if is_fatal(error):
                self._break(error)
