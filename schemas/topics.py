"""The table of all topics: their names and settings. No other module spells out a topic's name."""

from dataclasses import dataclass
from enum import StrEnum

from schemas.names import Region

_DAY_MS = 24 * 3600 * 1000


class Cleanup(StrEnum):
    """Kafka's `cleanup.policy`."""

    DELETE = "delete"
    COMPACT = "compact"


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """The settings with which `regmesh topics create` creates a topic. Retention is in milliseconds."""

    cleanup: Cleanup
    partitions: int
    retention_ms: int | None = None  # None = kept for ever, compacted
    tombstone_ms: int = 7 * _DAY_MS  # a reader from offset 0 that takes longer may miss deletions


STATE = "mesh.state"
COMMANDS = "mesh.commands"

_GLOBAL = {
    # One partition, so that an offset is the revision of all declarations.
    STATE: TopicSettings(Cleanup.COMPACT, partitions=1),
    COMMANDS: TopicSettings(Cleanup.DELETE, partitions=4, retention_ms=7 * _DAY_MS),
}
# Events are kept for as long as a region may be disconnected; reconcile finds older changes.
_REGIONAL = {
    "events": TopicSettings(Cleanup.DELETE, partitions=12, retention_ms=14 * _DAY_MS),
    "bulk": TopicSettings(Cleanup.DELETE, partitions=12, retention_ms=14 * _DAY_MS),
    "completions": TopicSettings(Cleanup.DELETE, partitions=6, retention_ms=30 * _DAY_MS),
    "status": TopicSettings(Cleanup.COMPACT, partitions=1, tombstone_ms=_DAY_MS),
    "retry": TopicSettings(Cleanup.COMPACT, partitions=1),
    "tags": TopicSettings(Cleanup.COMPACT, partitions=12, tombstone_ms=30 * _DAY_MS),
    "dead-letters": TopicSettings(Cleanup.DELETE, partitions=1, retention_ms=30 * _DAY_MS),
}


def events(region: Region) -> str:
    """Returns the topic of changes that were announced."""
    return f"mesh.{region}.events"


def bulk(region: Region) -> str:
    """Returns the topic of events from listings."""
    return f"mesh.{region}.bulk"


def completions(region: Region) -> str:
    """Returns the topic of ended tasks."""
    return f"mesh.{region}.completions"


def status(region: Region) -> str:
    """Returns the topic of heartbeats, running tasks and refusals."""
    return f"mesh.{region}.status"


def retry(region: Region) -> str:
    """Returns the topic of parked tasks."""
    return f"mesh.{region}.retry"


def tags(region: Region) -> str:
    """Returns the topic of tags and what they name."""
    return f"mesh.{region}.tags"


def dead_letters(region: Region) -> str:
    """Returns the topic of dead letters."""
    return f"mesh.{region}.dead-letters"


def events_group(region: Region, source: Region) -> str:
    """Returns the group in which the agents of `region` read the events of `source`."""
    return f"mesh.{region}.agent.from.{source}"


def bulk_group(region: Region, source: Region) -> str:
    """Returns the group in which the agents of `region` read the events of `source` from listings."""
    return f"mesh.{region}.agent.bulk.from.{source}"


def settings(topic: str) -> TopicSettings:
    """Returns the settings of a topic.

    Raises:
        KeyError: It is no topic of the mesh.
    """
    return _GLOBAL[topic] if topic in _GLOBAL else _REGIONAL[topic.rpartition(".")[2]]


def all_topics(regions: list[Region]) -> list[str]:
    """Returns every topic of a mesh with these regions, the global ones first."""
    return [*_GLOBAL, *(f"mesh.{region}.{name}" for region in regions for name in _REGIONAL)]
