"""Completions off the log, into the sync log, the outbox and what is known of images: writing twice changes nothing."""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from mesh.clock import Clock
from mesh.control.readers.shared_reading import SharedReading
from mesh.control.sync_log.store import ENDS, SyncLog
from mesh.log.port import Log, Record
from mesh.metrics import Metrics
from mesh.rules.state import MeshState
from schemas import codec, topics
from schemas.completions import Completion
from schemas.names import Region

_LARGEST = 2**63 - 1  # what a column can hold


class Report:
    def __init__(
        self,
        sync_log: SyncLog,
        *,
        log: Log,
        state: MeshState,
        clock: Clock,
        metrics: Metrics,
        random: Callable[[], float],
        also: Callable[[Sequence[Completion]], Awaitable[None]],
        written: Callable[[], None],
    ) -> None:
        """`also` is given every completion, some of them again; `written` is called after what brought news."""
        self._sync_log, self._state = sync_log, state
        self._clock, self._metrics = clock, metrics
        self._also, self._written = also, written
        self._reading = SharedReading(
            "report", what="completion", topic_of=topics.completions, decode=read, take=self._take, log=log,
            state=state, clock=clock, metrics=metrics, random=random,
        )  # fmt: skip

    async def run(self) -> None:
        """For ever, over the regions that are declared at each time."""
        await self._reading.run()

    async def _take(self, completions: Sequence[Completion]) -> None:
        await self._also(completions)
        news = await self._sync_log.write(completions, self._state.webhooks(), self._clock.now())
        for status, count in Counter(one.status.value for one in news).items():
            self._metrics.completions.labels(status).inc(count)
        if news:
            self._written()


def read(record: Record, region: Region) -> Completion:
    """The completion in a record of this region's topic; `DecodeError` for what no sync log can hold."""
    raw = record.value or b""
    completion = codec.decode(raw, Completion)
    if completion.status not in ENDS:
        raise codec.DecodeError(f"status {completion.status} ends no task", raw)
    if completion.destination_region != region:
        raise codec.DecodeError(
            f"a completion of region {completion.destination_region} on the topic of {region}", raw
        )
    for field, value in completion:
        if isinstance(value, int) and value > _LARGEST:
            raise codec.DecodeError(f"{field} is larger than anything can be", raw)
        if isinstance(value, str) and "\0" in value:
            raise codec.DecodeError(f"{field} holds a NUL character", raw)
    if completion.error is not None and "\0" in completion.error.code + completion.error.message:
        raise codec.DecodeError("error holds a NUL character", raw)
    return completion
