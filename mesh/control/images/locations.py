"""Reads `mesh.<region>.tags` of all regions into the database: which digest each place holds under each tag."""

from datetime import timedelta

from mesh.control.images.merge import TagDeleted, TagEntry, TagKey, entry_of, parse_key
from mesh.control.images.store import Images
from mesh.control.ports import ControlPorts
from mesh.control.readers.group_reader import GroupReader, topic_of_each_region
from mesh.control.settings import ControlSettings
from mesh.log.port import Record
from schemas import codec, topics
from schemas.events import TagState
from schemas.names import Region

_CLEANUP_INTERVAL = 60.0  # seconds
_MAX_VERSION = 2**63 - 1  # what a column can hold


class Locations:
    """Keeps the locations of images up to date."""

    def __init__(self, images: Images, *, ports: ControlPorts, settings: ControlSettings) -> None:
        self._images, self._ports = images, ports
        self._deleted_retention = timedelta(seconds=settings.deleted_tag_retention)
        self._declared_before: set[str] | None = None
        self._reader = GroupReader(
            "images", record_name="tag", topics=topic_of_each_region(topics.tags, ports.state), decode=_decode,
            take=images.take, ports=ports,
        )  # fmt: skip

    async def run(self) -> None:
        """Reads the topics of all declared regions until cancelled."""
        await self._reader.run()

    async def clean_up(self) -> None:
        """Deletes, until cancelled, what is known of places that are no longer declared, and old deleted tags."""
        await self._ports.retry_loop("forget_images").repeat(self._clean_up, _CLEANUP_INTERVAL)

    async def _clean_up(self) -> None:
        """A place is deleted at the second look, since another control may know one that was declared just now.

        Nothing is deleted while no place is declared: then the log is new, and the declarations come again.
        """
        declared = {str(place.name) for place in self._ports.state.places()}
        if declared and self._declared_before is not None:
            oldest = self._ports.clock.now() - self._deleted_retention
            await self._images.delete_undeclared(declared | self._declared_before, oldest)
        self._declared_before = declared


def _decode(record: Record, _: Region) -> tuple[TagKey, TagEntry | TagDeleted]:
    if record.value is not None:
        state = codec.decode(record.value, TagState)
        if state.tag_version > _MAX_VERSION:
            raise codec.DecodeError("tag_version does not fit into 64 bits", record.value)
        return entry_of(state)
    key = parse_key(record.key)
    if key is None:
        raise codec.DecodeError(f"the key {record.key[:80]!r} is not place/repository:tag", b"")
    return key, TagDeleted(record.written_at)
