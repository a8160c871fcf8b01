"""The cluster that a `kafka://` URL describes.

    kafka://host:9092,host2:9092?security_protocol=SASL_SSL&sasl_mechanism=SCRAM-SHA-512&sasl_username=x
        &sasl_password_secret=NAME&ssl_cafile=...&ssl_certfile=...&ssl_keyfile=...&compression=lz4&replication_factor=3

The URL never contains a password, but the name of a secret.
"""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aiokafka.helpers import create_ssl_context

from mesh.clock import Clock
from mesh.errors import InvalidInput
from mesh.log.kafka.settings import KafkaTimeouts

Secrets = Callable[[str], str | None]

_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_BUILT_IN_CODECS = ("none", "gzip")
_CODECS = (*_BUILT_IN_CODECS, "snappy", "lz4", "zstd")
_PARAMETERS = (
    "security_protocol", "sasl_mechanism", "sasl_username", "sasl_password_secret",
    "ssl_cafile", "ssl_certfile", "ssl_keyfile", "compression", "replication_factor",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The addresses of a Kafka cluster, and how to connect to it."""

    hosts: tuple[str, ...]
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "PLAIN"
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    compression: str | None = None
    replication_factor: int = -1  # -1: the default of the broker

    def __str__(self) -> str:
        hosts = ",".join(self.hosts)
        return hosts if self.security_protocol == "PLAINTEXT" else f"{hosts} ({self.security_protocol})"

    def client_options(self) -> dict[str, Any]:
        """Returns the options of every aiokafka client. They contain the password: never log them."""
        return {
            "bootstrap_servers": list(self.hosts),
            "client_id": "regmesh",
            "security_protocol": self.security_protocol,
            "ssl_context": self.ssl_context,
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": self.sasl_password,
        }


@dataclass(frozen=True, slots=True)
class KafkaContext:
    """What every part of the engine needs: the cluster, the time-outs and the clock."""

    cluster: Cluster
    timeouts: KafkaTimeouts
    clock: Clock

    def client_options(self) -> dict[str, Any]:
        """Returns the options of clients whose requests end after `timeouts.request`."""
        return {**self.cluster.client_options(), "request_timeout_ms": int(self.timeouts.request * 1000)}


def parse(url: str, secrets: Secrets) -> Cluster:
    """Parses a Kafka URL; `secrets` returns the value of a named secret, or None.

    Raises:
        InvalidInput: The URL is wrong. The message does not repeat it.
    """
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
            f"{unknown[0]!r} is not a parameter of the Kafka URL; it takes: {', '.join(_PARAMETERS)}"
        )
    if len(query) != len(given):
        raise InvalidInput("the Kafka URL has a parameter twice")
    return hosts, query


def _host(text: str) -> str:
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port or 9092
    except ValueError as error:
        raise InvalidInput(f"{text[:80]!r} in the Kafka URL is not a host or host:port") from error
    if not parts.hostname:
        raise InvalidInput("the Kafka URL has no host, or an empty one between commas")
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{name}:{port}"


def _one_of(query: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str:
    """Returns the value of a parameter; the first of `allowed` is the default."""
    value = query.get(name, allowed[0])
    if value not in allowed:
        raise InvalidInput(f"{name} in the Kafka URL must be one of {', '.join(allowed)}")
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
        raise InvalidInput("ssl_certfile and ssl_keyfile in the Kafka URL need each other")
    try:
        context: ssl.SSLContext = create_ssl_context(
            cafile=query.get("ssl_cafile"),
            certfile=query.get("ssl_certfile"),
            keyfile=query.get("ssl_keyfile"),
        )
    except OSError as error:  # also ssl.SSLError: missing, unreadable, not PEM
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
        raise InvalidInput("replication_factor in the Kafka URL must be a number from 1 to 100")
    return int(text)
