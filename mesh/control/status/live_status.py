"""Follows the status topics of all regions into memory: live agents, tasks in progress, and what intakes refused."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from mesh.control.ports import ControlPorts
from mesh.control.readers.region_tables import RegionTables
from mesh.control.settings import ControlSettings
from mesh.log.port import Append, Record
from schemas import codec, topics
from schemas.completions import AGENT_LIVES_FOR, Heartbeat, Progress
from schemas.names import Region
from schemas.refusals import Refusal
from schemas.registry_processes import RegistryProcess

LOG = structlog.get_logger()

_Report = Heartbeat | Progress | Refusal | RegistryProcess
_KINDS: Mapping[str, type[_Report]] = {
    model.kind: model for model in (Heartbeat, Progress, Refusal, RegistryProcess)
}
_CLEANUP_INTERVAL = 3600.0  # seconds
_KEPT_PROCESSES = 16  # of each registry; a change is seen by those that are known
_CHUNK = 500  # tombstones of one append


@dataclass(slots=True)
class _RegionStatus:
    reports: dict[str, _Report] = field(default_factory=dict)  # by record key
    written_at: dict[str, datetime] = field(default_factory=dict)  # by the log's clock
    last_stopped: tuple[datetime, Heartbeat] | None = (
        None  # the last heartbeat of the agent that stopped last
    )

    def apply(self, record: Record) -> None:
        if record.value is None:
            removed = self.reports.pop(record.key, None)
            written_at = self.written_at.pop(record.key, record.written_at)
            if isinstance(removed, Heartbeat) and (
                self.last_stopped is None or written_at >= self.last_stopped[0]
            ):
                self.last_stopped = written_at, removed
            return
        self.reports[record.key] = _decoded(record.value)
        self.written_at[record.key] = record.written_at

    def heartbeats(self) -> list[tuple[datetime, Heartbeat]]:
        """Returns the last heartbeat of each agent that has not stopped, and when it was written."""
        return [
            (self.written_at[key], one) for key, one in self.reports.items() if isinstance(one, Heartbeat)
        ]

    def keys_before(self, oldest: datetime) -> list[str]:
        """Returns the keys of the reports that were written before a time, but of the last processes of registries."""
        kept = {one.key for processes in self.processes().values() for one in processes[-_KEPT_PROCESSES:]}
        return [key for key, time in self.written_at.items() if time < oldest and key not in kept]

    def processes(self) -> dict[str, list[RegistryProcess]]:
        """Returns the processes of registries that sent notifications, by instance, the newest last."""
        found = dict[str, list[RegistryProcess]]()
        for one in self.reports.values():
            if isinstance(one, RegistryProcess):
                found.setdefault(one.instance, []).append(one)
        return {instance: sorted(them, key=lambda one: one.time) for instance, them in found.items()}


class LiveStatus:
    """A view of the status topics. It hides the tasks of silent agents, which other agents start again."""

    def __init__(self, ports: ControlPorts, settings: ControlSettings) -> None:
        self._ports, self._metrics = ports, ports.metrics
        self._silent_retention = timedelta(seconds=settings.silent_agent_retention)
        self._regions = RegionTables(
            "status", topic_of=topics.status, new_state=_RegionStatus, apply=_RegionStatus.apply, ports=ports,
            on_unreadable=self._count_unreadable,
        )  # fmt: skip

    async def run(self) -> None:
        """Follows the topics until cancelled."""
        await self._regions.run()

    async def clean_up(self) -> None:
        """Deletes, until cancelled, what agents that were killed left on the log, and what intakes refused long ago.

        Each start of an agent has its own name, and an agent that was killed does not remove its records.
        """
        await self._ports.retry_loop("status_retention").repeat(self.delete_old, _CLEANUP_INTERVAL)

    async def delete_old(self) -> None:
        """Writes a tombstone for each report that is older than the settings keep it.

        Raises:
            LogError: The log did not accept them.
        """
        for region, status in list(self._regions.states.items()):
            oldest = self._regions.log_time(region) - self._silent_retention
            keys = status.keys_before(oldest) if self._regions.is_read(region) else []
            for at in range(0, len(keys), _CHUNK):
                some = keys[at : at + _CHUNK]
                await self._ports.log.append([Append(topics.status(region), key, None) for key in some])
            if keys:
                LOG.info(
                    "old reports were deleted", action="status_trimmed", region=region, reports=len(keys)
                )

    def agents(self) -> list[Heartbeat]:
        """Returns the last heartbeat of each live agent."""
        return [one for region in self._regions.states for one in self._live_agents(region)]

    def is_read(self, region: Region) -> bool:
        """Checks whether the region's status was read to its end; before that, live agents may be missing."""
        return self._regions.is_read(region)

    def of_region(self, region: Region) -> tuple[bool, list[Heartbeat]]:
        """Returns whether the region has a live agent, and the heartbeats of its live agents.

        Without a live agent it returns the last heartbeats of those that were live last.
        """
        if region not in self._regions.states:
            return False, []
        if live_agents := self._live_agents(region):
            return True, live_agents
        status = self._regions.states[region]
        known = status.heartbeats()
        if status.last_stopped is not None:
            known.append(status.last_stopped)
        newest = max((written_at for written_at, _ in known), default=None)
        return False, [one for at, one in known if newest is not None and at > newest - AGENT_LIVES_FOR]

    def tasks(self) -> list[Progress]:
        """Returns the tasks in progress of live agents."""
        live_agents = {heartbeat.agent for heartbeat in self.agents()}
        return [one for one in self._reports() if isinstance(one, Progress) and one.agent in live_agents]

    def refusals(self) -> list[Refusal]:
        """Returns the notifications that intakes refused, summed up by intake and name, for the last day at least."""
        return [one for one in self._reports() if isinstance(one, Refusal)]

    def registry_processes(self) -> dict[str, set[str]]:
        """Returns which processes of registries sent notifications, by instance, of regions whose status was read."""
        return {
            instance: {one.process for one in processes}
            for region, status in self._regions.states.items()
            if self._regions.is_read(region)
            for instance, processes in status.processes().items()
        }

    def place_states(self, regions: Mapping[str, Region]) -> dict[str, str]:
        """Returns `Ready` or `Failed: <reason>` of each place that a live agent uses, reading every heartbeat once.

        Agents of the place's own region take precedence, and among those a failure.

        Args:
            regions: The places that are asked for, and the region of each.
        """
        found: dict[str, tuple[bool, str]] = {}
        for agent in self.agents():
            for place, state in agent.places.items():
                if (region := regions.get(place)) is not None:
                    reported = (agent.region != region, state)
                    found[place] = min(reported, found.get(place, reported))  # `Failed` sorts before `Ready`
        return {place: state for place, (_, state) in found.items()}

    def _count_unreadable(self, record: Record) -> None:
        self._metrics.dead_letters.labels(record.partition.topic).inc()

    def _live_agents(self, region: Region) -> list[Heartbeat]:
        oldest = self._regions.log_time(region) - AGENT_LIVES_FOR
        return [one for written_at, one in self._regions.states[region].heartbeats() if written_at > oldest]

    def _reports(self) -> Iterator[_Report]:
        for status in self._regions.states.values():
            yield from status.reports.values()


def _decoded(raw: bytes) -> _Report:
    return codec.decode(raw, _KINDS.get(codec.kind_of(raw), Progress))
