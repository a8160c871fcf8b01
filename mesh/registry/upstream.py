"""A place over HTTP for somebody else's request: their `Authorization` goes with it, none of ours ever does.

What the place answers comes back as it is, refusals too. Redirects follow the rules of `transport`: within the place
with the `Authorization`, abroad without it and through the egress filter; or they are left to who asked.
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
from mesh.registry.transport import guarded_session, home_session, read_up_to
from schemas.completions import Side

# Who waits is a client that could be served by the next place.
_CONNECT, _SILENCE, _DRAIN = 2.0, 15.0, 2.0  # seconds
# `connect` is the name's lookup too, which `sock_connect` is not.
_STREAM = ClientTimeout(total=None, connect=_CONNECT, sock_read=_SILENCE)
_SHORT = ClientTimeout(total=5.0, connect=_CONNECT)
_SIDE = Side.SOURCE


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One request. `path` is below `/v2/` of the place, made of parsed names."""

    method: str
    path: str
    query: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class UpstreamClient:
    """To be opened and closed on the running event loop. Every method raises `RegistryError`."""

    def __init__(
        self, name: str, base: URL, *, networks: tuple[Network, ...], realms: frozenset[URL]
    ) -> None:
        self.name, self.base = name, base.origin()
        self.realms = auth.trusted_realms(base, realms)
        self._at_home = realms | {self.base}
        self._home, self._abroad = home_session(), guarded_session(networks)
        self._public = GuardedResolver((), ThreadedResolver())

    async def close(self) -> None:
        await close_all(self._home.close, self._abroad.close, self._public.close)

    async def send(self, passed: UpstreamRequest) -> ClientResponse:
        """The answer, whatever it says; its body is still to be read. A redirect only when it is one to pass on."""
        url = self._url(passed)
        with failures.translated(self.name, _SIDE):
            at_home = True
            for _ in range(redirects.MAX_HOPS + 1):
                at_home = at_home and url.origin() == self.base
                response = await self._ask(url, passed, at_home=at_home)
                location = response.headers.get("Location")
                if location is None or not redirects.is_redirect(passed.method, response.status):
                    return response
                try:
                    target = redirects.resolve(url, location, side=_SIDE)
                    is_passed_on = at_home and await self.is_for_clients(target)
                except BaseException:
                    response.close()
                    raise
                if is_passed_on:
                    return response
                await drain(response)
                url = target
        raise Rejected(f"{self.name}: more than {redirects.MAX_HOPS} redirects", side=_SIDE)

    async def ping(self) -> int:
        """The status of `GET /v2/`, asked without any credentials."""
        with failures.translated(self.name, _SIDE):
            async with self._home.get(
                self.base / "v2" / "", timeout=_SHORT, allow_redirects=False
            ) as response:
                return response.status

    async def token(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | None
    ) -> ClientResponse:
        """The answer of the place's token server, whose realm was checked. Redirects are not followed."""
        session = self._home if url.origin() in self._at_home else self._abroad
        with failures.translated(str(url.host), _SIDE):
            return await session.request(
                method, url, headers=headers, data=body, timeout=_SHORT, allow_redirects=False
            )

    def realm(self, challenge: Challenge) -> URL:
        """Where a challenge of this place sends for tokens; `Rejected` when credentials must not go there."""
        return auth.check_realm(challenge, self.realms, _SIDE)

    async def is_for_clients(self, target: URL) -> bool:
        """Whether a client may go there by itself: another host than the place, and one on the public Internet."""
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
                return bool(await self._public.resolve(host, port))
        except (EgressRefused, OSError, UnicodeError):  # TimeoutError is an OSError
            return False

    async def _ask(self, url: URL, passed: UpstreamRequest, *, at_home: bool) -> ClientResponse:
        session: ClientSession = self._home if at_home else self._abroad
        kept = passed.headers if at_home else _without_authorization(passed.headers)
        return await session.request(passed.method, url, headers=kept, timeout=_STREAM, allow_redirects=False)

    def _url(self, passed: UpstreamRequest) -> URL:
        query = f"?{passed.query}" if passed.query else ""
        return URL(f"{self.base}/v2/{passed.path}{query}", encoded=True)


def _without_authorization(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name: value for name, value in headers.items() if name.lower() != "authorization"}


async def drain(response: ClientResponse) -> None:
    """Be done with an answer of which only the head matters: a short body is read, so that the connection stays."""
    async with response:
        with contextlib.suppress(aiohttp.ClientError, OSError):  # TimeoutError is an OSError
            async with asyncio.timeout(_DRAIN):
                await read_up_to(response, failures.MAX_ERROR_BODY)
