"""A client of control's API, for the commands."""

import asyncio
import io
from collections.abc import AsyncGenerator, Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
import typer
from yarl import URL

from mesh.errors import RegmeshError, clean
from mesh.node.addresses import is_http_url

_TIMEOUT = aiohttp.ClientTimeout(total=30, connect=5)


def api_path(*parts: str) -> str:
    """Returns `/api/v1/` and the quoted parts: each stays one segment of the path, whatever characters it has.

    Raises:
        typer.BadParameter: A part is empty, `.` or `..`.
    """
    for part in parts:
        if part in ("", ".", ".."):
            raise typer.BadParameter(f"{part!r} is not a valid name")
    return "/api/v1/" + "/".join(quote(part, safe="") for part in parts)


class ApiError(RegmeshError):
    """Control answered with an error; `problems` has path and message of each one in a declared document."""

    code = "refused"

    def __init__(self, lines: list[str], *, wrong_use: bool, problems: list[dict[str, str]]) -> None:
        super().__init__(lines[0])
        self.lines = lines
        self.wrong_use = wrong_use
        self.problems = problems


class ApiUnreachable(RegmeshError):
    """Control did not answer."""

    code = "unanswered"


class ControlClient:
    """The API at one URL. Every method raises `ApiError` or `ApiUnreachable` and nothing else.

    Raises:
        typer.BadParameter: `server` is not an HTTP URL.
    """

    def __init__(self, server: str) -> None:
        self._server = server.rstrip("/")
        self._shown = _without_user(self._server)

    def call(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: object = None
    ) -> Any:
        """Sends one request from outside an event loop; returns the JSON answer, or None for one without a body."""
        return asyncio.run(self.request(method, path, query=query, body=body))

    def items(
        self, path: str, query: Mapping[str, str] | None = None, *, most: int | None = None
    ) -> list[dict[str, Any]]:
        """Returns all items of a list, or the first `most`, from outside an event loop."""

        async def collect() -> list[dict[str, Any]]:
            return [item async for item in self.pages(path, {"limit": "1000"} | dict(query or {}), most=most)]

        return asyncio.run(collect())

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        wait: int = 0,
    ) -> Any:
        """As `call`, on a running event loop. Control may hold back its answer for up to `wait` seconds (RFC 7240)."""
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            return await self._call(session, method, path, query=query, body=body, wait=wait)

    async def pages(
        self, path: str, query: Mapping[str, str], *, most: int | None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yields the items of a list in the API's order, page by page, up to `most` of them."""
        cursor: dict[str, str] = {}
        given = 0
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            while True:
                page = await self._call(session, "GET", path, query={**query, **cursor})
                for item in page["items"]:
                    if most is not None and given >= most:
                        return
                    given += 1
                    yield item
                if page["next"] is None:
                    return
                cursor = {"cursor": page["next"]}

    async def _call(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        wait: int = 0,
    ) -> Any:
        data = None if body is None else io.BytesIO(orjson.dumps(body))
        headers = {"Content-Type": "application/json"} if data is not None else {}
        if wait:
            headers["Prefer"] = f"wait={wait}"
        try:
            async with session.request(
                method, self._server + path, params=query, data=data, headers=headers
            ) as response:
                raw = await response.read()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ApiUnreachable(
                f"control at {self._shown} does not answer ({clean(str(reason))}); "
                "start `regmesh up` or `regmesh control`, or name its URL with --server or REGMESH_SERVER"
            ) from error
        return self._parse(response.status, raw)

    def _parse(self, status: int, raw: bytes) -> Any:
        try:
            answer = orjson.loads(raw) if raw else None
        except orjson.JSONDecodeError:
            answer = None
        if status < 400 and (answer is not None or not raw):
            return answer
        error = (answer or {}).get("error", {}) if isinstance(answer, dict) else {}
        message = error.get("message") or f"{self._shown} answered {status}; is it control of regmesh?"
        problems = error.get("problems") or []
        lines = [f"{problem['path']}: {problem['message']}" for problem in problems] or [clean(message)]
        raise ApiError(lines, wrong_use=status == 400, problems=problems)


def _without_user(server: str) -> str:
    """Returns the URL as errors show it: it may carry a password for a proxy in front of control."""
    if not is_http_url(server):
        raise typer.BadParameter("--server (REGMESH_SERVER) is not a URL: use http://HOST:PORT")
    return str(URL(server).with_user(None))
