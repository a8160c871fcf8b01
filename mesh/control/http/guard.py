"""Who may speak to the API, and how it answers when it does not do what was asked.

There is no authentication yet, so a browser on the same machine must not be a way in: a page that resolves its own name
to loopback (DNS rebinding) gives itself away by the Host header, and one that posts across sites cannot send JSON
without asking first.
"""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

import orjson
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from mesh.control.declare import InvalidDocument, StillUsed
from mesh.errors import InvalidInput, LogError, NotDeclared, RegmeshError, clean

LOG = structlog.get_logger()

_CODES = {
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
}
_RETRY_AFTER = {"Retry-After": "5"}  # seconds


class Forbidden(RegmeshError):
    code = "forbidden"


class NotJson(InvalidInput):
    code = "unsupported_media_type"


def answer(body: object, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=orjson.dumps(body), status=status, headers=headers, content_type="application/json"
    )


def refuse(status: int, code: str, message: str, **more: object) -> web.Response:
    return answer({"error": {"code": code, "message": message, **more}}, status=status)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error as JSON, with what to do and without a traceback."""
    try:
        return await handler(request)
    except RegmeshError as error:
        return _told(error)
    except web.HTTPException as error:
        return _of_aiohttp(request, error)
    except Exception:
        LOG.exception(
            "request failed", action="api_internal", method=request.method, path=clean(request.path)
        )
        return refuse(500, "internal", "an error of ours; control's log has it under action api_internal")


@web.middleware
async def answer_unknown_paths(request: web.Request, handler: Handler) -> web.StreamResponse:
    """For the whole application: what no route takes is told in JSON too. Routes' own answers stay as they are."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if request.match_info.http_exception is None:
            raise
        return _of_aiohttp(request, error)


@web.middleware
async def only_own_hosts(request: web.Request, handler: Handler) -> web.StreamResponse:
    """On a connection over loopback, the Host header must name this machine."""
    host = host_name(request.headers.get("Host", ""))
    if _came_over_loopback(request) and not is_loopback(host):
        raise Forbidden(f"Host {clean(host, 100)!r} is not this API; call it by localhost or 127.0.0.1")
    return await handler(request)


@web.middleware
async def only_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.method in ("POST", "PUT", "PATCH") and request.content_type != "application/json":
        raise NotJson("send JSON with the header Content-Type: application/json")
    return await handler(request)


def host_name(header: str) -> str:
    """Of a Host header, without its port; empty when it is none."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """`localhost`, or an address of loopback."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _came_over_loopback(request: web.Request) -> bool:
    own = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return isinstance(own, tuple) and is_loopback(str(own[0]))


def _told(error: RegmeshError) -> web.Response:
    if isinstance(error, InvalidDocument):
        problems = [{"path": problem.where, "message": problem.message} for problem in error.problems]
        return refuse(400, error.code, str(error), problems=problems)
    response = refuse(_status(error), error.code, str(error))
    if error.retryable:
        response.headers.update(_RETRY_AFTER)
    return response


def _status(error: RegmeshError) -> int:
    match error:
        case Forbidden():
            return 403
        case NotJson():
            return 415
        case NotDeclared():
            return 404
        case StillUsed():
            return 409
        case InvalidInput():
            return 400
        case _:
            return 503 if error.retryable or isinstance(error, LogError) else 500


def _of_aiohttp(request: web.Request, error: web.HTTPException) -> web.Response:
    messages = {404: f"there is no {clean(request.path, 200)} here", 413: "the body is over 1 MiB"}
    code = _CODES.get(error.status, "http_error")
    response = refuse(error.status, code, messages.get(error.status, clean(error.reason)))
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response


def known(request: web.Request, *names: str) -> Mapping[str, str]:
    """The query parameters, each once, and none that we would have to ignore."""
    for name in request.query:
        if name not in names:
            raise InvalidInput(f"{clean(name, 40)}: unknown parameter; known are {', '.join(names)}")
        if len(request.query.getall(name)) > 1:
            raise InvalidInput(f"{name}: is given more than once")
    return request.query
