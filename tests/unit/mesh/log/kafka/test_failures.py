"""Translation of aiokafka's errors: which may be retried, and which an operator must repair."""

import asyncio

import pytest
from aiokafka import errors

from mesh.errors import LogError, LogUnavailable
from mesh.log.kafka.failures import answering


@pytest.mark.parametrize(
    "error",
    [
        errors.KafkaConnectionError("no route"),
        errors.RequestTimedOutError(),
        errors.NotLeaderForPartitionError(),
        errors.OutOfOrderSequenceNumber(),
        errors.ConsumerStoppedError(),
        ConnectionResetError("reset"),
    ],
)
async def test_a_transient_error_is_unavailable(error):
    with pytest.raises(LogUnavailable, match=r"append.*a:1") as raised:
        async with answering("append", "a:1", 5):
            raise error
    assert raised.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [errors.TopicAuthorizationFailedError("t"), errors.SaslAuthenticationFailed("bad password")]
)
async def test_a_refusal_is_not_retryable(error):
    with pytest.raises(LogError, match="refused") as raised:
        async with answering("append", "a:1", 5):
            raise error
    assert not raised.value.retryable


async def test_a_wait_times_out():
    with pytest.raises(LogUnavailable, match=r"within 0\.01 s"):
        async with answering("commit", "a:1", 0.01):
            await asyncio.sleep(60)


async def test_a_cancellation_is_not_translated():
    async def wait() -> None:
        async with answering("commit", "a:1", 60):
            await asyncio.sleep(60)

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_an_unexpected_error_is_not_translated():
    with pytest.raises(ZeroDivisionError):
        async with answering("append", "a:1", 5):
            _ = 1 / 0
