"""The HTTP API under `/api/v1`: what is declared, the sync log, the agents."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import orjson
from aiohttp import web

from mesh.clock import Clock
from mesh.control.declare import Declare, InvalidDocument
from mesh.control.executions.parked import ParkedTasks
from mesh.control.http import guard
from mesh.control.http.guard import answer, known, refuse
from mesh.control.status.agents import Running
from mesh.control.status.replica_status import ReplicaStatus
from mesh.control.status.replicas import Replicas
from mesh.control.sync_log import log_query
from mesh.control.sync_log.entry import entry_of, rfc3339, row_of
from mesh.control.sync_log.log_query import LogQuery
from mesh.control.sync_log.search import Page
from mesh.control.sync_log.store import SyncLog
from mesh.control.webhooks.outbox import DeliveryStatus, Outbox
from mesh.errors import DatabaseUnavailable, InvalidInput, clean
from mesh.rules.explain import explain
from mesh.rules.problems import Problem
from mesh.rules.state import MeshState
from mesh.rules.validation.declarations import SECTIONS
from mesh.rules.validation.messages import name_hint
from schemas.completions import Heartbeat
from schemas.declared import Declared
from schemas.names import Repository, Tag
from schemas.topology import Instance, RegionDeclaration, Replica
from schemas.webhooks import Webhook

MAX_BODY = 1024 * 1024
# What `get` shows beside what is declared. Who puts back what he got declares nothing by it.
_TOLD = {
    "regions": ("agents",),
    "instances": ("state", "position"),
    "webhooks": ("state", "waiting", "last_delivered", "last_failure"),
    "replicas": ("state", "reason", "lag_seconds", "tasks_left", "bytes_left", "fill"),
}


class Part(Protocol):
    """Handlers of a subject of their own."""

    def routes(self, app: web.Application) -> None: ...


class Api:
    """Handlers. What they need is asked of the parts; what goes wrong is told by `guard`."""

    def __init__(
        self,
        *,
        declare: Declare,
        state: MeshState,
        sync_log: SyncLog,
        running: Running,
        replicas: Replicas,
        parked: ParkedTasks,
        outbox: Outbox,
        parts: Sequence[Part],
        clock: Clock,
    ) -> None:
        self._declare, self._state, self._sync_log = declare, state, sync_log
        self._running, self._replicas, self._parked, self._clock = running, replicas, parked, clock
        self._outbox, self._parts = outbox, parts

    def application(self) -> web.Application:
        """To be mounted at `/api/v1`."""
        app = web.Application(middlewares=[guard.answer_errors, guard.only_own_hosts, guard.only_json])
        app.router.add_post("/apply", self.apply)
        app.router.add_get("/logs", self.logs)
        app.router.add_get("/replicas/{name}/tasks", self.replica_tasks)
        app.router.add_get("/agents", self.agents)
        app.router.add_get("/explain/{instance}/{repository:.+}", self.explain)
        for part in self._parts:
            part.routes(app)
        section = f"/{{section:{'|'.join(SECTIONS)}}}"
        app.router.add_get(section, self.index)
        app.router.add_get(section + "/{name}", self.get)
        app.router.add_put(section + "/{name}", self.put)
        app.router.add_delete(section + "/{name}", self.delete)
        return app

    async def index(self, request: web.Request) -> web.Response:
        """By name."""
        query = known(request, "limit", "cursor")
        limit = log_query.limit("limit", query.get("limit", str(log_query.DEFAULT_LIMIT)))
        noun = SECTIONS[request.match_info["section"]]
        things = {thing.key: thing for thing in self._state.things() if thing.noun == noun}
        after = f"{noun}/{query.get('cursor', '')}"
        keys = sorted(key for key in things if key > after)
        page = await self._shown([things[key] for key in keys[:limit]])
        return answer({"items": page, "next": page[-1]["name"] if len(keys) > limit else None})

    async def get(self, request: web.Request) -> web.Response:
        thing = self._state.get(_key(request))
        return self._absent(request) if thing is None else answer((await self._shown([thing]))[0])

    async def put(self, request: web.Request) -> web.Response:
        """201 when it is new, else 200. The path names it; a body with another name is refused."""
        section, name = request.match_info["section"], request.match_info["name"]
        body = await _json(request)
        if not isinstance(body, dict):
            raise InvalidDocument([Problem((), "must be a JSON object")])
        for told in _TOLD.get(section, ()):
            body.pop(told, None)
        if body.setdefault("name", name) != name:
            raise InvalidDocument([Problem(("name",), f"must be {name!r}, as in the path, or be left out")])
        try:
            (change,) = await self._declare.apply({section: [body]})
        except InvalidDocument as error:
            raise InvalidDocument([Problem(path[2:], text) for path, text in error.problems]) from error
        declared = self._state.get(change.key)
        (shown,) = await self._shown([declared]) if declared is not None else ({},)
        return answer(shown, status=201 if change.change == "created" else 200)

    async def delete(self, request: web.Request) -> web.Response:
        noun = SECTIONS[request.match_info["section"]]
        removed = await self._declare.remove(noun, request.match_info["name"])
        return web.Response(status=204) if removed else self._absent(request)

    async def apply(self, request: web.Request) -> web.Response:
        """A whole document: all of it is declared, or with one problem nothing."""
        dry_run = _flag(known(request, "dry_run"), "dry_run")
        changes = await self._declare.apply(await _json(request), dry_run=dry_run)
        return answer({"items": [change.as_json() for change in changes], "next": None})

    async def logs(self, request: web.Request) -> web.Response:
        return await self._entries(known(request, *log_query.PARAMETERS))

    async def replica_tasks(self, request: web.Request) -> web.Response:
        """Its history: as `logs`, of this replica alone."""
        name = request.match_info["name"]
        if self._state.get(f"{Replica.noun}/{name}") is None:
            return self._not_declared(Replica.noun, name)
        asked = known(request, *(it for it in log_query.PARAMETERS if it not in ("rule", "replica")))
        return await self._entries({**asked, "replica": name})

    async def _entries(self, parameters: Mapping[str, str]) -> web.Response:
        query = log_query.parse(parameters, self._clock.now())
        page = self._unended(query) if query.asks_for_unended else await self._sync_log.read(query)
        return answer({"items": [entry_of(row) for row in page.rows], "next": log_query.cursor_of(page.next)})

    async def agents(self, request: web.Request) -> web.Response:
        """Those that live, with the state of the places that each of them uses."""
        known(request, "limit")
        shown = ("agent", "region", "rules_rev", "running", "places", "relay", "time")
        items = [
            {field: rfc3339(getattr(heartbeat, field)) for field in shown} | {"waiting": _waiting(heartbeat)}
            for heartbeat in sorted(self._running.agents(), key=lambda one: one.agent)
        ]
        return answer({"items": items, "next": None})

    async def explain(self, request: web.Request) -> web.Response:
        """Every rule of the instance, and what it says of a tag."""
        source = self._state.place(request.match_info["instance"])
        if source is None or source.is_replica:
            name = request.match_info["instance"]
            hint = name_hint("instance", name, (it.key for it in self._state.things()))
            return refuse(404, "not_found", f"no instance is named {clean(name, 80)!r}; {hint}")
        try:
            repository = Repository(request.match_info["repository"])
            tag = Tag(known(request, "tag").get("tag", ""))
        except ValueError as error:
            raise InvalidInput(clean(str(error))) from error
        found = explain(self._state, source, repository, tag)
        return answer({"items": [asdict(verdict) for verdict in found], "next": None})

    def _absent(self, request: web.Request) -> web.Response:
        return self._not_declared(SECTIONS[request.match_info["section"]], request.match_info["name"])

    def _not_declared(self, noun: str, name: str) -> web.Response:
        hint = name_hint(noun, name, (thing.key for thing in self._state.things()))
        return refuse(404, "not_found", f"{clean(f'{noun}/{name}', 200)} is not declared; {hint}")

    def _unended(self, query: LogQuery) -> Page:
        """What runs, and what is parked and does not run now."""
        running = self._running.tasks()
        ids = {task.task_id for task in running}
        waiting = [parked for parked in self._parked.all() if parked.task_id not in ids]
        rows = [row for row in map(row_of, [*running, *waiting]) if query.admits(row)]
        rows.sort(key=log_query.position, reverse=True)
        if query.after is not None:
            rows = [row for row in rows if log_query.position(row) < query.after]
        page = rows[: query.limit]
        return Page(page, log_query.position(page[-1]) if len(rows) > query.limit else None)

    async def _shown(self, things: Sequence[Declared]) -> list[dict[str, Any]]:
        has_replicas = any(isinstance(thing, Replica) for thing in things)
        statuses = await self._replicas.statuses() if has_replicas else {}
        heard = await self._heard([str(thing.name) for thing in things if isinstance(thing, Webhook)])
        return [
            thing.model_dump(mode="json") | self._told(thing, statuses) | heard.get(thing.key, {})
            for thing in things
        ]

    async def _heard(self, names: Collection[str]) -> dict[str, dict[str, Any]]:
        """How webhooks do, by key. Without the database it is not known, and what is declared is shown all the same."""
        try:
            found = await self._outbox.delivery_status(names) if names else {}
        except DatabaseUnavailable:
            return {f"{Webhook.noun}/{name}": dict.fromkeys(_TOLD["webhooks"]) for name in names}
        return {f"{Webhook.noun}/{name}": _delivery_status(one) for name, one in found.items()}

    def _told(self, thing: Declared, statuses: Mapping[str, ReplicaStatus]) -> dict[str, Any]:
        if isinstance(thing, RegionDeclaration):
            lives, told = self._running.of_region(thing.name)
            return {"agents": (len(told) if lives else 0) if self._running.knows(thing.name) else None}
        if isinstance(thing, Instance):
            return {
                "state": self._running.place_state(thing.place, thing.region),
                "position": self._state.position_of(thing.key),
            }
        status = statuses.get(str(thing.name)) if isinstance(thing, Replica) else None
        return {field: getattr(status, field) for field in _TOLD["replicas"]} if status is not None else {}


def _delivery_status(found: DeliveryStatus) -> dict[str, Any]:
    """`Failed: reason` is what `doctor` tells of; None as long as nothing was taken and little was tried."""
    state = "Ready" if found.delivered is not None else None
    failure = found.failure
    return {
        "state": f"Failed: {found.failing.reason}" if found.failing is not None else state,
        "waiting": found.waiting,
        "last_delivered": rfc3339(found.delivered),
        "last_failure": {"time": rfc3339(failure.time), "reason": failure.reason} if failure else None,
    }


def _waiting(heartbeat: Heartbeat) -> dict[str, Any]:
    return {place: one.model_dump(mode="json") for place, one in heartbeat.waiting.items()}


async def _json(request: web.Request) -> Any:
    raw = await request.clone(client_max_size=MAX_BODY).read()
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the body is not JSON: {error}") from error


def _flag(query: Mapping[str, str], name: str) -> bool:
    text = query.get(name, "false")
    if text not in ("true", "1", "false", "0"):
        raise InvalidInput(f"{name}: must be true or false")
    return text in ("true", "1")


def _key(request: web.Request) -> str:
    return f"{SECTIONS[request.match_info['section']]}/{request.match_info['name']}"
