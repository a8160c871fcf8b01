"""`/api/v1/{rules,regions,instances,replicas,grants,webhooks}` and `/api/v1/apply`: what is declared."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from aiohttp import web

from mesh.control.declarations.declare import Declare, InvalidDocument
from mesh.control.http.answers import answer, answer_list
from mesh.control.http.requests import flag, json_body, limit_of, not_declared, parameters
from mesh.control.settings import ControlSettings
from mesh.control.status.freshness import Freshness
from mesh.control.status.live_status import LiveStatus
from mesh.control.status.promises import FreshnessPromises
from mesh.control.status.replica_status import ReplicaStatus
from mesh.control.status.replicas import Replicas
from mesh.control.sync_log.entry import rfc3339
from mesh.control.webhooks.delivery import DeliveryStatus
from mesh.control.webhooks.outbox import Outbox
from mesh.errors import DatabaseUnavailable
from mesh.rules.problems import Problem
from mesh.rules.state import MeshState
from mesh.rules.validation.declarations import SECTIONS
from schemas.declared import Declared
from schemas.rules import Rule
from schemas.topology import Instance, RegionDeclaration, Replica
from schemas.webhooks import Webhook

_REPLICA_STATUS = ("state", "reason", "lag_seconds", "tasks_left", "bytes_left", "fill")
_FRESHNESS = ("oldest_push_seconds", "eta_seconds", "kept", "promise_missed")
# Fields that answers add to a declaration. PUT ignores them, so that what GET answered can be put back.
_STATUS_FIELDS = {
    "regions": ("agents",),
    "instances": ("state", "position"),
    "webhooks": ("state", "waiting", "last_delivered", "last_failure"),
    "replicas": (*_REPLICA_STATUS, *_FRESHNESS),
    "rules": ("tasks_left", *_FRESHNESS, "baseline"),
}


class DeclarationsResource:
    """Declared state with the status of what is declared."""

    def __init__(
        self,
        declare: Declare,
        *,
        state: MeshState,
        live_status: LiveStatus,
        replicas: Replicas,
        outbox: Outbox,
        settings: ControlSettings,
        promises: FreshnessPromises,
        baseline_of: Callable[[Rule], datetime | None],
    ) -> None:
        """`baseline_of` returns when it was noted what a rule without `backfill` does not copy."""
        self._max_document = settings.document_bytes
        self._declare, self._state, self._live_status = declare, state, live_status
        self._replicas, self._outbox, self._promises = replicas, outbox, promises
        self._baseline_of = baseline_of

    def add_routes(self, router: web.UrlDispatcher) -> None:
        section = f"/{{section:{'|'.join(SECTIONS)}}}"
        router.add_post("/apply", self.apply)
        router.add_get(section, self.index)
        router.add_get(section + "/{name}", self.get)
        router.add_put(section + "/{name}", self.put)
        router.add_delete(section + "/{name}", self.delete)

    async def index(self, request: web.Request) -> web.Response:
        """Answers a page of a section, by name."""
        query = parameters(request, "limit", "cursor")
        limit, noun = limit_of(query), SECTIONS[request.match_info["section"]]
        things = {thing.key: thing for thing in self._state.things() if thing.noun == noun}
        after = f"{noun}/{query.get('cursor', '')}"
        keys = sorted(key for key in things if key > after)
        items = await self._shown([things[key] for key in keys[:limit]])
        return answer_list(items, items[-1]["name"] if len(keys) > limit else None)

    async def get(self, request: web.Request) -> web.Response:
        """Answers one declaration."""
        noun, name = SECTIONS[request.match_info["section"]], request.match_info["name"]
        thing = self._state.get(f"{noun}/{name}")
        if thing is None:
            raise not_declared(noun, name, self._state)
        return answer((await self._shown([thing]))[0])

    async def put(self, request: web.Request) -> web.Response:
        """Declares what the path names: 201 when it is new, else 200. A body with another name is refused."""
        section, name = request.match_info["section"], request.match_info["name"]
        body = await json_body(request, self._max_document)
        if not isinstance(body, dict):
            raise InvalidDocument([Problem((), "must be a JSON object")])
        for field in _STATUS_FIELDS.get(section, ()):
            body.pop(field, None)
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
        """Deletes a declaration: 204."""
        noun, name = SECTIONS[request.match_info["section"]], request.match_info["name"]
        if not await self._declare.remove(noun, name):
            raise not_declared(noun, name, self._state)
        return web.Response(status=204)

    async def apply(self, request: web.Request) -> web.Response:
        """Declares a whole document; with a single problem in it nothing is declared."""
        dry_run = flag(parameters(request, "dry_run"), "dry_run")
        changes = await self._declare.apply(await json_body(request, self._max_document), dry_run=dry_run)
        return answer_list([change.as_json() for change in changes])

    async def _shown(self, things: Sequence[Declared]) -> list[dict[str, Any]]:
        has_replicas = any(isinstance(thing, Replica) for thing in things)
        replicas = await self._replicas.statuses() if has_replicas else {}
        fresh = self._promises.of(
            (str(thing.name) for thing in things if isinstance(thing, Rule | Replica)),
            listed_left={name: one.tasks_left for name, one in replicas.items()},
        )
        webhooks = await self._webhooks([str(thing.name) for thing in things if isinstance(thing, Webhook)])
        states = self._live_status.place_states(
            {thing.place: thing.region for thing in things if isinstance(thing, Instance)}
        )
        return [
            thing.model_dump(mode="json")
            | self._status(thing, states, replicas, fresh)
            | webhooks.get(thing.key, {})
            for thing in things
        ]

    async def _webhooks(self, names: Collection[str]) -> dict[str, dict[str, Any]]:
        """Returns the delivery status by key. Without the database it is null, and declarations are still shown."""
        try:
            found = await self._outbox.delivery_status(names) if names else {}
        except DatabaseUnavailable:
            return {f"{Webhook.noun}/{name}": dict.fromkeys(_STATUS_FIELDS["webhooks"]) for name in names}
        return {f"{Webhook.noun}/{name}": _delivery_status(one) for name, one in found.items()}

    def _status(
        self,
        thing: Declared,
        states: Mapping[str, str],
        replicas: Mapping[str, ReplicaStatus],
        fresh: Mapping[str, Freshness],
    ) -> dict[str, Any]:
        if isinstance(thing, RegionDeclaration):
            is_live, heartbeats = self._live_status.of_region(thing.name)
            agents = len(heartbeats) if is_live else 0
            return {"agents": agents if self._live_status.is_read(thing.name) else None}
        if isinstance(thing, Instance):
            return {
                "state": states.get(thing.place),
                "position": self._state.position_of(thing.key),
            }
        if isinstance(thing, Rule):
            fields = _fields(fresh.get(str(thing.name)), ("tasks_left", *_FRESHNESS))
            return fields | {"baseline": rfc3339(self._baseline_of(thing))}
        if isinstance(thing, Replica):
            name = str(thing.name)
            return _fields(replicas.get(name), _REPLICA_STATUS) | _fields(fresh.get(name), _FRESHNESS)
        return {}


def _fields(status: ReplicaStatus | Freshness | None, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(status, name) for name in names} if status is not None else {}


def _delivery_status(found: DeliveryStatus) -> dict[str, Any]:
    """`Failed: <reason>` is what `doctor` reports; the state is None before the first success."""
    healthy = "Ready" if found.delivered is not None else None
    failure = found.failure
    return {
        "state": f"Failed: {found.failing.reason}" if found.failing is not None else healthy,
        "waiting": found.waiting,
        "last_delivered": rfc3339(found.delivered),
        "last_failure": {"time": rfc3339(failure.time), "reason": failure.reason} if failure else None,
    }
