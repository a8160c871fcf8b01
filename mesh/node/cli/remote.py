"""Control's API as the terminal commands call it."""

import asyncio
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


def path(*parts: str) -> str:
    """Of the API. What a human typed stays one part of it, whatever it holds; wrong use when it cannot be one."""
    for part in parts:
        if part in ("", ".", ".."):
            raise typer.BadParameter(f"{part!r} is no name")
    return "/api/v1/" + "/".join(quote(part, safe="") for part in parts)


class Refused(RegmeshError):
    """Control answered, and not with what was asked."""

    code = "refused"

    def __init__(self, lines: list[str], *, wrong_use: bool, problems: list[dict[str, str]]) -> None:
        super().__init__(lines[0])
        self.lines = lines
        self.wrong_use = wrong_use
        self.problems = problems


class Unanswered(RegmeshError):
    code = "unanswered"


class Remote:
    """One server. Every method raises `Refused` or `Unanswered`, and nothing else. Wrong use when it is no URL."""

    def __init__(self, server: str) -> None:
        self._server = server.rstrip("/")
        self._shown = _without_user(self._server)

    def call(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: object = None
    ) -> Any:
        """One request; its JSON answer, or None when it has no body."""
        return asyncio.run(self.ask(method, path, query=query, body=body))

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        wait: int = 0,
    ) -> Any:
        """As `call`, on a running loop. Control may take `wait` seconds to answer what is not over yet."""
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            return await self._call(session, method, path, query=query, body=body, wait=wait)

    async def pages(
        self, path: str, query: Mapping[str, str], *, most: int | None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The items of a list, newest first, page by page, `most` of them."""
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
        data = None if body is None else orjson.dumps(body)
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
            raise Unanswered(
                f"control at {self._shown} does not answer ({clean(str(reason))}); "
                "start `regmesh up` or `regmesh control`, or name it with --server or REGMESH_SERVER"
            ) from error
        return self._read(response.status, raw)

    def _read(self, status: int, raw: bytes) -> Any:
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
        raise Refused(lines, wrong_use=status == 400, problems=problems)


def _without_user(server: str) -> str:
    """As it may be shown: a URL may carry a password for the proxy in front of control."""
    if not is_http_url(server):
        raise typer.BadParameter("--server (REGMESH_SERVER) is no URL: use http://HOST:PORT")
    return str(URL(server).with_user(None))
