"""The HTTP API of executions: run a rule by hand, see how far it is, stop it, try again what failed."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import orjson
from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from mesh.control.executions.commands import Commands
from mesh.control.executions.parked import ParkedTasks
from mesh.control.executions.retries import Retries
from mesh.control.executions.store import Executions
from mesh.control.http.guard import answer, known, refuse
from mesh.control.sync_log import log_query
from mesh.control.sync_log.log_query import Position
from mesh.errors import InvalidInput, clean
from mesh.rules.matching.patterns import compile_pattern
from schemas.completions import Status
from schemas.names import PlaceName, Region
from schemas.rules import Pattern

_LARGEST_BODY = 64 * 1024
_PREFERRED_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,9})(?!\d)")
_LONGEST_WAIT = 5  # seconds; no longer than a process that stops lets its requests finish


def _runs(pattern: str) -> str:
    compile_pattern(pattern)
    return pattern


_Pattern = Annotated[Pattern, AfterValidator(_runs)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Run(_Asked):
    rule: PlaceName  # a rule's name, or a replica's
    repository: _Pattern | None = None
    tag: _Pattern | None = None
    dry_run: bool = False


class _Again(_Asked):
    rule: PlaceName | None = None


class ExecutionsApi:
    def __init__(
        self, executions: Executions, commands: Commands, retries: Retries, parked: ParkedTasks
    ) -> None:
        self._executions, self._commands = executions, commands
        self._retries, self._parked = retries, parked

    def routes(self, app: web.Application) -> None:
        app.router.add_post("/executions", self.start)
        app.router.add_get("/executions", self.index)
        app.router.add_get("/executions/{id}", self.get)
        app.router.add_post("/executions/{id}/stop", self.stop)
        app.router.add_post("/tasks/{id}/retry", self.retry)
        app.router.add_post("/retries", self.retry_failed)

    async def start(self, request: web.Request) -> web.Response:
        """201 with the id: it is durable, and runs from here by itself."""
        asked = await _body(request, _Run)
        execution_id = await self._commands.start(
            asked.rule, "manual", repository=asked.repository, tag=asked.tag, dry_run=asked.dry_run
        )
        return answer({"id": execution_id}, status=201)

    async def index(self, request: web.Request) -> web.Response:
        query = _query(request)
        limit = log_query.limit("limit", query.get("limit", str(log_query.DEFAULT_LIMIT)))
        after = log_query.parse_cursor(query["cursor"]) if "cursor" in query else None
        equal = {name: query[name] for name in ("rule", "status") if name in query}
        found = await self._executions.page(equal, limit + 1, after)
        page = found[:limit]
        more = log_query.cursor_of(_position(page[-1])) if len(found) > limit else None
        return answer({"items": self._shown(page), "next": more})

    async def get(self, request: web.Request) -> web.Response:
        """At once, or with `Prefer: wait=SECONDS` when it has ended, and after so long in any case."""
        name, wait = request.match_info["id"], _wait(request)
        if wait:
            await self._commands.until_ended(name, wait)
        found = await self._executions.get(name)
        if found is None:
            return _no_execution(request)
        applied = {"Preference-Applied": f"wait={wait}"} if wait else None
        return answer(self._shown([found])[0], headers=applied)

    async def stop(self, request: web.Request) -> web.Response:
        """202: it ends as soon as its agents have heard. One that has ended stays as it is."""
        found = await self._executions.get(request.match_info["id"])
        if found is None:
            return _no_execution(request)
        if found["status"] == Status.IN_PROGRESS.value:
            await self._commands.stop(found["id"], Region(found["region"]))
        return answer(found, status=202)

    def _shown(self, executions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        parked = self._parked.by_execution()
        return [one | {"parked": parked[one["id"]]} for one in executions]

    async def retry(self, request: web.Request) -> web.Response:
        """201 with the id of an execution that tries it; 202 with the task's own when it was parked and begins now."""
        parked = self._parked.get(request.match_info["id"])
        if parked is not None:
            await self._parked.try_now(parked)
            return answer({"id": parked.task_id}, status=202)
        execution_id = await self._retries.one(request.match_info["id"])
        if execution_id is None:
            name = clean(request.match_info["id"], 80)
            return refuse(
                404, "not_found", f"no task {name} has ended; `regmesh logs -o wide` shows their ids"
            )
        return answer({"id": execution_id}, status=201)

    async def retry_failed(self, request: web.Request) -> web.Response:
        asked = await _body(request, _Again)
        parked = await self._retries.parked(asked.rule)
        started = await self._retries.failed(asked.rule)
        if not parked and not started:
            self._retries.check(asked.rule)
        return answer({"items": started, "next": None, "parked": parked}, status=201)


def _wait(request: web.Request) -> int:
    """Seconds (RFC 7240). What cannot be read is no preference."""
    asked = _PREFERRED_WAIT.search(request.headers.get("Prefer", ""))
    return min(int(asked[1]), _LONGEST_WAIT) if asked is not None else 0


def _query(request: web.Request) -> Mapping[str, str]:
    query = known(request, "rule", "status", "limit", "cursor")
    statuses = [status.value for status in Status if status not in (Status.PENDING, Status.SKIPPED)]
    if query.get("status", statuses[0]) not in statuses:
        raise InvalidInput(f"status: must be one of {', '.join(statuses)}")
    try:
        PlaceName(query.get("rule", "any"))
    except ValueError as error:
        raise InvalidInput(f"rule: {clean(str(error))}") from error
    return query


async def _body(request: web.Request, model: Callable[..., Any]) -> Any:
    raw = await request.clone(client_max_size=_LARGEST_BODY).read()
    try:
        found = orjson.loads(raw or b"{}")
        return model(**found) if isinstance(found, dict) else _not_an_object()
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the body is not JSON: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{where}: {str(first['msg']).removeprefix('Value error, ')}") from error


def _not_an_object() -> None:
    raise InvalidInput("the body must be a JSON object")


def _position(shown: Mapping[str, Any]) -> Position:
    return Position(datetime.fromisoformat(shown["start_time"]), shown["id"])


def _no_execution(request: web.Request) -> web.Response:
    return refuse(
        404,
        "not_found",
        f"there is no execution {clean(request.match_info['id'], 80)}; `regmesh get executions` shows them",
    )
