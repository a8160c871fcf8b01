"""What a `kafka://` URL says, and how long the engine waits for what.

    kafka://host:9092,host2:9092?security_protocol=SASL_SSL&sasl_mechanism=SCRAM-SHA-512&sasl_username=x
        &sasl_password_secret=NAME&ssl_cafile=...&ssl_certfile=...&ssl_keyfile=...&compression=lz4&replication_factor=3

A password is never in the URL: the name of a secret is.
"""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aiokafka.helpers import create_ssl_context
from pydantic import Field

from mesh.errors import InvalidInput
from mesh.settings import Settings

Secrets = Callable[[str], str | None]

_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_BUILT_IN_CODECS = ("none", "gzip")
_CODECS = (*_BUILT_IN_CODECS, "snappy", "lz4", "zstd")
_PARAMETERS = (
    "security_protocol", "sasl_mechanism", "sasl_username", "sasl_password_secret",
    "ssl_cafile", "ssl_certfile", "ssl_keyfile", "compression", "replication_factor",
)  # fmt: skip


class KafkaTimeouts(Settings):
    """How long the Kafka engine waits, in seconds. The defaults suit a wide-area network; tests shorten them."""

    request_timeout: float = Field(10.0, gt=0)
    """Seconds that any one call may take: an append, a commit, a question for offsets."""

    session_timeout: float = Field(20.0, gt=0)
    """Seconds without a heartbeat after which the group gives a member's partitions to others."""

    heartbeat_interval: float = Field(3.0, gt=0)
    """Seconds between the heartbeats of a group member."""

    rebalance_timeout: float = Field(60.0, gt=0)
    """Seconds that the members of a group have to rejoin it in a rebalance.

    aiokafka takes its session time-out, which is too short for members that settle copies first.
    """

    poll_timeout: float = Field(300.0, gt=0)
    """Seconds without a read after which a member leaves its group (`max.poll.interval.ms`)."""

    stall_timeout: float = Field(120.0, gt=0)
    """Seconds without an assignment or progress after which a consumer is replaced."""

    stop_timeout: float = Field(5.0, gt=0)
    """Seconds that a client has to stop, since aiokafka's may hang."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where Kafka is and how to get in."""

    hosts: tuple[str, ...]
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "PLAIN"
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    compression: str | None = None
    replication_factor: int = -1  # -1: what the broker does by default

    def __str__(self) -> str:
        hosts = ",".join(self.hosts)
        return hosts if self.security_protocol == "PLAINTEXT" else f"{hosts} ({self.security_protocol})"

    def client_options(self) -> dict[str, Any]:
        """What every client of aiokafka takes. Holds the password: never log it."""
        return {
            "bootstrap_servers": list(self.hosts),
            "client_id": "regmesh",
            "security_protocol": self.security_protocol,
            "ssl_context": self.ssl_context,
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": self.sasl_password,
        }


def parse(url: str, secrets: Secrets) -> Cluster:
    """The cluster that `url` means; `InvalidInput` says what is wrong with it, without repeating it."""
    hosts, query = _split(url)
    protocol = _one_of(query, "security_protocol", _PROTOCOLS)
    sasl = protocol.startswith("SASL_")
    if not sasl and any(name.startswith("sasl_") for name in query):
        raise InvalidInput("sasl_* in the Kafka URL needs security_protocol=SASL_SSL (or SASL_PLAINTEXT)")
    tls = protocol.endswith("SSL")
    if not tls and any(name.startswith("ssl_") for name in query):
        raise InvalidInput("ssl_* in the Kafka URL needs security_protocol=SSL or SASL_SSL")
    return Cluster(
        hosts=hosts,
        security_protocol=protocol,
        sasl_mechanism=_one_of(query, "sasl_mechanism", _MECHANISMS),
        sasl_username=_required(query, "sasl_username") if sasl else None,
        sasl_password=_password(query, secrets) if sasl else None,
        ssl_context=_ssl_context(query) if tls else None,
        compression=_compression(query),
        replication_factor=_replication_factor(query),
    )


def _split(url: str) -> tuple[tuple[str, ...], dict[str, str]]:
    parts = urlsplit(url)
    if parts.scheme != "kafka" or parts.path not in ("", "/") or parts.fragment:
        raise InvalidInput("a Kafka URL looks like kafka://host:9092,host2:9092?parameter=value")
    if "@" in parts.netloc:
        raise InvalidInput(
            "no user or password in the Kafka URL: use sasl_username and sasl_password_secret=<name of a secret>"
        )
    hosts = tuple(_host(text) for text in parts.netloc.split(","))
    given = parse_qsl(parts.query, keep_blank_values=True)
    query = dict(given)
    unknown = sorted(set(query) - set(_PARAMETERS))
    if unknown:
        raise InvalidInput(
            f"the Kafka URL knows no parameter {unknown[0]!r}; it knows: {', '.join(_PARAMETERS)}"
        )
    if len(query) != len(given):
        raise InvalidInput("a parameter of the Kafka URL is given twice")
    return hosts, query


def _host(text: str) -> str:
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port or 9092
    except ValueError as error:
        raise InvalidInput(f"{text[:80]!r} in the Kafka URL is not a host or host:port") from error
    if not parts.hostname:
        raise InvalidInput("the Kafka URL names no host, or an empty one between commas")
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{name}:{port}"


def _one_of(query: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str:
    """The value of a parameter that is the first of `allowed` when not given."""
    value = query.get(name, allowed[0])
    if value not in allowed:
        raise InvalidInput(f"{name} in the Kafka URL is one of {', '.join(allowed)}")
    return value


def _required(query: Mapping[str, str], name: str) -> str:
    value = query.get(name)
    if not value:
        raise InvalidInput(f"the Kafka URL needs {name}")
    return value


def _password(query: Mapping[str, str], secrets: Secrets) -> str:
    name = _required(query, "sasl_password_secret")
    value = secrets(name)
    if value is None:
        raise InvalidInput(f"secret {name!r}, named by sasl_password_secret in the Kafka URL, has no value")
    return value


def _ssl_context(query: Mapping[str, str]) -> ssl.SSLContext:
    if ("ssl_certfile" in query) != ("ssl_keyfile" in query):
        raise InvalidInput("ssl_certfile and ssl_keyfile in the Kafka URL go together")
    try:
        context: ssl.SSLContext = create_ssl_context(
            cafile=query.get("ssl_cafile"),
            certfile=query.get("ssl_certfile"),
            keyfile=query.get("ssl_keyfile"),
        )
    except OSError as error:  # also ssl.SSLError: not there, not readable, not PEM
        raise InvalidInput(f"a file named by ssl_* in the Kafka URL cannot be used: {error}") from error
    return context


def _compression(query: Mapping[str, str]) -> str | None:
    codec = _one_of(query, "compression", _CODECS)
    if codec not in _BUILT_IN_CODECS and find_spec("cramjam") is None:
        raise InvalidInput(f"compression={codec} needs the package cramjam: install regmesh[compression]")
    return None if codec == "none" else codec


def _replication_factor(query: Mapping[str, str]) -> int:
    text = query.get("replication_factor", "-1")
    if text != "-1" and not (text.isascii() and text.isdigit() and 1 <= int(text) <= 100):
        raise InvalidInput("replication_factor in the Kafka URL is a number from 1 to 100")
    return int(text)
