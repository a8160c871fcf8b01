"""The outbox: deliveries that wait, are taken for a try, and end. It survives what the process does not."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, delete, func, select, update

from mesh.control.storage.database import Database
from mesh.control.storage.tables import deliveries
from mesh.control.webhooks.signing import CLOSED, DELIVERED, GIVEN_UP, PENDING

_HELD_FOR = timedelta(seconds=60)  # by a try: if its process dies, another takes the delivery after this
_REMEMBERED = {DELIVERED: timedelta(days=7), CLOSED: timedelta(days=7), GIVEN_UP: timedelta(days=30)}
_LONGEST_ERROR = 300
_SEVERAL = 3  # tries, within seconds: once may be a receiver that starts again


@dataclass(frozen=True, slots=True)
class Delivery:
    id: str
    webhook: str
    body: str
    tries: int  # before this one
    created_at: datetime


@dataclass(frozen=True, slots=True)
class FailingDeliveries:
    """Deliveries that a receiver does not take: how many, and the reason of one of them."""

    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A try that was not taken, and why."""

    time: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class DeliveryStatus:
    """What a receiver hears: deliveries that wait, the last one it took, the last try it did not, and `Unheard`.

    Deliveries that were taken are remembered for a week, so what is older is None.
    """

    waiting: int
    delivered: datetime | None
    failure: Failure | None
    failing: FailingDeliveries | None


class Outbox:
    """Every method may raise `DatabaseUnavailable`; doing any of them again is harmless."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def waiting(self, now: datetime) -> Collection[str]:
        """The names of the webhooks that a delivery is due to, declared or not."""
        due = select(deliveries.c.webhook).where(_due(now)).distinct()
        return await self._database.run(lambda connection: connection.execute(due).scalars().all())

    async def failing(self) -> Mapping[str, FailingDeliveries]:
        """By webhook, what was tried several times and is tried again."""
        return await self._database.run(_failing)

    async def delivery_status(self, names: Collection[str]) -> Mapping[str, DeliveryStatus]:
        """Of these webhooks, by name."""
        return await self._database.run(lambda connection: _delivery_status(connection, names))

    async def take(self, webhook: str, most: int, now: datetime) -> Sequence[Delivery]:
        """The oldest due ones. No one else gets them until they are put back or 60 s have passed."""
        return await self._database.run(lambda connection: _take(connection, webhook, most, now))

    async def end(self, number: str, state: str, now: datetime, error: str | None = None) -> None:
        """One try more, and the last: delivered, or with an error given up."""
        await self._set(
            number, state=state, ended_at=now, tries=deliveries.c.tries + 1, **_failed(error, now)
        )

    async def postpone(self, number: str, until: datetime, error: str, now: datetime) -> None:
        """One try more, and not the last."""
        await self._set(number, next_try_at=until, tries=deliveries.c.tries + 1, **_failed(error, now))

    async def put_back(self, numbers: Collection[str], now: datetime) -> None:
        """As if never taken: the try was cut off by our own stop."""
        mine = deliveries.c.id.in_(list(numbers)) & (deliveries.c.state == PENDING)
        await self._database.run(
            lambda connection: connection.execute(update(deliveries).where(mine).values(next_try_at=now))
        )

    async def close_all(self, webhook: str, now: datetime) -> int:
        """Those to a webhook that is not declared any more; how many they were."""
        its = (deliveries.c.webhook == webhook) & (deliveries.c.state == PENDING)
        closing = update(deliveries).where(its).values(state=CLOSED, ended_at=now)
        return await self._database.run(lambda connection: connection.execute(closing).rowcount)

    async def forget(self, now: datetime) -> None:
        """What ended long ago."""
        await self._database.run(lambda connection: _forget(connection, now))

    async def _set(self, number: str, **values: object) -> None:
        mine = (deliveries.c.id == number) & (deliveries.c.state == PENDING)
        await self._database.run(
            lambda connection: connection.execute(update(deliveries).where(mine).values(**values))
        )


def _failing(connection: Connection) -> dict[str, FailingDeliveries]:
    column = deliveries.c
    often = (column.state == PENDING) & (column.tries >= _SEVERAL)
    counts = select(column.webhook, func.count(), func.max(column.last_error)).where(often)
    rows = connection.execute(counts.group_by(column.webhook)).all()
    return {webhook: FailingDeliveries(count, reason or "") for webhook, count, reason in rows}


def _delivery_status(connection: Connection, names: Collection[str]) -> dict[str, DeliveryStatus]:
    failing = _failing(connection)
    return {name: _delivery_status_of(connection, name, failing.get(name)) for name in names}


def _delivery_status_of(
    connection: Connection, name: str, failing: FailingDeliveries | None
) -> DeliveryStatus:
    """Each of it is one look into an index, however many deliveries there are."""
    column = deliveries.c
    its = column.webhook == name
    waiting = connection.execute(select(func.count()).where(its, column.state == PENDING)).scalar_one()
    taken = select(column.ended_at).where(its, column.state == DELIVERED).order_by(column.ended_at.desc())
    failed = select(column.failed_at, column.last_error).where(its, column.failed_at.is_not(None))
    last = connection.execute(failed.order_by(column.failed_at.desc()).limit(1)).first()
    return DeliveryStatus(
        waiting, connection.execute(taken.limit(1)).scalar(),
        Failure(last.failed_at, last.last_error) if last is not None else None, failing,
    )  # fmt: skip


def _due(now: datetime) -> ColumnElement[bool]:
    return (deliveries.c.state == PENDING) & (deliveries.c.next_try_at <= now)


def _take(connection: Connection, webhook: str, most: int, now: datetime) -> list[Delivery]:
    column = deliveries.c
    columns = (column.id, column.webhook, column.body, column.tries, column.created_at, column.next_try_at)
    due = select(*columns).where(column.webhook == webhook, _due(now))
    taken = []
    for *fields, next_try_at in connection.execute(due.order_by(column.next_try_at).limit(most)).all():
        found = Delivery(*fields)
        still = (column.id == found.id) & (column.next_try_at == next_try_at) & (column.state == PENDING)
        claim = update(deliveries).where(still).values(next_try_at=now + _HELD_FOR)
        if connection.execute(claim).rowcount == 1:  # else another control was faster
            taken.append(found)
    return taken


def _forget(connection: Connection, now: datetime) -> None:
    for state, remembered in _REMEMBERED.items():
        old = (deliveries.c.state == state) & (deliveries.c.ended_at < now - remembered)
        connection.execute(delete(deliveries).where(old))


def _failed(error: str | None, now: datetime) -> dict[str, object]:
    """Nothing where it was taken: why it was not before stays."""
    return {} if error is None else {"last_error": error[:_LONGEST_ERROR], "failed_at": now}
