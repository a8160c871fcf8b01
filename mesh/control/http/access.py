"""Decides who may call the API.

The API has no authentication. So it answers only callers on this machine, unless the operator opens it to everybody who
reaches its address. A browser must not be a way in: a page whose own name resolves to the API's address (DNS rebinding)
is recognised by the Host header, on every address. A page of another site cannot send JSON without a preflight request,
which the API does not answer.
"""

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from mesh.errors import InvalidInput, RegmeshError, clean
from mesh.loopback import is_local


class Forbidden(RegmeshError):
    """The caller may not use the API."""

    code = "forbidden"


class NotJson(InvalidInput):
    """The body has another content type than JSON."""

    code = "unsupported_media_type"


@dataclass(frozen=True, slots=True)
class ApiAccess:
    """Who may call the API, as the operator of the process chose."""

    is_open: bool = False  # to callers on other machines and behind proxies
    hosts: frozenset[str] = frozenset()  # names in lower case that it may be called by, besides `localhost`

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Requires a caller and a Host header that are allowed.

        Raises:
            Forbidden: The caller is on another machine, or the Host header has a name that is not the API's.
        """
        if not self.is_open and not is_local(request):
            raise Forbidden(
                "the API answers only callers on its own machine: call it there by localhost, or through a tunnel; or "
                "start it with --api-open on a network, or behind a proxy, that admits only who may change everything"
            )
        host = host_name(request.headers.get("Host", ""))
        if not self._is_own_name(host):
            raise Forbidden(
                f"Host {clean(host, 100)!r} is not a name of this API: call it by localhost or by IP address, or start "
                "it with --api-host and this name"
            )
        return await handler(request)

    def _is_own_name(self, host: str) -> bool:
        """An address is nobody's name: no other site's page has it for its origin."""
        return host == "localhost" or host in self.hosts or _is_address(host)


LOCAL_ONLY = ApiAccess()


@web.middleware
async def only_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Requires the content type of JSON for requests that change something.

    Raises:
        NotJson: The request has another content type.
    """
    if request.method in ("POST", "PUT", "PATCH") and request.content_type != "application/json":
        raise NotJson("send JSON with the header Content-Type: application/json")
    return await handler(request)


def host_name(header: str) -> str:
    """Returns the host of a Host header in lower case, without its port; empty when the header is malformed."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
