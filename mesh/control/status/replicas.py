"""The status of all replicas, for the API and for the gauges."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from mesh.control.executions.retries import Retries
from mesh.control.executions.returns import Comparison, Gap, comparison_since
from mesh.control.executions.schedule import LISTINGS
from mesh.control.executions.store import Executions, backfill_id
from mesh.control.ports import ControlPorts
from mesh.control.settings import ControlSettings
from mesh.control.status.live_status import LiveStatus
from mesh.control.status.replica_status import ReplicaFacts, ReplicaState, ReplicaStatus, replica_status
from schemas.completions import Status
from schemas.topology import Replica


class Replicas:
    """Gathers the facts of each replica from memory and database."""

    def __init__(
        self,
        live_status: LiveStatus,
        executions: Executions,
        retries: Retries,
        *,
        gap_of: Callable[[str], Gap],
        ports: ControlPorts,
        settings: ControlSettings,
    ) -> None:
        """`gap_of` returns the last time in which notifications of an instance may have been lost."""
        self._gap_of = gap_of
        self._compared: dict[str, Gap] = {}  # by replica: the last gap after which it was compared
        self._live_status, self._executions, self._retries = live_status, executions, retries
        self._ports, self._state, self._settings = ports, ports.state, settings
        self._fills: dict[
            str, Mapping[str, Any]
        ] = {}  # by replica; the tasks of a fill that ended are counted once
        self._in_gauges: set[str] = set()

    async def run(self) -> None:
        """Keeps the gauges up to date until cancelled."""
        loop = self._ports.retry_loop("replica_status")
        await loop.repeat(self.update_gauges, self._settings.replica_status_interval)

    async def statuses(self) -> Mapping[str, ReplicaStatus]:
        """Returns the status of each declared replica, by name.

        Raises:
            DatabaseUnavailable: The database does not answer.
        """
        replicas = self._state.replicas()
        failed = await self._retries.open_failures_of_replicas() if replicas else {}
        foreign = await self._retries.foreign_content() if replicas else {}
        return {
            name: await self._status(one, failed.get(name, 0), foreign.get(name, 0))
            for one in replicas
            if (name := str(one.name))
        }

    async def _status(self, replica: Replica, failed: int, foreign: int) -> ReplicaStatus:
        fill = await self._fill(replica)
        gap, comparison = await self._gap(replica)
        has_live_agent, heartbeats = self._live_status.of_region(replica.region)
        return replica_status(
            ReplicaFacts(
                name=replica.name,
                region=replica.region,
                now=self._ports.clock.now(),
                status_is_read=self._live_status.is_read(replica.region),
                has_live_agent=has_live_agent,
                heartbeats=heartbeats,
                fill=fill,
                filled_since=await self._was_filled_since(str(replica.name), fill),
                failed=failed,
                foreign=foreign,
                gap=gap,
                comparison=comparison,
            )
        )

    async def _gap(self, replica: Replica) -> tuple[Gap | None, Comparison]:
        """Returns the gap after which the replica was not compared yet, and how far the comparison is."""
        name, gap = str(replica.name), self._gap_of(str(replica.instance))
        if gap.is_open:
            return gap, Comparison.PENDING
        if self._compared.get(name) == gap:
            return None, Comparison.DONE
        listings = await self._executions.whole_listings(name, LISTINGS)
        comparison = comparison_since(listings, gap.ended or gap.since)
        if comparison is not Comparison.DONE:
            return gap, comparison
        self._compared[name] = gap
        return None, comparison

    async def _fill(self, replica: Replica) -> Mapping[str, Any] | None:
        """Returns the fill of the replica as it is declared now; an earlier fill may be of another registry."""
        name, execution_id = str(replica.name), backfill_id(replica.name, self._state.rev_of(replica.key))
        status = await self._executions.status(execution_id)
        if status is None:
            return None
        known = self._fills.get(name)
        is_current = known is not None and (known["id"], known["status"]) == (execution_id, status)
        if not is_current or status is Status.IN_PROGRESS:
            known = await self._executions.get(execution_id)
            if known is not None:
                self._fills[name] = known
        return known

    async def _was_filled_since(self, name: str, fill: Mapping[str, Any] | None) -> bool:
        """Checks whether a later run over the whole replica succeeded where its fill did not."""
        if fill is None or fill["status"] in (Status.IN_PROGRESS, Status.SUCCEED):
            return False
        return await self._executions.ran_whole(name, datetime.fromisoformat(fill["start_time"]))

    async def update_gauges(self) -> None:
        """Sets the gauges once, and removes those of replicas that are no longer declared.

        Raises:
            DatabaseUnavailable: The database does not answer.
        """
        statuses = await self.statuses()
        lag, states = self._ports.metrics.replica_lag, self._ports.metrics.replica_state
        for name in self._in_gauges - statuses.keys():
            self._fills.pop(name, None)
            self._compared.pop(name, None)
            lag.remove(name)
            for state in ReplicaState:
                states.remove(name, state.value)
        for name, status in statuses.items():
            lag.labels(name).set(float("nan") if status.lag_seconds is None else status.lag_seconds)
            for state in ReplicaState:
                states.labels(name, state.value).set(status.state is state)
        self._in_gauges = set(statuses)
