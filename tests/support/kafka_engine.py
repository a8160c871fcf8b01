"""The contract suite's Kafka engine: short sessions, and members that stop as in a power cut."""

import asyncio
from contextlib import suppress

from mesh.clock import SystemClock
from mesh.log.kafka import KafkaLog, open_log
from mesh.log.kafka.group import KafkaGroup
from mesh.log.kafka.settings import KafkaTimeouts

# A broker that somebody else runs may refuse sessions under 6 s (group.min.session.timeout.ms).
QUICK_TIMEOUTS = KafkaTimeouts(
    request=8.0,
    session=6.0,
    heartbeat=0.3,
    rebalance=6.0,
    stall=30.0,
    stop=2.0,
)


class KafkaEngine:
    """Gives every handle a client of its own, as each process has."""

    time_limit = 20.0

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._logs: list[KafkaLog] = []

    async def open(self) -> KafkaLog:
        log = await open_log(
            f"kafka://{self._bootstrap}", clock=SystemClock(), secrets=lambda _: None, timeouts=QUICK_TIMEOUTS
        )
        self._logs.append(log)
        return log

    async def crash(self, log: KafkaLog) -> None:
        for reader in log._readers:
            if isinstance(reader, KafkaGroup):
                await self.die(log, reader)
        await log._appender._producer.close()  # as after a failure: nothing more is written

    async def die(self, log: KafkaLog, member: KafkaGroup) -> None:
        await member._stop_polling()
        consumer = member._member._consumer
        member._member._ended = True
        member._member = None
        await stop_without_leaving(consumer)

    async def close(self) -> None:
        for log in self._logs:
            await log.close()


async def stop_without_leaving(consumer) -> None:
    """Stops all tasks of a consumer without leaving its group, so that the broker waits for its session time-out."""
    consumer._closed = True
    coordinator = consumer._coordinator
    for task in (
        coordinator._coordination_task,
        coordinator._heartbeat_task,
        coordinator._commit_refresh_task,
    ):
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    await consumer._fetcher.close()
    await consumer._client.close()
