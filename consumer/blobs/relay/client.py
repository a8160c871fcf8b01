"""Requests a blob from another agent's relay, which has it or is still receiving it."""

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import aiohttp

from consumer.blobs.relay import signing
from consumer.blobs.relay.signing import RelayKeys, RelayRequest
from mesh.clock import Clock
from mesh.errors import Denied, NotFound, Rejected, ServerFault, Unreachable, clean
from mesh.registry import failures
from mesh.registry.egress import OPERATOR_NETWORKS
from mesh.registry.port import Descriptor
from mesh.registry.sessions import guarded_connector, read_up_to
from schemas.completions import Side
from schemas.names import PlaceName, Region, Repository

STALL_SECONDS = 10.0  # without a byte; a peer that stalls is dropped for another holder
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=3, sock_read=STALL_SECONDS)
_READ_BUFFER = 256 * 1024
_MAX_REASON = 1000  # bytes of a refusal that are read


class NotYet(NotFound):
    """The peer expects the blob and has not received any of it yet."""

    code = "not_yet"


class Peer(Protocol):
    """The relays of other agents."""

    def read(
        self, url: str, place: PlaceName, repository: Repository, blob: Descriptor, offset: int
    ) -> contextlib.AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Streams the blob from `offset` on, as the relay at `url` has it for `place`. The bytes are not verified.

        Raises:
            NotYet: The relay expects the blob.
            RegistryError: The relay refuses, or its stream breaks off.
        """
        ...


class PeerClient:
    """The `Peer` port over HTTP. `keys` is called for each request, as they may change.

    An address comes from a heartbeat, so it never leads to a link-local address, where clouds serve credentials.
    """

    def __init__(self, region: Region, keys: Callable[[], RelayKeys | None], clock: Clock) -> None:
        self._region, self._keys, self._clock = region, keys, clock
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def close(self) -> None:
        """Closes the connections; later requests raise `Unreachable`."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    @contextlib.asynccontextmanager
    async def read(
        self, url: str, place: PlaceName, repository: Repository, blob: Descriptor, offset: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        keys = self._keys()
        request = RelayRequest(url, self._region, place, repository, blob.digest, blob.size, offset)
        if keys is None or keys.key_of(request.serving, self._region) is None:
            raise Denied(f"this agent has no key for the relays of {request.serving}", side=Side.SOURCE)
        headers = signing.headers_of(request, keys, self._clock.now())
        if offset:
            headers["Range"] = f"bytes={offset}-"
        path = f"{url}/v1/relay/{place}/{repository}/blobs/{blob.digest}?size={blob.size}"
        if self._closed:
            raise Unreachable("this agent has stopped", side=Side.SOURCE)
        with failures.translated(f"relay {url}", Side.SOURCE):
            async with self._open_session().get(path, headers=headers, allow_redirects=False) as response:
                await _check(response, url, offset)
                yield _Chunks(response, url)

    def _open_session(self) -> aiohttp.ClientSession:
        """Opens the session on the event loop of the first request."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=_TIMEOUT, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False,
                connector=guarded_connector(OPERATOR_NETWORKS), read_bufsize=_READ_BUFFER,
            )  # fmt: skip
        return self._session


class _Chunks:
    """Not a generator, as an upload reads it in a task of its own."""

    def __init__(self, response: aiohttp.ClientResponse, url: str) -> None:
        self._response, self._name = response, f"relay {url}"

    def __aiter__(self) -> "_Chunks":
        return self

    async def __anext__(self) -> bytes:
        with failures.translated(self._name, Side.SOURCE):
            chunk = await self._response.content.readany()
        if not chunk:
            raise StopAsyncIteration
        return chunk


async def _check(response: aiohttp.ClientResponse, url: str, offset: int) -> None:
    status, text = response.status, f"relay {url} answered {response.status}"
    if status == 202:
        raise NotYet(text, side=Side.SOURCE, status=status)
    if status in (401, 403):
        raise Denied(f"{text}: {await _reason(response)}", side=Side.SOURCE, status=status)
    if status == 404:
        raise NotFound(text, side=Side.SOURCE, status=status)
    if status >= 500:
        raise ServerFault(text, side=Side.SOURCE, status=status)
    partial = response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
    if status not in (200, 206) or (status == 206) != bool(offset) or (offset and not partial):
        raise Rejected(text, side=Side.SOURCE, status=status)


async def _reason(response: aiohttp.ClientResponse) -> str:
    """Returns what a relay says about its refusal, such as that the clocks differ."""
    body = await read_up_to(response, _MAX_REASON)
    try:
        return clean(str(json.loads(body)["error"]))
    except (ValueError, KeyError, TypeError):
        return "without a reason"
