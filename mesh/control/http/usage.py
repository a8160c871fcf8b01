"""`/api/v1/usage`: bytes sent, by account, by rule or replica, and by link."""

from aiohttp import web

from mesh.clock import Clock
from mesh.control.http.guard import answer, known
from mesh.control.sync_log import log_query
from mesh.control.sync_log.entry import rfc3339
from mesh.control.sync_log.usage import Usage


class UsageApi:
    def __init__(self, usage: Usage, *, clock: Clock) -> None:
        self._usage, self._clock = usage, clock

    def routes(self, app: web.Application) -> None:
        app.router.add_get("/usage", self.usage)

    async def usage(self, request: web.Request) -> web.Response:
        """Of the tasks that ended since then; without `since` of all that the sync log has."""
        since = log_query.parse(known(request, "since"), self._clock.now()).since
        return answer({"since": rfc3339(since), **await self._usage.since(since)})
