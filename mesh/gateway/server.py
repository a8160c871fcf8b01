"""The gateway's HTTP: which domain a client means, who may serve it, and how the answer looks.

Every refusal is in the words of the distribution specification. What is refused names no place of another account.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import orjson
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from multidict import CIMultiDict

from mesh.errors import RegistryError, clean
from mesh.gateway import headers
from mesh.gateway.byte_ranges import ByteRange
from mesh.gateway.deliver import AskForRest, Delivery
from mesh.gateway.misses import Misses
from mesh.gateway.nearest import Holders, Nearest
from mesh.gateway.negative_cache import NegativeCache
from mesh.gateway.places import Places
from mesh.gateway.request import Asked, Refused, What, mirrored_host, parse
from mesh.gateway.search import Challenged, Found, Search
from mesh.gateway.tokens import Tokens
from mesh.metrics import Metrics
from schemas.names import Region

LOG = structlog.get_logger()

_HOST = re.compile(r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?", re.ASCII)
_NOBODY = "none"  # as a place in metrics
_OUTSIDE = 416  # of a Range
_RESTING = ("Authorization", "Accept")  # of a request, when only the rest of a blob is asked for


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """How a gateway is called by its clients."""

    domain: str | None = None  # served whatever the Host header says; None = the Host header says which
    behind_proxy: bool = False  # X-Forwarded-Proto is believed


@dataclass(slots=True)
class Front:
    region: Region
    nearest: Nearest
    places: Places
    tokens: Tokens
    misses: Misses
    metrics: Metrics
    options: GatewayOptions
    ready: Callable[[], bool]
    negative_cache: NegativeCache = field(default_factory=NegativeCache)

    def routes(self, app: web.Application) -> None:
        pulls = web.Application(middlewares=[self._answer_refusals])
        pulls.router.add_route("*", "/{path:.*}", self.pull)
        tokens = web.Application(middlewares=[self._answer_refusals])
        for method in ("GET", "POST"):
            tokens.router.add_route(method, "/{place}", self.token)
        app.add_subapp("/v2", pulls)
        app.add_subapp("/token", tokens)

    async def pull(self, request: web.Request) -> web.StreamResponse:
        asked = parse(request.method, request.match_info.get("path", ""), request.rel_url.raw_query_string)
        holders = self._holders(request)
        if asked.what is What.BASE:
            return await self._base(asked, holders, request)
        search = Search(asked, headers.going(request.headers), self.places, self.negative_cache)
        found = await search.find(holders)
        if isinstance(found, Challenged):
            return self._refusal(found, request)
        self.misses.notice(asked, found)
        self._count(found.place.name, found.response.status)
        if found.response.status == _OUTSIDE:
            return _outside(found)
        rest = (
            self._ask_for_rest(asked, request) if (asked.what, asked.method) == (What.BLOB, "GET") else None
        )
        return await Delivery(request, found, rest, self.places, self.metrics).send()

    async def token(self, request: web.Request) -> web.StreamResponse:
        """Of any domain: who came by containerd's `ns` does not say again here under which one."""
        name = request.match_info["place"]
        for place in self.nearest.places(self.options.domain):
            if place.name == name:
                return await self.tokens.ask(place, request)
        raise Refused(404, "NAME_UNKNOWN", "no place that this gateway asks has this name")

    async def _base(self, asked: Asked, holders: list[Holders], request: web.Request) -> web.StreamResponse:
        """Credentials are asked for when any of the domain's registries would, or is content with them."""
        refusal: Challenged | None = None
        with_credentials, content = "Authorization" in request.headers, False
        for one in holders:
            found = await self._base_of(asked, one, request)
            if isinstance(found, Challenged):
                refusal = refusal or found
            content = content or isinstance(found, Found)
        if refusal is not None and not (with_credentials and content):
            return self._refusal(refusal, request)
        if not content:
            raise Refused(503, "UNAVAILABLE", "no place of this domain answers now", {"Retry-After": "5"})
        return web.json_response({}, headers=headers.VERSION)

    async def _base_of(
        self, asked: Asked, holders: Holders, request: web.Request
    ) -> Found | Challenged | None:
        """What the nearest place of an instance that can tell says; None when none can."""
        search = Search(asked, headers.going(request.headers), self.places, self.negative_cache)
        for candidate in holders.candidates:
            found = await search.ask(candidate)
            if isinstance(found, Found | Challenged):
                found.response.close()
                return found
        return None

    def _holders(self, request: web.Request) -> list[Holders]:
        if not self.ready():
            raise Refused(503, "UNAVAILABLE", "what is declared was not read yet", {"Retry-After": "1"})
        if not self.nearest.knows_its_region:
            message = f"region {self.region} of this gateway is not declared"
            raise Refused(503, "UNAVAILABLE", message, {"Retry-After": "5"})
        domain = self._domain(request)
        found = self.nearest.holders(domain, self.places.seen)
        if not found:
            message = f"nothing of {domain} is in the jurisdiction of region {self.region}"
            raise Refused(403, "DENIED", f"{message}: this gateway never serves from another")
        return found

    def _domain(self, request: web.Request) -> str:
        """By --domain, else the Host header, else the registry that containerd asks this one in place of."""
        if self.options.domain is not None:
            return self.options.domain
        mirrored = mirrored_host(request.rel_url.raw_query_string)
        for name in (_host(request.headers.get("Host", "")), _host(mirrored or "")):
            if name and self.nearest.is_declared(name):
                return name
        raise Refused(
            404, "NAME_UNKNOWN", "no instance has this host name as its domain: declare `domain`, keep the Host header "
            "in front of the gateway, or start it with --domain",
        )  # fmt: skip

    def _refusal(self, challenged: Challenged, request: web.Request) -> web.Response:
        status = challenged.response.status
        self._count(challenged.place.name, status)
        code, message = (
            ("UNAUTHORIZED", "the registry asks who you are")
            if status == 401
            else ("DENIED", "the registry does not let you")
        )
        return _told(
            Refused(status, code, message), self.tokens.challenge(challenged, self._base_url(request))
        )

    def _base_url(self, request: web.Request) -> str:
        """As the client calls us."""
        said = request.headers.get("X-Forwarded-Proto", "") if self.options.behind_proxy else ""
        forwarded = said.partition(",")[0].strip()  # the first proxy is the client's
        scheme = forwarded if forwarded in ("http", "https") else request.scheme
        host = request.headers.get("Host", "")
        if not _HOST.fullmatch(host):
            raise Refused(400, "UNSUPPORTED", "the Host header is no host")
        return f"{scheme}://{host}"

    def _ask_for_rest(self, asked: Asked, request: web.Request) -> AskForRest:
        kept = {name: request.headers[name] for name in _RESTING if name in request.headers}

        async def ask(left: ByteRange) -> Found | None:
            try:
                search = Search(asked, kept | {"Range": left.header}, self.places, self.negative_cache)
                found = await search.find(self._holders(request))
            except Refused:
                return None
            return found if isinstance(found, Found) else None

        return ask

    def _count(self, place: str, status: int) -> None:
        self.metrics.gateway_requests.labels(place, str(status)).inc()

    @web.middleware
    async def _answer_refusals(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refused as refused:
            found = refused
        except web.HTTPException as error:
            found = Refused(error.status, "UNSUPPORTED", "there is nothing like that here")
        except RegistryError as error:
            LOG.warning("a token server gives no answer", action="gateway_token_failed", error=str(error))
            found = Refused(503, "UNAVAILABLE", "the token server gives no answer", {"Retry-After": "5"})
        except Exception:
            LOG.exception("request failed", action="gateway_internal", method=request.method)
            found = Refused(500, "UNKNOWN", "an error of ours; the gateway's log has it")
        self._count(_NOBODY, found.status)
        return _told(found, CIMultiDict(found.headers))


def _outside(found: Found) -> web.Response:
    """In our words: docker-registry breaks its own off, announced as long as the blob, and is not to blame for it."""
    found.response.close()
    said = {
        name: found.response.headers[name] for name in ("Content-Range",) if name in found.response.headers
    }
    refused = Refused(_OUTSIDE, "SIZE_INVALID", "the range asked for is not within it", said)
    return _told(refused, CIMultiDict(said))


def _told(refused: Refused, said: CIMultiDict[str]) -> web.Response:
    body = {"errors": [{"code": refused.code, "message": clean(str(refused))}]}
    said.setdefault("Docker-Distribution-Api-Version", headers.VERSION["Docker-Distribution-Api-Version"])
    return web.Response(
        status=refused.status, body=orjson.dumps(body), headers=said, content_type="application/json"
    )


def _host(header: str) -> str:
    """Of a Host header, without its port and in lower case; empty when it is none."""
    if not _HOST.fullmatch(header):
        return ""
    name = header if header.endswith("]") else header.rpartition(":")[0] or header
    return name.lower().removesuffix(".")
