"""One place over HTTP: authorised at home, redirected with care, refused where it leads into private networks.

Two sessions: `home` talks to what the operator configured, wherever it lies; `abroad` to what a registry names,
without credentials and through the egress filter. Neither keeps cookies, follows redirects or decompresses.
"""

import contextlib
import importlib.metadata
from collections.abc import AsyncIterator, Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

import aiohttp
from aiohttp import ClientResponse, ClientSession, ClientTimeout
from aiohttp.payload import Payload
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from mesh.clock import Clock
from mesh.concurrency import close_all
from mesh.credentials.credentials import CredentialProvider
from mesh.errors import Denied, RegistryError, Rejected, Throttled, Unreachable
from mesh.registry import failures, redirects
from mesh.registry.auth import Authenticator, Scopes
from mesh.registry.chain import told
from mesh.registry.egress import GuardedResolver, GuardedSockets, Network
from mesh.registry.pause import Pause
from mesh.registry.port import Chain
from schemas.completions import Side
from schemas.names import Digest, Repository

STALL_SECONDS = 60.0  # without a byte in either direction, a connection counts as broken
# 512 KiB wait in memory for each body that is read; larger gains nothing on loopback, smaller costs wake-ups.
_READ_BUFFER = 256 * 1024
SHORT = ClientTimeout(total=300, connect=10, sock_read=STALL_SECONDS)
STREAM = ClientTimeout(total=None, connect=10, sock_read=STALL_SECONDS)
# A registry on an object store copies the whole upload before it answers the closing PUT.
COMMIT = ClientTimeout(total=None, connect=10, sock_read=300)
_BELIEVED = 60.0  # seconds
USER_AGENT = f"regmesh/{importlib.metadata.version('regmesh')}"
_HEADERS = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `scopes` are what a token for it must allow; a `Payload` body is streamed and sent once."""

    method: str
    url: URL
    scopes: Scopes = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Payload | None = field(default=None, repr=False)
    timeout: ClientTimeout = SHORT
    in_pauses: bool = False  # sent even while the registry wants to be left alone


class CachedCapability:
    """What a registry was found to be like. It may be replaced by another one, so that is not believed for long."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = clock.monotonic()

    def begin(self) -> None:
        self._until = self._clock.monotonic() + _BELIEVED

    def end(self) -> None:
        self._until = self._clock.monotonic()

    def holds(self) -> bool:
        return self._clock.monotonic() < self._until


@dataclass(slots=True)
class OwnMounts:
    """Whether a registry mounts a blob from the repository that has it; many mount nothing."""

    work: CachedCapability
    fail: CachedCapability
    seen: tuple[Repository, Digest] | None = None  # a blob that is there, to find out with


