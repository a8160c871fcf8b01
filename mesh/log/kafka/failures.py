"""Translation of aiokafka's errors, and a time-out for every wait. No other module knows aiokafka's errors."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from aiokafka import errors

from mesh.errors import LogError, LogUnavailable, clean

# An operator has to act on these; trying again cannot help.
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
    """Translates an error of aiokafka; `what` was being done at `where`."""
    reason = str(error) or type(error).__name__
    if isinstance(error, _REFUSED):
        return LogError(f"{what}: Kafka at {where} refused: {reason}")
    return LogUnavailable(f"{what}: Kafka at {where} did not do it: {reason}")


@asynccontextmanager
async def answering(what: str, where: object, within: float) -> AsyncIterator[None]:
    """Ends the block after `within` seconds, and translates its errors.

    Raises:
        LogUnavailable: No answer in time, or a failure that may pass.
        LogError: Kafka refuses; trying again cannot help.
    """
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
    """Adds the last error that aiokafka logged to a `LogUnavailable` of the block.

    At bootstrap aiokafka raises the same for a dead host and a wrong password, and only its log has the reason.
    """
    listener = _LastError()
    logger = logging.getLogger("aiokafka")
    logger.addHandler(listener)
    try:
        yield
    except LogUnavailable as error:
        if not listener.message:
            raise
        raise LogUnavailable(f"{error} ({listener.message})") from error
    finally:
        logger.removeHandler(listener)


class _LastError(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.message = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.message = clean(record.getMessage())
