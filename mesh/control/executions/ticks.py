"""When scheduled rules run next: in the database, so that a tick during a restart is not missed, and in memory.

The database is asked once after each change of the declared state, not once for each rule and second.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

import structlog
from sqlalchemy import Connection, delete, insert, select, update

from mesh.control.storage.database import Database
from mesh.control.storage.tables import schedules
from mesh.rules.schedule import BadSchedule, next_tick
from schemas.rules import Rule, Scheduled

LOG = structlog.get_logger()

_STATEMENT_ROWS = 500  # names in one statement: engines bound the number of parameters


class Ticks:
    """The next tick of each scheduled rule. Methods that are awaited raise `DatabaseUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rules: Mapping[str, Rule] = {}
        self._next: dict[str, datetime] = {}

    async def declare(self, rules: Sequence[Rule], now: datetime) -> None:
        """Takes the rules that are declared now, and reads when each of them runs next.

        A rule whose schedule is new or changed runs at its first tick after `now`. The next tick of a rule without a
        schedule is deleted: if the rule gets a schedule again, it starts anew.

        Args:
            rules: All rules with a schedule, enabled or not.
            now: The present time.
        """
        by_name = {str(rule.name): rule for rule in rules}
        self._next = await self._database.run(lambda connection: _stored(connection, by_name, now))
        self._rules = by_name

    def due(self, now: datetime) -> Sequence[tuple[Rule, datetime]]:
        """Returns the rules that are due, with the tick that they are due for."""
        return [(self._rules[name], time) for name, time in self._next.items() if time <= now]

    async def move(self, rule: Rule, due: datetime, now: datetime) -> None:
        """Moves a rule from the tick that it ran for to its first tick after `now`."""
        name = str(rule.name)
        following = _following(rule, now)
        if following is None:
            self._next.pop(name, None)
            return
        await self._database.run(lambda connection: _move(connection, rule, due, following))
        self._next[name] = following


def _stored(connection: Connection, rules: Mapping[str, Rule], now: datetime) -> dict[str, datetime]:
    """Returns the next tick of each rule, after the table was brought in line with the rules."""
    specs = {name: _spec(rule) for name, rule in rules.items()}
    found = connection.execute(select(schedules)).mappings().all()
    valid = {row["rule"]: row["next_time"] for row in found if specs.get(row["rule"]) == row["spec"]}
    outdated = [row["rule"] for row in found if row["rule"] not in valid]
    for at in range(0, len(outdated), _STATEMENT_ROWS):
        some = outdated[at : at + _STATEMENT_ROWS]
        connection.execute(delete(schedules).where(schedules.c.rule.in_(some)))
    times = {name: _following(rule, now) for name, rule in rules.items() if name not in valid}
    new = {name: time for name, time in times.items() if time is not None}
    if new:
        rows = [{"rule": name, "spec": specs[name], "next_time": time} for name, time in sorted(new.items())]
        connection.execute(insert(schedules), rows)
    return valid | new


def _move(connection: Connection, rule: Rule, due: datetime, following: datetime) -> None:
    """Changes nothing that another control moved; one that did not know the rule yet may have deleted its row."""
    name = str(rule.name)
    if connection.execute(select(schedules.c.rule).where(schedules.c.rule == name)).first() is None:
        connection.execute(insert(schedules).values(rule=name, spec=_spec(rule), next_time=following))
        return
    current = (schedules.c.rule == name) & (schedules.c.next_time == due)
    connection.execute(update(schedules).where(current).values(next_time=following))


def _spec(rule: Rule) -> str:
    trigger = _trigger(rule)
    return f"{trigger.cron} {trigger.timezone}"


def _following(rule: Rule, now: datetime) -> datetime | None:
    """Returns the first tick after `now`; None when the schedule has none."""
    try:
        return next_tick(_trigger(rule), now)
    except BadSchedule as error:
        LOG.warning("a schedule cannot run", action="bad_schedule", rule=rule.name, error=str(error))
        return None


def _trigger(rule: Rule) -> Scheduled:
    assert isinstance(rule.trigger, Scheduled)
    return rule.trigger
