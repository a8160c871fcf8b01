"""Deliveries out of the outbox and to their receivers, each webhook at its own pace."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import aiohttp
import structlog

from mesh.clock import Clock
from mesh.control.patience import Patience, first_of
from mesh.control.webhooks import signing
from mesh.control.webhooks.outbox import Delivery, Outbox
from mesh.credentials.secrets import Secrets
from mesh.errors import DatabaseUnavailable, InvalidInput, LogUnavailable, clean
from mesh.metrics import Metrics
from mesh.rules.state import MeshState
from schemas.webhooks import Webhook

LOG = structlog.get_logger()

_LOOK_EVERY = 0.5  # seconds; what is new wakes us at once, this is for those whose wait is over
_TIDY_EVERY = 3600.0
_LONGEST_LOOK, _LOOK_AGAIN = (
    30.0,
    5.0,
)  # seconds for the log to tell what is declared, and until it is asked again


class Deliver:
    """The sender. Any number of them may share an outbox; a receiver may see a delivery twice, with the same id."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        state: MeshState,
        secrets: Secrets,
        clock: Clock,
        metrics: Metrics,
        random: Callable[[], float],
        tries: signing.RetryPolicy,
        caught_up: Callable[[], Awaitable[None]],
    ) -> None:
        """`caught_up` returns when all that was declared before it was called is in `state`; `LogUnavailable`."""
        self._outbox, self._state, self._secrets = outbox, state, secrets
        self._clock, self._metrics, self._random = clock, metrics, random
        self._tries, self._caught_up = tries, caught_up
        self._running: dict[str, str] = {}  # of tries that run: delivery id and webhook
        self._asked_about = set[str]()  # webhooks that seem to be gone
        self._bell = asyncio.Event()
        self._tidied: float | None = None

    def wake(self) -> None:
        """There is something new in the outbox."""
        self._bell.set()

    async def run(self) -> None:
        """For ever. What goes to a webhook that is not declared is closed."""
        patience = Patience("deliver", self._clock, self._random)
        async with _session() as session, self._putting_back(), asyncio.TaskGroup() as tasks:
            while True:
                self._bell.clear()
                try:
                    await self._start_due(session, tasks)
                    await self._tidy()
                    patience.relax()
                except DatabaseUnavailable as error:
                    await patience.wait(error)
                await first_of(self._bell, self._clock, _LOOK_EVERY)

    async def _start_due(self, session: aiohttp.ClientSession, tasks: asyncio.TaskGroup) -> None:
        busy = Counter(self._running.values())
        for name in await self._outbox.waiting(self._clock.now()):
            hook = self._state.get(f"webhook/{name}")
            if not isinstance(hook, Webhook):
                if name not in self._asked_about:
                    self._asked_about.add(name)
                    tasks.create_task(self._close_if_gone(name), name=f"webhook {name} is gone")
            elif (free := self._tries.at_once - busy[name]) > 0:
                for found in await self._outbox.take(name, free, self._clock.now()):
                    if found.id not in self._running:
                        self._running[found.id] = name
                        tasks.create_task(self._try(session, hook, found), name=f"deliver {found.id}")

    async def _close_if_gone(self, name: str) -> None:
        """Another control, that shares the outbox, may know of a webhook that we have not read of yet."""
        try:
            async with asyncio.timeout(_LONGEST_LOOK):
                await self._caught_up()
            if self._state.get(f"webhook/{name}") is None:
                await self._close_all(name)
        except (TimeoutError, LogUnavailable, DatabaseUnavailable) as error:
            LOG.warning(
                "deliveries wait: nobody can tell whether their webhook is declared", action="webhook_unknown",
                webhook=name, error=str(error),
            )  # fmt: skip
            await self._clock.sleep(_LOOK_AGAIN)
        finally:
            self._asked_about.discard(name)

    async def _close_all(self, name: str) -> None:
        closed = await self._outbox.close_all(name, self._clock.now())
        LOG.info(
            "deliveries closed: their webhook is gone",
            action="webhook_closed",
            webhook=name,
            deliveries=closed,
        )

    async def _try(self, session: aiohttp.ClientSession, hook: Webhook, found: Delivery) -> None:
        try:
            await self._record(hook, found, await self._send(session, hook, found))
        except DatabaseUnavailable as error:
            LOG.warning(
                "a delivery's outcome was not written; it is sent again", action="webhook_unrecorded",
                webhook=hook.name, delivery=found.id, error=str(error),
            )  # fmt: skip
        # Not reached when we are cut off: then it is still among those to be put back.
        del self._running[found.id]
        self._bell.set()

    async def _send(self, session: aiohttp.ClientSession, hook: Webhook, found: Delivery) -> str | None:
        """None when it was taken, else why not."""
        try:
            secret = None if hook.secret is None else self._secrets.get(hook.secret)
            headers = signing.headers(found.id, found.body, secret, self._clock.now())
        except InvalidInput as error:
            LOG.error(  # noqa: TRY400  # the traceback tells nothing that the operator could act on
                "a webhook cannot sign", action="webhook_secret", webhook=hook.name, error=str(error)
            )
            return str(error)
        try:
            async with session.post(
                hook.url, data=found.body.encode(), headers=headers, allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=self._tries.timeout),
            ) as response:  # fmt: skip
                return _refusal(response.status)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return _told(error)

    async def _record(self, hook: Webhook, found: Delivery, failure: str | None) -> None:
        now = self._clock.now()
        wait = self._tries.wait_after(found.tries + 1, self._random)
        if failure is None:
            outcome = "delivered"
            await self._outbox.end(found.id, signing.DELIVERED, now)
        elif now + wait - found.created_at > timedelta(seconds=self._tries.give_up_after):
            outcome = "given_up"
            await self._outbox.end(found.id, signing.GIVEN_UP, now, failure)
        else:
            outcome = "retried"
            await self._outbox.postpone(found.id, now + wait, failure, now)
        self._metrics.webhook_deliveries.labels(hook.name, outcome).inc()
        log = LOG.error if outcome == "given_up" else LOG.info
        log(
            f"webhook {outcome}", action=f"webhook_{outcome}", webhook=hook.name, delivery=found.id,
            tries=found.tries + 1, failure=failure,
        )  # fmt: skip

    async def _tidy(self) -> None:
        now = self._clock.monotonic()
        if self._tidied is None or now - self._tidied > _TIDY_EVERY:
            self._tidied = now
            await self._outbox.forget(self._clock.now())

    @asynccontextmanager
    async def _putting_back(self) -> AsyncIterator[None]:
        """A clean stop gives back what it holds, so that the next process need not wait until that is free."""
        try:
            yield
        finally:
            try:
                await self._outbox.put_back(self._running.keys(), self._clock.now())
            except DatabaseUnavailable as error:
                LOG.warning("deliveries wait a minute longer", action="webhook_put_back", error=str(error))
            self._running.clear()


def _session() -> aiohttp.ClientSession:
    # How many run at once is bounded for each webhook: a common bound would let the slow ones stop the others.
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
    )


def _refusal(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    return f"answered {status}" + ("; redirects are not followed" if 300 <= status < 400 else "")


def _told(error: Exception) -> str:
    """Never the error's whole text: it may hold the URL, and the path of a webhook's URL is often a secret."""
    if isinstance(error, TimeoutError):
        return "did not answer in time"
    return clean(f"{type(error).__name__} {getattr(error, 'strerror', None) or ''}")
