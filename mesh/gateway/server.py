"""The gateway's HTTP server: which domain a client means, who may serve it, and what errors look like.

Errors have the codes of the OCI Distribution Specification. None of them names a place of another account.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import orjson
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from multidict import CIMultiDict

from mesh.errors import RegistryError, clean
from mesh.gateway import headers
from mesh.gateway.byte_ranges import ByteRange
from mesh.gateway.deliver import RequestRest, ResponseDelivery
from mesh.gateway.misses import Misses
from mesh.gateway.nearest import NearestPlaces, RankedInstance
from mesh.gateway.request import Endpoint, ErrorResponse, Pull, mirrored_host, parse
from mesh.gateway.search import Challenged, NegativeCache, PlaceSearch, Served
from mesh.gateway.settings import GatewayOptions, GatewaySettings
from mesh.gateway.tokens import Tokens
from mesh.gateway.upstreams import Upstreams
from mesh.metrics import Metrics
from schemas.names import Region

LOG = structlog.get_logger()

_HOST = re.compile(r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?", re.ASCII)
_NO_PLACE = "none"  # in metrics
_NOT_FOR_OTHERS = (
    "a registry requires credentials, and those of this domain are for another account's registries"
)
_RANGE_NOT_SATISFIABLE = 416
_REST_HEADERS = (headers.AUTHORIZATION, "Accept")  # of a request, when the rest of a blob is requested


@dataclass(slots=True)
class GatewayServer:
    """The routes of a gateway, and what they need."""

    region: Region
    nearest: NearestPlaces
    upstreams: Upstreams
    tokens: Tokens
    misses: Misses
    metrics: Metrics
    options: GatewayOptions
    settings: GatewaySettings
    negative_cache: NegativeCache
    ready: Callable[[], bool]

    def routes(self, app: web.Application) -> None:
        """Adds `/v2/` and `/token/`."""
        pulls = web.Application(middlewares=[self._error_responses])
        pulls.router.add_route("*", "/{path:.*}", self.pull)
        tokens = web.Application(middlewares=[self._error_responses])
        for method in ("GET", "POST"):
            tokens.router.add_route(method, "/{place}", self.token)
        app.add_subapp("/v2", pulls)
        app.add_subapp("/token", tokens)

    async def pull(self, request: web.Request) -> web.StreamResponse:
        """Serves `/v2/...`.

        Raises:
            ErrorResponse: It cannot be served.
        """
        pull = parse(request.method, request.match_info.get("path", ""), request.rel_url.raw_query_string)
        instances = self._instances(request)
        if pull.endpoint is Endpoint.BASE:
            return await self._base(pull, instances, request)
        found = await self._search(pull, headers.for_place(request.headers)).find(instances)
        if isinstance(found, Challenged):
            return self._refusal(found, request)
        self.misses.notice(pull, found)
        self._count(found.place.name, found.response.status)
        if found.response.status == _RANGE_NOT_SATISFIABLE:
            return _range_not_satisfiable(found)
        is_blob = (pull.endpoint, pull.method) == (Endpoint.BLOB, "GET")
        rest = self._request_rest(pull, request) if is_blob else None
        delivery = ResponseDelivery(request, found, rest, self.upstreams, self.metrics, self.settings)
        return await delivery.send()

    async def token(self, request: web.Request) -> web.StreamResponse:
        """Serves `/token/PLACE`, for any domain: containerd does not repeat `ns` in its token requests.

        Raises:
            ErrorResponse: There is no such place, or it uses no tokens.
            RegistryError: The token server does not answer.
        """
        name = request.match_info["place"]
        for place in self.nearest.places(self.options.domain):
            if place.name == name:
                if not self.nearest.takes_credentials(place):
                    raise ErrorResponse(403, "DENIED", _NOT_FOR_OTHERS)
                return await self.tokens.forward(place, request)
        raise ErrorResponse(404, "NAME_UNKNOWN", "no place that this gateway asks has this name")

    def _search(self, pull: Pull, kept: dict[str, str]) -> PlaceSearch:
        timeout = self.settings.manifest_timeout
        return PlaceSearch(pull, kept, self.upstreams, self.negative_cache, timeout)

    async def _base(
        self, pull: Pull, instances: list[RankedInstance], request: web.Request
    ) -> web.StreamResponse:
        """Serves `/v2/`: requires credentials when a registry of the domain's owner does and none accepts them."""
        found = [(one.takes_credentials, await self._base_of(pull, one, request)) for one in instances]
        owners = [it for takes_credentials, it in found if takes_credentials]
        accepted = headers.AUTHORIZATION in request.headers and any(isinstance(it, Served) for it in owners)
        refusal = next((it for it in owners if isinstance(it, Challenged)), None)
        if refusal is not None and not accepted:
            return self._refusal(refusal, request)
        if not any(isinstance(it, Served) for _, it in found):
            if other := next((it for _, it in found if isinstance(it, Challenged)), None):
                return self._refusal(other, request)
            raise ErrorResponse(
                503, "UNAVAILABLE", "no place of this domain answers now", {"Retry-After": "5"}
            )
        return web.json_response({}, headers=headers.VERSION)

    async def _base_of(
        self, pull: Pull, instance: RankedInstance, request: web.Request
    ) -> Served | Challenged | None:
        """Returns the response of an instance's nearest place that answers; None when none does."""
        search = self._search(pull, headers.for_place(request.headers))
        for candidate in instance.candidates:
            found = await search.ask(candidate, takes_credentials=instance.takes_credentials)
            if isinstance(found, Served | Challenged):
                found.response.close()
                return found
        return None

    def _instances(self, request: web.Request) -> list[RankedInstance]:
        if not self.ready():
            message = "the declarations are still being read"
            raise ErrorResponse(503, "UNAVAILABLE", message, {"Retry-After": "1"})
        if not self.nearest.knows_its_region:
            message = f"region {self.region} of this gateway is not declared"
            raise ErrorResponse(503, "UNAVAILABLE", message, {"Retry-After": "5"})
        domain = self._domain(request)
        found = self.nearest.ranked(domain, self.upstreams.probe_result)
        if not found:
            message = f"nothing of {domain} is in the jurisdiction of region {self.region}"
            raise ErrorResponse(403, "DENIED", f"{message}: this gateway never serves from another")
        return found

    def _domain(self, request: web.Request) -> str:
        """Returns the domain: by --domain, else by the Host header, else by the registry that containerd mirrors."""
        if self.options.domain is not None:
            return self.options.domain
        mirrored = mirrored_host(request.rel_url.raw_query_string)
        for name in (_host(request.headers.get("Host", "")), _host(mirrored or "")):
            if name and self.nearest.is_declared(name):
                return name
        raise ErrorResponse(
            404, "NAME_UNKNOWN", "no instance has this host name as its domain: declare `domain`, keep the Host header "
            "in front of the gateway, or start it with --domain",
        )  # fmt: skip

    def _refusal(self, challenged: Challenged, request: web.Request) -> web.Response:
        if not challenged.takes_credentials:
            # Its challenge is not passed on: the client would answer it with the credentials of this domain.
            self._count(challenged.place.name, 403)
            return _error_response(ErrorResponse(403, "DENIED", _NOT_FOR_OTHERS), CIMultiDict())
        status = challenged.response.status
        self._count(challenged.place.name, status)
        code, message = (
            ("UNAUTHORIZED", "the registry requires credentials")
            if status == 401
            else ("DENIED", "the registry denies access")
        )
        rewritten = self.tokens.challenge(challenged, self._base_url(request))
        return _error_response(ErrorResponse(status, code, message), rewritten)

    def _base_url(self, request: web.Request) -> str:
        """Returns the gateway's own URL as the client calls it."""
        proxied = request.headers.get("X-Forwarded-Proto", "") if self.options.behind_proxy else ""
        forwarded = proxied.partition(",")[0].strip()  # the first proxy is the client's
        scheme = forwarded if forwarded in ("http", "https") else request.scheme
        host = request.headers.get("Host", "")
        if not _HOST.fullmatch(host):
            raise ErrorResponse(400, "UNSUPPORTED", "the Host header is no host")
        return f"{scheme}://{host}"

    def _request_rest(self, pull: Pull, request: web.Request) -> RequestRest:
        kept = headers.selected(request.headers, *_REST_HEADERS)

        async def request_rest(left: ByteRange) -> Served | None:
            try:
                found = await self._search(pull, kept | {"Range": left.header}).find(self._instances(request))
            except ErrorResponse:
                return None
            return found if isinstance(found, Served) else None

        return request_rest

    def _count(self, place: str, status: int) -> None:
        self.metrics.gateway_requests.labels(place, str(status)).inc()

    @web.middleware
    async def _error_responses(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except ErrorResponse as error:
            found = error
        except web.HTTPException as error:
            found = ErrorResponse(error.status, "UNSUPPORTED", "no such path")
        except RegistryError as error:
            LOG.warning("a token server does not answer", action="gateway_token_failed", error=str(error))
            message = "the token server does not answer"
            found = ErrorResponse(503, "UNAVAILABLE", message, {"Retry-After": "5"})
        except Exception:
            LOG.exception("request failed", action="gateway_internal", method=request.method)
            found = ErrorResponse(500, "UNKNOWN", "internal error; see the gateway's log")
        self._count(_NO_PLACE, found.status)
        return _error_response(found, CIMultiDict(found.headers))


def _range_not_satisfiable(found: Served) -> web.Response:
    """Returns a 416 of our own: docker-registry breaks its own off, announced to be as long as the blob."""
    found.response.close()
    kept = headers.selected(found.response.headers, "Content-Range")
    error = ErrorResponse(
        _RANGE_NOT_SATISFIABLE, "SIZE_INVALID", "the requested range is outside of the blob"
    )
    return _error_response(error, CIMultiDict(kept))


def _error_response(error: ErrorResponse, kept: CIMultiDict[str]) -> web.Response:
    body = {"errors": [{"code": error.code, "message": clean(str(error))}]}
    for name, value in headers.VERSION.items():
        kept.setdefault(name, value)
    return web.Response(
        status=error.status, body=orjson.dumps(body), headers=kept, content_type="application/json"
    )


def _host(header: str) -> str:
    """Returns the name in a Host header, without its port and in lower case; empty when it is none."""
    if not _HOST.fullmatch(header):
        return ""
    name = header if header.endswith("]") else header.rpartition(":")[0] or header
    return name.lower().removesuffix(".")
