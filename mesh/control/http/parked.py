"""`/api/v1/parked`, and what is done with one parked task."""

from typing import Any

from aiohttp import web

from mesh.control.executions.parked import ParkedTasks
from mesh.control.http.guard import answer, known, refuse
from mesh.control.sync_log import log_query
from mesh.control.sync_log.entry import entry_of, rfc3339, row_of
from mesh.errors import clean
from schemas.parked import Parked


class ParkedApi:
    def __init__(self, parked: ParkedTasks) -> None:
        self._parked = parked

    def routes(self, app: web.Application) -> None:
        app.router.add_get("/parked", self.index)
        app.router.add_post("/tasks/{id}/close", self.close)

    async def index(self, request: web.Request) -> web.Response:
        """The next to be tried first."""
        query = known(request, "limit")
        limit = log_query.limit("limit", query.get("limit", str(log_query.DEFAULT_LIMIT)))
        return answer({"items": [_shown(one) for one in self._parked.all()[:limit]], "next": None})

    async def close(self, request: web.Request) -> web.Response:
        """202: it ends `Stopped`. 409 when its agent has it in hand and will say how it ended."""
        name = request.match_info["id"]
        found = self._parked.get(name)
        if found is None:
            return refuse(
                404, "not_found", f"no task {clean(name, 80)} is parked; `regmesh get parked` shows them"
            )
        if found.is_active:
            return refuse(
                409, "still_running", f"{found.agent} works on it: it can be closed when that failed"
            )
        await self._parked.close(found)
        return answer(_shown(found), status=202)


def _shown(parked: Parked) -> dict[str, Any]:
    """A sync log entry, with when it is tried again."""
    more = ("rounds", "first_parked", "not_before")
    return entry_of(row_of(parked)) | {field: rfc3339(getattr(parked, field)) for field in more}
