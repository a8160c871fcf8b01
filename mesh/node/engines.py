"""The one place that turns URLs into engines and instances into registry clients."""

from pathlib import Path
from urllib.parse import urlsplit

from mesh.clock import Clock
from mesh.credentials.secrets import Secrets
from mesh.errors import InvalidInput
from mesh.log.port import Log


async def open_log(url: str, *, clock: Clock, secrets: Secrets) -> Log:
    """The log at `url`: `sqlite:///path` or `kafka://host:9092,...`. `InvalidInput` for anything else."""
    scheme = urlsplit(url).scheme
    if scheme == "sqlite":
        from mesh.log import sqlite  # noqa: PLC0415  # an agent on Kafka needs no SQLite, nor the other way round

        return await sqlite.open_log(sqlite_path(url), clock=clock)
    if scheme == "kafka":
        from mesh.log import kafka  # noqa: PLC0415

        return await kafka.open_log(url, clock=clock, secrets=secrets.find)
    raise InvalidInput(
        f"{url.split('?', maxsplit=1)[0]!r} is no log: use sqlite:///PATH or kafka://HOST:PORT[,HOST:PORT]"
    )


def is_new(url: str) -> bool:
    """Whether this log certainly holds nothing: an embedded one whose file is not there."""
    return urlsplit(url).scheme == "sqlite" and not sqlite_path(url).exists()


def sqlite_path(url: str) -> Path:
    """`sqlite:///var/lib/x.db` is absolute, `sqlite://x.db` and `sqlite:x.db` are below the working directory."""
    path = url.removeprefix("sqlite:").removeprefix("//")
    if not path or path.endswith("/"):
        raise InvalidInput(f"{url!r} names no file: use sqlite:///PATH/mesh.db")
    return Path(path)
