"""Carrying out executions: commands from `mesh.commands`, and what their listings find to `mesh.<region>.bulk`.

All producers are one group, so that one of them lists an execution. Delivery is at least once: when a producer dies in
the middle, another one repeats the command, finds the same and gives it the same ids. The total is written last.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial

import structlog

from mesh.clock import Clock
from mesh.concurrency import close_all
from mesh.errors import LogError, RegistryError, RegmeshError, clean
from mesh.log.port import Append, Group, Log, Partition, Record
from mesh.log.table import Table
from mesh.registry.port import Endpoint
from mesh.retry import Backoff, RetryLoop, until_log_available
from mesh.rules.state import MeshState
from mesh.rules.stops import Stops
from producer.baseline import is_new, note_of, read_known_tags
from producer.listing import Found, Listing
from producer.settings import ProducerSettings
from schemas import codec, topics
from schemas.completions import Side, TaskError
from schemas.envelope import make_id
from schemas.events import Action, Cause, Event, PartOf
from schemas.executions import ExecutionListed, ExecutionStart
from schemas.topology import Place

LOG = structlog.get_logger()

RecordOf = Callable[[Found], Append | None]

GROUP = "producer.reconcile"
_LOG_BACKOFF = Backoff(first=0.5, longest=5.0)
_POLL = 0.2  # seconds
_FIRST_BATCH, _BATCH = 16, 200  # events in one append: agents start soon, and a long listing appends rarely
_MAX_BATCH_AGE = 0.1  # seconds that a found tag waits for others to be appended with


@dataclass(slots=True)
class _PartitionWork:
    """The commands of one partition that are in progress, by offset in order."""

    running: dict[int, asyncio.Task[None]] = field(default_factory=dict)

    def finished(self) -> int | None:
        """Removes the finished prefix and returns the next offset after it; None when nothing is newly finished."""
        upto = None
        while self.running and (first := next(iter(self.running.items())))[1].done():
            first[1].result()  # an unexpected error of a listing ends the process instead of going unnoticed
            upto = first[0] + 1
            del self.running[first[0]]
        return upto


class Reconcile:
    """Carries out executions while `run` runs."""

    def __init__(
        self,
        *,
        log: Log,
        state: MeshState,
        table: Table,
        open_endpoint: Callable[[Place], Endpoint],
        clock: Clock,
        random: Callable[[], float],
        settings: ProducerSettings | None = None,
    ) -> None:
        self._log, self._state, self._table, self._open = log, state, table, open_endpoint
        self._clock, self._random, self._settings = clock, random, settings or ProducerSettings()
        self._stops = Stops()
        self._commands = Table(
            log,
            topics.COMMANDS,
            lambda record: self._stops.apply(record.value),
            unreadable=_ignore,
            clock=clock,
            random=random,
        )
        self._work: dict[Partition, _PartitionWork] = {}
        self._retry = RetryLoop("executions", clock, random, _LOG_BACKOFF)

    async def run(self) -> None:
        """Runs until cancelled, also while the log is unavailable."""
        await until_log_available(lambda: self._log.ensure([topics.COMMANDS]), self._clock)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._commands.run(), name="follow mesh.commands")
            while True:
                try:
                    await self._commands.caught_up()
                    await self._read()
                except LogError as error:
                    await self._retry.wait(error)

    async def _read(self) -> None:
        group = await self._log.group(GROUP, [topics.COMMANDS])
        try:
            while True:
                await self._read_once(group)
        finally:
            await close_all(partial(self._cancel, list(self._work)), group.close)

    async def _read_once(self, group: Group) -> None:
        """Starts new commands and commits finished ones. Never waits for a listing, so the membership stays alive."""
        limit = self._settings.concurrent_listings
        records = await group.read(max_records=limit, timeout=_POLL)
        self._retry.reset()
        await self._cancel([partition for partition in group.revoked() if partition in self._work])
        for record in records:
            work = self._work.setdefault(record.partition, _PartitionWork())
            work.running[record.offset] = asyncio.create_task(
                self._carry_out(record), name=f"listing {record.position}"
            )
        for partition, work in self._work.items():
            if (upto := work.finished()) is not None:
                await group.commit({partition: upto})
            (group.pause if len(work.running) >= limit else group.resume)([partition])

    async def _cancel(self, partitions: Sequence[Partition]) -> None:
        """Cancels the work on revoked partitions; their new owner starts the unfinished commands again."""
        tasks = [task for one in partitions for task in self._work.pop(one).running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry_out(self, record: Record) -> None:
        try:
            if codec.kind_of(record.value or b"") != ExecutionStart.kind:
                return
            start = codec.decode(record.value or b"", ExecutionStart)
        except codec.DecodeError:
            return  # control sends it to the dead-letter queue
        # The command's own revision is older than the command; it may be on no log any more, after a loss of the state.
        await until_log_available(self._table.caught_up, self._clock)
        total, error = await self._list(start)
        now = self._clock.now()
        listed = ExecutionListed(
            id=make_id("listed", start.execution_id), time=now, execution_id=start.execution_id, region=start.region,
            total=total, error=error,
        )  # fmt: skip
        await self._append([Append(topics.COMMANDS, listed.key, codec.encode(listed))])
        LOG.info(
            "execution listed", action="execution_listed", execution=start.execution_id, rule=start.rule, total=total,
            error=error.message if error else None,
        )  # fmt: skip

    async def _list(self, start: ExecutionStart) -> tuple[int, TaskError | None]:
        """Publishes the events of an execution; returns how many, and why some are missing."""
        compiled = self._state.rule(start.rule)
        source = self._state.place(compiled.rule.source) if compiled is not None else None
        if compiled is None or source is None or source.name != start.source or not compiled.rule.enabled:
            message = f"rule {start.rule} is not declared any more, or not enabled"
            return 0, TaskError(code="rule_gone", side=Side.MESH, message=message)
        try:
            endpoint = self._open(source)
        except RegmeshError as error:
            return 0, error.as_task_error()
        listing = Listing(
            endpoint.registry(Side.SOURCE), compiled, start, self._clock, self._random, self._settings
        )
        try:
            if start.operation == "delete":
                return await self._publish_deletions(start, source), None
            try:
                record_of = await self._record_of(listing, start, source)
            except LogError as error:  # Kafka does not let the producer read the tags; other executions go on
                return 0, error.as_task_error()
            total = await self._publish(listing, start, record_of)
        finally:
            await endpoint.close()
        return 0 if start.operation == "baseline" else total, _combined(listing.errors)

    async def _record_of(self, listing: Listing, start: ExecutionStart, source: Place) -> RecordOf:
        """Returns what makes the record of a tag that the listing finds; None for one that needs none."""

        def event_of(found: Found) -> Append:
            event = self._event(found, start, source)
            return Append(topics.bulk(source.region), event.key, codec.encode(event))

        if start.operation not in ("baseline", "compare"):
            return event_of
        wants = listing.compiled.wants_repository
        known = await until_log_available(lambda: read_known_tags(self._log, source, wants), self._clock)
        if start.operation == "baseline":
            return lambda found: note_of(found, known, start, source)
        return lambda found: event_of(found) if is_new(found, known, start.baseline) else None

    async def _publish(self, listing: Listing, start: ExecutionStart, record_of: RecordOf) -> int:
        """Publishes what the listing finds and returns how many records that is. Ends early when it is stopped.

        Finds are published within a moment, so that agents start while a long listing is still in progress.
        """
        total, batch_size, batch = 0, _FIRST_BATCH, list[Append]()

        async def publish() -> None:
            records = batch.copy()
            batch.clear()
            await self._append(records)

        async with aclosing(listing.found()) as found:
            while (one := await self._next(found, start.execution_id, publish)) is not None:
                if (record := record_of(one)) is None:
                    continue
                batch.append(record)
                total += 1
                if len(batch) >= batch_size:
                    batch_size = min(2 * batch_size, _BATCH)
                    await publish()
        await publish()
        return total

    async def _next(
        self, found: AsyncGenerator[Found, None], execution_id: str, publish: Callable[[], Awaitable[None]]
    ) -> Found | None:
        """Returns the next find, or None at the end or once the execution is stopped. Publishes while it waits."""
        pending = asyncio.ensure_future(anext(found, None))
        try:
            while execution_id not in self._stops:
                if pending.done():
                    return pending.result()
                await asyncio.wait([pending], timeout=_MAX_BATCH_AGE)
                if not pending.done():
                    await publish()
            return None
        finally:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)

    async def _publish_deletions(self, start: ExecutionStart, source: Place) -> int:
        """Publishes confirmed deletions and orphaned tags; the agent asks the source before it deletes anything."""
        now, batch = self._clock.now(), list[Append]()
        for image in dict.fromkeys(start.images):
            event = Event(
                id=make_id("confirmed", start.execution_id, image.repository, image.tag), time=now,
                origin=source.name, action=Action.TAG_DELETE, cause=Cause.LISTING, place=source.name,
                region=source.region, repository=image.repository, tag=image.tag, digest=image.digest,
                occurred_at=now, rules_rev=self._state.rev, part_of=_part_of(start),
            )  # fmt: skip
            batch.append(Append(topics.bulk(source.region), event.key, codec.encode(event)))
        await self._append(batch)
        return len(batch)

    def _event(self, found: Found, start: ExecutionStart, source: Place) -> Event:
        now, descriptor = self._clock.now(), found.descriptor
        return Event(
            id=make_id("listed", start.execution_id, found.repository, found.tag), time=now, origin=source.name,
            action=Action.MANIFEST_PUSH, cause=Cause.LISTING, place=source.name, region=source.region,
            repository=found.repository, tag=found.tag, digest=descriptor.digest if descriptor else None,
            media_type=descriptor.media_type if descriptor else None, size=descriptor.size if descriptor else None,
            occurred_at=now, rules_rev=self._state.rev, part_of=_part_of(start),
            has_referrers_tag=found.has_referrers_tag,
        )  # fmt: skip

    async def _append(self, records: Sequence[Append]) -> None:
        if records:
            await until_log_available(lambda: self._log.append(records), self._clock)


async def _ignore(record: Record, reason: str) -> None:
    """Leaves an unreadable command to control, which sends it to the dead-letter queue."""
    LOG.warning("command unreadable", action="command_unreadable", position=record.position, reason=reason)


def _part_of(start: ExecutionStart) -> PartOf:
    return PartOf(
        execution_id=start.execution_id, rule=start.rule, trigger=start.trigger, dry_run=start.dry_run,
        resend=start.resend, surplus=start.surplus,
    )  # fmt: skip


def _combined(errors: Sequence[RegistryError]) -> TaskError | None:
    """Returns one error with the number of errors: those of one registry are mostly alike.

    It is the first that may pass, if any: then listing again finds more.
    """
    if not errors:
        return None
    shown = next((error for error in errors if error.retryable), errors[0])
    if len(errors) == 1:
        return shown.as_task_error()
    message = clean(f"{len(errors)} errors, the first: {shown}")
    return shown.as_task_error().model_copy(update={"message": message})
