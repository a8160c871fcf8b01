"""Events that were stamped with newer rules than this agent has: they wait for these rules.

An intake stamps an event with the revision of the declared state that it knows. An agent that matched the event by
older rules would miss what a rule wants that was declared just before the push.
"""

import asyncio

import structlog

from consumer.ports import AgentPorts
from mesh.log.port import Partition
from schemas.events import Event
from schemas.names import Region

LOG = structlog.get_logger()

_BARRIER_SECONDS = 10.0  # for which the log may take to say where the declared state ends


class NewerRules:
    """Knows which partitions of one source region wait for newer rules."""

    def __init__(self, ports: AgentPorts, source_region: Region, alarm_after: float) -> None:
        """`alarm_after` is for how many seconds events wait before that is an error."""
        self._rules, self._clock = ports.rules, ports.clock
        self._source_region, self._alarm_after = source_region, alarm_after
        self._gauge = ports.metrics.waiting_for_rules.labels(source_region)
        self._alarm_at: dict[Partition, float] = {}  # of those that wait
        self._lost_rev = -1  # up to which the log does not have the revisions that events were stamped with

    async def are_here(self, event: Event, partition: Partition) -> bool:
        """Returns whether the agent's rules are at least as new as the event needs, or can never be.

        Raises:
            LogError: The log does not say whether it has them.
        """
        if max(self._rules.rev, self._lost_rev) < event.rules_rev:
            alarm_at = self._alarm_at.setdefault(partition, self._clock.monotonic() + self._alarm_after)
            self._gauge.set(1)
            if self._clock.monotonic() < alarm_at or not await self._are_lost(event, partition):
                return False
        self.forget(partition)
        return True

    def forget(self, partition: Partition) -> None:
        """Drops a partition that does not wait, or is not this agent's any more."""
        self._alarm_at.pop(partition, None)
        self._gauge.set(1 if self._alarm_at else 0)

    async def _are_lost(self, event: Event, partition: Partition) -> bool:
        """Asks the log whether it has the rules at all: not when the declared state was lost or restored."""
        self._alarm_at[partition] = self._clock.monotonic() + self._alarm_after
        LOG.error(
            "events wait for rules that this agent does not receive", action="waiting_for_rules",
            needs=event.rules_rev, has=self._rules.rev, source_region=self._source_region,
        )  # fmt: skip
        try:
            async with asyncio.timeout(_BARRIER_SECONDS):
                await self._rules.caught_up()
        except TimeoutError:
            return False
        if self._rules.rev < event.rules_rev:
            self._lost_rev = event.rules_rev
            LOG.error(
                "the log does not have the rules that events need: the declared state was lost, or restored from an "
                "older copy; the present rules are used", action="rules_lost", needs=event.rules_rev,
                has=self._rules.rev, source_region=self._source_region,
            )  # fmt: skip
        return True
