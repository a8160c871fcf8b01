"""What runs without being asked: scheduled rules, backfills, and once a day a look through each replica.

A rule backfills when it is new or changed; a replica is looked through since its registry may not have told all.

The ids come from the tick or the rule's revision, so a control that is killed in between, and a second control,
start the same execution and not another one.
"""

from collections.abc import Callable, Collection
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection, delete, insert, select, update

from mesh.clock import Clock
from mesh.control.executions.commands import Commands
from mesh.control.executions.store import backfill_id
from mesh.control.patience import Patience
from mesh.control.storage.database import Database
from mesh.control.storage.tables import executions, schedules
from mesh.errors import InvalidInput
from mesh.rules.schedule import BadSchedule, next_tick
from mesh.rules.state import MeshState
from schemas.envelope import make_id
from schemas.rules import EventBased, Rule, Scheduled, TriggerKind

LOG = structlog.get_logger()

_LOOK_EVERY = 1.0  # seconds
_DAY_SECONDS = 24 * 3600


class Schedule:
    def __init__(
        self,
        database: Database,
        commands: Commands,
        *,
        state: MeshState,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self._database, self._commands, self._state = database, commands, state
        self._clock, self._random = clock, random
        self._changes = -1  # of the state, when it was last looked for schedules that are no more
        self._backfilled: set[str] = set()  # known to have been started
        self._reconciled: set[str] = set()  # the same, or known to be too soon

    async def run(self) -> None:
        """For ever, while the log and the database come and go."""
        await Patience("schedule", self._clock, self._random).repeat(self.look, _LOOK_EVERY)

    async def look(self) -> None:
        """Start what is due now."""
        await self._forget()
        for rule in (*self._state.rules(), *self._state.replica_rules()):
            if rule.enabled and rule.backfill and isinstance(rule.trigger, EventBased):
                await self._backfill(rule)
                if rule.replica is not None:
                    await self._reconcile(rule)
            elif isinstance(rule.trigger, Scheduled):
                await self._tick(rule, rule.trigger)

    async def _forget(self) -> None:
        """The next ticks of rules that have no schedule any more: should one get it again, it begins anew."""
        if self._changes == self._state.changes:
            return
        changes = self._state.changes
        scheduled = {str(rule.name) for rule in self._state.rules() if isinstance(rule.trigger, Scheduled)}
        await self._database.run(lambda connection: _keep(connection, scheduled))
        self._changes = changes

    async def _backfill(self, rule: Rule) -> None:
        execution_id = backfill_id(rule.name, self._state.rev_of(rule.key))
        if execution_id in self._backfilled:
            return
        await self._start_once(rule, "backfill", execution_id)
        self._backfilled.add(execution_id)

    async def _reconcile(self, rule: Rule) -> None:
        """Registries lose notifications; each replica has its own time of day, so that they do not all list at once."""
        now = self._clock.now()
        day = now.replace(hour=0, minute=0, second=0, microsecond=0)
        due = day + timedelta(seconds=int(make_id("reconcile", rule.name), 16) % _DAY_SECONDS)
        execution_id = make_id("execution", rule.name, "reconcile", day.isoformat())
        if now < due or execution_id in self._reconciled:
            return
        fill = backfill_id(rule.name, self._state.rev_of(rule.key))
        began = select(executions.c.start_time).where(executions.c.id == fill)
        filled = await self._database.run(lambda connection: connection.execute(began).scalar())
        if filled is not None and filled + timedelta(days=1) <= now:
            await self._start_once(rule, "reconcile", execution_id)
        self._reconciled.add(execution_id)

    async def _tick(self, rule: Rule, trigger: Scheduled) -> None:
        """One run for all ticks that fell into a time without control; none before the rule was declared."""
        now = self._clock.now()
        spec = f"{trigger.cron} {trigger.timezone}"
        try:
            due = await self._database.run(lambda connection: _due(connection, rule, spec, trigger, now))
            if due is None or due > now:
                return
            if rule.enabled:
                await self._start_once(
                    rule, "scheduled", make_id("execution", rule.name, "tick", due.isoformat())
                )
            following = next_tick(trigger, now)
        except BadSchedule as error:
            LOG.warning("a schedule cannot run", action="bad_schedule", rule=rule.name, error=str(error))
            return
        await self._database.run(lambda connection: _move(connection, rule, due, following))

    async def _start_once(self, rule: Rule, trigger: TriggerKind, execution_id: str) -> None:
        known = select(executions.c.id).where(executions.c.id == execution_id)
        if await self._database.run(lambda connection: connection.execute(known).first()) is not None:
            return
        try:
            await self._commands.start(rule.name, trigger, execution_id=execution_id)
        except InvalidInput as error:  # it was changed just now; the next look sees it as it is
            LOG.warning(
                "an execution was not started", action="not_started", rule=rule.name, error=str(error)
            )


def _keep(connection: Connection, rules: Collection[str]) -> None:
    known = connection.execute(select(schedules.c.rule)).scalars().all()
    for rule in known:
        if rule not in rules:
            connection.execute(delete(schedules).where(schedules.c.rule == rule))


def _due(connection: Connection, rule: Rule, spec: str, trigger: Scheduled, now: datetime) -> datetime | None:
    """When it runs next; None when that was reckoned just now."""
    here = schedules.c.rule == str(rule.name)
    row = connection.execute(select(schedules).where(here)).mappings().first()
    if row is not None and row["spec"] == spec:
        found: datetime = row["next_time"]
        return found
    connection.execute(delete(schedules).where(here))
    connection.execute(
        insert(schedules).values(rule=str(rule.name), spec=spec, next_time=next_tick(trigger, now))
    )
    return None


def _move(connection: Connection, rule: Rule, due: datetime, following: datetime) -> None:
    here = (schedules.c.rule == str(rule.name)) & (schedules.c.next_time == due)
    connection.execute(update(schedules).where(here).values(next_time=following))