class Transport:
    """Shared by all who talk to one place. To be made and closed on the running event loop."""

    def __init__(
        self,
        name: str,
        base: URL,
        credentials: CredentialProvider,
        *,
        clock: Clock,
        random: Callable[[], float],
        networks: tuple[Network, ...],
        realms: frozenset[URL],
    ) -> None:
        self.name = name
        self.base = base
        self.clock = clock
        self.random = random
        self._trusted = realms | {base.origin()}
        self._auth = Authenticator(base, credentials, realms, clock=clock, fetch=self._fetch_token)
        self._pause = Pause(clock, random)
        self.no_referrers = CachedCapability(clock)  # no API for them
        self.own_mounts = OwnMounts(CachedCapability(clock), CachedCapability(clock))
        self._home = home_session()
        self._abroad = guarded_session(networks)

    async def close(self) -> None:
        await close_all(self._home.close, self._abroad.close)

    async def send(self, call: Call, expect: Container[int], side: Side) -> ClientResponse:
        """The answer, its body still to be read; the caller releases it. Any status not in `expect` is raised."""
        if self._home.closed:
            raise Unreachable(f"{self.name}: this client was closed", side=side)
        if not call.in_pauses:
            await self._pause.over(self.name, side)
        with failures.translated(self.name, side):
            response = await self._follow(call, side)
            if response.status in expect:
                return response
            refusal = await self._refusal(call, response, side)
        if isinstance(refusal, Throttled) and response.url.origin() == self.base.origin():
            self._pause.begin(refusal.retry_after or 0.0)
        raise refusal

    async def _follow(self, call: Call, side: Side) -> ClientResponse:
        at_home = True
        for _ in range(redirects.MAX_HOPS + 1):
            # Once abroad, always abroad: another host must not steer requests that carry our credentials.
            at_home = at_home and call.url.origin() == self.base.origin()
            response = await (
                self._authorised(call, side) if at_home else self._exchange(self._abroad, call, None)
            )
            location = response.headers.get("Location")
            if location is None or not redirects.is_redirect(call.method, response.status):
                return response
            response.release()
            call = replace(call, url=redirects.resolve(call.url, location, side=side))
        raise Rejected(f"{self.name}: more than {redirects.MAX_HOPS} redirects", side=side)

    async def _authorised(self, call: Call, side: Side) -> ClientResponse:
        header = await self._auth.authorization(call.scopes, side)
        response = await self._exchange(self._home, call, header)
        if response.status != 401:
            return response
        try:
            asked = response.headers.getall("WWW-Authenticate", [])
            better = await self._auth.answer(asked, call.scopes, header, side)
        except BaseException:
            response.close()
            raise
        if better is None or isinstance(call.body, Payload):
            return response
        response.release()
        return await self._exchange(self._home, call, better)

    async def _exchange(
        self, session: ClientSession, call: Call, authorization: str | None
    ) -> ClientResponse:
        headers = {**call.headers, **({"Authorization": authorization} if authorization else {})}
        if session.closed:  # since the call began: aiohttp would raise a RuntimeError
            raise aiohttp.ClientConnectionError("this client was closed")
        return await session.request(
            call.method,
            call.url,
            headers=headers,
            data=call.body,
            timeout=call.timeout,
            allow_redirects=False,
        )

    async def _refusal(self, call: Call, response: ClientResponse, side: Side) -> RegistryError:
        try:
            body = await read_up_to(response, failures.MAX_ERROR_BODY)
        except (aiohttp.ClientError, OSError):
            body = b""  # the status says enough
        finally:
            response.release()  # keeps the connection where the body was read whole
        return failures.of_answer(
            place=self.name,
            method=call.method,
            url=call.url,
            status=response.status,
            headers=response.headers,
            body=body,
            now=self.clock.now(),
            side=side,
        )

    async def _fetch_token(
        self, url: URL, authorization: str | None, form: Mapping[str, str] | None, side: Side
    ) -> bytes:
        """Asked once, redirects not followed: the request carries the password.

        Raises only what can be tried again, and `Denied`: "not found" would be taken for the blob's absence.
        """
        session = self._home if url.origin() in self._trusted else self._abroad
        call = Call("GET", url) if form is None else _posted(url, form)
        with failures.translated(str(url.host), side):
            response = await self._exchange(session, call, authorization)
            if response.status != 200:
                error = await self._refusal(call, response, side)
                raise error if error.retryable else Denied(str(error), side=side, status=response.status)
            try:
                return await read_up_to(response, failures.MAX_ERROR_BODY)
            finally:
                response.release()


def _posted(url: URL, form: Mapping[str, str]) -> Call:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return Call("POST", url, headers=headers, body=urlencode(form).encode())


@dataclass(frozen=True, slots=True)
class Channel:
    """A transport as one side of a task uses it: every error it raises carries that side."""

    transport: Transport
    side: Side
    chain: Chain | None = None

    def url(self, path: str, query: str = "") -> URL:
        """A URL below `/v2/` of the place. Parts of `path` are parsed names, which need no quoting."""
        return URL(f"{self.transport.base}/v2/{path}{query}", encoded=True)

    def locate(self, base: URL, location: str | None) -> URL:
        """The URL of a `Location` header; `Rejected` when there is none."""
        if location is None:
            raise Rejected(f"{self.transport.name} answered without a location", side=self.side)
        return redirects.resolve(base, location, side=self.side)

    async def send(self, call: Call, expect: Container[int]) -> ClientResponse:
        if self.chain is not None and call.method != "GET":
            agent = {"User-Agent": told(USER_AGENT, self.chain)}
            call = replace(call, headers={**call.headers, **agent})
        return await self.transport.send(call, expect, self.side)

    @contextlib.asynccontextmanager
    async def request(self, call: Call, expect: Container[int]) -> AsyncIterator[ClientResponse]:
        """As `send`, for short bodies that are read in the block."""
        response = await self.send(call, expect)
        async with response:
            with failures.translated(self.transport.name, self.side):
                yield response


async def read_whole(response: ClientResponse, limit: int) -> bytes | None:
    """A whole body, or None when it is over `limit` bytes."""
    body = await read_up_to(response, limit + 1)
    return body if len(body) <= limit else None


def home_session() -> ClientSession:
    """To what the operator configured."""
    return _session(aiohttp.TCPConnector(limit=0))


def guarded_session(networks: tuple[Network, ...]) -> ClientSession:
    """To what a registry names: public addresses, and `networks`."""
    return _session(
        aiohttp.TCPConnector(
            limit=0,
            resolver=GuardedResolver(networks, ThreadedResolver()),
            socket_factory=GuardedSockets(networks),
        )
    )


def _session(connector: aiohttp.TCPConnector) -> ClientSession:
    return ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=_HEADERS,
        auto_decompress=False,
        read_bufsize=_READ_BUFFER,
        timeout=STREAM,
    )


async def read_up_to(response: ClientResponse, limit: int) -> bytes:
    parts: list[bytes] = []
    left = limit
    while left > 0 and (part := await response.content.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
