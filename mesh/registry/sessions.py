"""The two kinds of HTTP sessions, and how the bodies of answers are read.

A trusted session connects to what the operator configured, on any network. A guarded session connects to what a
registry names: without credentials, and through the egress filter. Neither keeps cookies or decompresses.
"""

import importlib.metadata

import aiohttp
from aiohttp import ClientResponse, ClientSession, ClientTimeout
from aiohttp.resolver import ThreadedResolver

from mesh.registry.egress import GuardedResolver, GuardedSockets, Network

STALL_SECONDS = 60.0  # a connection without a byte in either direction for so long counts as broken
# 512 KiB of each body wait in memory; more gains nothing on loopback, less costs wake-ups.
_READ_BUFFER = 256 * 1024
SHORT = ClientTimeout(total=300, connect=10, sock_read=STALL_SECONDS)
STREAM = ClientTimeout(total=None, connect=10, sock_read=STALL_SECONDS)
# A registry on an object store copies the whole upload before it answers the closing PUT.
COMMIT = ClientTimeout(total=None, connect=10, sock_read=300)
USER_AGENT = f"regmesh/{importlib.metadata.version('regmesh')}"
_HEADERS = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}


def trusted_session() -> ClientSession:
    """Opens a session for what the operator configured."""
    return _open_session(aiohttp.TCPConnector(limit=0))


def guarded_session(networks: tuple[Network, ...]) -> ClientSession:
    """Opens a session for what a registry names: public addresses, and `networks`."""
    return _open_session(guarded_connector(networks))


def guarded_connector(networks: tuple[Network, ...]) -> aiohttp.TCPConnector:
    """Returns a connector to public addresses and `networks` alone."""
    return aiohttp.TCPConnector(
        limit=0,
        resolver=GuardedResolver(networks, ThreadedResolver()),
        socket_factory=GuardedSockets(networks),
    )


def _open_session(connector: aiohttp.TCPConnector) -> ClientSession:
    return ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=_HEADERS,
        auto_decompress=False,
        read_bufsize=_READ_BUFFER,
        timeout=STREAM,
    )


async def read_up_to(response: ClientResponse, limit: int) -> bytes:
    """Reads the first `limit` bytes of a body, or all of it when it is shorter."""
    parts: list[bytes] = []
    left = limit
    while left > 0 and (part := await response.content.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


async def read_whole(response: ClientResponse, limit: int) -> bytes | None:
    """Reads a whole body, or returns None when it is over `limit` bytes."""
    body = await read_up_to(response, limit + 1)
    return body if len(body) <= limit else None
