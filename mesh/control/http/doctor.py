"""`/api/v1/doctor`, `/api/v1/agents` and `/api/v1/dead-letters`: what is wrong, and what could not be read."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from aiohttp import web

from mesh.control.executions.parked import ParkedTasks
from mesh.control.executions.retries import Retries
from mesh.control.http.answers import answer, answer_list
from mesh.control.http.requests import NoSuchResource, limit_of, parameters
from mesh.control.ports import ControlPorts
from mesh.control.status.dead_letter_queue import KeptDeadLetter
from mesh.control.status.dead_letters import DeadLetters
from mesh.control.status.diagnosis import diagnose
from mesh.control.status.diagnosis_input import DiagnosisInput
from mesh.control.status.live_status import LiveStatus
from mesh.control.status.promises import FreshnessPromises
from mesh.control.status.replicas import Replicas
from mesh.control.status.unread_events import UnreadEventsWatch
from mesh.control.sync_log import log_query
from mesh.control.sync_log.entry import rfc3339
from mesh.control.webhooks.outbox import Outbox
from mesh.errors import InvalidInput, clean
from schemas.completions import Heartbeat
from schemas.names import Region

_AGENT_FIELDS = ("agent", "region", "rules_rev", "running", "places", "relay", "time")


class DoctorResource:
    """The findings of `regmesh doctor`, live agents, and dead letters."""

    def __init__(
        self,
        *,
        ports: ControlPorts,
        live_status: LiveStatus,
        dead_letters: DeadLetters,
        retries: Retries,
        replicas: Replicas,
        outbox: Outbox,
        parked: ParkedTasks,
        promises: FreshnessPromises,
        unread_events: UnreadEventsWatch,
        database_failure: Callable[[], str | None],
    ) -> None:
        self._state, self._clock = ports.state, ports.clock
        self._live_status, self._dead_letters = live_status, dead_letters
        self._retries, self._replicas, self._outbox = retries, replicas, outbox
        self._parked, self._promises, self._unread_events = parked, promises, unread_events
        self._database_failure = database_failure

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/doctor", self.doctor)
        router.add_get("/agents", self.agents)
        router.add_get("/dead-letters", self.dead_letters)
        router.add_delete("/dead-letters", self.close_all_dead_letters)
        router.add_delete("/dead-letters/{id}", self.close_dead_letter)

    async def doctor(self, request: web.Request) -> web.Response:
        """Answers the findings, problems first; an empty list when all is well."""
        parameters(request)
        found = diagnose(
            DiagnosisInput(
                state=self._state,
                now=self._clock.now(),
                agents=self._live_status.agents(),
                dead_letters=self._dead_letters.queues(),
                failed=await self._retries.open_failures(),
                held=await self._retries.held_deletions(),
                replicas=await self._replicas.statuses(),
                failing=await self._outbox.failing(),
                refusals=self._live_status.refusals(),
                parked=self._parked.failures(),
                promised=self._promises.promised(),
                unread=self._unread_events.found,
                unread_failure=self._unread_events.failure,
                database_failure=self._database_failure(),
            )
        )
        return answer_list([asdict(finding) for finding in found])

    async def agents(self, request: web.Request) -> web.Response:
        """Answers the live agents, with the state of the places that each of them uses."""
        parameters(request, "limit")
        agents = sorted(self._live_status.agents(), key=lambda one: one.agent)
        return answer_list([_shown_agent(heartbeat) for heartbeat in agents])

    async def dead_letters(self, request: web.Request) -> web.Response:
        """Answers the newest hundred open dead letters of each region with their first 2 KiB, newest first."""
        limit = limit_of(parameters(request, "limit"))
        return answer_list([_shown(region, kept) for region, kept in self._dead_letters.newest()[:limit]])

    async def close_dead_letter(self, request: web.Request) -> web.Response:
        """Answers 204: the dead letter is marked as dealt with, and shown again only after a repeat."""
        parameters(request)
        dead_letter_id = request.match_info["id"]
        if not await self._dead_letters.close(dead_letter_id):
            raise NoSuchResource(
                f"there is no dead letter {clean(dead_letter_id, 80)}; `regmesh get dead-letters` shows them"
            )
        return web.Response(status=204)

    async def close_all_dead_letters(self, request: web.Request) -> web.Response:
        """Marks the dead letters `before` a time, or with `all=true` all of them; answers their number."""
        query = parameters(request, "before", "all")
        if (query.get("all", "true") != "true") or ("all" in query) == ("before" in query):
            raise InvalidInput("say which: before=TIME (or how long ago, such as 2h), or all=true")
        now = self._clock.now()
        until = log_query.moment("before", query["before"], now) if "before" in query else None
        return answer({"deleted": await self._dead_letters.close_all(until)})


def _shown_agent(heartbeat: Heartbeat) -> dict[str, Any]:
    waiting = {place: one.model_dump(mode="json") for place, one in heartbeat.waiting.items()}
    return {field: rfc3339(getattr(heartbeat, field)) for field in _AGENT_FIELDS} | {"waiting": waiting}


def _shown(region: Region, kept: KeptDeadLetter) -> dict[str, Any]:
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
