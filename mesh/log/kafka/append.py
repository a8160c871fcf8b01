"""Appending to Kafka: idempotent, acknowledged by all in-sync replicas, with an end to every wait.

aiokafka's idempotent producer never gives a batch up, and after some errors it never delivers again: sequence numbers
are not rolled back, its epoch is not raised. So any failed delivery, and a second time-out in a row, ends that
producer, and the next append starts a new one. What was waiting in the old one fails: it may have landed or not.
"""

import asyncio
from asyncio import Future
from collections.abc import Sequence
from functools import partial
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from mesh.clock import Clock
from mesh.errors import LogError, LogUnavailable
from mesh.log.kafka.clients import Kept, abandon_producer, end_producer
from mesh.log.kafka.failures import answering, translated
from mesh.log.kafka.settings import Cluster, KafkaTimeouts
from mesh.log.port import Append
from schemas.codec import MAX_RECORD

log = structlog.get_logger()

_BATCH = 1024 * 1024  # one request in flight per broker: small batches would make far brokers slow
_TIMEOUTS_BEFORE_RENEWAL = 2


class Appender:
    """Writes for all of a process, through one producer at a time."""

    def __init__(self, cluster: Cluster, timeouts: KafkaTimeouts, clock: Clock) -> None:
        self._cluster, self._timeouts, self._clock = cluster, timeouts, clock
        self._producer: Kept[AIOKafkaProducer] = Kept(self._make, abandon_producer)
        self._timeouts_in_a_row = 0

    async def start(self) -> None:
        """So that the first append is as quick as the others. Raises what aiokafka raises."""
        await self._producer.get()

    async def append(self, records: Sequence[Append]) -> list[int]:
        """As `Log.append`; the topics must exist."""
        for record in records:
            _check(record)
        if not records:
            return []
        deadline = asyncio.get_running_loop().time() + self._timeouts.request_timeout
        async with answering("append", self._cluster, self._timeouts.request_timeout):
            producer = await self._producer.get()
        deliveries: list[Future[Any]] = []
        try:
            async with asyncio.timeout_at(deadline):
                for record in records:
                    deliveries.append(await self._send(producer, record))  # noqa: PERF401 (the order of sends counts)
                await asyncio.wait(deliveries)
        except TimeoutError as error:
            await self._note_timeout(producer)
            raise LogUnavailable(
                f"append: no acknowledgement from Kafka at {self._cluster} within {self._timeouts.request_timeout:g} s"
            ) from error
        except KafkaError as error:
            await self._renew(producer, error)
            raise translated(error, "append", self._cluster) from error
        return await self._offsets(producer, deliveries)

    async def close(self) -> None:
        """Write what is waiting, in bounded time, and end."""
        await self._producer.close(partial(end_producer, within=self._timeouts.stop_timeout))

    async def _send(self, producer: AIOKafkaProducer, record: Append) -> Future[Any]:
        stamp = int(self._clock.now().timestamp() * 1000)
        delivery: Future[Any] = await producer.send(
            record.topic, record.value, record.key.encode(), timestamp_ms=stamp
        )
        delivery.add_done_callback(_seen)
        return delivery

    async def _offsets(self, producer: AIOKafkaProducer, deliveries: Sequence[Future[Any]]) -> list[int]:
        for delivery in deliveries:
            error = delivery.exception()
            if error is not None:
                await self._renew(producer, error)
                raise translated(error, "append", self._cluster) from error
        self._timeouts_in_a_row = 0
        offsets: list[int] = [delivery.result().offset for delivery in deliveries]
        if min(offsets) < 0:  # a repeat of something so old that the broker does not know where it is
            raise LogUnavailable(f"append: Kafka at {self._cluster} has it, and does not say where")
        return offsets

    async def _note_timeout(self, producer: AIOKafkaProducer) -> None:
        self._timeouts_in_a_row += 1
        if self._timeouts_in_a_row >= _TIMEOUTS_BEFORE_RENEWAL:
            await self._renew(producer, TimeoutError("time-outs in a row"))

    async def _renew(self, producer: AIOKafkaProducer, why: BaseException) -> None:
        self._timeouts_in_a_row = 0
        if await self._producer.drop(producer):
            log.warning("Kafka producer is started anew", action="log_producer_renewed", error=repr(why))

    def _make(self) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            **self._cluster.client_options(),
            acks="all",
            enable_idempotence=True,
            max_batch_size=_BATCH,
            max_request_size=_BATCH,
            compression_type=self._cluster.compression,
            request_timeout_ms=int(self._timeouts.request_timeout * 1000),
        )


def _check(record: Append) -> None:
    """`LogError` for what no engine takes."""
    if len(record.value or b"") > MAX_RECORD:  # refused by the broker only, it would wedge the producer
        raise LogError(f"a record of {record.topic} is over {MAX_RECORD} bytes; nothing of ours comes near")
    try:
        record.key.encode()
    except UnicodeEncodeError as error:
        raise LogError(f"a key of {record.topic} is not text") from error


def _seen(delivery: Future[Any]) -> None:
    """Somebody who gave up waiting does not ask for the error any more; that is no cause for a warning."""
    if not delivery.cancelled():
        delivery.exception()
