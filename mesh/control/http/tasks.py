"""`/api/v1/parked`, `/api/v1/tasks/{id}` and `/api/v1/retries`: retry or close tasks that failed."""

from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from mesh.control.executions.parked import ParkedTasks
from mesh.control.executions.retries import Retries
from mesh.control.http.answers import answer, answer_list, refuse
from mesh.control.http.requests import NoSuchResource, limit_of, model_body, parameters
from mesh.control.sync_log.entry import entry_of, rfc3339, row_of
from mesh.errors import clean
from schemas.names import PlaceName
from schemas.parked import Parked


class _RetryFailed(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rule: PlaceName | None = None


class TasksResource:
    """Failed and parked tasks."""

    def __init__(self, retries: Retries, parked: ParkedTasks) -> None:
        self._retries, self._parked = retries, parked

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/parked", self.index)
        router.add_post("/tasks/{id}/close", self.close)
        router.add_post("/tasks/{id}/retry", self.retry)
        router.add_post("/retries", self.retry_failed)

    async def index(self, request: web.Request) -> web.Response:
        """Answers the parked tasks, the next to be retried first."""
        limit = limit_of(parameters(request, "limit"))
        return answer_list([_shown(one) for one in self._parked.first(limit)])

    async def close(self, request: web.Request) -> web.Response:
        """Answers 202: the parked task ends `Stopped`; or 409 while an agent works on it."""
        task_id = request.match_info["id"]
        found = self._parked.get(task_id)
        if found is None:
            raise NoSuchResource(f"no task {clean(task_id, 80)} is parked; `regmesh get parked` shows them")
        if found.is_active:
            return refuse(
                409,
                "still_running",
                f"agent {found.agent} works on the task; if it fails again, close it then",
            )
        await self._parked.close(found)
        return answer(_shown(found), status=202)

    async def retry(self, request: web.Request) -> web.Response:
        """Answers 201 with the id of the new execution; for a parked task 202 with the task's own id."""
        task_id = request.match_info["id"]
        parked = self._parked.get(task_id)
        if parked is not None:
            await self._parked.retry_now(parked)
            return answer({"id": parked.task_id}, status=202)
        execution_id = await self._retries.retry_task(task_id)
        if execution_id is None:
            raise NoSuchResource(
                f"no task {clean(task_id, 80)} has ended; `regmesh logs -o wide` shows their ids"
            )
        return answer({"id": execution_id}, status=201)

    async def retry_failed(self, request: web.Request) -> web.Response:
        """Answers 201 with the started executions and the number of parked tasks that are retried now."""
        rule = (await model_body(request, _RetryFailed)).rule
        parked = await self._parked.retry_of_rule(rule)
        started = await self._retries.retry_failed(rule)
        if not parked and not started:
            self._retries.check_rule(rule)
        return answer({"items": started, "next": None, "parked": parked}, status=201)


def _shown(parked: Parked) -> dict[str, Any]:
    """Returns a sync log entry with the times of its retries."""
    more = ("rounds", "first_parked", "not_before")
    return entry_of(row_of(parked)) | {field: rfc3339(getattr(parked, field)) for field in more}
