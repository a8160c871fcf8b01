"""Forwards a client's requests to a place, with the client's own `Authorization` only.

The place's answers are returned unchanged, errors included. Redirects follow the rules of `transport`: within the place
with the `Authorization`, elsewhere without it and through the egress filter. A redirect to a public host is returned
to the client.
"""

import asyncio
import contextlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp
from aiohttp import ClientResponse, ClientSession, ClientTimeout
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from mesh.concurrency import close_all
from mesh.errors import Rejected
from mesh.registry import auth, failures, redirects
from mesh.registry.challenges import Challenge
from mesh.registry.egress import EgressRefused, GuardedResolver, Network, is_allowed
from mesh.registry.sessions import guarded_session, read_up_to, trusted_session
from schemas.completions import Side

# Short, as the waiting client could be served by the next place.
_CONNECT, _STALL, _DRAIN = 2.0, 15.0, 2.0  # seconds
# `connect` includes the name's lookup; `sock_connect` does not.
_STREAM = ClientTimeout(total=None, connect=_CONNECT, sock_read=_STALL)
_SHORT = ClientTimeout(total=5.0, connect=_CONNECT)
_SIDE = Side.SOURCE


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One request to forward. `path` is below `/v2/` of the place and consists of parsed names."""

    method: str
    path: str
    query: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class UpstreamClient:
    """Forwards requests to one place. Create and close it on the running event loop.

    Every method raises `RegistryError` when there is no answer.
    """

    def __init__(
        self, name: str, base: URL, *, networks: tuple[Network, ...], realms: frozenset[URL]
    ) -> None:
        self.name, self.base = name, base.origin()
        self.realms = auth.trusted_realms(base, realms)
        self._trusted_origins = realms | {self.base}
        self._trusted, self._guarded = trusted_session(), guarded_session(networks)
        self._public_names = GuardedResolver((), ThreadedResolver())

    async def close(self) -> None:
        """Closes all connections."""
        await close_all(self._trusted.close, self._guarded.close, self._public_names.close)

    async def send(self, request: UpstreamRequest) -> ClientResponse:
        """Returns the answer with any status, its body still to be read. Only a redirect for clients is returned.

        Raises:
            Rejected: There are too many redirects, or one that must not be followed.
        """
        url = self._url(request)
        with failures.translated(self.name, _SIDE):
            is_trusted = True
            for _ in range(redirects.MAX_HOPS + 1):
                is_trusted = is_trusted and url.origin() == self.base
                response = await self._send(url, request, is_trusted=is_trusted)
                location = response.headers.get("Location")
                if location is None or not redirects.is_redirect(request.method, response.status):
                    return response
                try:
                    target = redirects.resolve(url, location, side=_SIDE)
                    is_returned = is_trusted and await self.is_for_clients(target)
                except BaseException:
                    response.close()
                    raise
                if is_returned:
                    return response
                await drain(response)
                url = target
        raise Rejected(f"{self.name}: more than {redirects.MAX_HOPS} redirects", side=_SIDE)

    async def ping(self) -> int:
        """Returns the status of `GET /v2/` without credentials."""
        with failures.translated(self.name, _SIDE):
            async with self._trusted.get(
                self.base / "v2" / "", timeout=_SHORT, allow_redirects=False
            ) as response:
                return response.status

    async def token(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | None
    ) -> ClientResponse:
        """Returns the answer of the place's token server at a realm that was checked. Follows no redirects."""
        session = self._trusted if url.origin() in self._trusted_origins else self._guarded
        with failures.translated(str(url.host), _SIDE):
            return await session.request(
                method, url, headers=headers, data=body, timeout=_SHORT, allow_redirects=False
            )

    def realm(self, challenge: Challenge) -> URL:
        """Returns the URL of the token server that a challenge of this place names.

        Raises:
            Rejected: Credentials must not be sent there.
        """
        return auth.check_realm(challenge, self.realms, _SIDE)

    async def is_for_clients(self, target: URL) -> bool:
        """Returns whether a client may follow the redirect itself: to another host, on the public Internet."""
        host = target.host or ""
        if host == self.base.host:
            return False
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return await self._is_public_name(host, target.port or 0)
        return is_allowed(host, ())

    async def _is_public_name(self, host: str, port: int) -> bool:
        try:
            async with asyncio.timeout(_CONNECT):
                return bool(await self._public_names.resolve(host, port))
        except (EgressRefused, OSError, UnicodeError):  # TimeoutError is an OSError
            return False

    async def _send(self, url: URL, request: UpstreamRequest, *, is_trusted: bool) -> ClientResponse:
        session: ClientSession = self._trusted if is_trusted else self._guarded
        headers = request.headers if is_trusted else _without_authorization(request.headers)
        return await session.request(
            request.method, url, headers=headers, timeout=_STREAM, allow_redirects=False
        )

    def _url(self, request: UpstreamRequest) -> URL:
        query = f"?{request.query}" if request.query else ""
        return URL(f"{self.base}/v2/{request.path}{query}", encoded=True)


def _without_authorization(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name: value for name, value in headers.items() if name.lower() != "authorization"}


async def drain(response: ClientResponse) -> None:
    """Releases an answer whose body is not needed. A short body is read, so that the connection can be reused."""
    async with response:
        with contextlib.suppress(aiohttp.ClientError, OSError):  # TimeoutError is an OSError
            async with asyncio.timeout(_DRAIN):
                await read_up_to(response, failures.MAX_ERROR_BODY)
