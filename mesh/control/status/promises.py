"""The freshness of all rules and replicas, for the API, `doctor` and the metrics."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from mesh.control.ports import ControlPorts
from mesh.control.settings import ControlSettings
from mesh.control.status.freshness import BURN_WINDOWS, SHARE_WINDOWS, Freshness, FreshnessFacts, freshness_of
from mesh.control.status.live_status import LiveStatus
from mesh.control.sync_log.ended_tasks import TaskCounts
from mesh.control.sync_log.task_counts import Promises, TaskCountStore, promises_of
from schemas.completions import Heartbeat
from schemas.names import Region

_CLEAN_UP_INTERVAL = timedelta(minutes=5)
_UNKNOWN = TaskCounts()


class FreshnessPromises:
    """Reads the counts of ended tasks from time to time; what agents report is looked at when it is asked for."""

    def __init__(
        self,
        counts: TaskCountStore,
        live_status: LiveStatus,
        *,
        ports: ControlPorts,
        settings: ControlSettings,
    ) -> None:
        self._store, self._live_status = counts, live_status
        self._ports, self._state, self._settings = ports, ports.state, settings
        self._counts: Mapping[str, TaskCounts] = {}
        self._promises: Promises = {}
        self._promises_at = -1  # the number of changes of the state that they were derived at
        self._cleaned_up: datetime | None = None
        self._in_gauges = set[str]()

    async def run(self) -> None:
        """Keeps counts and gauges up to date until cancelled."""
        loop = self._ports.retry_loop("freshness")
        await loop.repeat(self.update, self._settings.freshness_interval)

    async def update(self) -> None:
        """Reads the counts once, and sets the gauges.

        Raises:
            DatabaseUnavailable: The database does not answer.
        """
        now, promises = self._ports.clock.now(), self._current_promises()
        self._counts = await self._store.read(promises, now)
        self._set_gauges(self.of(promises))
        if self._cleaned_up is None or now - self._cleaned_up >= _CLEAN_UP_INTERVAL:
            await self._store.delete_old(now)
            self._cleaned_up = now

    def of(
        self, names: Iterable[str], *, listed_left: Mapping[str, int] | None = None
    ) -> dict[str, Freshness]:
        """Returns the freshness of declared rules and replicas, as the last update and the agents know it.

        Args:
            names: The rules and replicas; those that are not declared are left out.
            listed_left: Tasks of fills that are left, by replica.
        """
        promises, now = self._current_promises(), self._ports.clock.now()
        by_region: dict[Region, tuple[bool, list[Heartbeat]]] = {}
        found = {}
        for name in names:
            region = self._region_of(name)
            if region is None:
                continue
            if region not in by_region:
                by_region[region] = self._live_status.of_region(region)
            has_live_agent, heartbeats = by_region[region]
            facts = FreshnessFacts(
                name=name, promise=promises.get(name), now=now, has_live_agent=has_live_agent, heartbeats=heartbeats,
                counts=self._counts.get(name, _UNKNOWN), objective=self._settings.freshness_objective,
                listed_left=(listed_left or {}).get(name, 0),
            )  # fmt: skip
            found[name] = freshness_of(facts)
        return found

    def promised(self) -> dict[str, Freshness]:
        """Returns the freshness of what has a promise."""
        return self.of(self._current_promises())

    def _current_promises(self) -> Promises:
        if self._promises_at != self._state.changes:
            self._promises, self._promises_at = promises_of(self._state), self._state.changes
        return self._promises

    def _region_of(self, name: str) -> Region | None:
        compiled = self._state.rule(name)
        place = self._state.place(compiled.rule.destination) if compiled is not None else None
        return place.region if place is not None else None

    def _set_gauges(self, promised: Mapping[str, Freshness]) -> None:
        metrics = self._ports.metrics
        for name in self._in_gauges - promised.keys():
            for gauge in (metrics.freshness_promise, metrics.oldest_push, metrics.freshness_missed):
                gauge.remove(name)
            for window in BURN_WINDOWS:
                metrics.freshness_burn_rate.remove(name, window)
            for window in SHARE_WINDOWS:
                metrics.freshness_kept.remove(name, window)
        for name, one in promised.items():
            metrics.freshness_promise.labels(name).set(one.promise_seconds or 0)
            metrics.oldest_push.labels(name).set(_or_nan(one.oldest_push_seconds))
            metrics.freshness_missed.labels(name).set(bool(one.promise_missed))
            for window in BURN_WINDOWS:
                metrics.freshness_burn_rate.labels(name, window).set(one.burn_rates[window])
            for window in SHARE_WINDOWS:
                metrics.freshness_kept.labels(name, window).set(_or_nan(one.kept[window]))
        self._in_gauges = set(promised)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
