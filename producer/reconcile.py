"""Executions: their commands off `mesh.commands`, and what their listings find onto `mesh.<region>.bulk`.

One group over all producers, so one of them lists an execution. At least once: who is cut in the middle leaves the
command to another, which finds the same and gives it the same ids. The total is told last.
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
from mesh.retry import Backoff, RetryLoop, RetryPolicy, until_log_available
from mesh.rules.state import MeshState
from mesh.rules.stops import Stops
from producer.listing import Found, Listing
from schemas import codec, topics
from schemas.completions import Side, TaskError
from schemas.envelope import make_id
from schemas.events import Action, Cause, Event, PartOf
from schemas.executions import ExecutionListed, ExecutionStart
from schemas.topology import Place

LOG = structlog.get_logger()

GROUP = "producer.reconcile"
_LOG_BACKOFF = Backoff(first=0.5, longest=5.0)
_REGISTRY_RETRIES = RetryPolicy(attempts=5, backoff=Backoff(first=0.5, longest=15.0))
_POLL = 0.2  # seconds
_AT_ONCE = 4  # listings of one partition; the rest of it waits
_FIRST_BATCH, _BATCH = 16, 200  # events in one append: agents begin soon, and a long listing appends seldom
_LONGEST_KEPT = 0.1  # seconds that a found tag waits for others to be appended with


@dataclass(slots=True)
class _Share:
    """The commands of one partition that are being carried out, in order."""

    running: dict[int, asyncio.Task[None]] = field(default_factory=dict)

    def finished(self) -> int | None:
        """The next offset to read after the finished prefix, which is then forgotten; None when nothing is new."""
        upto = None
        while self.running and (first := next(iter(self.running.items())))[1].done():
            first[1].result()  # what a listing did not foresee ends the process instead of a silence
            upto = first[0] + 1
            del self.running[first[0]]
        return upto


class Reconcile:
    """`run` until cancelled."""

    def __init__(
        self,
        *,
        log: Log,
        state: MeshState,
        table: Table,
        open_endpoint: Callable[[Place], Endpoint],
        clock: Clock,
        random: Callable[[], float],
        retry_policy: RetryPolicy | None = None,
    ) -> None:
        self._log, self._state, self._table, self._open = log, state, table, open_endpoint
        self._clock, self._random, self._retry_policy = clock, random, retry_policy or _REGISTRY_RETRIES
        self._stops = Stops()
        self._commands = Table(
            log,
            topics.COMMANDS,
            lambda it: self._stops.apply(it.value),
            unreadable=_ignore,
            clock=clock,
            random=random,
        )
        self._shares: dict[Partition, _Share] = {}
        self._retry = RetryLoop("executions", clock, random, _LOG_BACKOFF)

    async def run(self) -> None:
        """For ever, while the log comes and goes."""
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
                await self._turn(group)
        finally:
            await close_all(partial(self._drop, list(self._shares)), group.close)

    async def _turn(self, group: Group) -> None:
        """Begin what was read, commit what is done. Never waits for a listing, so the membership lives."""
        records = await group.read(max_records=_AT_ONCE, timeout=_POLL)
        self._retry.reset()
        await self._drop([partition for partition in group.revoked() if partition in self._shares])
        for record in records:
            share = self._shares.setdefault(record.partition, _Share())
            work = self._carry_out(record)
            share.running[record.offset] = asyncio.create_task(work, name=f"listing {record.position}")
        for partition, share in self._shares.items():
            if (upto := share.finished()) is not None:
                await group.commit({partition: upto})
            (group.pause if len(share.running) >= _AT_ONCE else group.resume)([partition])

    async def _drop(self, partitions: Sequence[Partition]) -> None:
        """These are another's now, who begins their unfinished commands again."""
        tasks = [task for one in partitions for task in self._shares.pop(one).running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry_out(self, record: Record) -> None:
        try:
            if codec.kind_of(record.value or b"") != ExecutionStart.kind:
                return
            start = codec.decode(record.value or b"", ExecutionStart)
        except codec.DecodeError:
            return  # control buries it
        await self._table.wait_for(start.rules_rev)
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
        """How many events were published, and why not all could be."""
        compiled = self._state.rule(start.rule)
        source = self._state.place(compiled.rule.source) if compiled is not None else None
        if compiled is None or source is None or source.name != start.source or not compiled.rule.enabled:
            return 0, _told("rule_gone", f"rule {start.rule} is not declared any more, or not enabled")
        try:
            endpoint = self._open(source)
        except RegmeshError as error:
            return 0, error.as_task_error()
        listing = Listing(
            endpoint.registry(Side.SOURCE), compiled, start, self._clock, self._random, self._retry_policy
        )
        try:
            if start.operation == "delete":
                return await self._publish_deletions(start, source), None
            total = await self._publish(listing, source)
        finally:
            await endpoint.close()
        return total, _summed_up(listing.errors)

    async def _publish(self, listing: Listing, source: Place) -> int:
        """Everything that the listing finds, as events; how many. Ends early when the execution is stopped.

        What was found goes out within a moment: agents begin while a long listing still goes on.
        """
        total, enough, batch = 0, _FIRST_BATCH, list[Append]()

        async def publish() -> None:
            some = batch.copy()
            batch.clear()
            await self._append(some)

        async with aclosing(listing.found()) as found:
            while (one := await self._next(found, listing.start.execution_id, publish)) is not None:
                event = self._event(one, listing.start, source)
                batch.append(Append(topics.bulk(source.region), event.key, codec.encode(event)))
                total += 1
                if len(batch) >= enough:
                    enough = min(2 * enough, _BATCH)
                    await publish()
        await publish()
        return total

    async def _next(
        self, found: AsyncGenerator[Found, None], execution_id: str, publish: Callable[[], Awaitable[None]]
    ) -> Found | None:
        """None at the end, and as soon as the execution is stopped. While a registry lets us wait, we `publish`."""
        looking = asyncio.ensure_future(anext(found, None))
        try:
            while execution_id not in self._stops:
                if looking.done():
                    return looking.result()
                await asyncio.wait([looking], timeout=_LONGEST_KEPT)
                if not looking.done():
                    await publish()
            return None
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _publish_deletions(self, start: ExecutionStart, source: Place) -> int:
        """What a human confirmed, or what is surplus; the agent asks the source before it deletes anything."""
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
        now, there = self._clock.now(), found.descriptor
        return Event(
            id=make_id("listed", start.execution_id, found.repository, found.tag), time=now, origin=source.name,
            action=Action.MANIFEST_PUSH, cause=Cause.LISTING, place=source.name, region=source.region,
            repository=found.repository, tag=found.tag, digest=there.digest if there else None,
            media_type=there.media_type if there else None, size=there.size if there else None, occurred_at=now,
            rules_rev=self._state.rev, part_of=_part_of(start), has_referrers_tag=found.has_referrers_tag,
        )  # fmt: skip

    async def _append(self, records: Sequence[Append]) -> None:
        if not records:
            return
        await until_log_available(lambda: self._log.append(records), self._clock)


async def _ignore(record: Record, reason: str) -> None:
    """Control buries it."""
    LOG.warning("command unreadable", action="command_unreadable", position=record.position, reason=reason)


def _part_of(start: ExecutionStart) -> PartOf:
    return PartOf(
        execution_id=start.execution_id, rule=start.rule, trigger=start.trigger, dry_run=start.dry_run,
        surplus=start.surplus,
    )  # fmt: skip


def _summed_up(errors: Sequence[RegistryError]) -> TaskError | None:
    """The first, and how many there are: of one registry they are mostly alike."""
    if not errors:
        return None
    first = errors[0].as_task_error()
    if len(errors) == 1:
        return first
    return first.model_copy(update={"message": clean(f"{len(errors)} errors, the first: {errors[0]}")})


def _told(code: str, message: str) -> TaskError:
    return TaskError(code=code, side=Side.MESH, message=message)
