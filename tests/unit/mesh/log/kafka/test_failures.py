"""aiokafka's errors as ours: what may be tried again, and what somebody must mend."""

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
async def test_what_may_pass_is_unavailable(error):
    with pytest.raises(LogUnavailable, match=r"append.*a:1") as raised:
        async with answering("append", "a:1", 5):
            raise error
    assert raised.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [errors.TopicAuthorizationFailedError("t"), errors.SaslAuthenticationFailed("bad password")]
)
async def test_what_somebody_must_mend_is_not_retryable(error):
    with pytest.raises(LogError, match="refused") as raised:
        async with answering("append", "a:1", 5):
            raise error
    assert not raised.value.retryable


async def test_a_wait_has_an_end():
    with pytest.raises(LogUnavailable, match=r"within 0\.01 s"):
        async with answering("commit", "a:1", 0.01):
            await asyncio.sleep(60)


async def test_a_cancellation_stays_one():
    async def wait() -> None:
        async with answering("commit", "a:1", 60):
            await asyncio.sleep(60)

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_bug_of_ours_is_not_dressed_up():
    with pytest.raises(ZeroDivisionError):
        async with answering("append", "a:1", 5):
            _ = 1 / 0
