"""`/api/v1/executions`: start a rule by hand, follow it, stop it."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from mesh.control.executions.commands import Commands
from mesh.control.executions.parked import ParkedTasks
from mesh.control.executions.store import Executions
from mesh.control.http.answers import answer, answer_list
from mesh.control.http.requests import NoSuchResource, limit_of, model_body, parameters
from mesh.control.storage.paging import cursor_of, parse_cursor
from mesh.errors import InvalidInput, clean
from mesh.rules.matching.patterns import compile_pattern
from schemas.completions import Status
from schemas.executions import MAX_IMAGES, ImageName
from schemas.names import PlaceName, Region
from schemas.rules import Pattern

_PREFERRED_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,9})(?!\d)")
_LONGEST_WAIT = 5  # seconds; a stopping process gives its requests no more time
_STATUSES = [status.value for status in Status if status not in (Status.PENDING, Status.SKIPPED)]


def _compiles(pattern: str) -> str:
    compile_pattern(pattern)
    return pattern


_Pattern = Annotated[Pattern, AfterValidator(_compiles)]


class _Start(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rule: PlaceName  # the name of a rule or of a replica
    repository: _Pattern | None = None
    tag: _Pattern | None = None
    images: tuple[ImageName, ...] = Field(default=(), max_length=MAX_IMAGES)  # only these, without a listing
    dry_run: bool = False
    resend: bool = False  # of images: copy all of them again, though the destination says that it has them

    @model_validator(mode="after")
    def _names_fit(self) -> "_Start":
        if self.images and (self.repository or self.tag):
            raise ValueError("give images, or repository and tag, but not both")
        if self.resend and not self.images:
            raise ValueError("resend is for images that are named")
        return self


class ExecutionsResource:
    """Executions."""

    def __init__(self, executions: Executions, commands: Commands, parked: ParkedTasks) -> None:
        self._executions, self._commands, self._parked = executions, commands, parked

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_post("/executions", self.start)
        router.add_get("/executions", self.index)
        router.add_get("/executions/{id}", self.get)
        router.add_post("/executions/{id}/stop", self.stop)

    async def start(self, request: web.Request) -> web.Response:
        """Answers 201 with the id once the start is durable."""
        wanted = await model_body(request, _Start)
        execution_id = await self._commands.start(
            wanted.rule, "manual", repository=wanted.repository, tag=wanted.tag, images=wanted.images,
            dry_run=wanted.dry_run, resend=wanted.resend,
        )  # fmt: skip
        return answer({"id": execution_id}, status=201)

    async def index(self, request: web.Request) -> web.Response:
        """Answers a page of executions, newest first."""
        query = _query(request)
        after = parse_cursor(query["cursor"]) if "cursor" in query else None
        equal = {name: query[name] for name in ("rule", "status") if name in query}
        page = await self._executions.page(equal, limit_of(query), after)
        return answer_list(self._shown(page.items), cursor_of(page.next))

    async def get(self, request: web.Request) -> web.Response:
        """Answers at once, or with `Prefer: wait=SECONDS` (RFC 7240) when the execution ends or after that time."""
        wait = _preferred_wait(request)
        if wait:
            await self._commands.until_ended(request.match_info["id"], wait)
        found = await self._found(request)
        applied = {"Preference-Applied": f"wait={wait}"} if wait else None
        return answer(self._shown([found])[0], headers=applied)

    async def stop(self, request: web.Request) -> web.Response:
        """Answers 202; the execution ends when its agents have read the command. An ended one stays as it is."""
        found = await self._found(request)
        if found["status"] == Status.IN_PROGRESS.value:
            await self._commands.stop(found["id"], Region(found["region"]))
        return answer(found, status=202)

    async def _found(self, request: web.Request) -> dict[str, Any]:
        execution_id = request.match_info["id"]
        found = await self._executions.get(execution_id)
        if found is None:
            raise NoSuchResource(
                f"there is no execution {clean(execution_id, 80)}; `regmesh get executions` shows them"
            )
        return found

    def _shown(self, executions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        parked = self._parked.of_executions([one["id"] for one in executions])
        return [one | {"parked": parked[one["id"]]} for one in executions]


def _preferred_wait(request: web.Request) -> int:
    """Returns seconds; a malformed preference is ignored."""
    found = _PREFERRED_WAIT.search(request.headers.get("Prefer", ""))
    return min(int(found[1]), _LONGEST_WAIT) if found is not None else 0


def _query(request: web.Request) -> Mapping[str, str]:
    query = parameters(request, "rule", "status", "limit", "cursor")
    if query.get("status", _STATUSES[0]) not in _STATUSES:
        raise InvalidInput(f"status: must be one of {', '.join(_STATUSES)}")
    try:
        PlaceName(query.get("rule", "any"))
    except ValueError as error:
        raise InvalidInput(f"rule: {clean(str(error))}") from error
    return query
