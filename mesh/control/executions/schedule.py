"""Starts what runs by itself: scheduled rules, backfills, and comparisons of replicas and backfilled rules.

A rule is backfilled when it is new or changed. Since registries lose notifications, a replica is compared once a day,
and every rule that runs on pushes when control starts and when its source comes back. Of a rule without `backfill` only
what is newer than the rule is copied, see `baselines`.

Execution ids are made from the tick or from the rule's revision. So a control that is killed in between, and a second
control, start the same execution and not another one.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta

import structlog

from mesh.concurrency import in_turns
from mesh.control.executions.baselines import Baselines
from mesh.control.executions.commands import Commands
from mesh.control.executions.returns import Gap, Returns, Step, next_step
from mesh.control.executions.store import Executions, backfill_id
from mesh.control.executions.ticks import Ticks
from mesh.control.ports import ControlPorts
from mesh.control.storage.database import Database
from mesh.errors import InvalidInput
from schemas.envelope import make_id
from schemas.executions import ExecutionOperation
from schemas.names import Region
from schemas.rules import EventBased, Rule, Scheduled, TriggerKind

LOG = structlog.get_logger()

_INTERVAL = 1.0  # seconds
_DAY_SECONDS = 24 * 3600
LISTINGS = 10  # that are looked at to decide whether a source is listed again

PlaceStates = Callable[[Mapping[str, Region]], Mapping[str, str]]  # as `LiveStatus.place_states`


class Schedule:
    """Looks every second for what is due."""

    def __init__(
        self,
        database: Database,
        executions: Executions,
        commands: Commands,
        place_states: PlaceStates,
        processes: Callable[[], Mapping[str, Collection[str]]],
        ports: ControlPorts,
    ) -> None:
        self._executions, self._commands = executions, commands
        self._place_states, self._processes = place_states, processes
        self._ports, self._state, self._clock = ports, ports.state, ports.clock
        self._returns = Returns(self._clock.now())
        self._compared: dict[str, datetime] = {}  # by rule: the return of its source that was dealt with
        self._ticks = Ticks(database)
        self._baselines = Baselines(executions, ports.state, ports.clock)
        self._seen_changes = -1  # of the state, when the rules were read last
        self._compared_rules: Sequence[
            Rule
        ] = ()  # that are backfilled, and compared when their source returns
        self._baseline_rules: Mapping[
            str, Sequence[Rule]
        ] = {}  # by source; compared with their baseline then
        self._compared_sources: dict[
            str, datetime
        ] = {}  # whose rules of these were all compared since that return
        self._source_regions: Mapping[str, Region] = {}
        self._backfilled: dict[str, int] = {}  # by rule: the revision
        self._reconciled = set[str]()

    def gap_of(self, source: str) -> Gap:
        """Returns the last time in which notifications of a source of backfilled rules may have been lost."""
        return self._returns.gap(source)

    def baseline_of(self, rule: Rule) -> datetime | None:
        """Returns when it was noted what a rule without `backfill` does not copy; None where it has not been yet."""
        return self._baselines.of(rule)

    async def run(self) -> None:
        """Starts what is due until cancelled."""
        await self._ports.retry_loop("schedule").repeat(self.start_due, _INTERVAL)

    async def start_due(self) -> None:
        """Starts the executions that are due now.

        Raises:
            DatabaseUnavailable: The database does not answer.
            LogError: The log did not accept an execution.
        """
        await self._read_rules()
        self._observe_sources()
        async for rule in in_turns(self._compared_rules):
            await self._backfill(rule)
            await self._compare_after_return(rule)
            if rule.replica is not None:
                await self._compare_daily(rule)
        for rule, due in self._ticks.due(self._clock.now()):
            await self._tick(rule, due)
        await self._compare_with_baselines()

    async def _read_rules(self) -> None:
        """Reads the declared rules, and from the database when they run next, after each change of them."""
        changes = self._state.changes
        if self._seen_changes == changes:
            return
        rules = (*self._state.rules(), *self._state.replica_rules())
        await self._ticks.declare(
            [rule for rule in rules if isinstance(rule.trigger, Scheduled)], self._clock.now()
        )
        on_pushes = [rule for rule in rules if rule.enabled and isinstance(rule.trigger, EventBased)]
        self._compared_rules = [rule for rule in on_pushes if rule.backfill]
        without_backfill = [rule for rule in on_pushes if not rule.backfill]
        self._baselines.declare(without_backfill)
        by_source = defaultdict[str, list[Rule]](list)
        for rule in without_backfill:
            by_source[rule.source].append(rule)
        self._baseline_rules = by_source
        self._compared_sources.clear()
        names = {rule.source for rule in on_pushes}
        found = [place for name in names if (place := self._state.place(name)) is not None]
        self._source_regions = {place.name: place.region for place in found}
        self._seen_changes = changes

    async def _backfill(self, rule: Rule) -> None:
        rev = self._state.rev_of(rule.key)
        if self._backfilled.get(rule.name) != rev:
            await self._start_once(rule, "backfill", backfill_id(rule.name, rev))
            self._backfilled[rule.name] = rev

    def _observe_sources(self) -> None:
        regions = self._source_regions
        now = self._clock.now()
        self._returns.observe(regions, self._place_states(regions), now)
        self._returns.observe_processes(self._processes(), now)

    async def _compare_with_baselines(self) -> None:
        """Has baselines listed, and sources compared with these; only some at once."""
        self._baselines.start_look()
        async for rule, execution_id in self._baselines.due():
            self._baselines.started()
            await self._start_once(rule, "reconcile", execution_id, operation="baseline")
        for source, rules in self._baseline_rules.items():
            returned = self._returns.of(source)
            if returned is not None and self._compared_sources.get(source) != returned:
                if not await self._baselines.may_start():
                    return
                await self._compare_rules_of(source, rules, returned)

    async def _compare_rules_of(self, source: str, rules: Sequence[Rule], returned: datetime) -> None:
        left = [rule for rule in rules if self._unseen_return(rule) is not None]
        if not left:
            self._compared_sources[source] = returned
        async for rule in in_turns(left):
            if self._baselines.of(rule) is not None and await self._baselines.may_start():
                await self._compare_after_return(rule)

    def _unseen_return(self, rule: Rule) -> datetime | None:
        """When the rule's source returned, if that was not dealt with yet."""
        returned = self._returns.of(rule.source)
        return None if self._compared.get(rule.name) == returned else returned

    async def _compare_after_return(self, rule: Rule) -> None:
        """Lists the source again once it is back, until it was listed: notifications may be lost."""
        if (returned := self._unseen_return(rule)) is None:
            return
        now = self._clock.now()
        step = next_step(await self._executions.whole_listings(rule.name, LISTINGS), returned, now)
        if step is Step.COMPARE:
            execution_id = make_id("execution", rule.name, "returned", now.isoformat())
            LOG.info(
                "a source is back or restarted, or control has started: it is listed again", action="source_returned",
                rule=rule.name, source=rule.source, execution=execution_id,
            )  # fmt: skip
            if rule.backfill:
                await self._start_once(rule, "reconcile", execution_id)
            else:
                self._baselines.started()
                baseline = self._baselines.of(rule)
                await self._start_once(
                    rule, "reconcile", execution_id, operation="compare", baseline=baseline
                )
        elif step is Step.NOTHING:
            self._compared[rule.name] = returned

    async def _compare_daily(self, rule: Rule) -> None:
        """Compares a replica once a day, each at its own time, so that they do not all list at the same moment."""
        now = self._clock.now()
        day = now.replace(hour=0, minute=0, second=0, microsecond=0)
        due = day + timedelta(seconds=int(make_id("reconcile", rule.name), 16) % _DAY_SECONDS)
        execution_id = make_id("execution", rule.name, "reconcile", day.isoformat())
        if now < due or execution_id in self._reconciled:
            return
        filled = await self._executions.start_time(backfill_id(rule.name, self._state.rev_of(rule.key)))
        if filled is not None and filled + timedelta(days=1) <= now:
            await self._start_once(rule, "reconcile", execution_id)
        self._reconciled.add(execution_id)

    async def _tick(self, rule: Rule, due: datetime) -> None:
        """Starts one run for all ticks that control missed, and none for ticks before the rule was declared."""
        if rule.enabled:
            execution_id = make_id("execution", rule.name, "tick", due.isoformat())
            await self._start_once(rule, "scheduled", execution_id)
        await self._ticks.move(rule, due, self._clock.now())

    async def _start_once(
        self, rule: Rule, trigger: TriggerKind, execution_id: str, *,
        operation: ExecutionOperation = "copy", baseline: datetime | None = None,
    ) -> None:  # fmt: skip
        if await self._executions.status(execution_id) is not None:
            return
        try:
            await self._commands.start(
                rule.name, trigger, execution_id=execution_id, operation=operation, baseline=baseline
            )
        except InvalidInput as error:  # the rule was changed just now; the next look sees its new form
            LOG.warning(
                "an execution was not started", action="not_started", rule=rule.name, error=str(error)
            )
