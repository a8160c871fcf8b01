"""The topics of a Kafka cluster: which there are, and making ours with the settings of `schemas.topics`."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import NoError, TopicAlreadyExistsError, for_code

from mesh.errors import LogError
from mesh.log.kafka.settings import Cluster
from schemas import topics as table
from schemas.topics import Cleanup, TopicSettings

_HOUR_MS = 3600 * 1000
_MAX_BATCH = 1024 * 1024 + 12  # Kafka's own default, written down because codec.MAX_RECORD counts on it


def check_names(topics: Iterable[str]) -> None:
    """`LogError` for a name that is not in our table of topics."""
    for name in topics:
        try:
            table.settings(name)
        except KeyError as error:
            raise LogError(f"{name!r} is no topic of ours") from error


async def partitions(admin: AIOKafkaAdminClient) -> dict[str, list[int]]:
    """The partition numbers of every topic there is.

    Asks for all of them: asking for one by name would make it, on brokers that create topics by themselves.
    """
    found = await admin.describe_topics()
    return {
        topic["topic"]: sorted(partition["partition"] for partition in topic["partitions"])
        for topic in found
        if topic["error_code"] == NoError.errno
    }


async def settings_of(admin: AIOKafkaAdminClient, topics: Sequence[str]) -> dict[str, dict[str, str]]:
    """All settings of existing topics, as Kafka names them."""
    if not topics:
        return {}
    answers = await admin.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, name) for name in topics]
    )
    described: dict[str, dict[str, str]] = {}
    for answer in answers:
        for code, reason, _kind, name, entries in answer.resources:
            if code != NoError.errno:
                raise LogError(
                    f"Kafka does not tell the settings of topic {name}: {reason or for_code(code).__name__}"
                )
            described[name] = {entry[0]: entry[1] for entry in entries}
    return described


async def ensure(admin: AIOKafkaAdminClient, topics: Sequence[str], cluster: Cluster) -> list[str]:
    """As `Log.ensure`."""
    found = await partitions(admin)
    await _check(admin, {name: found[name] for name in topics if name in found})
    absent = [name for name in topics if name not in found]
    made = await _make(admin, absent, cluster)
    found = await _known(admin, topics)
    await _check(admin, {name: found[name] for name in absent if name not in made})  # others were quicker
    return made


async def _make(admin: AIOKafkaAdminClient, topics: Iterable[str], cluster: Cluster) -> list[str]:
    """Make those of `topics` that are missing; returns the made ones. One that somebody else makes first is fine."""
    wanted = [_new_topic(name, cluster.replication_factor) for name in topics]
    if not wanted:
        return []
    answer = await admin.create_topics(wanted)
    made = []
    for name, code, reason in answer.topic_errors:
        if code == NoError.errno:
            made.append(name)
        elif code != TopicAlreadyExistsError.errno:
            raise LogError(f"Kafka did not make topic {name}: {reason or for_code(code).__name__}")
    return made


async def _known(admin: AIOKafkaAdminClient, topics: Sequence[str]) -> dict[str, list[int]]:
    """As `partitions`, once `topics` are there: brokers hear of new ones a moment after they were made."""
    while not set(topics) <= (found := await partitions(admin)).keys():  # noqa: ASYNC110 (nothing tells)
        await asyncio.sleep(0.05)
    return found


async def _check(admin: AIOKafkaAdminClient, found: Mapping[str, Sequence[int]]) -> None:
    """`LogError` when an existing topic would lose what we put there."""
    described = await settings_of(admin, list(found))
    for name, numbers in found.items():
        wanted = table.settings(name).cleanup
        policy = described[name].get("cleanup.policy", "")
        if policy != wanted:
            raise LogError(
                f"topic {name} has cleanup.policy={policy} and must have {wanted}: "
                "records would be lost; alter it, or remove the topic if it is empty"
            )
        if name == table.STATE and len(numbers) != 1:
            raise LogError(
                f"topic {name} has {len(numbers)} partitions and must have 1: offsets are revisions"
            )


def _new_topic(name: str, replication_factor: int) -> NewTopic:
    wanted = table.settings(name)
    return NewTopic(
        name,
        num_partitions=wanted.partitions,
        replication_factor=replication_factor,
        # aiokafka lets the broker choose the factor (-1) only where assignments are given, if empty ones
        replica_assignments={} if replication_factor == -1 else None,
        topic_configs=_configs(wanted, replication_factor),
    )


def _configs(wanted: TopicSettings, replication_factor: int) -> dict[str, Any]:
    configs = {
        "cleanup.policy": str(wanted.cleanup),
        "max.message.bytes": str(_MAX_BATCH),
        # The broker's clock says when a record is too old; one wrong clock among many nodes must not end records early.
        "message.timestamp.type": "LogAppendTime",
    }
    if wanted.retention_ms is not None:
        configs["retention.ms"] = str(wanted.retention_ms)
    if wanted.cleanup is Cleanup.COMPACT:
        configs["delete.retention.ms"] = str(wanted.tombstone_ms)
        configs["min.compaction.lag.ms"] = str(_HOUR_MS)  # what was just written stays readable as it was
    if replication_factor >= 3:
        configs["min.insync.replicas"] = "2"  # else an acknowledged record may be on one disk only
    return configs
