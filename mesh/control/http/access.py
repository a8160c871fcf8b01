"""Decides who may call the API.

There is no authentication yet, so a browser on the same machine must not be a way in. A page that resolves its own
name to loopback (DNS rebinding) is recognised by the Host header. A page of another site cannot send JSON without a
preflight request, which the API does not answer.
"""

from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from mesh.errors import InvalidInput, RegmeshError, clean
from mesh.loopback import is_loopback


class Forbidden(RegmeshError):
    """The caller may not use the API."""

    code = "forbidden"


class NotJson(InvalidInput):
    """The body has another content type than JSON."""

    code = "unsupported_media_type"


@web.middleware
async def only_own_hosts(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Requires that the Host header of a connection over loopback names this machine.

    Raises:
        Forbidden: It names another host.
    """
    host = host_name(request.headers.get("Host", ""))
    if _came_over_loopback(request) and not is_loopback(host):
        raise Forbidden(f"Host {clean(host, 100)!r} is not this API; call it by localhost or 127.0.0.1")
    return await handler(request)


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
    """Returns the host of a Host header without its port; empty when the header is malformed."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _came_over_loopback(request: web.Request) -> bool:
    own = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return isinstance(own, tuple) and is_loopback(str(own[0]))
