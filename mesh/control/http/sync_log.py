"""`/api/v1/logs`, `/api/v1/replicas/{name}/tasks` and `/api/v1/usage`: what tasks did."""

from collections.abc import Mapping

from aiohttp import web

from mesh.clock import Clock
from mesh.control.executions.parked import ParkedTasks
from mesh.control.http.answers import answer, answer_list
from mesh.control.http.requests import not_declared, parameters
from mesh.control.status.live_status import LiveStatus
from mesh.control.storage import paging
from mesh.control.storage.paging import Page
from mesh.control.sync_log import log_query
from mesh.control.sync_log.entry import Row, entry_of, rfc3339, row_of
from mesh.control.sync_log.log_query import LogQuery
from mesh.control.sync_log.store import SyncLog
from mesh.control.sync_log.usage import Usage
from mesh.rules.state import MeshState
from schemas.topology import Replica


class SyncLogResource:
    """Ended tasks are read from the database, active ones from memory."""

    def __init__(
        self,
        sync_log: SyncLog,
        usage: Usage,
        *,
        live_status: LiveStatus,
        parked: ParkedTasks,
        state: MeshState,
        clock: Clock,
    ) -> None:
        self._sync_log, self._usage = sync_log, usage
        self._live_status, self._parked, self._state, self._clock = live_status, parked, state, clock

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/logs", self.logs)
        router.add_get("/replicas/{name}/tasks", self.replica_tasks)
        router.add_get("/usage", self.usage)

    async def logs(self, request: web.Request) -> web.Response:
        """Answers a page of entries, newest first."""
        return await self._entries(parameters(request, *log_query.PARAMETERS))

    async def replica_tasks(self, request: web.Request) -> web.Response:
        """Answers a page of entries of one replica."""
        name = request.match_info["name"]
        if self._state.get(f"{Replica.noun}/{name}") is None:
            raise not_declared(Replica.noun, name, self._state)
        query = parameters(request, *(it for it in log_query.PARAMETERS if it not in ("rule", "replica")))
        return await self._entries({**query, "replica": name})

    async def usage(self, request: web.Request) -> web.Response:
        """Answers the bytes that tasks sent since a time, or ever."""
        since = log_query.parse(parameters(request, "since"), self._clock.now()).since
        return answer({"since": rfc3339(since), **await self._usage.since(since)})

    async def _entries(self, query_parameters: Mapping[str, str]) -> web.Response:
        query = log_query.parse(query_parameters, self._clock.now())
        page = await (self._active(query) if query.is_of_active_tasks else self._sync_log.read(query))
        return answer_list([entry_of(row) for row in page.items], paging.cursor_of(page.next))

    async def _active(self, query: LogQuery) -> Page[Row]:
        """Returns tasks in progress, and parked tasks that are not in progress."""
        running = self._live_status.tasks()
        ids = {task.task_id for task in running}
        rows = [row for row in map(row_of, running) if query.admits(row)]
        if query.after is not None:
            rows = [row for row in rows if log_query.position(row) < query.after]
        waiting = 0
        async for parked in self._parked.newest_first(query.after):
            if waiting > query.limit:
                break
            if parked.task_id not in ids and query.admits(row := row_of(parked)):
                rows.append(row)
                waiting += 1
        rows.sort(key=log_query.position, reverse=True)
        return paging.first_page(rows, query.limit, log_query.position)
