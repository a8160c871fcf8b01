"""The forms of answers: an object, a list, a refusal; and how errors become answers, without a traceback."""

from collections.abc import Sequence

import orjson
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from mesh.control.declarations.declare import InvalidDocument, StillUsed
from mesh.control.http.access import Forbidden, NotJson
from mesh.control.http.requests import NoSuchResource
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


def answer(body: object, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Returns a JSON answer."""
    return web.Response(
        body=orjson.dumps(body), status=status, headers=headers, content_type="application/json"
    )


def answer_list(items: Sequence[object], cursor: str | None = None) -> web.Response:
    """Returns a page of a list; `cursor` is where the next page starts."""
    return answer({"items": items, "next": cursor})


def refuse(status: int, code: str, message: str, **more: object) -> web.Response:
    """Returns an error answer. The message says what is wrong and what to do."""
    return answer({"error": {"code": code, "message": message, **more}}, status=status)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers every error of a handler as JSON."""
    try:
        return await handler(request)
    except RegmeshError as error:
        return _answer(error)
    except web.HTTPException as error:
        return _answer_http_error(request, error)
    except Exception:
        LOG.exception(
            "request failed", action="api_internal", method=request.method, path=clean(request.path)
        )
        return refuse(500, "internal", "internal error; see action api_internal in the log of control")


@web.middleware
async def answer_unknown_paths(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers paths without a route as JSON. It is for the whole application and leaves other answers unchanged."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if request.match_info.http_exception is None:
            raise
        return _answer_http_error(request, error)


def _answer(error: RegmeshError) -> web.Response:
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
        case NoSuchResource() | NotDeclared():
            return 404
        case StillUsed():
            return 409
        case InvalidInput():
            return 400
        case _:
            return 503 if error.retryable or isinstance(error, LogError) else 500


def _answer_http_error(request: web.Request, error: web.HTTPException) -> web.Response:
    messages = {404: f"there is no {clean(request.path, 200)} here"}
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        messages[error.status] = f"the body is larger than this path takes: {clean(error.text or '', 200)}"
    code = _CODES.get(error.status, "http_error")
    response = refuse(error.status, code, messages.get(error.status, clean(error.reason)))
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response
