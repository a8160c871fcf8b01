"""Image locations in the database. Every step may be repeated, and run by several controls at once."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from mesh.control.images.merge import TagDeleted, TagEntry, TagKey, TagNews, merge, referrers_of, seen_by
from mesh.control.storage.database import Database
from mesh.control.storage.tables import image_referrers, images, sync_log
from mesh.errors import DatabaseUnavailable
from schemas.completions import Completion, Status
from schemas.events import Cause

RepositoryAt = tuple[str, str]  # place and repository
Subject = tuple[str, str, str]  # place, repository and the digest that referrers name

P = TypeVar("P")

_MAX_VALUES = 500  # in one statement
# Built once: building it costs more than running it, and it runs for each tag that changes.
_UPDATE = update(images).where(
    images.c.place == bindparam("its_place"),
    images.c.repository == bindparam("its_repository"),
    images.c.tag == bindparam("its_tag"),
    images.c.tag_version == bindparam("its_version"),
    images.c.since == bindparam("its_since"),
)


class Images:
    """Every method raises `DatabaseUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, news: Sequence[tuple[TagKey, TagNews]]) -> None:
        """Stores news of tags, in their order."""
        if news:
            await self._database.run(lambda connection: _take(connection, news))

    async def take_completions(self, ends: Sequence[Completion]) -> None:
        """Stores what ended tasks saw of tags, and the referrers that they left at their destinations."""
        await self._database.run(lambda connection: _take_completions(connection, ends))

    async def delete_undeclared(self, declared: Collection[str], oldest: datetime) -> None:
        """Deletes all places but the declared ones, and tags that were deleted before `oldest`."""
        await self._database.run(lambda connection: _delete_undeclared(connection, declared, oldest))

    async def delete_place(self, place: str) -> None:
        """Deletes all that is known of a place."""
        await self._database.run(lambda connection: _delete_place(connection, place))

    async def tags(self, at: Collection[RepositoryAt], after: str, limit: int) -> Sequence[str]:
        """Returns tags that any of these repositories holds, in the order of names."""
        column = images.c
        wanted = select(column.tag).where(_any_of(at), column.digest.is_not(None), column.tag > after)
        wanted = wanted.distinct().order_by(column.tag).limit(limit)
        return await self._database.run(lambda connection: connection.execute(wanted).scalars().all())

    async def entries(self, at: Collection[RepositoryAt], tags: Collection[str]) -> Mapping[TagKey, TagEntry]:
        """Returns what these repositories hold under these tags."""
        wanted = select(images).where(_any_of(at), images.c.tag.in_(tags), images.c.digest.is_not(None))
        return await self._database.run(lambda connection: _read(connection, wanted))

    async def count_referrers(self, subjects: Collection[Subject]) -> Mapping[Subject, int]:
        """Returns how many referrers of each subject are known."""
        return await self._database.run(lambda connection: _count_referrers(connection, subjects))

    async def rebuilt_from(self, repository: str, digests: Collection[str]) -> Mapping[str, Collection[str]]:
        """Returns, by digest of a rebuilt index, the digests of the indexes that it was made from."""
        return await self._database.run(lambda connection: _rebuilt_from(connection, repository, digests))


def _count_referrers(connection: Connection, wanted: Collection[Subject]) -> dict[Subject, int]:
    column = image_referrers.c
    found = {}
    for (place, repository), subjects in _by_repository(wanted):
        mine = (column.place == place) & (column.repository == repository) & column.subject.in_(subjects)
        counts = select(column.subject, func.count()).where(mine).group_by(column.subject)
        for subject, count in connection.execute(counts):
            found[place, repository, subject] = int(count)
    return found


def _rebuilt_from(connection: Connection, repository: str, digests: Collection[str]) -> dict[str, set[str]]:
    column = sync_log.c
    found: dict[str, set[str]] = {}
    for some in _pieces(sorted(digests)):
        # `coalesce` hides the repository from the planner: few entries have the digest, many the repository.
        name = func.coalesce(column.repository, "")
        mine = (name == repository) & column.digest.in_(some) & column.rebuilt_from.is_not(None)
        wanted = select(column.digest, column.rebuilt_from).where(mine).distinct()
        for digest, original in connection.execute(wanted):
            found.setdefault(digest, set()).add(original)
    return found


def _by_repository(names: Iterable[tuple[str, str, str]]) -> Iterator[tuple[RepositoryAt, Sequence[str]]]:
    """Groups names by place and repository: for a list of tuples SQLite would scan the whole table."""
    for at, some in groupby(sorted(names), key=lambda name: name[:2]):
        for piece in _pieces([last for *_, last in some]):
            yield at, piece


def _pieces(items: Sequence[P]) -> Iterator[Sequence[P]]:
    return (items[at : at + _MAX_VALUES] for at in range(0, len(items), _MAX_VALUES))


def _any_of(at: Collection[RepositoryAt]) -> ColumnElement[bool]:
    column = images.c
    return or_(*(and_(column.place == place, column.repository == name) for place, name in sorted(at)))


def _read(connection: Connection, wanted: Any) -> dict[TagKey, TagEntry]:
    return {
        TagKey(row["place"], row["repository"], row["tag"]): TagEntry(
            row["digest"], row["since"], Cause(row["written_by"]), row["tag_version"], _seen_at(row)
        )
        for row in connection.execute(wanted).mappings()
    }


def _seen_at(row: RowMapping) -> datetime | None:
    """Rows of older versions lack the time: what an agent wrote was seen when it arrived."""
    was_seen = row["seen_at"] is None and row["written_by"] == Cause.ARRIVAL.value
    seen_at: datetime | None = row["since"] if was_seen else row["seen_at"]
    return seen_at


def _take(connection: Connection, news: Sequence[tuple[TagKey, TagNews]]) -> None:
    keys = sorted({key for key, _ in news})
    stored: dict[TagKey, TagEntry] = {}
    for at, tags in _by_repository(keys):
        stored |= _read(connection, select(images).where(_any_of([at]), images.c.tag.in_(tags)))
    known = dict[TagKey, TagEntry | None](stored)
    for key, one in news:
        known[key] = merge(known.get(key), one)
    for key in keys:  # in order, so that two writers do not deadlock
        after = known[key]
        if after is not None and after != stored.get(key):
            _write(connection, key, stored.get(key), after)


def _write(connection: Connection, key: TagKey, before: TagEntry | None, after: TagEntry) -> None:
    values = {
        "digest": after.digest,
        "since": after.since,
        "written_by": after.written_by.value,
        "tag_version": after.version,
        "seen_at": after.seen_at,
    }
    if before is None:
        connection.execute(insert(images), {**key._asdict(), **values})
        return
    where = {"its_place": key.place, "its_repository": key.repository, "its_tag": key.tag}
    unchanged = {"its_version": before.version, "its_since": before.since}
    if connection.execute(_UPDATE, {**where, **unchanged, **values}).rowcount != 1:
        raise DatabaseUnavailable("another control wrote the same tag at the same time; it is written again")


def _take_completions(connection: Connection, ends: Sequence[Completion]) -> None:
    for news in _pieces([found for end in ends for found in seen_by(end)]):
        _take(connection, news)
    for end in ends:
        if end.operation == "delete" and end.status is Status.SUCCEED and end.tag is None:
            _delete_referrers(connection, end)
            _delete_tags(connection, end)
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


def _delete_referrers(connection: Connection, end: Completion) -> None:
    """A deleted manifest has no referrers any more, and refers to nothing."""
    column, digest = image_referrers.c, str(end.digest)
    here = and_(
        column.place == str(end.destination_place), column.repository == str(end.destination_repository)
    )
    connection.execute(
        delete(image_referrers).where(here, or_(column.subject == digest, column.referrer == digest))
    )


def _delete_tags(connection: Connection, end: Completion) -> None:
    """All tags of a deleted manifest are deleted; the source was asked after the task started and lacks them too."""
    column = images.c
    for place, repository, time in (
        (end.source_place, end.repository, end.start_time),
        (end.destination_place, end.destination_repository, end.end_time),
    ):
        here = _any_of([(str(place), str(repository))])
        named = select(images).where(here, column.digest == str(end.digest), column.since <= time)
        for key, before in sorted(_read(connection, named).items()):
            after = merge(before, TagDeleted(time))
            if after is not None:
                _write(connection, key, before, after)


def _delete_place(connection: Connection, place: str) -> None:
    for table in (images, image_referrers):
        connection.execute(delete(table).where(table.c.place == place))


def _delete_undeclared(connection: Connection, declared: Collection[str], oldest: datetime) -> None:
    for table in (images, image_referrers):
        connection.execute(delete(table).where(table.c.place.not_in(sorted(declared))))
    connection.execute(delete(images).where(images.c.digest.is_(None), images.c.since < oldest))
