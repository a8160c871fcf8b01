"""The topics of a Kafka cluster: listing them, and creating them with the settings of `schemas.topics`."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import NoError, TopicAlreadyExistsError, for_code

from mesh.errors import LogError
from mesh.log.checks import topic_settings
from mesh.log.kafka.cluster import Cluster
from schemas import topics as table
from schemas.topics import Cleanup, TopicSettings

_HOUR_MS = 3600 * 1000
_MAX_BATCH = 1024 * 1024 + 12  # Kafka's own default, set explicitly because codec.MAX_RECORD relies on it


def check_names(topics: Iterable[str]) -> None:
    """Checks that all names are in the table of topics.

    Raises:
        LogError: One is not.
    """
    for name in topics:
        topic_settings(name)


async def partitions(admin: AIOKafkaAdminClient) -> dict[str, list[int]]:
    """Returns the partition numbers of every existing topic.

    It asks for all of them: asking for one by name would create it, on brokers that create topics automatically.
    """
    found = await admin.describe_topics()
    return {
        topic["topic"]: sorted(partition["partition"] for partition in topic["partitions"])
        for topic in found
        if topic["error_code"] == NoError.errno
    }


async def settings_of(admin: AIOKafkaAdminClient, topics: Sequence[str]) -> dict[str, dict[str, str]]:
    """Returns all settings of existing topics, with Kafka's names.

    Raises:
        LogError: Kafka does not describe one of them.
    """
    if not topics:
        return {}
    answers = await admin.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, name) for name in topics]
    )
    described: dict[str, dict[str, str]] = {}
    for answer in answers:
        for code, reason, _kind, name, entries in answer.resources:
            if code != NoError.errno:
                raise LogError(f"Kafka does not describe topic {name}: {reason or for_code(code).__name__}")
            described[name] = {entry[0]: entry[1] for entry in entries}
    return described


async def retention(admin: AIOKafkaAdminClient, topic: str) -> timedelta | None:
    """Returns for how long a topic keeps its records, as it is set now; None when it keeps them for ever."""
    found = int((await settings_of(admin, [topic]))[topic].get("retention.ms", "-1"))
    return timedelta(milliseconds=found) if found >= 0 else None


async def ensure(admin: AIOKafkaAdminClient, topics: Sequence[str], cluster: Cluster) -> list[str]:
    """Creates missing topics and returns them, as `Log.ensure` says."""
    found = await partitions(admin)
    await _check(admin, {name: found[name] for name in topics if name in found})
    missing = [name for name in topics if name not in found]
    created = await _create(admin, missing, cluster)
    found = await _known(admin, topics)
    await _check(admin, {name: found[name] for name in missing if name not in created})  # created by others
    return created


async def _create(admin: AIOKafkaAdminClient, topics: Iterable[str], cluster: Cluster) -> list[str]:
    """Creates topics and returns those that it created; another process may create one first."""
    wanted = [_new_topic(name, cluster.replication_factor) for name in topics]
    if not wanted:
        return []
    answer = await admin.create_topics(wanted)
    created = []
    for name, code, reason in answer.topic_errors:
        if code == NoError.errno:
            created.append(name)
        elif code != TopicAlreadyExistsError.errno:
            raise LogError(f"Kafka did not create topic {name}: {reason or for_code(code).__name__}")
    return created


async def _known(admin: AIOKafkaAdminClient, topics: Sequence[str]) -> dict[str, list[int]]:
    """Returns `partitions` once `topics` are among them: brokers know new topics a moment after their creation."""
    while not set(topics) <= (found := await partitions(admin)).keys():  # noqa: ASYNC110 (there is no event to wait for)
        await asyncio.sleep(0.05)
    return found


async def _check(admin: AIOKafkaAdminClient, found: Mapping[str, Sequence[int]]) -> None:
    """Raises `LogError` when an existing topic would lose records."""
    described = await settings_of(admin, list(found))
    for name, numbers in found.items():
        wanted = table.settings(name).cleanup
        policy = described[name].get("cleanup.policy", "")
        if policy != wanted:
            raise LogError(
                f"topic {name} has cleanup.policy={policy} and must have {wanted}: "
                "records would be lost; alter it, or delete the topic if it is empty"
            )
        if name == table.STATE and len(numbers) != 1:
            raise LogError(
                f"topic {name} has {len(numbers)} partitions and must have 1: its offsets are revisions"
            )


def _new_topic(name: str, replication_factor: int) -> NewTopic:
    wanted = table.settings(name)
    return NewTopic(
        name,
        num_partitions=wanted.partitions,
        replication_factor=replication_factor,
        # aiokafka lets the broker choose the factor (-1) only with assignments, if empty ones
        replica_assignments={} if replication_factor == -1 else None,
        topic_configs=_configs(wanted, replication_factor),
    )


def _configs(wanted: TopicSettings, replication_factor: int) -> dict[str, Any]:
    configs = {
        "cleanup.policy": str(wanted.cleanup),
        "max.message.bytes": str(_MAX_BATCH),
        # The broker's clock decides when a record expires, so that no node with a wrong clock causes an early deletion.
        "message.timestamp.type": "LogAppendTime",
    }
    if wanted.retention_ms is not None:
        configs["retention.ms"] = str(wanted.retention_ms)
    if wanted.cleanup is Cleanup.COMPACT:
        configs["delete.retention.ms"] = str(wanted.tombstone_ms)
        configs["min.compaction.lag.ms"] = str(
            _HOUR_MS
        )  # recent records stay readable before they are compacted
    if replication_factor >= 3:
        configs["min.insync.replicas"] = "2"  # otherwise an acknowledged record may be on one disk only
    return configs
