"""Sends the deliveries of the outbox to their receivers; a slow webhook does not delay the others."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import aiohttp
import structlog

from mesh.concurrency import wait_for_event
from mesh.control.ports import ControlPorts
from mesh.control.settings import ControlSettings
from mesh.control.webhooks import signing
from mesh.control.webhooks.delivery import DELIVERED, GIVEN_UP, Delivery
from mesh.control.webhooks.outbox import Outbox
from mesh.credentials.secrets import Secrets
from mesh.errors import DatabaseUnavailable, InvalidInput, LogUnavailable, clean
from mesh.registry.egress import OPERATOR_NETWORKS, EgressRefused
from mesh.registry.sessions import guarded_session
from schemas.webhooks import Webhook

LOG = structlog.get_logger()

_POLL_INTERVAL = 0.5  # seconds; new deliveries wake the sender, polling finds those whose wait is over
_CLEANUP_INTERVAL = 3600.0  # seconds
_CATCH_UP_TIMEOUT, _CATCH_UP_RETRY = (
    30.0,
    5.0,
)  # seconds to read what is declared, and before the next attempt


class Deliver:
    """The sender. Several may share an outbox; a receiver may get a delivery twice, with the same id."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        ports: ControlPorts,
        secrets: Secrets,
        settings: ControlSettings,
        caught_up: Callable[[], Awaitable[None]],
    ) -> None:
        """`caught_up` returns when `state` has all that was declared before the call; it raises `LogUnavailable`."""
        self._outbox, self._ports, self._secrets, self._settings = outbox, ports, secrets, settings
        self._state, self._clock, self._caught_up = ports.state, ports.clock, caught_up
        self._backoff = settings.webhook_backoff
        self._in_progress: dict[str, str] = {}  # delivery id to webhook
        self._looked_up = set[str]()  # webhooks that seem to be deleted, while the log is asked
        self._wake = asyncio.Event()
        self._cleaned_up: float | None = None

    def wake(self) -> None:
        """Tells the sender that the outbox has new deliveries."""
        self._wake.set()

    async def run(self) -> None:
        """Sends deliveries until cancelled, and closes those of webhooks that are no longer declared."""
        retry = self._ports.retry_loop("deliver")
        async with (
            guarded_session(OPERATOR_NETWORKS) as session,
            self._releasing_claims(),
            asyncio.TaskGroup() as tasks,
        ):
            while True:
                self._wake.clear()
                try:
                    await self._start_due(session, tasks)
                    await self._clean_up()
                    retry.reset()
                except DatabaseUnavailable as error:
                    await retry.wait(error)
                await wait_for_event(self._wake, self._clock, _POLL_INTERVAL)

    async def _start_due(self, session: aiohttp.ClientSession, tasks: asyncio.TaskGroup) -> None:
        busy = Counter(self._in_progress.values())
        for name in await self._outbox.due_webhooks(self._clock.now()):
            hook = self._state.get(f"webhook/{name}")
            if not isinstance(hook, Webhook):
                if name not in self._looked_up:
                    self._looked_up.add(name)
                    tasks.create_task(self._close_if_deleted(name), name=f"look up webhook {name}")
            elif (free := self._settings.webhook_concurrency - busy[name]) > 0:
                for found in await self._outbox.claim(name, free, self._clock.now()):
                    if found.id not in self._in_progress:
                        self._in_progress[found.id] = name
                        tasks.create_task(self._attempt(session, hook, found), name=f"deliver {found.id}")

    async def _close_if_deleted(self, name: str) -> None:
        """Asks the log first: another control that shares the outbox may have declared the webhook just now."""
        try:
            async with asyncio.timeout(_CATCH_UP_TIMEOUT):
                await self._caught_up()
            if self._state.get(f"webhook/{name}") is None:
                closed = await self._outbox.close_all(name, self._clock.now())
                LOG.info(
                    "deliveries closed: their webhook is deleted", action="webhook_closed", webhook=name,
                    deliveries=closed,
                )  # fmt: skip
        except (TimeoutError, LogUnavailable, DatabaseUnavailable) as error:
            LOG.warning(
                "deliveries wait: the log does not answer whether their webhook is declared",
                action="webhook_unknown", webhook=name, error=str(error),
            )  # fmt: skip
            await self._clock.sleep(_CATCH_UP_RETRY)
        finally:
            self._looked_up.discard(name)

    async def _attempt(self, session: aiohttp.ClientSession, hook: Webhook, found: Delivery) -> None:
        try:
            await self._record(hook, found, await self._send(session, hook, found))
        except DatabaseUnavailable as error:
            LOG.warning(
                "the outcome of a delivery was not stored; it is sent again", action="webhook_unrecorded",
                webhook=hook.name, delivery=found.id, error=str(error),
            )  # fmt: skip
        # Not reached when this task is cancelled: the delivery then stays among those to release.
        del self._in_progress[found.id]
        self._wake.set()

    async def _send(self, session: aiohttp.ClientSession, hook: Webhook, found: Delivery) -> str | None:
        """Makes one attempt. Returns None when the receiver accepted it, and otherwise the reason."""
        try:
            secret = None if hook.secret is None else self._secrets.get_for(hook.secret, hook.url)
            headers = signing.headers(found.id, found.body, secret, self._clock.now())
        except InvalidInput as error:
            LOG.error(  # noqa: TRY400  # the message says what to do; a traceback adds nothing
                "a webhook cannot be signed", action="webhook_secret", webhook=hook.name, error=str(error)
            )
            return str(error)
        try:
            async with session.post(
                hook.url, data=found.body.encode(), headers=headers, allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=self._settings.webhook_timeout),
            ) as response:  # fmt: skip
                return _refusal(response.status)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return _reason(error)

    async def _record(self, hook: Webhook, found: Delivery, failure: str | None) -> None:
        now = self._clock.now()
        wait = timedelta(seconds=self._backoff.wait(found.attempts + 1, self._ports.random))
        if failure is None:
            outcome = "delivered"
            await self._outbox.end(found.id, DELIVERED, now)
        elif now + wait - found.created_at > timedelta(seconds=self._settings.webhook_give_up_after):
            outcome = "given_up"
            await self._outbox.end(found.id, GIVEN_UP, now, failure)
        else:
            outcome = "retried"
            await self._outbox.postpone(found.id, now + wait, failure, now)
        self._ports.metrics.webhook_deliveries.labels(hook.name, outcome).inc()
        log = LOG.error if outcome == "given_up" else LOG.info
        log(
            f"webhook {outcome}", action=f"webhook_{outcome}", webhook=hook.name, delivery=found.id,
            attempts=found.attempts + 1, failure=failure,
        )  # fmt: skip

    async def _clean_up(self) -> None:
        now = self._clock.monotonic()
        if self._cleaned_up is None or now - self._cleaned_up > _CLEANUP_INTERVAL:
            self._cleaned_up = now
            await self._outbox.delete_old(self._settings, self._clock.now())

    @asynccontextmanager
    async def _releasing_claims(self) -> AsyncIterator[None]:
        """Releases claimed deliveries at a clean stop, so that the next process need not wait for their expiry."""
        try:
            yield
        finally:
            try:
                await self._outbox.release(self._in_progress.keys(), self._clock.now())
            except DatabaseUnavailable as error:
                LOG.warning(
                    "deliveries stay claimed for a minute", action="webhook_not_released", error=str(error)
                )
            self._in_progress.clear()


def _refusal(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    return f"answered {status}" + ("; redirects are not followed" if 300 <= status < 400 else "")


def _reason(error: Exception) -> str:
    """Leaves out the error's text: it may hold the URL, and the path of a webhook's URL is often a secret."""
    if isinstance(error, TimeoutError):
        return "did not answer in time"
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, EgressRefused):
        return "its address is not on a public or private network, so nothing is sent there"
    return clean(f"{type(error).__name__} {getattr(error, 'strerror', None) or ''}")
