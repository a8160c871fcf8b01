"""Reads requests: query parameters, JSON bodies, and the names in paths."""

from collections.abc import Mapping
from typing import Any, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from mesh.control.storage.paging import DEFAULT_LIMIT, parse_limit
from mesh.errors import InvalidInput, RegmeshError, clean
from mesh.rules.state import MeshState
from mesh.rules.validation.messages import name_hint

M = TypeVar("M", bound=BaseModel)

_MAX_SMALL_BODY = 64 * 1024


class NoSuchResource(RegmeshError):
    """The path names something that does not exist."""

    code = "not_found"


def parameters(request: web.Request, *names: str) -> Mapping[str, str]:
    """Returns the query parameters.

    Raises:
        InvalidInput: A parameter is not one of `names`, or is given more than once.
    """
    for name in request.query:
        if name not in names:
            raise InvalidInput(f"{clean(name, 40)}: unknown parameter; use {', '.join(names) or 'none'}")
        if len(request.query.getall(name)) > 1:
            raise InvalidInput(f"{name}: is given more than once")
    return request.query


def limit_of(query: Mapping[str, str]) -> int:
    """Returns the parameter `limit`.

    Raises:
        InvalidInput: It is out of range.
    """
    return parse_limit(query["limit"]) if "limit" in query else DEFAULT_LIMIT


def flag(query: Mapping[str, str], name: str) -> bool:
    """Returns a parameter that is true or false; false when it is left out.

    Raises:
        InvalidInput: It has another value.
    """
    text = query.get(name, "false")
    if text not in ("true", "1", "false", "0"):
        raise InvalidInput(f"{name}: must be true or false")
    return text in ("true", "1")


async def json_body(request: web.Request, max_bytes: int) -> Any:
    """Returns the parsed body.

    Raises:
        InvalidInput: The body is not JSON.
        aiohttp.web.HTTPRequestEntityTooLarge: It has more than `max_bytes`.
    """
    return _parsed(await request.clone(client_max_size=max_bytes).read())


async def model_body(request: web.Request, model: type[M]) -> M:
    """Returns the body as a model; an empty body as an empty object.

    Raises:
        InvalidInput: The body is not a JSON object with the fields of the model.
    """
    found = _parsed(await request.clone(client_max_size=_MAX_SMALL_BODY).read() or b"{}")
    if not isinstance(found, dict):
        raise InvalidInput("the body must be a JSON object")
    try:
        return model(**found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{field}: {str(first['msg']).removeprefix('Value error, ')}") from error


def not_declared(noun: str, name: str, state: MeshState) -> NoSuchResource:
    """Returns the error for a declaration that does not exist, with the name that was probably meant."""
    hint = name_hint(noun, name, (thing.key for thing in state.things()))
    return NoSuchResource(f"{clean(f'{noun}/{name}', 200)} is not declared; {hint}")


def _parsed(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the body is not JSON: {error}") from error
