"""Writes commands to `mesh.commands`, reads them back into the database, and ends executions whose tasks have ended."""

import asyncio
import itertools
from collections.abc import Sequence
from datetime import datetime

import structlog

from mesh.concurrency import wait_for_event
from mesh.control.executions.store import Command, Executions, RuleIdentity
from mesh.control.ports import ControlPorts
from mesh.control.readers.group_reader import GroupReader, Topics
from mesh.errors import DatabaseUnavailable, InvalidInput, LogError, NotDeclared
from mesh.log.port import Append, Record
from mesh.rules.validation import messages
from schemas import codec, topics
from schemas.completions import Status
from schemas.envelope import make_id
from schemas.events import OrphanedTagCount
from schemas.executions import ExecutionListed, ExecutionOperation, ExecutionStart, ExecutionStop, ImageName
from schemas.names import PlaceName, Region
from schemas.rules import TriggerKind

LOG = structlog.get_logger()

_SETTLE_INTERVAL = 0.5  # seconds; another control may have read the news
_GATHER = 0.05  # seconds to gather news before executions are settled
_COUNTING_SHARE = 10  # counting takes at most one part in so many of the time
_KINDS: dict[str, type[Command]] = {
    ExecutionStart.kind: ExecutionStart,
    ExecutionListed.kind: ExecutionListed,
    ExecutionStop.kind: ExecutionStop,
}


class Commands:
    """Starts, stops and ends executions."""

    def __init__(self, executions: Executions, ports: ControlPorts) -> None:
        self._executions, self._ports = executions, ports
        self._log, self._state, self._clock = ports.log, ports.state, ports.clock
        self._started = itertools.count()
        self._news, self._ends = asyncio.Event(), asyncio.Event()
        self._reader = GroupReader(
            "executions", record_name="command", topics=self._topics, decode=_decode, take=self._take, ports=ports
        )  # fmt: skip

    def wake(self) -> None:
        """Tells that tasks ended, and with them perhaps an execution."""
        self._news.set()

    async def until_ended(self, execution_id: str, timeout: float) -> None:
        """Returns when the execution is no longer in progress, and after `timeout` seconds at the latest.

        Raises:
            DatabaseUnavailable: The database does not answer.
        """
        deadline = self._clock.monotonic() + timeout
        while True:
            ends = self._ends  # taken before the look, so that an end during the look is not missed
            is_running = await self._executions.status(execution_id) is Status.IN_PROGRESS
            left = deadline - self._clock.monotonic()
            if not is_running or left <= 0:
                return
            await wait_for_event(ends, self._clock, min(left, _SETTLE_INTERVAL))

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
        resend: bool = False,
        operation: ExecutionOperation = "copy",
        baseline: datetime | None = None,
        surplus: OrphanedTagCount | None = None,
    ) -> str:
        """Starts an execution of a rule or replica, and returns its id.

        Args:
            rule: The name of a rule or of a replica.
            trigger: What starts it.
            execution_id: Its id; a new one when None. The same id never starts a second execution.
            repository: Pattern of the repositories to list.
            tag: Pattern of the tags to list.
            images: The images of the execution; when there are any, nothing is listed.
            dry_run: Whether tasks end after the plan.
            resend: Whether everything is copied again, though the destination says that it has it.
            operation: What it does.
            baseline: Of `compare`: when the rule's baseline was listed.
            surplus: How many orphaned tags a replica has, when they are to be deleted.

        Raises:
            InvalidInput: The rule cannot run.
            NotDeclared: There is no such rule.
            LogError: The log did not accept the command.
        """
        found = self._state.rule(rule)
        if found is None:
            raise NotDeclared(messages.unknown_rule(rule, self._state.things()))
        if not found.rule.enabled:
            raise InvalidInput(f"rule: {rule!r} is not enabled; set enabled: true and apply it")
        source = self._state.place(found.rule.source)
        if source is None:  # two controls wrote at the same time
            raise InvalidInput(
                f"rule: the source {found.rule.source!r} of {rule!r} is not declared; apply it again"
            )
        now = self._clock.now()
        new_id = make_id(
            "execution", rule, now.isoformat(), str(self._ports.random()), next(self._started)
        )  # fmt: skip
        execution_id = execution_id or new_id
        command = ExecutionStart(
            id=make_id("start", execution_id), time=now, execution_id=execution_id, region=source.region,
            rule=PlaceName(found.rule.name), source=found.rule.source, destination=PlaceName(found.rule.destination),
            trigger=trigger, repository=repository, tag=tag, images=tuple(images), dry_run=dry_run, resend=resend,
            operation=operation, baseline=baseline, surplus=surplus, rules_rev=self._state.rev,
        )  # fmt: skip
        await self._write(command)
        return execution_id

    async def stop(self, execution_id: str, region: Region) -> None:
        """Asks the agents and producers to end an execution of a source in `region`.

        Raises:
            LogError: The log did not accept the command.
        """
        stop_id = make_id("stop", execution_id)
        await self._write(
            ExecutionStop(id=stop_id, time=self._clock.now(), execution_id=execution_id, region=region)
        )

    async def run(self) -> None:
        """Reads commands and settles executions until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read(), name="control reads commands")
            tasks.create_task(self._settle(), name="control settles executions")

    async def _read(self) -> None:
        retry = self._ports.retry_loop("executions")
        while True:
            try:
                await self._log.ensure([topics.COMMANDS])
                return await self._reader.run()
            except LogError as error:
                await retry.wait(error)

    async def _settle(self) -> None:
        """Settles soon after news."""
        retry = self._ports.retry_loop("executions")
        while True:
            try:
                self._news.clear()
                started = self._clock.monotonic()
                running = await self._executions.running_rules()
                rules = {name: self._identity(name) for name in running}
                if rules and await self._executions.settle(rules, self._clock.now()):
                    self._ends.set()
                    self._ends = asyncio.Event()
                retry.reset()
                duration = self._clock.monotonic() - started
                await self._clock.sleep(max(_GATHER, (_COUNTING_SHARE - 1) * duration))
                await wait_for_event(self._news, self._clock, _SETTLE_INTERVAL)
            except DatabaseUnavailable as error:
                await retry.wait(error)

    def _identity(self, name: str) -> RuleIdentity | None:
        if (found := self._state.rule(name)) is None:
            return None
        rule = found.rule
        return RuleIdentity(str(rule.source), str(rule.destination), self._state.last_removed(rule.key))

    async def _write(self, command: Command) -> None:
        """The log decides; the database only shows it earlier than it would be read back."""
        await self._log.ensure([topics.COMMANDS])
        await self._log.append([Append(topics.COMMANDS, command.key, codec.encode(command))])
        try:
            await self._executions.take([command])
        except DatabaseUnavailable as error:
            LOG.warning(
                "the database does not answer; an execution is shown later", action="database_away",
                error=str(error),
            )  # fmt: skip
        LOG.info("command", action=command.kind, execution=command.execution_id)

    def _topics(self) -> Topics:
        """Commands that cannot be read are dead letters of the first region."""
        regions = self._state.regions()
        return {topics.COMMANDS: regions[0].name} if regions else {}

    async def _take(self, commands: Sequence[Command]) -> None:
        await self._executions.take(commands)
        self.wake()


def _decode(record: Record, _: Region) -> Command:
    raw = record.value or b""
    kind = codec.kind_of(raw)
    if kind not in _KINDS:
        raise codec.DecodeError(f"{kind[:40]!r} is not a command", raw)
    return codec.decode(raw, _KINDS[kind])
