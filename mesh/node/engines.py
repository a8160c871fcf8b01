"""The log engines by URL: only here is one chosen."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from mesh.clock import Clock
from mesh.credentials.secrets import Secrets
from mesh.errors import InvalidInput
from mesh.log.port import Log
from mesh.node.settings import from_environment


async def open_log(url: str, *, clock: Clock, secrets: Secrets, connect: bool = True) -> Log:
    """Opens the log at `url`: `sqlite:///path` or `kafka://host:9092,...`; `connect` waits for Kafka to answer.

    Raises:
        InvalidInput: The URL is of another kind or wrong for its kind, or a variable REGMESH_KAFKA_TIMEOUTS_* is wrong.
        LogError: The log cannot be opened.
    """
    scheme = urlsplit(url).scheme
    if scheme == "sqlite":
        from mesh.log import sqlite  # noqa: PLC0415  # only the engine in use is imported

        return await sqlite.open_log(sqlite_path(url), clock=clock)
    if scheme == "kafka":
        from mesh.log import kafka  # noqa: PLC0415
        from mesh.log.kafka.settings import KafkaTimeouts  # noqa: PLC0415

        timeouts = from_environment(KafkaTimeouts, os.environ)
        return await kafka.open_log(
            url, clock=clock, secrets=secrets.find, timeouts=timeouts, connect=connect
        )
    raise InvalidInput(
        f"{url.split('?', maxsplit=1)[0]!r} is not a log: use sqlite:///PATH or kafka://HOST:PORT[,HOST:PORT]"
    )


def is_new(url: str) -> bool:
    """Checks whether the log is certainly empty: an embedded one whose file does not exist."""
    return urlsplit(url).scheme == "sqlite" and not sqlite_path(url).exists()


def is_shared(url: str) -> bool:
    """Checks whether the log is one that several processes share, on other machines."""
    return urlsplit(url).scheme == "kafka"


def sqlite_path(url: str) -> Path:
    """Returns the file of an embedded log.

    `sqlite:///var/lib/x.db` is absolute, `sqlite://x.db` and `sqlite:x.db` are relative to the working directory.

    Raises:
        InvalidInput: The URL names no file.
    """
    path = url.removeprefix("sqlite:").removeprefix("//")
    if not path or path.endswith("/"):
        raise InvalidInput(f"{url!r} names no file: use sqlite:///PATH/mesh.db")
    return Path(path)
