"""Declared state is written here and nowhere else: judged whole, then appended to `mesh.state`, then waited for.

One writer at a time in this process; before judging, it reads what another process may have written.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import structlog

from mesh.clock import Clock
from mesh.errors import DatabaseUnavailable, InvalidInput, LogError, LogUnavailable
from mesh.log.port import Append, Log
from mesh.log.table import Table
from mesh.rules import consent, declaration_order
from mesh.rules.problems import Problem
from mesh.rules.state import MeshState
from mesh.rules.validation.declarations import check_removal, judge
from schemas import codec, topics
from schemas.declared import Declared, Noun
from schemas.envelope import make_id
from schemas.state import KINDS, StateRecord
from schemas.topology import Instance, RegionDeclaration, Replica

LOG = structlog.get_logger()

_LONGEST_WAIT = 30.0  # seconds for our own table to come as far as the log


class InvalidDocument(InvalidInput):
    """Nothing was declared; `problems` are all that is wrong."""

    code = "invalid_document"

    def __init__(self, problems: Sequence[Problem]) -> None:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{first.where or 'the document'}: {first.message}{more}")
        self.problems = problems


class StillUsed(InvalidInput):
    code = "still_used"


@dataclass(frozen=True, slots=True)
class Change:
    key: str
    change: Literal["created", "changed", "unchanged"]
    rev: int | None  # by which it holds; None in a dry run for what would be written
    note: str | None = None  # what whoever declares it should know, though it is right
    fields: tuple[str, ...] = ()  # those that are others than before

    def as_json(self) -> dict[str, Any]:
        return {
            field: value
            for field, value in asdict(self).items()
            if field not in ("note", "fields") or value not in (None, ())
        }


class Declare:
    """Every method raises `LogError` when the log does not take it; what of it landed then is harmless to repeat."""

    def __init__(
        self,
        *,
        log: Log,
        state: MeshState,
        table: Table,
        clock: Clock,
        emptied: Callable[[str], Awaitable[None]],
    ) -> None:
        """`emptied` is told of a place of which nothing is known any more: another registry may stand there now."""
        self._log, self._state, self._table, self._clock = log, state, table, clock
        self._emptied = emptied
        self._writing = asyncio.Lock()

    async def apply(self, document: object, *, dry_run: bool = False) -> list[Change]:
        """Declare what is new or changed in a document; what it does not name stays. `InvalidDocument`."""
        async with self._writing, self._own_table_waits():
            await self._table.caught_up()
            placed, problems = judge(document, self._state.things())
            if problems:
                raise InvalidDocument(problems)
            things = sorted((item.thing for item in placed), key=_order)
            if not dry_run:
                await self._make_topics(things)
            return await self._write(things, dry_run=dry_run)

    async def remove(self, noun: Noun, name: str) -> bool:
        """Declare it no more; False when it was not declared. `StillUsed` when something else names it."""
        key = f"{noun}/{name}"
        async with self._writing, self._own_table_waits():
            await self._table.caught_up()
            if self._state.get(key) is None:
                return False
            if (reason := check_removal(key, self._state.things())) is not None:
                raise StillUsed(reason)
            (rev,) = await self._log.append([Append(topics.STATE, key, None)])
            await self._table.wait_for(rev)
            LOG.info("declared no more", action="declaration_removed", key=key, rev=rev)
            if noun == Replica.noun:
                await self._forget([name])
            return True

    async def _write(self, things: Sequence[Declared], *, dry_run: bool) -> list[Change]:
        positions = self._positions(things)
        changes = {thing.key: self._change(thing, positions.get(thing.key)) for thing in things}
        fields = {thing.key: self._fields(thing, positions.get(thing.key)) for thing in things}
        fresh = [thing for thing in things if changes[thing.key] != "unchanged"]
        revs: dict[str, int | None] = {thing.key: None for thing in fresh}
        if fresh and not dry_run:
            moved = [thing.key.partition("/")[2] for thing in fresh if self._has_moved(thing)]
            offsets = await self._log.append(
                [self._record(thing, positions.get(thing.key)) for thing in fresh]
            )
            revs = dict(zip(revs, offsets, strict=True))
            await self._table.wait_for(max(offsets))
            for key, rev in revs.items():
                LOG.info("declared", action=f"declaration_{changes[key]}", key=key, rev=rev)
            await self._forget(moved)
        everything = {thing.key: thing for thing in (*self._state.things(), *things)}
        return [
            Change(
                key,
                change,
                revs.get(key, self._state.rev),
                consent.note(everything[key], everything),
                fields[key],
            )
            for key, change in changes.items()
        ]

    def _has_moved(self, thing: Declared) -> bool:
        """A replica in another registry: it will be filled anew. What is known of an instance stays."""
        before = self._state.get(thing.key)
        return isinstance(thing, Replica) and isinstance(before, Replica) and before.url != thing.url

    async def _forget(self, replicas: Iterable[str]) -> None:
        for name in replicas:
            try:
                await self._emptied(name)
            except DatabaseUnavailable as error:
                LOG.warning(
                    "it is shown longer what a replica held", action="replica_not_forgotten", replica=name,
                    error=str(error),
                )  # fmt: skip

    def _positions(self, things: Sequence[Declared]) -> dict[str, int]:
        """Of the instances among them, which are in the order of the document."""
        before = {it.key: self._state.position_of(it.key) for it in self._state.instances()}
        known = {key: position for key, position in before.items() if position is not None}
        return declaration_order.positions(
            [thing.key for thing in things if isinstance(thing, Instance)], known
        )

    def _change(self, thing: Declared, position: int | None) -> Literal["created", "changed", "unchanged"]:
        before = self._state.get(thing.key)
        if before is None:
            return "created"
        moved = position is not None and position != self._state.position_of(thing.key)
        return "changed" if before != thing or moved else "unchanged"

    def _fields(self, thing: Declared, position: int | None) -> tuple[str, ...]:
        """Those declared otherwise than before; none of what is new. `position`: of an instance in the list."""
        before = self._state.get(thing.key)
        if before is None:
            return ()
        names = type(thing).model_fields
        found = [name for name in names if getattr(thing, name) != getattr(before, name)]
        moved = position is not None and position != self._state.position_of(thing.key)
        return (*found, "position") if moved else tuple(found)

    def _record(self, thing: Declared, position: int | None) -> Append:
        now = self._clock.now()
        value = thing.model_dump(mode="json")
        record = StateRecord(
            id=make_id("state", thing.key, now.isoformat()), time=now, noun=thing.noun, value=value, position=position
        )  # fmt: skip
        return Append(topics.STATE, thing.key, codec.encode(record))

    async def _make_topics(self, things: Iterable[Declared]) -> None:
        """A region's topics stand before anyone hears of the region."""
        regions = [thing for thing in things if isinstance(thing, RegionDeclaration)]
        new = [region.name for region in regions if self._state.get(region.key) is None]
        if not new:
            return
        if missing := await self._log.missing(topics.all_topics(new)):
            try:
                await self._log.ensure(missing)
            except LogUnavailable:
                raise
            except LogError as error:
                raise LogError(f"{error}; run `regmesh topics create`, then apply again") from error

    @asynccontextmanager
    async def _own_table_waits(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_LONGEST_WAIT):
                yield
        except TimeoutError as error:
            raise LogUnavailable(
                f"what is declared could not be read back within {_LONGEST_WAIT:.0f} s; apply it again"
            ) from error


def _order(thing: Declared) -> int:
    """Regions, instances, grants, rules, webhooks: whoever reads on the way meets no name that is not there yet."""
    return list(KINDS).index(thing.noun)
