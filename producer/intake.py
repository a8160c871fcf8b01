"""The page that runs the steps: one notification from its request to its answer."""

import asyncio
from collections.abc import Mapping

import orjson
import structlog
from aiohttp import web

from mesh.clock import Clock
from mesh.errors import LogError, LogUnavailable, clean
from mesh.log.dead_letters import send_to_dlq
from mesh.log.port import Log
from mesh.log.table import Table
from mesh.metrics import Metrics
from mesh.rules.state import MeshState
from producer.authenticate import FindsSecrets, Refusal, refusal
from producer.fence import Stamp, stamp
from producer.normalise import NORMALISE
from producer.normalise.outcome import Context, Normalised, Unreadable
from producer.publish import TagVersions, appends
from producer.receive import MAX_BODY, Body, describing, receive
from producer.refusals import Refusals
from schemas import topics
from schemas.topology import Instance

LOG = structlog.get_logger()

_RETRY_AFTER = {"Retry-After": "5"}  # seconds
_LONGEST_READ = (
    10.0  # seconds for a body to come in; registries give up after 1, and a stop may wait for this
)
_MOST_DEAD_LETTERS = 16  # of one envelope; more bad events than this are one bad envelope
_LARGE = 64 * 1024  # bytes that take long enough to read that other requests should not wait


class Intake:
    """Takes notifications. All its state is the log's and the table's, so any number of them run side by side."""

    def __init__(
        self,
        *,
        log: Log,
        state: MeshState,
        table: Table,
        secrets: FindsSecrets,
        clock: Clock,
        metrics: Metrics,
        name: str,
    ) -> None:
        """`name` is this process's, under which it tells what it refused."""
        self._log = log
        self._state = state
        self._table = table
        self._secrets = secrets
        self._clock = clock
        self._metrics = metrics
        self._next_version = TagVersions(clock)
        self._refusals = Refusals(name, log=log, state=state, clock=clock)

    def routes(self, app: web.Application) -> None:
        """Adds `POST /v1/notifications/{instance}`. The server's access log must not show query strings."""
        app.router.add_post("/v1/notifications/{instance}", self.handle)

    async def run(self) -> None:
        """Tell what was refused, for ever. Notifications are taken without it too."""
        await self._refusals.run()

    async def handle(self, request: web.Request) -> web.Response:
        """202 once everything is durable; 401, 403, 404 for an operator to repair; 503 to try again."""
        name = request.match_info["instance"]
        try:
            instance = await self._instance(name)
            if instance is None:
                return self._refuse(request, "unknown", _no_instance(name))
            if (refused := refusal(request, instance, self._secrets)) is not None:
                return self._refuse(request, instance.name, refused)
            async with asyncio.timeout(_LONGEST_READ):
                body = await receive(request.content)
            return await self._take(instance, body, describing(request.headers))
        except LogError as error:
            return self._unavailable(name, error)
        except (TimeoutError, web.RequestPayloadError):
            return _answer(408, {"error": "the body did not come in whole"})

    async def _instance(self, name: str) -> Instance | None:
        """Before saying that there is none, ask the log: it may have been declared a moment ago."""
        known = self._state.instance(name)
        if known is None and not (await stamp(self._table)).fresh:
            raise LogUnavailable("it cannot be told now whether there is such an instance")
        return known or self._state.instance(name)

    async def _take(self, instance: Instance, body: Body, headers: Mapping[str, str]) -> web.Response:
        began = self._clock.monotonic()
        if body.oversized:
            stamped, found = None, _oversized(body)
        else:
            stamped = await stamp(self._table)
            found = await self._normalise(instance, body.raw, headers, stamped)
        if records := appends(found.events, self._next_version):
            await self._log.append(records)
        dead_letters = await self._send_to_dlq(instance, body, found)
        self._metrics.intake_seconds.observe(self._clock.monotonic() - began)
        self._count(instance, found, stamped)
        self._refusals.taken(instance.name)
        return _answer(202, {"accepted": len(found.events), "dead_letters": dead_letters})

    async def _normalise(
        self, instance: Instance, raw: bytes, headers: Mapping[str, str], stamped: Stamp
    ) -> Normalised:
        normalise = NORMALISE[instance.kind]
        context = Context(instance, stamped.rules_rev, self._clock.now(), headers)
        if len(raw) > _LARGE:
            return await asyncio.to_thread(normalise, raw, context)
        return normalise(raw, context)

    async def _send_to_dlq(self, instance: Instance, body: Body, found: Normalised) -> int:
        unreadable = found.unreadable
        if len(unreadable) > _MOST_DEAD_LETTERS:
            reason = f"{len(unreadable)} events that cannot be read; the first: {unreadable[0].reason}"
            unreadable = (Unreadable(body.raw, reason),)
        for one in unreadable:
            await send_to_dlq(
                self._log,
                instance.region,
                raw=one.raw,
                reason=one.reason,
                position=f"notifications/{instance.name}",
                key=instance.place,
                clock=self._clock,
            )
            self._metrics.dead_letters.labels(topics.dead_letters(instance.region)).inc()
            LOG.warning(
                "notification unreadable",
                action="notification_unreadable",
                instance=instance.name,
                reason=one.reason,
            )
        return len(unreadable)

    def _count(self, instance: Instance, found: Normalised, stamped: Stamp | None) -> None:
        answer = "bad" if found.unreadable else "accepted"
        self._metrics.notifications.labels(instance.name, answer).inc()
        self._metrics.ignored_events.labels(instance.name).inc(found.ignored)
        for event in found.events:
            self._metrics.events.labels(instance.name, event.action.value).inc()
        if stamped is not None and not stamped.fresh:
            self._metrics.stale_stamps.inc(len(found.events))

    def _refuse(self, request: web.Request, label: str, refused: Refusal) -> web.Response:
        name = request.match_info["instance"]
        self._refusals.refused(name, refused.status, refused.message, request.remote)
        self._metrics.notifications.labels(label, "refused").inc()
        LOG.warning(
            "notification refused", action="notification_refused", instance=clean(name), status=refused.status
        )
        headers = {"WWW-Authenticate": "Bearer"} if refused.status == 401 else None
        return _answer(refused.status, {"error": refused.message}, headers)

    def _unavailable(self, name: str, error: LogError) -> web.Response:
        label = name if self._state.instance(name) is not None else "unknown"
        self._metrics.notifications.labels(label, "unavailable").inc()
        LOG.warning(
            "notification unavailable",
            action="notification_unavailable",
            instance=clean(name),
            error=str(error),
        )
        message = "the log is not available now; send it again"
        return _answer(503, {"error": message}, _RETRY_AFTER)


def _answer(
    status: int, content: Mapping[str, object], headers: Mapping[str, str] | None = None
) -> web.Response:
    return web.Response(
        status=status, body=orjson.dumps(content), content_type="application/json", headers=headers
    )


def _no_instance(name: str) -> Refusal:
    return Refusal(404, f"no instance is named {clean(name)!r}; declare it, or correct the endpoint's path")


def _oversized(body: Body) -> Normalised:
    reason = (
        f"{body.size} bytes is over the {MAX_BODY} that a notification may have; only its beginning is kept"
    )
    return Normalised(unreadable=(Unreadable(body.raw, reason),))
