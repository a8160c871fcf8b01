"""`/api/v1/doctor` and `/api/v1/dead-letters`: what is wrong, and what could not be read."""

from dataclasses import asdict
from typing import Any

from aiohttp import web

from mesh.clock import Clock
from mesh.control import log_query
from mesh.control.diagnosis import Sight, diagnose
from mesh.control.entry import rfc3339
from mesh.control.guard import answer, known
from mesh.control.letters import Letters
from mesh.control.outbox import Outbox
from mesh.control.replicas import Replicas
from mesh.control.retries import Retries
from mesh.control.running import Running
from mesh.rules.state import MeshState
from schemas.dead_letters import DeadLetter
from schemas.names import Region


class DoctorApi:
    def __init__(
        self,
        *,
        state: MeshState,
        running: Running,
        letters: Letters,
        retries: Retries,
        replicas: Replicas,
        outbox: Outbox,
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._state, self._running, self._letters = state, running, letters
        self._retries, self._replicas, self._outbox = retries, replicas, outbox

    def routes(self, app: web.Application) -> None:
        app.router.add_get("/doctor", self.doctor)
        app.router.add_get("/dead-letters", self.dead_letters)

    async def doctor(self, request: web.Request) -> web.Response:
        """Findings, problems first; an empty list when all is well."""
        known(request)
        sight = Sight(
            state=self._state, now=self._clock.now(), agents=self._running.agents(), boxes=self._letters.boxes(),
            failed=await self._retries.open_failures(), held=await self._retries.held_deletions(),
            replicas=await self._replicas.statuses(), unheard=await self._outbox.unheard(),
        )  # fmt: skip
        return answer({"items": [asdict(finding) for finding in diagnose(sight)], "next": None})

    async def dead_letters(self, request: web.Request) -> web.Response:
        """The newest hundred of each region, newest first, with the first 2 KiB of their bytes as text."""
        query = known(request, "limit")
        limit = log_query.limit("limit", query.get("limit", str(log_query.DEFAULT_LIMIT)))
        items = [_shown(region, letter) for region, letter in self._letters.newest()[:limit]]
        return answer({"items": items, "next": None})


def _shown(region: Region, letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "region": region,
        "time": rfc3339(letter.time),
        "position": letter.position,
        "reason": letter.reason,
        "size": letter.payload_size,
        "payload": letter.payload_bytes().decode(errors="replace"),
    }
