"""The outbox of webhook deliveries, in the database: claimed for one attempt at a time, so they survive a restart."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, delete, func, select, update

from mesh.control.settings import ControlSettings
from mesh.control.storage.database import Database
from mesh.control.storage.tables import deliveries
from mesh.control.webhooks.delivery import (
    CLOSED,
    DELIVERED,
    GIVEN_UP,
    PENDING,
    Delivery,
    DeliveryFailure,
    DeliveryStatus,
    FailingDeliveries,
)

_CLAIM = timedelta(
    seconds=60
)  # if the process dies during the attempt, another one claims the delivery after this
_ERROR_LENGTH = 300
_FAILING_ATTEMPTS = 3  # made within seconds; a single failure may be a receiver that restarts


class Outbox:
    """Stores deliveries. Every method raises `DatabaseUnavailable` and may safely be called again after that."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def due_webhooks(self, now: datetime) -> Collection[str]:
        """Returns the names of the webhooks with due deliveries, whether or not they are still declared."""
        due = select(deliveries.c.webhook).where(_due(now)).distinct()
        return await self._database.run(lambda connection: connection.execute(due).scalars().all())

    async def failing(self) -> Mapping[str, FailingDeliveries]:
        """Returns, by webhook, the deliveries that failed several times and are still retried."""
        return await self._database.run(_failing)

    async def delivery_status(self, names: Collection[str]) -> Mapping[str, DeliveryStatus]:
        """Returns the delivery status of these webhooks, by name."""
        return await self._database.run(lambda connection: _delivery_statuses(connection, names))

    async def claim(self, webhook: str, limit: int, now: datetime) -> Sequence[Delivery]:
        """Claims the oldest due deliveries of a webhook: no other process gets them for 60 seconds."""
        return await self._database.run(lambda connection: _claim(connection, webhook, limit, now))

    async def end(self, delivery_id: str, state: str, now: datetime, error: str | None = None) -> None:
        """Records the last attempt of a delivery, which is `DELIVERED`, or `GIVEN_UP` with an error."""
        await self._record_attempt(delivery_id, error, now, state=state, ended_at=now)

    async def postpone(self, delivery_id: str, until: datetime, error: str, now: datetime) -> None:
        """Records a failed attempt that is retried at `until`."""
        await self._record_attempt(delivery_id, error, now, next_try_at=until)

    async def release(self, delivery_ids: Collection[str], now: datetime) -> None:
        """Releases claimed deliveries whose attempt was interrupted by our own shutdown."""
        claimed = deliveries.c.id.in_(list(delivery_ids)) & (deliveries.c.state == PENDING)
        releasing = update(deliveries).where(claimed).values(next_try_at=now)
        await self._database.run(lambda connection: connection.execute(releasing))

    async def close_all(self, webhook: str, now: datetime) -> int:
        """Closes the pending deliveries of a webhook that is no longer declared, and returns their number."""
        pending = (deliveries.c.webhook == webhook) & (deliveries.c.state == PENDING)
        closing = update(deliveries).where(pending).values(state=CLOSED, ended_at=now)
        return await self._database.run(lambda connection: connection.execute(closing).rowcount)

    async def delete_old(self, settings: ControlSettings, now: datetime) -> None:
        """Deletes deliveries that ended longer ago than the settings keep them."""
        retention = {
            DELIVERED: settings.webhook_retention,
            CLOSED: settings.webhook_retention,
            GIVEN_UP: settings.webhook_failure_retention,
        }
        oldest = {state: now - timedelta(seconds=seconds) for state, seconds in retention.items()}
        await self._database.run(lambda connection: _delete_old(connection, oldest))

    async def _record_attempt(
        self, delivery_id: str, error: str | None, now: datetime, **values: object
    ) -> None:
        if error is not None:  # after a success the last failure stays on record
            values |= {"last_error": error[:_ERROR_LENGTH], "failed_at": now}
        pending = (deliveries.c.id == delivery_id) & (deliveries.c.state == PENDING)
        recording = update(deliveries).where(pending).values(tries=deliveries.c.tries + 1, **values)
        await self._database.run(lambda connection: connection.execute(recording))


def _failing(connection: Connection) -> dict[str, FailingDeliveries]:
    column = deliveries.c
    failed = (column.state == PENDING) & (column.tries >= _FAILING_ATTEMPTS)
    counts = select(column.webhook, func.count(), func.max(column.last_error)).where(failed)
    rows = connection.execute(counts.group_by(column.webhook)).all()
    return {webhook: FailingDeliveries(count, reason or "") for webhook, count, reason in rows}


def _delivery_statuses(connection: Connection, names: Collection[str]) -> dict[str, DeliveryStatus]:
    failing = _failing(connection)
    return {name: _delivery_status(connection, name, failing.get(name)) for name in names}


def _delivery_status(connection: Connection, name: str, failing: FailingDeliveries | None) -> DeliveryStatus:
    """Each query is one index lookup, however many deliveries there are."""
    column = deliveries.c
    of_webhook = column.webhook == name
    waiting = select(func.count()).where(of_webhook, column.state == PENDING)
    delivered = select(column.ended_at).where(of_webhook, column.state == DELIVERED)
    failed = select(column.failed_at, column.last_error).where(of_webhook, column.failed_at.is_not(None))
    last = connection.execute(failed.order_by(column.failed_at.desc()).limit(1)).first()
    return DeliveryStatus(
        waiting=connection.execute(waiting).scalar_one(),
        delivered=connection.execute(delivered.order_by(column.ended_at.desc()).limit(1)).scalar(),
        failure=DeliveryFailure(last.failed_at, last.last_error) if last is not None else None,
        failing=failing,
    )


def _due(now: datetime) -> ColumnElement[bool]:
    return (deliveries.c.state == PENDING) & (deliveries.c.next_try_at <= now)


def _claim(connection: Connection, webhook: str, limit: int, now: datetime) -> list[Delivery]:
    column = deliveries.c
    columns = (column.id, column.webhook, column.body, column.tries, column.created_at, column.next_try_at)
    due = select(*columns).where(column.webhook == webhook, _due(now))
    claimed = []
    for *fields, next_try_at in connection.execute(due.order_by(column.next_try_at).limit(limit)).all():
        found = Delivery(*fields)
        unclaimed = (column.id == found.id) & (column.next_try_at == next_try_at) & (column.state == PENDING)
        claim = update(deliveries).where(unclaimed).values(next_try_at=now + _CLAIM)
        if connection.execute(claim).rowcount == 1:  # otherwise another control claimed it first
            claimed.append(found)
    return claimed


def _delete_old(connection: Connection, oldest: Mapping[str, datetime]) -> None:
    for state, time in oldest.items():
        old = (deliveries.c.state == state) & (deliveries.c.ended_at < time)
        connection.execute(delete(deliveries).where(old))
