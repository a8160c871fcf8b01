"""Reads completions off the log into the sync log, the webhook outbox and the image locations."""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from mesh.control.ports import ControlPorts
from mesh.control.readers.group_reader import GroupReader, topic_of_each_region
from mesh.control.sync_log.store import ENDS, SyncLog
from mesh.control.sync_log.task_counts import promises_of
from mesh.log.port import Record
from schemas import codec, topics
from schemas.completions import Completion
from schemas.names import Region

_MAX_INTEGER = 2**63 - 1  # what a column can hold


class Report:
    """The reader of completions. Storing a completion again changes nothing."""

    def __init__(
        self,
        sync_log: SyncLog,
        *,
        ports: ControlPorts,
        take_images: Callable[[Sequence[Completion]], Awaitable[None]],
        on_news: Callable[[], None],
    ) -> None:
        """`take_images` gets every completion, some repeatedly; `on_news` is called after new ones were stored."""
        self._sync_log, self._ports = sync_log, ports
        self._take_images, self._on_news = take_images, on_news
        self._reader = GroupReader(
            "report", record_name="completion", topics=topic_of_each_region(topics.completions, ports.state),
            decode=decode_completion, take=self._take, ports=ports,
        )  # fmt: skip

    async def run(self) -> None:
        """Reads the topics of all declared regions until cancelled."""
        await self._reader.run()

    async def _take(self, completions: Sequence[Completion]) -> None:
        await self._take_images(completions)
        webhooks, now = self._ports.state.webhooks(), self._ports.clock.now()
        promises = promises_of(self._ports.state)
        news = await self._sync_log.write(completions, webhooks, now, promises=promises)
        for status, count in Counter(one.status.value for one in news).items():
            self._ports.metrics.completions.labels(status).inc(count)
        if news:
            self._on_news()


def decode_completion(record: Record, region: Region) -> Completion:
    """Returns the completion in a record of this region's topic.

    Raises:
        DecodeError: The record is not a completion that the sync log can store.
    """
    raw = record.value or b""
    completion = codec.decode(raw, Completion)
    if completion.status not in ENDS:
        raise codec.DecodeError(f"status {completion.status} does not end a task", raw)
    if completion.destination_region != region:
        raise codec.DecodeError(
            f"a completion of region {completion.destination_region} on the topic of {region}", raw
        )
    for field, value in completion:
        if isinstance(value, int) and value > _MAX_INTEGER:
            raise codec.DecodeError(f"{field} does not fit into 64 bits", raw)
        if isinstance(value, str) and "\0" in value:
            raise codec.DecodeError(f"{field} holds a NUL character", raw)
    if completion.error is not None and "\0" in completion.error.code + completion.error.message:
        raise codec.DecodeError("error holds a NUL character", raw)
    return completion
