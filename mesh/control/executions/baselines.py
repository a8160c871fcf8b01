"""Comparing the source of a rule without `backfill`, of which only what is newer than the rule is copied.

Such a rule has a baseline: the tags that its source held when the rule was declared or changed. An execution notes
them, see `producer.baseline`; it copies nothing, so it is not shown in lists. When notifications may have been lost, an
execution compares the source with the baseline.

There may be thousands of such rules, and most of them are never in need of it: only a few executions run at once, so
that they keep neither registries nor what people start waiting.
"""

import heapq
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta

from mesh.clock import Clock
from mesh.control.executions.returns import WholeListing, next_attempt
from mesh.control.executions.store import Executions
from mesh.rules.state import MeshState
from schemas.completions import Status
from schemas.envelope import make_id
from schemas.rules import Rule

_MOST_RUNNING = 4
_FORGOTTEN_AFTER = timedelta(hours=1)  # a listing that a producer of an older version cannot read never ends
_ATTEMPTS = 10  # that are looked at
_LOOK_SECONDS = 2.0  # between two looks at a baseline that is being listed


class Baselines:
    """Knows which rules have a baseline, and how many executions of such rules may be started."""

    def __init__(self, executions: Executions, state: MeshState, clock: Clock) -> None:
        self._executions, self._state, self._clock = executions, state, clock
        self._complete: dict[str, tuple[int, datetime]] = {}  # by rule: the revision, and when it was listed
        self._next_looks: dict[str, tuple[int, float]] = {}  # by rule: the revision, and when to look again
        self._rules: Mapping[str, Rule] = {}
        self._waiting: list[
            tuple[float, int, str]
        ] = []  # a heap: when to look, the place in the list, the rule
        self._free: int | None = None  # how many executions may be started; None until it is asked for

    def declare(self, rules: Sequence[Rule]) -> None:
        """Takes the rules without `backfill` that are declared now."""
        self._rules = {str(rule.name): rule for rule in rules}
        self._waiting = [
            (self._next_look(rule), number, str(rule.name))
            for number, rule in enumerate(rules)
            if self.of(rule) is None
        ]
        heapq.heapify(self._waiting)

    def start_look(self) -> None:
        """Forgets how many executions run: `may_start` counts them again, if anything is to be started."""
        self._free = None

    async def may_start(self) -> bool:
        """Returns whether another execution may start now.

        Raises:
            DatabaseUnavailable: The database does not answer.
        """
        if self._free is None:
            since = self._clock.now() - _FORGOTTEN_AFTER
            self._free = _MOST_RUNNING - await self._executions.count_running(("baseline", "compare"), since)
        return self._free > 0

    def started(self) -> None:
        """Counts an execution that was started."""
        self._free = (self._free or 0) - 1

    def of(self, rule: Rule) -> datetime | None:
        """Returns when the baseline of a rule, as it is declared now, was listed; None while it is not complete."""
        rev, listed = self._complete.get(str(rule.name), (-1, None))
        return listed if rev == self._state.rev_of(rule.key) else None

    async def due(self) -> AsyncIterator[tuple[Rule, str]]:
        """Yields the rules whose baseline is to be listed now, with the id of the execution that is to list it.

        Raises:
            DatabaseUnavailable: The database does not answer.
        """
        while self._waiting and self._waiting[0][0] <= self._clock.monotonic() and await self.may_start():
            _, number, name = self._waiting[0]
            execution_id = await self._look(self._rules[name])
            heapq.heappop(self._waiting)
            if self.of(self._rules[name]) is None:
                heapq.heappush(self._waiting, (self._next_look(self._rules[name]), number, name))
            if execution_id is not None:
                yield self._rules[name], execution_id

    def _next_look(self, rule: Rule) -> float:
        rev, at = self._next_looks.get(str(rule.name), (-1, 0.0))
        return at if rev == self._state.rev_of(rule.key) else 0.0

    async def _look(self, rule: Rule) -> str | None:
        """Asks the database for the baseline; returns the id of the execution that is to list it now, if one is."""
        name, rev, now = str(rule.name), self._state.rev_of(rule.key), self._clock.monotonic()
        attempts = await self._executions.baselines(name, rev, _ATTEMPTS)
        if (listed := _complete(attempts)) is not None:
            self._complete[name] = rev, listed
            self._next_looks.pop(name, None)
            return None
        seconds = (next_attempt(attempts) - self._clock.now()).total_seconds()
        is_running = bool(attempts) and attempts[0].status is Status.IN_PROGRESS
        self._next_looks[name] = rev, now + (_LOOK_SECONDS if is_running else max(_LOOK_SECONDS, seconds))
        if seconds > 0:
            return None
        return make_id(
            "execution", name, "baseline", rev, *(one.start_time.isoformat() for one in attempts[:1])
        )


def _complete(attempts: Sequence[WholeListing]) -> datetime | None:
    return next((one.start_time for one in attempts if one.is_complete), None)
