"""Appending to Kafka: idempotent, acknowledged by all in-sync replicas, and every wait ends.

aiokafka's idempotent producer never gives up a batch, and after some errors it never delivers again: it does not roll
back sequence numbers or raise its epoch. So a failed delivery, or a second time-out in a row, ends that producer, and
the next append starts a new one. Records that were waiting in the old one fail: they may be written or not.
"""

import asyncio
from asyncio import Future
from collections.abc import Sequence
from functools import partial
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from mesh.errors import LogUnavailable
from mesh.log.checks import encoded_key
from mesh.log.kafka.clients import SharedClient, abandon_producer, end_producer
from mesh.log.kafka.cluster import KafkaContext
from mesh.log.kafka.failures import answering, translated
from mesh.log.port import Append

LOG = structlog.get_logger()

_BATCH = (
    1024 * 1024
)  # bytes; one request per broker is in flight, so small batches would make distant brokers slow
_TIMEOUTS_BEFORE_RENEWAL = 2


class Appender:
    """Writes for a whole process, through one producer at a time."""

    def __init__(self, context: KafkaContext) -> None:
        self._context, self._cluster, self._timeout = context, context.cluster, context.timeouts.request
        self._producer: SharedClient[AIOKafkaProducer] = SharedClient(self._create, abandon_producer)
        self._timeouts_in_a_row = 0

    async def start(self) -> None:
        """Starts the producer, so that the first append is as fast as the others. Raises what aiokafka raises."""
        await self._producer.get()

    async def append(self, records: Sequence[Append]) -> list[int]:
        """Writes records durably, as `Log.append` says; the topics must exist."""
        keys = [encoded_key(record) for record in records]  # a refusal by the broker would block the producer
        if not records:
            return []
        deadline = asyncio.get_running_loop().time() + self._timeout
        async with answering("append", self._cluster, self._timeout):
            producer = await self._producer.get()
        deliveries: list[Future[Any]] = []
        try:
            async with asyncio.timeout_at(deadline):
                for key, record in zip(keys, records, strict=True):
                    deliveries.append(await self._send(producer, key, record))
                await asyncio.wait(deliveries)
        except TimeoutError as error:
            await self._note_timeout(producer)
            raise LogUnavailable(
                f"append: no acknowledgement from Kafka at {self._cluster} within {self._timeout:g} s"
            ) from error
        except KafkaError as error:
            await self._renew(producer, error)
            raise translated(error, "append", self._cluster) from error
        return await self._offsets(producer, deliveries)

    async def close(self) -> None:
        """Writes what is waiting, within `timeouts.stop`, and ends."""
        await self._producer.close(partial(end_producer, within=self._context.timeouts.stop))

    async def _send(self, producer: AIOKafkaProducer, key: bytes, record: Append) -> Future[Any]:
        timestamp = int(self._context.clock.now().timestamp() * 1000)
        delivery: Future[Any] = await producer.send(record.topic, record.value, key, timestamp_ms=timestamp)
        delivery.add_done_callback(_retrieve_error)
        return delivery

    async def _offsets(self, producer: AIOKafkaProducer, deliveries: Sequence[Future[Any]]) -> list[int]:
        for delivery in deliveries:
            error = delivery.exception()
            if error is not None:
                await self._renew(producer, error)
                raise translated(error, "append", self._cluster) from error
        self._timeouts_in_a_row = 0
        offsets: list[int] = [delivery.result().offset for delivery in deliveries]
        if min(offsets) < 0:  # a repeat of a batch so old that the broker does not know its offset
            raise LogUnavailable(
                f"append: Kafka at {self._cluster} has the records and does not return offsets"
            )
        return offsets

    async def _note_timeout(self, producer: AIOKafkaProducer) -> None:
        self._timeouts_in_a_row += 1
        if self._timeouts_in_a_row >= _TIMEOUTS_BEFORE_RENEWAL:
            await self._renew(producer, TimeoutError("time-outs in a row"))

    async def _renew(self, producer: AIOKafkaProducer, reason: BaseException) -> None:
        self._timeouts_in_a_row = 0
        if await self._producer.drop(producer):
            LOG.warning("Kafka producer is replaced", action="log_producer_renewed", error=repr(reason))

    def _create(self) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            **self._context.client_options(),
            acks="all",
            enable_idempotence=True,
            max_batch_size=_BATCH,
            max_request_size=_BATCH,
            compression_type=self._cluster.compression,
        )


def _retrieve_error(delivery: Future[Any]) -> None:
    """Retrieves the error of a delivery that nobody waits for any more, so that asyncio does not warn about it."""
    if not delivery.cancelled():
        delivery.exception()
