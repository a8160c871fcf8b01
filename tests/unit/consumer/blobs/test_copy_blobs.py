"""The copy of one blob to one destination: its requests, and which failures end it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from yarl import URL

from consumer.blobs.copy_blobs import BlobCopier, TransferPermits, TransferPorts
from consumer.blobs.prefetch_ledger import PrefetchLedger
from consumer.blobs.relay.incoming import Incoming
from consumer.blobs.throttle import Throttle
from consumer.progress import TaskProgress, TaskRun
from mesh.errors import NotFound, ServerFault
from mesh.metrics import Metrics
from mesh.registry.port import Descriptor, Upload
from schemas.completions import Side
from schemas.names import Repository
from tests.support.manual_clock import ManualClock
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
    """A destination that has nothing and accepts every upload."""

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


def transfer_ports(*, has_other_agents: bool = False) -> TransferPorts:
    clock, metrics = ManualClock(NOW), Metrics(CollectorRegistry())
    sources = Mesh(lambda _: NotFound("it has nothing", side=Side.SOURCE, status=410)).sources
    return TransferPorts(
        sources=sources, incoming=Incoming(lambda: False), ledger=PrefetchLedger(1000), metrics=metrics,
        throttle=Throttle(state=STATE, clock=clock, metrics=metrics, transfers=4),
        permits=TransferPermits(4), has_other_agents=lambda: has_other_agents,
    )  # fmt: skip


async def copied(ports: TransferPorts, destination: Any, source: Any = None) -> TaskProgress:
    progress = TaskProgress(started=NOW)
    await BlobCopier(ports, blobs_per_task=4).copy(
        [BLOB], TaskRun(task(), progress), source or Source(), destination
    )  # type: ignore[arg-type]
    return progress


async def test_a_failed_check_for_duplicate_transfers_does_not_fail_an_upload() -> None:
    destination = Destination()
    destination.looks = [ServerFault("not now", side=Side.DESTINATION, status=500)]
    progress = await copied(transfer_ports(has_other_agents=True), destination)
    assert (destination.taken, progress.blobs_transferred) == (BODY, 1)


async def test_a_blob_about_to_be_prefetched_is_mounted_if_possible() -> None:
    ports, destination = transfer_ports(), Destination()
    blob_key = (task().destination.name, BLOB.digest)
    ports.mount_sources[blob_key] = Repository("game/other")
    assert ports.ledger.start(blob_key, BLOB.size, 0.0)  # and is not copied yet
    progress = await copied(ports, destination)
    assert (destination.mounted, destination.taken, progress.blobs_mounted) == (1, b"", 1)


async def test_one_request_finds_a_blob_that_was_unknown() -> None:
    destination = Destination()
    destination.has_it = True
    progress = await copied(transfer_ports(), destination)
    assert (destination.taken, progress.bytes_skipped, progress.blobs_transferred) == (b"", BLOB.size, 0)


async def test_an_open_upload_is_written_and_closed() -> None:
    destination = Destination()
    await copied(transfer_ports(), destination)
    assert (destination.taken, destination.open) == (BODY, 0)


async def test_an_unused_upload_is_cancelled() -> None:
    destination, source = Destination(), Source()
    source.error = NotFound("it is deleted", side=Side.SOURCE, status=404)
    with pytest.raises(NotFound):
        await copied(transfer_ports(), destination, source)
    assert (destination.taken, destination.open) == (b"", 0)


async def test_no_upload_is_opened_for_a_blob_that_was_there_before() -> None:
    ports, destination = transfer_ports(), Destination()
    ports.mount_sources[task().destination.name, BLOB.digest] = task().destination_repository
    destination.looks = [BLOB.size]
    opened: list[object] = []
    destination.begin_upload = opened.append  # type: ignore[method-assign, assignment]
    progress = await copied(ports, destination)
    assert (destination.taken, progress.bytes_skipped, opened) == (b"", BLOB.size, [])
