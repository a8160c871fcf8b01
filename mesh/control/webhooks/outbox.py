"""The outbox of webhook deliveries, in the database: claimed for one attempt at a time, so they survive a restart."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, func, select, update

from mesh.control.settings import ControlSettings
from mesh.control.storage.database import Database
from mesh.control.storage.deletion import delete_in_pieces
from mesh.control.storage.tables import IS_FAILING, deliveries
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
_CHUNK = 2000  # deliveries that one transaction closes or deletes: others wait behind it


class Outbox:
    """Stores deliveries. Every method raises `DatabaseUnavailable` and may safely be called again after that."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def due_webhooks(self, now: datetime) -> Collection[str]:
        """Returns the names of the webhooks with due deliveries, whether or not they are still declared."""
        return await self._database.run(lambda connection: _due_webhooks(connection, now))

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
        closed = 0
        while (count := await self._database.run(lambda connection: _close(connection, webhook, now))) > 0:
            closed += count
        return closed

    async def delete_old(self, settings: ControlSettings, now: datetime) -> None:
        """Deletes deliveries that ended longer ago than the settings keep them."""
        retention = {
            DELIVERED: settings.webhook_retention,
            CLOSED: settings.webhook_retention,
            GIVEN_UP: settings.webhook_failure_retention,
        }
        for state, seconds in retention.items():
            expired = (deliveries.c.state == state) & (
                deliveries.c.ended_at < now - timedelta(seconds=seconds)
            )
            await delete_in_pieces(self._database, deliveries.c.id, expired)

    async def _record_attempt(
        self, delivery_id: str, error: str | None, now: datetime, **values: object
    ) -> None:
        if error is not None:  # after a success the last failure stays on record
            values |= {"last_error": error[:_ERROR_LENGTH], "failed_at": now}
        pending = (deliveries.c.id == delivery_id) & (deliveries.c.state == PENDING)
        recording = update(deliveries).where(pending).values(tries=deliveries.c.tries + 1, **values)
        await self._database.run(lambda connection: connection.execute(recording))


def _due_webhooks(connection: Connection, now: datetime) -> list[str]:
    column = deliveries.c
    first_due = select(func.min(column.next_try_at)).where(column.state == PENDING)
    firsts = {
        name: connection.execute(first_due.where(column.webhook == name)).scalar()
        for name in _pending_webhooks(connection)
    }
    return [name for name, first in firsts.items() if first is not None and first <= now]


def _pending_webhooks(connection: Connection) -> Iterator[str]:
    """Yields the webhooks with pending deliveries: the index leads from name to name, past any number of deliveries."""
    column = deliveries.c
    following = select(func.min(column.webhook)).where(column.state == PENDING)
    name = connection.execute(following).scalar()
    while name is not None:
        yield name
        name = connection.execute(following.where(column.webhook > name)).scalar()


def _failing(connection: Connection) -> dict[str, FailingDeliveries]:
    found = {name: _failing_of(connection, name) for name in _pending_webhooks(connection)}
    return {name: one for name, one in found.items() if one.count}


def _failing_of(connection: Connection, webhook: str) -> FailingDeliveries:
    """Counts by a partial index alone, and reads one row: that of the last failure."""
    column = deliveries.c
    failing = IS_FAILING & (column.webhook == webhook)
    last = select(column.last_error).where(failing).order_by(column.failed_at.desc()).limit(1)
    count = connection.execute(select(func.count()).select_from(deliveries).where(failing)).scalar_one()
    return FailingDeliveries(count, connection.execute(last).scalar() or "")


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


def _close(connection: Connection, webhook: str, now: datetime) -> int:
    column = deliveries.c
    some = select(column.id).where(column.webhook == webhook, column.state == PENDING).limit(_CHUNK)
    closing = update(deliveries).where(column.id.in_(some)).values(state=CLOSED, ended_at=now)
    return connection.execute(closing).rowcount
