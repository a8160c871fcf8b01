"""Forwards token requests for a place's registry, whose token server may be out of reach for clients.

A request goes to the realm that the place itself names, and only where credentials for this place may be sent: to the
place's own host, or to a token server that the operator named. A client never chooses the server.
"""

from dataclasses import dataclass, field

import structlog
from aiohttp import ClientResponse, web
from cachetools import LRUCache
from multidict import CIMultiDict
from yarl import URL

from mesh.errors import Rejected
from mesh.gateway import headers
from mesh.gateway.request import ErrorResponse
from mesh.gateway.search import Challenged
from mesh.gateway.upstreams import Upstream, Upstreams
from mesh.registry import challenges, failures
from mesh.registry.sessions import read_whole
from mesh.registry.upstream import UpstreamRequest, drain
from schemas.completions import Side
from schemas.topology import Place

LOG = structlog.get_logger()

_REQUEST_HEADERS = ("Authorization", "Content-Type", "Accept")
_RESPONSE_HEADERS = ("Content-Type", "Retry-After", "Cache-Control")
_MAX_FORM, _MAX_RESPONSE = 64 * 1024, 1024 * 1024  # bytes
_MAX_REALMS = 10_000


@dataclass(slots=True)
class Tokens:
    """The token endpoint, with the realm that each place named last."""

    upstreams: Upstreams
    _realms: LRUCache[Place, URL] = field(default_factory=lambda: LRUCache(_MAX_REALMS))

    def challenge(self, challenged: Challenged, base: str) -> CIMultiDict[str]:
        """Returns the challenge headers for a client of the gateway at `base`."""
        place, client = challenged.place, self.upstreams.client(challenged.place)
        realm = headers.token_url(base, place.name)
        rewritten, trusted = headers.challenge(challenged.response.headers, realm, client.realm)
        for one in trusted:
            self._realms[place] = client.realm(one)
        if "WWW-Authenticate" in challenged.response.headers and "WWW-Authenticate" not in rewritten:
            LOG.error(
                "a place asks for tokens of a server that is not its own; allow it with --token-realm",
                action="gateway_realm_refused", place=place.name,
            )  # fmt: skip
        return rewritten

    async def forward(self, place: Place, request: web.Request) -> web.Response:
        """Forwards a client's GET or POST to the place's token server.

        Raises:
            ErrorResponse: The place uses no tokens, or the form is too large.
            RegistryError: The token server does not answer.
        """
        client = self.upstreams.client(place)
        realm = await self._realm(place, client)
        body = await _form(request) if request.method == "POST" else None
        kept = headers.selected(request.headers, *_REQUEST_HEADERS)
        url = realm.extend_query(list(request.query.items())) if request.query else realm
        response = await client.token(request.method, url, kept, body)
        with failures.translated(place.name, Side.SOURCE):
            async with response:
                return await _response(place, response)

    async def _realm(self, place: Place, client: Upstream) -> URL:
        """Returns the realm of the last challenge, or asks for one, as another gateway may have sent the client."""
        if place not in self._realms:
            response = await client.send(UpstreamRequest("GET", ""))
            await drain(response)
            for found in challenges.parse(response.headers.getall("WWW-Authenticate", [])):
                if found.scheme == "bearer":
                    self._realms[place] = client.realm(found)
        if place not in self._realms:
            raise ErrorResponse(404, "UNSUPPORTED", f"{place.name} uses no tokens")
        return self._realms[place]


async def _form(request: web.Request) -> bytes:
    try:
        return await request.clone(client_max_size=_MAX_FORM).read()
    except web.HTTPRequestEntityTooLarge as error:
        raise ErrorResponse(413, "UNSUPPORTED", f"a form of over {_MAX_FORM} bytes") from error


async def _response(place: Place, response: ClientResponse) -> web.Response:
    body = await read_whole(response, _MAX_RESPONSE)
    if body is None or 300 <= response.status < 400:
        text = f"the response of the token server of {place.name} is too large, or a redirect"
        raise Rejected(text, side=Side.SOURCE)
    kept = headers.selected(response.headers, *_RESPONSE_HEADERS)
    return web.Response(status=response.status, body=body, headers=kept)
