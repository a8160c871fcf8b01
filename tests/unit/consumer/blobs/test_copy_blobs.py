"""One blob to one destination: what it costs, and what may not end it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from yarl import URL

from consumer.blobs.copy_blobs import BlobCopier
from consumer.blobs.prefetched import PrefetchedBlobs
from consumer.blobs.relay.incoming import Incoming
from consumer.blobs.throttle import Speeds
from consumer.progress import TaskProgress, TaskRun
from mesh.clock import ManualClock
from mesh.errors import NotFound, ServerFault
from mesh.metrics import Metrics
from mesh.registry.port import Descriptor, Upload
from schemas.completions import Side
from schemas.names import Repository
from tests.unit.consumer.blobs.test_blob_source import STATE, Mesh, blob, task

BODY = b"7"
BLOB = blob(7)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
UPLOAD = Upload(URL("http://destination/session"), 0.0)


class Source:
    error: Exception | None = None

    @asynccontextmanager
    async def read_blob(
        self, _: object, wanted: Descriptor, *, offset: int | None = None
    ) -> AsyncIterator[Any]:
        if self.error is not None:
            raise self.error

        async def chunks() -> AsyncIterator[bytes]:
            yield BODY[offset or 0 :]

        yield chunks()


class Destination:
    """It has nothing, and takes what it is sent."""

    def __init__(self) -> None:
        self.taken, self.mounted, self.open, self.has_it = b"", 0, 0, False
        self.looks: list[int | Exception | None] = []  # what it says to these, and then that it has nothing

    async def blob_size(self, *_: object) -> int | None:
        said = self.looks.pop(0) if self.looks else None
        if isinstance(said, Exception):
            raise said
        return said

    async def mount_blob(self, *_: object) -> bool:
        self.mounted += 1
        return True

    async def begin_upload(self, *_: object) -> Upload | None:
        self.open += not self.has_it
        return None if self.has_it else UPLOAD

    async def cancel_upload(self, _: object, upload: Upload) -> None:
        assert upload is UPLOAD
        self.open -= 1

    async def write_blob(
        self, _: object, wanted: Descriptor, chunks: AsyncIterator[bytes], upload: Upload | None
    ) -> None:
        self.open -= upload is UPLOAD
        self.taken = b"".join([chunk async for chunk in chunks])


def copier(*, others_here: bool = False) -> BlobCopier:
    clock, metrics = ManualClock(NOW), Metrics(CollectorRegistry())
    sources = Mesh(lambda _: NotFound("it has nothing", side=Side.SOURCE, status=410)).sources
    return BlobCopier(
        sources=sources, incoming=Incoming(lambda: False), brought=PrefetchedBlobs(1000),
        others_here=lambda: others_here, metrics=metrics, blobs_per_task=4, transfers=4,
        speeds=Speeds(state=STATE, clock=clock, metrics=metrics, transfers=4),
    )  # fmt: skip


async def copied(made: BlobCopier, destination: Any, source: Any = None) -> TaskProgress:
    progress = TaskProgress(started=NOW)
    await made.copy([BLOB], TaskRun(task(), progress), source or Source(), destination)  # type: ignore[arg-type]
    return progress


async def test_a_look_whether_another_agent_sent_the_same_ends_no_upload() -> None:
    destination = Destination()
    destination.looks = [ServerFault("not now", side=Side.DESTINATION, status=500)]
    progress = await copied(copier(others_here=True), destination)
    assert (destination.taken, progress.blobs_transferred) == (BODY, 1)


async def test_what_is_about_to_come_ahead_is_mounted_where_it_can_be() -> None:
    made, destination = copier(), Destination()
    blob_key = (task().destination.name, BLOB.digest)
    made.holders.remember(blob_key, Repository("game/other"))
    assert made.brought.begin(blob_key, BLOB.size, 0.0)  # and has not had its turn
    progress = await copied(made, destination)
    assert (destination.mounted, destination.taken, progress.blobs_mounted) == (1, b"", 1)


async def test_one_question_finds_a_blob_that_nobody_knew_to_be_there() -> None:
    destination = Destination()
    destination.has_it = True
    progress = await copied(copier(), destination)
    assert (destination.taken, progress.bytes_skipped, progress.blobs_transferred) == (b"", BLOB.size, 0)


async def test_an_upload_that_was_begun_is_written_and_not_left_open() -> None:
    destination = Destination()
    await copied(copier(), destination)
    assert (destination.taken, destination.open) == (BODY, 0)


async def test_an_upload_that_was_begun_for_nothing_is_cancelled() -> None:
    destination, source = Destination(), Source()
    source.error = NotFound("it is gone", side=Side.SOURCE, status=404)
    with pytest.raises(NotFound):
        await copied(copier(), destination, source)
    assert (destination.taken, destination.open) == (b"", 0)


async def test_of_a_blob_that_was_seen_there_before_no_upload_is_begun() -> None:
    made, destination = copier(), Destination()
    made.holders.remember((task().destination.name, BLOB.digest), task().destination_repository)
    destination.looks = [BLOB.size]
    begun: list[object] = []
    destination.begin_upload = begun.append  # type: ignore[method-assign, assignment]
    progress = await copied(made, destination)
    assert (destination.taken, progress.bytes_skipped, begun) == (b"", BLOB.size, [])
