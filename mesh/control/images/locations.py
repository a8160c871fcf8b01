"""`mesh.<region>.tags` of all regions, into control's database: which digest each place holds."""

from collections.abc import Callable

from mesh.clock import Clock
from mesh.control.images.merge import Gone, Held, Key, key_of, of_state
from mesh.control.images.store import Images
from mesh.control.patience import Patience
from mesh.control.readers.shared_reading import SharedReading
from mesh.errors import DatabaseUnavailable
from mesh.log.port import Log, Record
from mesh.metrics import Metrics
from mesh.rules.state import MeshState
from schemas import codec, topics
from schemas.events import TagState
from schemas.names import Region

_FORGET_EVERY = 60.0  # seconds
_LARGEST = 2**63 - 1  # what a column can hold


class Locations:
    def __init__(
        self,
        images: Images,
        *,
        log: Log,
        state: MeshState,
        clock: Clock,
        metrics: Metrics,
        random: Callable[[], float],
    ) -> None:
        self._images, self._state, self._clock, self._random = images, state, clock, random
        self._reading = SharedReading(
            "images", what="tag", topic_of=topics.tags, decode=read, take=images.take, log=log, state=state,
            clock=clock, metrics=metrics, random=random,
        )  # fmt: skip

    async def run(self) -> None:
        """For ever, over the regions that are declared at each time."""
        await self._reading.run()

    async def forget(self) -> None:
        """For ever, from time to time, what concerns nobody any more."""
        patience = Patience("forget images", self._clock, self._random)
        known = self._declared()
        while True:
            await self._clock.sleep(_FORGET_EVERY)
            before, known = known, self._declared()
            try:
                # Another control may know already of a place that we do not, so one goes at the second look. Where no
                # place is declared at all, the log is a new one, and what was declared comes again.
                if known:
                    await self._images.forget(known | before, self._clock.now())
                patience.relax()
            except DatabaseUnavailable as error:
                await patience.wait(error)

    def _declared(self) -> set[str]:
        return {str(place.name) for place in self._state.places()}


def read(record: Record, _: Region) -> tuple[Key, Held | Gone]:
    """What a record says of a tag; `DecodeError`."""
    if record.value is not None:
        state = codec.decode(record.value, TagState)
        if state.tag_version > _LARGEST:
            raise codec.DecodeError("tag_version is larger than any time", record.value)
        return of_state(state)
    key = key_of(record.key)
    if key is None:
        raise codec.DecodeError(f"{record.key[:80]!r} is no place/repository:tag", b"")
    return key, Gone(record.written_at)
