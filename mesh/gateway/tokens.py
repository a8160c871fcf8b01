"""Tokens for a place's registry, asked for through the gateway: its token server may stand where clients cannot go.

What a client sends goes to the realm that the place itself names, and only where credentials for this place may go: the
place's own host, or a token server that the operator named. The client never says where.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

import structlog
from aiohttp import ClientResponse, web
from multidict import CIMultiDict
from yarl import URL

from mesh.errors import Rejected
from mesh.gateway import headers
from mesh.gateway.places import Places, Upstream
from mesh.gateway.request import Refused
from mesh.gateway.search import Challenged
from mesh.registry import challenges, failures
from mesh.registry.sessions import read_whole
from mesh.registry.upstream import UpstreamRequest, drain
from schemas.completions import Side
from schemas.topology import Place

LOG = structlog.get_logger()

_GOING = ("Authorization", "Content-Type", "Accept")
_COMING = ("Content-Type", "Retry-After", "Cache-Control")
_MOST_FORM, _MOST_ANSWER = 64 * 1024, 1024 * 1024
_MOST_REMEMBERED = 10_000


@dataclass(slots=True)
class Tokens:
    places: Places
    _realms: OrderedDict[Place, URL] = field(default_factory=OrderedDict)

    def challenge(self, challenged: Challenged, base: str) -> CIMultiDict[str]:
        """The headers of a refusal for a client of the gateway at `base`."""
        place, way = challenged.place, self.places.way(challenged.place)
        realm = headers.token_url(base, place.name)
        said, trusted = headers.challenge(challenged.response.headers, realm, way.realm)
        for one in trusted:
            self._remember(place, way.realm(one))
        if "WWW-Authenticate" in challenged.response.headers and "WWW-Authenticate" not in said:
            LOG.error(
                "a place asks for tokens of a server that is not its own; allow it with --token-realm",
                action="gateway_realm_refused", place=place.name,
            )  # fmt: skip
        return said

    async def ask(self, place: Place, request: web.Request) -> web.Response:
        """GET and POST at the place's token server, as the client puts them. `Refused`, `RegistryError`."""
        way = self.places.way(place)
        realm = await self._realm(place, way)
        body = await _form(request) if request.method == "POST" else None
        kept = {name: request.headers[name] for name in _GOING if name in request.headers}
        url = realm.extend_query(list(request.query.items())) if request.query else realm
        response = await way.token(request.method, url, kept, body)
        with failures.translated(place.name, Side.SOURCE):
            async with response:
                return await _answer(place, response)

    async def _realm(self, place: Place, way: Upstream) -> URL:
        """As its last challenge said; another gateway may have passed that on, so it is asked for one here too."""
        if place not in self._realms:
            response = await way.send(UpstreamRequest("GET", ""))
            await drain(response)
            for found in challenges.parse(response.headers.getall("WWW-Authenticate", [])):
                if found.scheme == "bearer":
                    self._remember(place, way.realm(found))
        if place not in self._realms:
            raise Refused(404, "UNSUPPORTED", f"{place.name} asks for no tokens")
        return self._realms[place]

    def _remember(self, place: Place, realm: URL) -> None:
        self._realms[place] = realm
        if len(self._realms) > _MOST_REMEMBERED:
            self._realms.popitem(last=False)


async def _form(request: web.Request) -> bytes:
    try:
        return await request.clone(client_max_size=_MOST_FORM).read()
    except web.HTTPRequestEntityTooLarge as error:
        raise Refused(413, "UNSUPPORTED", f"a form of over {_MOST_FORM} bytes") from error


async def _answer(place: Place, response: ClientResponse) -> web.Response:
    body = await read_whole(response, _MOST_ANSWER)
    if body is None or 300 <= response.status < 400:
        raise Rejected(f"the token server of {place.name} gives no answer to pass on", side=Side.SOURCE)
    kept = {name: response.headers[name] for name in _COMING if name in response.headers}
    return web.Response(status=response.status, body=body, headers=kept)
