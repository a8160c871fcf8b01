"""The log on Apache Kafka: the port through aiokafka.

Every call ends in time, every client that fails is replaced, and the library never chooses or commits an offset.
`append` makes records durable, `group` and `member` implement groups, `follow` reads for tables, `topics` creates and
checks topics, `cluster` parses the URL.
"""

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from mesh.clock import Clock
from mesh.concurrency import close_all
from mesh.errors import LogError, LogUnavailable
from mesh.log.kafka import topics as kafka_topics
from mesh.log.kafka.append import Appender
from mesh.log.kafka.clients import SharedClient, borrowed
from mesh.log.kafka.cluster import KafkaContext, Secrets, parse
from mesh.log.kafka.failures import answering, with_reason_from_logs
from mesh.log.kafka.follow import Follower
from mesh.log.kafka.group import KafkaGroup
from mesh.log.kafka.offsets import Offsets
from mesh.log.kafka.settings import KafkaTimeouts
from mesh.log.port import Append, Batch, Expiring


async def open_log(
    url: str, *, clock: Clock, secrets: Secrets, timeouts: KafkaTimeouts | None = None, connect: bool = True
) -> "KafkaLog":
    """Opens the log on the cluster of `url`.

    Args:
        url: The URL of the cluster.
        clock: The time.
        secrets: Returns the value of a named secret, or None.
        timeouts: How long calls wait.
        connect: Connect now; else the first call that needs a connection does.

    Raises:
        InvalidInput: The URL is wrong.
        LogUnavailable: No broker answers there.
    """
    _keep_passwords_out_of_logs()
    kafka = KafkaLog(KafkaContext(parse(url, secrets), timeouts or KafkaTimeouts(), clock))
    if not connect:
        return kafka
    try:
        await kafka.start()
    except BaseException:
        await kafka.close()
        raise
    return kafka


class KafkaLog:
    """`mesh.log.port.Log` on Kafka. Created by `open_log`; used in the event loop that created it."""

    def __init__(self, context: KafkaContext) -> None:
        self._context, self._cluster = context, context.cluster
        self._appender = Appender(context)
        self._admin: SharedClient[AIOKafkaAdminClient] = SharedClient(self._create_admin, _close_admin)
        self._offsets = Offsets(context)
        self._known: set[str] = set()  # topics that exist
        self._readers: set[KafkaGroup | Follower] = set()
        self._closed = False

    async def start(self) -> None:
        """Connects, so that a wrong address is an error now and not at the first append."""
        with with_reason_from_logs():
            async with answering("start", self._cluster, self._context.timeouts.request):
                await self._appender.start()

    async def append(self, records: Sequence[Append], *, then: Sequence[Append] = ()) -> Sequence[int]:
        self._check_open()
        await self._check_topics({record.topic for record in (*records, *then)})
        offsets = await self._appender.append(records)
        return [*offsets, *await self._appender.append(then)] if then else offsets

    async def group(self, name: str, topics: Sequence[str]) -> KafkaGroup:
        self._check_open()
        await self._check_topics(set(topics))
        group = KafkaGroup(name, topics, self._context, self._offsets)
        self._readers.add(group)
        await group.join()
        return group

    async def follow(
        self, topic: str, *, start: Mapping[int, int] | None = None
    ) -> AsyncGenerator[Batch, None]:
        self._check_open()
        follower = Follower(topic, self._context, self._offsets, numbers=self._partitions_of)
        self._readers.add(follower)
        try:
            async with aclosing(follower.batches(start or {})) as batches:
                async for batch in batches:
                    yield batch
        finally:
            self._readers.discard(follower)
        raise LogUnavailable("the log was closed")

    async def end(self, topic: str) -> Mapping[int, int]:
        self._check_open()
        partitions = [TopicPartition(topic, number) for number in await self._partitions_of(topic)]
        ends = await self._offsets.ends(partitions)
        return {partition.partition: offset for partition, offset in ends.items()}

    async def ensure(self, topics: Sequence[str]) -> Sequence[str]:
        self._check_open()
        kafka_topics.check_names(topics)
        async with self._administering("create topics") as admin:
            return await kafka_topics.ensure(admin, topics, self._cluster)

    async def missing(self, topics: Sequence[str]) -> Sequence[str]:
        self._check_open()
        kafka_topics.check_names(topics)
        found = await self._all_partitions()
        return [name for name in topics if name not in found]

    async def expiring(self, group: str, topic: str) -> Expiring | None:
        self._check_open()
        partitions = [TopicPartition(topic, number) for number in await self._partitions_of(topic)]
        async with self._administering("read the commits of a group") as admin:
            kept_for = await kafka_topics.retention(admin, topic)
            commits = await admin.list_consumer_group_offsets(group, partitions=partitions)
        finished = {one: commit.offset for one, commit in commits.items() if commit.offset >= 0}
        if kept_for is None or not finished:
            return None
        old = await self._offsets.count_before(self._context.clock.now() - kept_for / 2, partitions, finished)
        return Expiring(old, kept_for) if old else None

    async def close(self) -> None:
        """Writes what is waiting, leaves all groups and closes the connections, each within a time-out."""
        self._closed = True
        readers = [reader.close for reader in self._readers]
        await close_all(*readers, self._appender.close, self._admin.close, self._offsets.close)

    async def _check_topics(self, topics: set[str]) -> None:
        """Raises `LogError` for a topic that does not exist; aiokafka would wait for it, or have it created."""
        if topics <= self._known:
            return
        self._known |= (await self._all_partitions()).keys()
        for name in sorted(topics - self._known):
            raise self._no_topic(name)

    async def _partitions_of(self, topic: str) -> Sequence[int]:
        found = await self._all_partitions()
        if topic not in found:
            raise self._no_topic(topic)
        return found[topic]

    def _no_topic(self, name: str) -> LogError:
        return LogError(
            f"topic {name} does not exist on Kafka at {self._cluster}: run `regmesh topics create`"
        )

    async def _all_partitions(self) -> dict[str, list[int]]:
        async with self._administering("list topics") as admin:
            return await kafka_topics.partitions(admin)

    def _administering(self, what: str) -> AbstractAsyncContextManager[AIOKafkaAdminClient]:
        return borrowed(self._admin, what, self._cluster, self._context.timeouts.request)

    def _create_admin(self) -> AIOKafkaAdminClient:
        return AIOKafkaAdminClient(**self._context.client_options())

    def _check_open(self) -> None:
        if self._closed:
            raise LogUnavailable("the log was closed")


async def _close_admin(admin: AIOKafkaAdminClient) -> None:
    await admin.close()


def _keep_passwords_out_of_logs() -> None:
    """Raises the level of a logger that at DEBUG prints every request, also the one with the password."""
    connections = logging.getLogger("aiokafka.conn")
    connections.setLevel(max(connections.level, logging.INFO))
