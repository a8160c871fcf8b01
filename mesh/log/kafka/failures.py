"""Kafka's errors into ours, and the end of every wait. The one edge where aiokafka's errors are known."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from aiokafka import errors

from mesh.errors import LogError, LogUnavailable, clean

# A human has to act on these; trying again cannot help.
_REFUSED = (
    errors.AuthenticationFailedError,
    errors.AuthenticationMethodNotSupported,
    errors.ClusterAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.InvalidGroupIdError,
    errors.InvalidSessionTimeoutError,
    errors.MessageSizeTooLargeError,
    errors.PolicyViolationError,
    errors.SaslAuthenticationFailed,
    errors.TopicAuthorizationFailedError,
    errors.UnsupportedVersionError,
)


def translated(error: BaseException, what: str, where: object) -> LogError:
    """`error`, met while we wanted to do `what`, as one of ours."""
    reason = str(error) or type(error).__name__
    if isinstance(error, _REFUSED):
        return LogError(f"{what}: Kafka at {where} refused: {reason}")
    return LogUnavailable(f"{what}: Kafka at {where} did not do it: {reason}")


@asynccontextmanager
async def answering(what: str, where: object, within: float) -> AsyncIterator[None]:
    """Ends the block after `within` seconds, and raises `LogError` or `LogUnavailable` for what went wrong in it."""
    try:
        async with asyncio.timeout(within):
            yield
    except TimeoutError as error:
        raise LogUnavailable(f"{what}: no answer from Kafka at {where} within {within:g} s") from error
    except errors.KafkaConnectionError as error:
        raise LogUnavailable(f"{what}: no Kafka answers at {where}") from error
    except (errors.KafkaError, errors.ConsumerStoppedError, OSError) as error:
        raise translated(error, what, where) from error


@contextmanager
def with_reason_from_logs() -> Iterator[None]:
    """At bootstrap aiokafka raises the same for a dead host and a wrong password, and only its log says which.

    Adds what it last logged as an error to a `LogUnavailable` of the block.
    """
    listener = _LastError()
    logger = logging.getLogger("aiokafka")
    logger.addHandler(listener)
    try:
        yield
    except LogUnavailable as error:
        if not listener.said:
            raise
        raise LogUnavailable(f"{error} ({listener.said})") from error
    finally:
        logger.removeHandler(listener)


class _LastError(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.said = clean(record.getMessage())
