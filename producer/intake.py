"""The intake runs the steps of one notification, from its request to its answer."""

import asyncio
from collections.abc import Callable, Mapping

import orjson
import structlog
from aiohttp import web

from mesh.clock import Clock
from mesh.errors import LogError, LogUnavailable, clean
from mesh.log.dead_letters import send_to_dlq
from mesh.log.port import RecordWriter
from mesh.log.table import Table
from mesh.metrics import Metrics
from mesh.rules.state import MeshState
from producer.authenticate import ErrorAnswer, SecretStore, authenticate
from producer.known_instances import KnownInstances
from producer.normalise import NORMALISE
from producer.normalise.outcome import Context, Normalised, Unreadable
from producer.publish import TagVersions, records_of
from producer.receive import Body, descriptive_headers, receive
from producer.refusals import RefusalReporter
from producer.registry_processes import RegistryProcesses
from producer.rules_revision import RulesRevision, read_rules_revision
from producer.settings import ProducerSettings
from schemas import topics
from schemas.topology import Instance

LOG = structlog.get_logger()

_RETRY_AFTER = {"Retry-After": "5"}  # seconds
_MAX_DEAD_LETTERS = 16  # of one envelope; with more unreadable events the envelope as a whole is unreadable
_LARGE = 64 * 1024  # bytes; parsing more takes so long that it moves to a thread


class Intake:
    """Accepts notifications. It keeps no state of its own, so any number of intakes run side by side."""

    def __init__(
        self,
        *,
        log: RecordWriter,
        state: MeshState,
        table: Table,
        secrets: SecretStore,
        clock: Clock,
        metrics: Metrics,
        name: str,
        settings: ProducerSettings | None = None,
        is_log_away: Callable[[], bool] = lambda: False,
        known: KnownInstances | None = None,
    ) -> None:
        """Takes the ports of an intake.

        Args:
            log: The log, or a spool in front of it.
            state: The declared state.
            table: What fills it from the log.
            secrets: The secrets that senders give.
            clock: The time.
            metrics: The metrics of the process.
            name: The name of this process, under which refusals are reported.
            settings: The limits.
            is_log_away: Returns whether the log does not answer now, so that it is asked for nothing.
            known: The instances; by default those that `state` has.
        """
        self._log = log
        self._state = state
        self._table = table
        self._secrets = secrets
        self._clock = clock
        self._metrics = metrics
        self._settings = settings or ProducerSettings()
        self._is_log_away = is_log_away
        self._known = known or KnownInstances(None, state, table, clock)
        self._next_version = TagVersions(clock)
        self._processes = RegistryProcesses(clock)
        self._refusals = RefusalReporter(
            name, log=log, state=state, clock=clock, interval=self._settings.refusal_report_interval
        )

    def routes(self, app: web.Application) -> None:
        """Adds `POST /v1/notifications/{instance}`. The server's access log must not show query strings."""
        app.router.add_post("/v1/notifications/{instance}", self.handle)

    async def run(self) -> None:
        """Reports refusals and saves the instances until cancelled. Notifications are accepted without it too."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._refusals.run())
            tasks.create_task(self._known.run())

    def not_ready(self) -> list[str]:
        """Returns why no notification can be accepted now, if so."""
        if self._table.ready or self._known.are_from_file:
            return []
        return ["the declared state has not been read to its end yet"]

    async def handle(self, request: web.Request) -> web.Response:
        """Answers 202 once everything is durable; 401, 403 or 404 when an operator has to act; 503 to try again."""
        name = request.match_info["instance"]
        try:
            instance = await self._instance(name)
            if instance is None:
                return self._refuse(request, "unknown", _no_instance(name))
            if (refused := authenticate(request, instance, self._secrets)) is not None:
                return self._refuse(request, instance.name, refused)
            async with asyncio.timeout(self._settings.body_timeout):
                body = await receive(request.content, self._settings.max_body_bytes)
            return await self._accept(instance, body, descriptive_headers(request.headers))
        except LogError as error:
            return self._unavailable(name, error)
        except (TimeoutError, web.RequestPayloadError):
            return _answer(408, {"error": "the body did not arrive completely"})

    async def _instance(self, name: str) -> Instance | None:
        """Finds an instance; asks the log before answering None, as it may have been declared a moment ago."""
        known = self._known.get(name)
        if known is None and not (await self._rules_revision()).current:
            raise LogUnavailable("the log does not say now whether this instance is declared")
        return known or self._known.get(name)

    async def _rules_revision(self) -> RulesRevision:
        if self._is_log_away():
            return RulesRevision(self._table.rev, current=False)
        return await read_rules_revision(self._table, self._settings.rules_revision_timeout)

    async def _accept(self, instance: Instance, body: Body, headers: Mapping[str, str]) -> web.Response:
        started = self._clock.monotonic()
        if body.oversized:
            revision, found = None, self._oversized(body)
        else:
            revision = await self._rules_revision()
            context = Context(instance, revision.rev, self._clock.now(), headers)
            found = await _normalise(body.raw, context)
        process_records = self._processes.records_of(instance, found.process)
        if records := [*records_of(found.events, self._next_version), *process_records]:
            await self._log.append(records)
        if process_records and found.process is not None:
            self._processes.note_written(instance, found.process)
        dead_letters = await self._send_to_dlq(instance, body, found)
        self._metrics.intake_seconds.observe(self._clock.monotonic() - started)
        self._count(instance, found, revision)
        self._refusals.note_accepted(instance.name)
        return _answer(202, {"accepted": len(found.events), "dead_letters": dead_letters})

    async def _send_to_dlq(self, instance: Instance, body: Body, found: Normalised) -> int:
        unreadable = found.unreadable
        if len(unreadable) > _MAX_DEAD_LETTERS:
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

    def _oversized(self, body: Body) -> Normalised:
        limit = self._settings.max_body_bytes
        reason = f"a body of {body.size} bytes exceeds the limit of {limit}; only its beginning is kept"
        return Normalised(unreadable=(Unreadable(body.raw, reason),))

    def _count(self, instance: Instance, found: Normalised, revision: RulesRevision | None) -> None:
        answer = "bad" if found.unreadable else "accepted"
        self._metrics.notifications.labels(instance.name, answer).inc()
        self._metrics.ignored_events.labels(instance.name).inc(found.ignored)
        for event in found.events:
            self._metrics.events.labels(instance.name, event.action.value).inc()
        if revision is not None and not revision.current:
            self._metrics.stale_stamps.inc(len(found.events))

    def _refuse(self, request: web.Request, label: str, refused: ErrorAnswer) -> web.Response:
        name = request.match_info["instance"]
        self._refusals.count_refused(name, refused.status, refused.message, request.remote)
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


async def _normalise(raw: bytes, context: Context) -> Normalised:
    normalise = NORMALISE[context.instance.kind]
    if len(raw) > _LARGE:
        return await asyncio.to_thread(normalise, raw, context)
    return normalise(raw, context)


def _answer(
    status: int, content: Mapping[str, object], headers: Mapping[str, str] | None = None
) -> web.Response:
    return web.Response(
        status=status, body=orjson.dumps(content), content_type="application/json", headers=headers
    )


def _no_instance(name: str) -> ErrorAnswer:
    return ErrorAnswer(
        404, f"no instance is named {clean(name)!r}; declare it, or correct the endpoint's path"
    )
