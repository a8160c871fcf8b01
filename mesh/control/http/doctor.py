"""`/api/v1/doctor` and `/api/v1/dead-letters`: what is wrong, and what could not be read."""

from dataclasses import asdict
from typing import Any

from aiohttp import web

from mesh.clock import Clock
from mesh.control.executions.retries import Retries
from mesh.control.http.guard import answer, known, refuse
from mesh.control.status.agents import Running
from mesh.control.status.dead_letter_queue import Kept
from mesh.control.status.dead_letters import DeadLetters
from mesh.control.status.diagnosis import Sight, diagnose
from mesh.control.status.replicas import Replicas
from mesh.control.sync_log import log_query
from mesh.control.sync_log.entry import rfc3339
from mesh.control.webhooks.outbox import Outbox
from mesh.errors import InvalidInput, clean
from mesh.rules.state import MeshState
from schemas.names import Region


class DoctorApi:
    def __init__(
        self,
        *,
        state: MeshState,
        running: Running,
        dead_letters: DeadLetters,
        retries: Retries,
        replicas: Replicas,
        outbox: Outbox,
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._state, self._running, self._dead_letters = state, running, dead_letters
        self._retries, self._replicas, self._outbox = retries, replicas, outbox

    def routes(self, app: web.Application) -> None:
        app.router.add_get("/doctor", self.doctor)
        app.router.add_get("/dead-letters", self.dead_letters)
        app.router.add_delete("/dead-letters", self.deal_with_all)
        app.router.add_delete("/dead-letters/{id}", self.deal_with_one)

    async def doctor(self, request: web.Request) -> web.Response:
        """Findings, problems first; an empty list when all is well."""
        known(request)
        sight = Sight(
            state=self._state, now=self._clock.now(), agents=self._running.agents(), boxes=self._dead_letters.boxes(),
            failed=await self._retries.open_failures(), held=await self._retries.held_deletions(),
            replicas=await self._replicas.statuses(), failing=await self._outbox.failing(),
            refusals=self._running.refusals(),
        )  # fmt: skip
        return answer({"items": [asdict(finding) for finding in diagnose(sight)], "next": None})

    async def dead_letters(self, request: web.Request) -> web.Response:
        """The newest hundred of each region, newest first, with the first 2 KiB of their bytes as text.

        `count` is how often the same was buried. What was dealt with is not among them.
        """
        query = known(request, "limit")
        limit = log_query.limit("limit", query.get("limit", str(log_query.DEFAULT_LIMIT)))
        items = [_shown(region, kept) for region, kept in self._dead_letters.newest()[:limit]]
        return answer({"items": items, "next": None})

    async def deal_with_one(self, request: web.Request) -> web.Response:
        """204: it is shown and counted no more, unless the same comes once more."""
        known(request)
        name = request.match_info["id"]
        if not await self._dead_letters.deal_with_one(name):
            told = f"there is no dead letter {clean(name, 80)}; `regmesh get dead-letters` shows them"
            return refuse(404, "not_found", told)
        return web.Response(status=204)

    async def deal_with_all(self, request: web.Request) -> web.Response:
        """Those buried `before` a time, or `all=true` of them; `deleted` is how many they were."""
        query = known(request, "before", "all")
        if (query.get("all", "true") != "true") or ("all" in query) == ("before" in query):
            raise InvalidInput("say which: before=TIME (or how long ago, such as 2h), or all=true")
        now = self._clock.now()
        until = log_query.moment("before", query["before"], now) if "before" in query else None
        return answer({"deleted": await self._dead_letters.deal_with_all(until)})


def _shown(region: Region, kept: Kept) -> dict[str, Any]:
    dead_letter = kept.dead_letter
    return {
        "id": dead_letter.id,
        "region": region,
        "time": rfc3339(dead_letter.time),
        "count": kept.count,
        "position": dead_letter.position,
        "reason": dead_letter.reason,
        "size": dead_letter.payload_size,
        "payload": dead_letter.payload_bytes().decode(errors="replace"),
    }
