"""Image locations as control's database keeps them. Every step may be done again, and by several controls at once."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, func, insert, or_, select, update

from mesh.control.images.merge import Gone, Held, Key, Proven, merge, proven_by, referrers_of
from mesh.control.storage.database import Database
from mesh.control.storage.tables import image_referrers, images, sync_log
from mesh.errors import DatabaseUnavailable
from schemas.completions import Completion, Status
from schemas.events import Cause

Holder = tuple[str, str]  # place and repository
Subject = tuple[str, str, str]  # place, repository and the digest that others are about

P = TypeVar("P")

_AT_ONCE = 500
# Made once: it runs for each tag of each pass, and to make it costs more than to run it.
_UPDATE = update(images).where(
    images.c.place == bindparam("its_place"),
    images.c.repository == bindparam("its_repository"),
    images.c.tag == bindparam("its_tag"),
    images.c.tag_version == bindparam("its_version"),
    images.c.since == bindparam("its_since"),
)
_GONE_FOR = timedelta(days=1)  # kept so long after a tag went


class Images:
    """Every method raises `DatabaseUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, news: Sequence[tuple[Key, Held | Gone | Proven]]) -> None:
        """Take over what was told of tags, in its order."""
        if news:
            await self._database.run(lambda connection: _take(connection, news))

    async def ended(self, ends: Sequence[Completion]) -> None:
        """Take over what ends of tasks tell of their source, and of what is about an image at their destination."""
        await self._database.run(lambda connection: _ended(connection, ends))

    async def forget(self, places: Collection[str], now: datetime) -> None:
        """Places that are not declared any more, and tags that went long ago."""
        await self._database.run(lambda connection: _forget(connection, places, now))

    async def forget_place(self, place: str) -> None:
        """All that is known of it."""
        await self._database.run(lambda connection: _forget_place(connection, place))

    async def tags(self, holders: Collection[Holder], after: str, limit: int) -> Sequence[str]:
        """Those that any of these holds now, by name."""
        column = images.c
        wanted = select(column.tag).where(_of(holders), column.digest.is_not(None), column.tag > after)
        wanted = wanted.distinct().order_by(column.tag).limit(limit)
        return await self._database.run(lambda connection: connection.execute(wanted).scalars().all())

    async def held(self, holders: Collection[Holder], tags: Collection[str]) -> Mapping[Key, Held]:
        """What they hold under these tags now."""
        wanted = select(images).where(_of(holders), images.c.tag.in_(tags), images.c.digest.is_not(None))
        return await self._database.run(lambda connection: _read(connection, wanted))

    async def referrers(self, about: Collection[Subject]) -> Mapping[Subject, int]:
        """How many are known of each."""
        return await self._database.run(lambda connection: _count(connection, about))

    async def made_from(self, repository: str, digests: Collection[str]) -> Mapping[str, Collection[str]]:
        """Of indexes that were made of parts of others: the digests of those."""
        return await self._database.run(lambda connection: _made_from(connection, repository, digests))


def _count(connection: Connection, about: Collection[Subject]) -> dict[Subject, int]:
    column = image_referrers.c
    found = {}
    for (place, repository), subjects in _by_repository(about):
        mine = (column.place == place) & (column.repository == repository) & column.subject.in_(subjects)
        wanted = select(column.subject, func.count()).where(mine).group_by(column.subject)
        for subject, count in connection.execute(wanted):
            found[place, repository, subject] = int(count)
    return found


def _made_from(connection: Connection, repository: str, digests: Collection[str]) -> dict[str, set[str]]:
    column = sync_log.c
    found: dict[str, set[str]] = {}
    for some in _pieces(sorted(digests)):
        # By the digests, of which few entries are: of the repository there may be any number.
        name = func.coalesce(column.repository, "")
        mine = (name == repository) & column.digest.in_(some) & column.rebuilt_from.is_not(None)
        for digest, original in connection.execute(
            select(column.digest, column.rebuilt_from).where(mine).distinct()
        ):
            found.setdefault(digest, set()).add(original)
    return found


def _by_repository(names: Iterable[tuple[str, str, str]]) -> Iterator[tuple[Holder, Sequence[str]]]:
    """Place and repository with the third part of each: asked for as tuples SQLite would go through the whole table."""
    for holder, some in groupby(sorted(names), key=lambda name: name[:2]):
        for piece in _pieces([last for *_, last in some]):
            yield holder, piece


def _pieces(items: Sequence[P]) -> Iterator[Sequence[P]]:
    """A statement takes so many values and no more."""
    return (items[at : at + _AT_ONCE] for at in range(0, len(items), _AT_ONCE))


def _of(holders: Collection[Holder]) -> ColumnElement[bool]:
    column = images.c
    return or_(*(and_(column.place == place, column.repository == name) for place, name in sorted(holders)))


def _read(connection: Connection, wanted: Any) -> dict[Key, Held]:
    return {
        Key(row["place"], row["repository"], row["tag"]): Held(
            row["digest"], row["since"], Cause(row["written_by"]), row["tag_version"]
        )
        for row in connection.execute(wanted).mappings()
    }


def _take(connection: Connection, news: Iterable[tuple[Key, Held | Gone | Proven]]) -> None:
    news = list(news)
    keys = sorted({key for key, _ in news})
    stored: dict[Key, Held] = {}
    for holder, tags in _by_repository(keys):
        stored |= _read(connection, select(images).where(_of([holder]), images.c.tag.in_(tags)))
    known = dict[Key, Held | None](stored)
    for key, one in news:
        known[key] = merge(known.get(key), one)
    for key in keys:  # in order: two writers must not wait for each other in a circle
        after = known[key]
        if after is not None and after != stored.get(key):
            _write(connection, key, stored.get(key), after)


def _write(connection: Connection, key: Key, before: Held | None, after: Held) -> None:
    values = {
        "digest": after.digest,
        "since": after.since,
        "written_by": after.written_by.value,
        "tag_version": after.version,
    }
    if before is None:
        connection.execute(insert(images), {**key._asdict(), **values})
        return
    where = {"its_place": key.place, "its_repository": key.repository, "its_tag": key.tag}
    unchanged = {"its_version": before.version, "its_since": before.since}
    if connection.execute(_UPDATE, {**where, **unchanged, **values}).rowcount != 1:
        raise DatabaseUnavailable("another control wrote the same tag just now; it is tried again")


def _ended(connection: Connection, ends: Sequence[Completion]) -> None:
    for proven in _pieces([found for end in ends for found in proven_by(end)]):
        _take(connection, proven)
    for end in ends:
        if end.operation == "delete" and end.status is Status.SUCCEED and end.tag is None:
            _remove(connection, end)
            _untag(connection, end)
    wanted = {
        (str(end.destination_place), str(end.destination_repository), subject, referrer)
        for end in ends
        for subject, referrer in referrers_of(end)
    }
    for some in _pieces(sorted(wanted)):
        _add_referrers(connection, some)


def _add_referrers(connection: Connection, wanted: Sequence[tuple[str, str, str, str]]) -> None:
    column, names = image_referrers.c, image_referrers.c.keys()
    there: set[tuple[str, ...]] = set()
    for (place, repository), subjects in _by_repository({row[:3] for row in wanted}):
        mine = (column.place == place) & (column.repository == repository) & column.subject.in_(subjects)
        there |= {tuple(row) for row in connection.execute(select(*image_referrers.c).where(mine))}
    if rows := [dict(zip(names, row, strict=True)) for row in wanted if row not in there]:
        connection.execute(insert(image_referrers), rows)


def _remove(connection: Connection, end: Completion) -> None:
    """A manifest went from the destination: with it what was known to be about it, and that it was about something."""
    column, digest = image_referrers.c, str(end.digest)
    here = and_(
        column.place == str(end.destination_place), column.repository == str(end.destination_repository)
    )
    connection.execute(
        delete(image_referrers).where(here, or_(column.subject == digest, column.referrer == digest))
    )


def _untag(connection: Connection, end: Completion) -> None:
    """With a manifest all its tags went. Its source was asked after the task began, and did not have it any more."""
    column = images.c
    for place, repository, time in (
        (end.source_place, end.repository, end.start_time),
        (end.destination_place, end.destination_repository, end.end_time),
    ):
        here = _of([(str(place), str(repository))])
        named = select(images).where(here, column.digest == str(end.digest), column.since <= time)
        for key, before in sorted(_read(connection, named).items()):
            after = merge(before, Gone(time))
            if after is not None:
                _write(connection, key, before, after)


def _forget_place(connection: Connection, place: str) -> None:
    for table in (images, image_referrers):
        connection.execute(delete(table).where(table.c.place == place))


def _forget(connection: Connection, places: Collection[str], now: datetime) -> None:
    declared = sorted(places)
    for table in (images, image_referrers):
        connection.execute(delete(table).where(table.c.place.not_in(declared)))
    long_gone = images.c.digest.is_(None) & (images.c.since < now - _GONE_FOR)
    connection.execute(delete(images).where(long_gone))
