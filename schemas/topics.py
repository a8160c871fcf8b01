"""The one table of topics: their names, keys and settings. Nothing else spells a topic's name."""

from dataclasses import dataclass
from enum import StrEnum

from schemas.names import Region

_DAY_MS = 24 * 3600 * 1000


class Cleanup(StrEnum):
    DELETE = "delete"
    COMPACT = "compact"


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """What `regmesh topics create` asks for. Retention is in milliseconds."""

    cleanup: Cleanup
    partitions: int
    retention_ms: int | None = None  # None = for ever (compacted)
    tombstone_ms: int = 7 * _DAY_MS  # how long a reader that starts at 0 may take without missing a delete


STATE = "mesh.state"
COMMANDS = "mesh.commands"

_GLOBAL = {
    # One partition: an offset is the revision of everything declared.
    STATE: TopicSettings(Cleanup.COMPACT, partitions=1),
    COMMANDS: TopicSettings(Cleanup.DELETE, partitions=4, retention_ms=7 * _DAY_MS),
}
# Events wait as long as a region may be cut off; reconcile finds what is older.
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
    return f"mesh.{region}.events"


def bulk(region: Region) -> str:
    return f"mesh.{region}.bulk"


def completions(region: Region) -> str:
    return f"mesh.{region}.completions"


def status(region: Region) -> str:
    return f"mesh.{region}.status"


def retry(region: Region) -> str:
    return f"mesh.{region}.retry"


def tags(region: Region) -> str:
    return f"mesh.{region}.tags"


def dead_letters(region: Region) -> str:
    return f"mesh.{region}.dead-letters"


def settings(topic: str) -> TopicSettings:
    """The settings of a topic of ours; `KeyError` for any other name."""
    return _GLOBAL[topic] if topic in _GLOBAL else _REGIONAL[topic.rpartition(".")[2]]


def all_topics(regions: list[Region]) -> list[str]:
    """Every topic of a mesh with these regions, the global ones first."""
    return [*_GLOBAL, *(f"mesh.{region}.{name}" for region in regions for name in _REGIONAL)]
