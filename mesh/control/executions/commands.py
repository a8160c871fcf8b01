"""`mesh.commands`: control writes what people and schedules ask for, and reads back what became of it."""

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence

import structlog

from mesh.clock import Clock
from mesh.control.executions.store import Command, Executions, Standing
from mesh.control.patience import Patience, first_of
from mesh.control.readers.shared_reading import finished
from mesh.errors import DatabaseUnavailable, InvalidInput, LogError, NotDeclared
from mesh.log.dead_letters import send_record_to_dlq
from mesh.log.port import Append, Group, Log, Record
from mesh.metrics import Metrics
from mesh.rules.state import MeshState
from mesh.rules.validation import messages
from schemas import codec, topics
from schemas.completions import Operation, Status
from schemas.envelope import make_id
from schemas.events import OrphanedTagCount
from schemas.executions import ExecutionListed, ExecutionStart, ExecutionStop, ImageName
from schemas.names import PlaceName, Region
from schemas.rules import TriggerKind

LOG = structlog.get_logger()

GROUP = "control.executions"
_MOST_RECORDS = 200
_POLL = 0.5  # seconds; executions are settled as often without any news, which another control may have had
_GATHERED = 0.05  # seconds for which news are gathered
_TENTH = 9  # times as long as it took to count is waited before it is done again, however much news there is
_KINDS: dict[str, type[Command]] = {
    ExecutionStart.kind: ExecutionStart,
    ExecutionListed.kind: ExecutionListed,
    ExecutionStop.kind: ExecutionStop,
}


class Commands:
    def __init__(
        self,
        executions: Executions,
        *,
        log: Log,
        state: MeshState,
        clock: Clock,
        metrics: Metrics,
        random: Callable[[], float],
    ) -> None:
        self._executions, self._log, self._state = executions, log, state
        self._clock, self._metrics, self._random = clock, metrics, random
        self._asked = itertools.count()
        self._news, self._ends = asyncio.Event(), asyncio.Event()

    def wake(self) -> None:
        """Tasks ended: perhaps an execution has with them."""
        self._news.set()

    async def until_ended(self, execution_id: str, seconds: float) -> None:
        """Return when it runs no more, and after `seconds` at the latest. `DatabaseUnavailable`."""
        deadline = self._clock.monotonic() + seconds
        while True:
            ends = self._ends  # before looking, so that what ends while looking rings
            running = await self._executions.status(execution_id) is Status.IN_PROGRESS
            left = deadline - self._clock.monotonic()
            if not running or left <= 0:
                return
            await first_of(ends, self._clock, min(left, _POLL))

    async def start(
        self,
        rule: str,
        trigger: TriggerKind,
        *,
        execution_id: str | None = None,
        repository: str | None = None,
        tag: str | None = None,
        images: Sequence[ImageName] = (),
        dry_run: bool = False,
        operation: Operation = "copy",
        surplus: OrphanedTagCount | None = None,
    ) -> str:
        """Ask for an execution; its id.

        `InvalidInput` when the rule cannot run, `NotDeclared` when there is none, `LogError` when it was not taken.
        """
        found = self._state.rule(rule)
        if found is None:
            raise NotDeclared(messages.unknown_rule(rule, self._state.things()))
        if not found.rule.enabled:
            raise InvalidInput(f"rule: {rule!r} is not enabled; set enabled: true and apply it")
        source = self._state.place(found.rule.source)
        if source is None:  # two controls that wrote at once
            raise InvalidInput(
                f"rule: the source {found.rule.source!r} of {rule!r} is not declared; apply it again"
            )
        now = self._clock.now()
        asked = make_id("execution", rule, now.isoformat(), str(self._random()), next(self._asked))
        execution_id = execution_id or asked
        command = ExecutionStart(
            id=make_id("start", execution_id), time=now, execution_id=execution_id, region=source.region,
            rule=PlaceName(found.rule.name), source=found.rule.source, destination=PlaceName(found.rule.destination),
            trigger=trigger, repository=repository, tag=tag, images=tuple(images), dry_run=dry_run, operation=operation,
            surplus=surplus, rules_rev=self._state.rev,
        )  # fmt: skip
        await self._write(command)
        return execution_id

    async def stop(self, execution_id: str, region: Region) -> None:
        """Ask for its end. `LogError`."""
        now = self._clock.now()
        stop = ExecutionStop(
            id=make_id("stop", execution_id), time=now, execution_id=execution_id, region=region
        )
        await self._write(stop)

    async def run(self) -> None:
        """Read and count for ever, while the log and the database come and go."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(), name="control follows commands")
            tasks.create_task(self._settle(), name="control settles executions")

    async def _follow(self) -> None:
        patience = Patience("executions", self._clock, self._random)
        while True:
            try:
                await self._log.ensure([topics.COMMANDS])
                await self._read(patience)
            except (LogError, DatabaseUnavailable) as error:
                await patience.wait(error)

    async def _settle(self) -> None:
        """As soon as something may have ended one. Counting again and again takes a tenth of the time at the most."""
        patience = Patience("executions", self._clock, self._random)
        while True:
            try:
                self._news.clear()
                began = self._clock.monotonic()
                if await self._executions.settle(self._standing(), self._clock.now()):
                    self._ends.set()
                    self._ends = asyncio.Event()
                patience.relax()
                took = self._clock.monotonic() - began
                await self._clock.sleep(max(_GATHERED, _TENTH * took))
                await first_of(self._news, self._clock, _POLL)
            except DatabaseUnavailable as error:
                await patience.wait(error)

    def _standing(self) -> Mapping[str, Standing]:
        return {
            str(rule.name): Standing(
                str(rule.source), str(rule.destination), self._state.last_removed(rule.key)
            )
            for rule in (*self._state.rules(), *self._state.replica_rules())
        }

    async def _write(self, command: Command) -> None:
        """On the log it counts. It is shown at once too; where the database is away, later."""
        await self._log.ensure([topics.COMMANDS])
        await self._log.append([Append(topics.COMMANDS, command.key, codec.encode(command))])
        try:
            await self._executions.take([command])
        except DatabaseUnavailable as error:
            LOG.warning("an execution is shown later", action="database_away", error=str(error))
        LOG.info("command", action=command.kind, execution=command.execution_id)

    async def _read(self, patience: Patience) -> None:
        group = await self._log.group(GROUP, [topics.COMMANDS])
        try:
            while True:
                await self._turn(group)
                patience.relax()
        finally:
            await group.close()

    async def _turn(self, group: Group) -> None:
        records = await group.read(max_records=_MOST_RECORDS, timeout=_POLL)
        group.revoked()  # nothing stays with us from one turn to the next
        if records:
            commands = [command for record in records if (command := await self._decoded(record)) is not None]
            await self._executions.take(commands)
            await group.commit(finished(records))
            self.wake()

    async def _decoded(self, record: Record) -> Command | None:
        raw = record.value or b""
        try:
            kind = codec.kind_of(raw)
            if kind not in _KINDS:
                raise codec.DecodeError(f"{kind[:40]!r} is no command", raw)  # noqa: TRY301
            return codec.decode(raw, _KINDS[kind])
        except codec.DecodeError as error:
            self._metrics.dead_letters.labels(topics.COMMANDS).inc()
            LOG.warning("command unreadable", action="command_unreadable", reason=error.reason)
            for region in self._state.regions()[:1]:
                await send_record_to_dlq(self._log, region.name, record, error.reason, self._clock)
            return None
