"""Parses the built-in registry's requests, and answers invalid ones with an error of the OCI specification."""

import base64
import binascii
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from urllib.parse import quote

import orjson
from aiohttp import web

from schemas.names import Digest, Reference, Repository, reference

T = TypeVar("T")

_MOST = 10_000  # entries of one page


class ApiError(web.HTTPException):
    """A 4xx or 5xx answer with an error code of the OCI Distribution specification."""

    def __init__(
        self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        self.status_code = status
        body = orjson.dumps({"errors": [{"code": code, "message": message}]}).decode()
        super().__init__(text=body, content_type="application/json", headers=headers)


def credentials_in(request: web.Request) -> tuple[str, str] | None:
    """Returns user and password of Basic authentication, or None."""
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if colon else None


def repository_in(request: web.Request) -> Repository:
    """Returns the repository in the path; raises `ApiError` when it is invalid."""
    return parse_repository(request.match_info["name"])


def digest_in(request: web.Request) -> Digest:
    """Returns the digest in the path; raises `ApiError` when it is invalid."""
    return parse_digest(request.match_info["digest"])


def reference_in(request: web.Request) -> Reference:
    """Returns the tag or digest in the path; raises `ApiError` when it is invalid."""
    return parse_reference(request.match_info["reference"])


def parse_repository(text: str) -> Repository:
    """Parses a repository; raises `ApiError` when it is invalid."""
    return _parse(Repository, text, "NAME_INVALID")


def parse_digest(text: str) -> Digest:
    """Parses a digest; raises `ApiError` when it is invalid."""
    return _parse(Digest, text, "DIGEST_INVALID")


def parse_reference(text: str) -> Reference:
    """Parses a tag or digest; raises `ApiError` when it is invalid."""
    return _parse(reference, text, "DIGEST_INVALID" if ":" in text else "MANIFEST_INVALID")


def _parse(parse: Callable[[str], T], text: str, code: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise ApiError(400, code, str(error)) from error


def page_of(names: Sequence[str], request: web.Request) -> tuple[list[str], dict[str, str]]:
    """Returns the page of sorted `names` that `n` and `last` request, and the `Link` header to the next one."""
    start = bisect_right(names, request.query.get("last", ""))
    if "n" not in request.query:
        return list(names[start:]), {}
    limit = request.query["n"]
    if not (limit.isascii() and limit.isdecimal()) or len(limit) > len(str(_MOST)):
        raise ApiError(400, "UNSUPPORTED", f"n is a number, at most {_MOST}")
    size = int(limit)
    page = list(names[start : start + size])
    if not page or start + size >= len(names):
        return page, {}
    return page, {"Link": f'<{request.path}?n={size}&last={quote(page[-1])}>; rel="next"'}
