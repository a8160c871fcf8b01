"""HTTP requests to one place: authorisation, redirects, the pause after a 429, and errors.

Credentials are sent only to the configured origin. A redirect to another origin is followed without them, through the
egress filter.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

import aiohttp
from aiohttp import ClientResponse, ClientSession, ClientTimeout
from aiohttp.payload import Payload
from yarl import URL

from mesh.clock import Clock
from mesh.concurrency import close_all
from mesh.credentials.credentials import CredentialProvider
from mesh.errors import Denied, RegistryError, Rejected, Throttled, Unreachable
from mesh.registry import failures, redirects
from mesh.registry.auth import Authenticator, Scopes
from mesh.registry.capabilities import CachedCapability, MountCapability
from mesh.registry.chain import format_user_agent
from mesh.registry.egress import Network
from mesh.registry.pause import Pause
from mesh.registry.port import Chain
from mesh.registry.sessions import SHORT, USER_AGENT, guarded_session, read_up_to, trusted_session
from schemas.completions import Side


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `scopes` are what a token for it must allow; a `Payload` body is streamed and sent only once."""

    method: str
    url: URL
    scopes: Scopes = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Payload | None = field(default=None, repr=False)
    timeout: ClientTimeout = SHORT
    ignores_pause: bool = False  # sent even during the pause after a 429


class Transport:
    """The HTTP client of one place, shared by all its users. Create and close it on the running event loop."""

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
        self._trusted_origins = realms | {base.origin()}
        self._auth = Authenticator(base, credentials, realms, clock=clock, fetch=self._fetch_token)
        self._pause = Pause(clock, random)
        self.no_referrers_api = CachedCapability(clock)
        self.mounts = MountCapability(CachedCapability(clock), CachedCapability(clock))
        self._trusted = trusted_session()
        self._guarded = guarded_session(networks)

    async def close(self) -> None:
        """Closes all connections; later requests raise `Unreachable`."""
        await close_all(self._trusted.close, self._guarded.close)

    async def send(self, call: Call, expect: Container[int], side: Side) -> ClientResponse:
        """Sends a request and returns the answer, whose body the caller reads and releases.

        Raises:
            RegistryError: The status is not in `expect`, or there is no answer.
        """
        if self._trusted.closed:
            raise Unreachable(f"{self.name}: this client was closed", side=side)
        if not call.ignores_pause:
            await self._pause.wait(self.name, side)
        with failures.translated(self.name, side):
            response = await self._follow_redirects(call, side)
            if response.status in expect:
                return response
            error = await self._read_error(call, response, side)
        if isinstance(error, Throttled) and response.url.origin() == self.base.origin():
            self._pause.extend(error.retry_after or 0.0)
        raise error

    async def _follow_redirects(self, call: Call, side: Side) -> ClientResponse:
        is_trusted = True
        for _ in range(redirects.MAX_HOPS + 1):
            # Never trusted again after a foreign host: it must not steer requests that carry our credentials.
            is_trusted = is_trusted and call.url.origin() == self.base.origin()
            response = await (
                self._send_authorised(call, side) if is_trusted else self._request(self._guarded, call, None)
            )
            location = response.headers.get("Location")
            if location is None or not redirects.is_redirect(call.method, response.status):
                return response
            response.release()
            call = replace(call, url=redirects.resolve(call.url, location, side=side))
        raise Rejected(f"{self.name}: more than {redirects.MAX_HOPS} redirects", side=side)

    async def _send_authorised(self, call: Call, side: Side) -> ClientResponse:
        header = await self._auth.authorization(call.scopes, side)
        response = await self._request(self._trusted, call, header)
        if response.status != 401:
            return response
        try:
            challenges = response.headers.getall("WWW-Authenticate", [])
            better = await self._auth.answer_challenge(challenges, call.scopes, header, side)
        except BaseException:
            response.close()
            raise
        if better is None or isinstance(call.body, Payload):
            return response
        response.release()
        return await self._request(self._trusted, call, better)

    async def _request(self, session: ClientSession, call: Call, authorization: str | None) -> ClientResponse:
        headers = {**call.headers, **({"Authorization": authorization} if authorization else {})}
        if session.closed:  # closed since the call began; aiohttp would raise a RuntimeError
            raise aiohttp.ClientConnectionError("this client was closed")
        return await session.request(
            call.method,
            call.url,
            headers=headers,
            data=call.body,
            timeout=call.timeout,
            allow_redirects=False,
        )

    async def _read_error(self, call: Call, response: ClientResponse, side: Side) -> RegistryError:
        try:
            body = await read_up_to(response, failures.MAX_ERROR_BODY)
        except (aiohttp.ClientError, OSError):
            body = b""  # the status is enough
        finally:
            response.release()  # keeps the connection if the whole body was read
        return failures.error_of_response(
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
        """Sends one request and follows no redirects, as it carries the password.

        Raises only retryable errors and `Denied`: a `NotFound` would be mistaken for a missing blob.
        """
        session = self._trusted if url.origin() in self._trusted_origins else self._guarded
        call = Call("GET", url) if form is None else _form_post(url, form)
        with failures.translated(str(url.host), side):
            response = await self._request(session, call, authorization)
            if response.status != 200:
                error = await self._read_error(call, response, side)
                raise error if error.retryable else Denied(str(error), side=side, status=response.status)
            try:
                return await read_up_to(response, failures.MAX_ERROR_BODY)
            finally:
                response.release()


def _form_post(url: URL, form: Mapping[str, str]) -> Call:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return Call("POST", url, headers=headers, body=urlencode(form).encode())


@dataclass(frozen=True, slots=True)
class Channel:
    """A transport as one side of a task uses it: every error carries that side, every push the chain."""

    transport: Transport
    side: Side
    chain: Chain | None = None

    def url(self, path: str, query: str = "") -> URL:
        """Returns a URL below `/v2/` of the place. `path` consists of parsed names, which need no quoting."""
        return URL(f"{self.transport.base}/v2/{path}{query}", encoded=True)

    def locate(self, base: URL, location: str | None) -> URL:
        """Returns the absolute URL of a `Location` header.

        Raises:
            Rejected: There is no location, or it is not a URL to follow.
        """
        if location is None:
            raise Rejected(f"{self.transport.name} answered without a location", side=self.side)
        return redirects.resolve(base, location, side=self.side)

    async def send(self, call: Call, expect: Container[int]) -> ClientResponse:
        """Sends a request as `Transport.send` does."""
        if self.chain is not None and call.method != "GET":
            agent = {"User-Agent": format_user_agent(USER_AGENT, self.chain)}
            call = replace(call, headers={**call.headers, **agent})
        return await self.transport.send(call, expect, self.side)

    @contextlib.asynccontextmanager
    async def request(self, call: Call, expect: Container[int]) -> AsyncIterator[ClientResponse]:
        """Sends a request as `send` does, for a short body that is read in the block."""
        response = await self.send(call, expect)
        async with response:
            with failures.translated(self.transport.name, self.side):
                yield response
