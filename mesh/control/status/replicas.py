"""The status of all replicas: what is needed is fetched, judged, shown by the API and kept in gauges."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from mesh.clock import Clock
from mesh.control.executions.retries import Retries
from mesh.control.executions.store import Executions, backfill_id
from mesh.control.patience import Patience
from mesh.control.status.agents import Running
from mesh.control.status.replica_status import ReplicaStatus, Sight, State, judge
from mesh.errors import DatabaseUnavailable, LogError
from mesh.metrics import Metrics
from mesh.rules.state import MeshState
from schemas.completions import Status
from schemas.topology import Replica

_LOOK_EVERY = 10.0  # seconds; so often heartbeats come


class Replicas:
    """`statuses` raises `DatabaseUnavailable`."""

    def __init__(
        self,
        *,
        state: MeshState,
        running: Running,
        executions: Executions,
        retries: Retries,
        clock: Clock,
        metrics: Metrics,
        random: Callable[[], float],
    ) -> None:
        self._state, self._running, self._executions, self._retries = state, running, executions, retries
        self._clock, self._metrics, self._random = clock, metrics, random
        self._fills: dict[str, Mapping[str, Any]] = {}  # by replica: one that ended is counted once

    async def statuses(self) -> Mapping[str, ReplicaStatus]:
        """Of all that are declared, by name."""
        replicas = self._state.replicas()
        failed = await self._retries.open_failures_of_replicas() if replicas else {}
        others = await self._retries.others_content() if replicas else {}
        return {
            name: await self._status(one, failed.get(name, 0), others.get(name, 0))
            for one in replicas
            if (name := str(one.name))
        }

    async def run(self) -> None:
        """Keep the gauges, for ever."""
        patience = Patience("replica status", self._clock, self._random)
        shown: set[str] = set()
        while True:
            try:
                shown = self._show(await self.statuses(), shown)
                patience.relax()
                await self._clock.sleep(_LOOK_EVERY)
            except (DatabaseUnavailable, LogError) as error:
                await patience.wait(error)

    async def _status(self, replica: Replica, failed: int, others: int) -> ReplicaStatus:
        name = str(replica.name)
        last = await self._fill(replica)
        lives, told = self._running.of_region(replica.region)
        return judge(
            Sight(
                name=replica.name, region=replica.region, now=self._clock.now(),
                known=self._running.knows(replica.region), lives=lives, told=told, fill=last,
                filled_since=await self._ran_since(name, last), failed=failed, others=others,
            )
        )  # fmt: skip

    async def _fill(self, replica: Replica) -> Mapping[str, Any] | None:
        """That of the replica as it is declared now: an earlier one may have filled another registry."""
        name, execution_id = str(replica.name), backfill_id(replica.name, self._state.rev_of(replica.key))
        status = await self._executions.status(execution_id)
        if status is None:
            return None
        known = self._fills.get(name)
        if (
            known is None
            or (known["id"], known["status"]) != (execution_id, status)
            or status is Status.IN_PROGRESS
        ):
            known = await self._executions.get(execution_id)
            if known is not None:
                self._fills[name] = known
        return known

    async def _ran_since(self, name: str, fill: Mapping[str, Any] | None) -> bool:
        """Whether all of it was brought by a run after a fill that did not bring it."""
        if fill is None or fill["status"] in (Status.IN_PROGRESS, Status.SUCCEED):
            return False
        return await self._executions.ran_whole(name, datetime.fromisoformat(fill["start_time"]))

    def _show(self, statuses: Mapping[str, ReplicaStatus], before: set[str]) -> set[str]:
        lag, states = self._metrics.replica_lag, self._metrics.replica_state
        for name in before - statuses.keys():
            self._fills.pop(name, None)
            lag.remove(name)
            for state in State:
                states.remove(name, state.value)
        for name, status in statuses.items():
            lag.labels(name).set(float("nan") if status.lag_seconds is None else status.lag_seconds)
            for state in State:
                states.labels(name, state.value).set(status.state is state)
        return set(statuses)
