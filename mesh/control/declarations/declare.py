"""Writes declared state, and is the only writer: validates a whole document, appends it to `mesh.state`, waits for it.

Within a process one document is written at a time. Before validating, what other processes wrote is read.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime

import structlog

from mesh.concurrency import in_turns
from mesh.control.declarations.changes import Change, compare
from mesh.control.ports import ControlPorts
from mesh.errors import DatabaseUnavailable, InvalidInput, LogError, LogUnavailable
from mesh.log.port import Append
from mesh.log.table import Table
from mesh.rules import consent, declaration_order
from mesh.rules.problems import Problem
from mesh.rules.validation.declarations import check_removal, judge
from schemas import codec, topics
from schemas.declared import Declared, Noun
from schemas.envelope import make_id
from schemas.state import KINDS, FirstDeclared, StateRecord
from schemas.topology import Instance, RegionDeclaration, Replica

LOG = structlog.get_logger()

_READ_BACK_TIMEOUT = 30.0  # seconds

Positions = Mapping[str, int]  # of instances, by key


class InvalidDocument(InvalidInput):
    """Nothing was declared. `problems` lists all that is wrong with the document."""

    code = "invalid_document"

    def __init__(self, problems: Sequence[Problem]) -> None:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{first.where or 'the document'}: {first.message}{more}")
        self.problems = problems


class StillUsed(InvalidInput):
    """Other declarations name what was to be deleted."""

    code = "still_used"


class Declare:
    """The writer. After `LogError` a part may have been written; applying the document again is harmless."""

    def __init__(
        self, ports: ControlPorts, table: Table, *, on_emptied: Callable[[str], Awaitable[None]]
    ) -> None:
        """Appends to the log of `ports`, and reads back through `table`.

        Args:
            ports: The log, the declared state and time.
            table: Follows `mesh.state` into the declared state.
            on_emptied: Called with each replica that was deleted or has another registry now. It may raise
                `DatabaseUnavailable`.
        """
        self._log, self._state, self._clock = ports.log, ports.state, ports.clock
        self._table, self._on_emptied = table, on_emptied
        self._writing = asyncio.Lock()

    async def apply(self, document: object, *, dry_run: bool = False) -> list[Change]:
        """Declares what is new or changed in a document; what it does not name stays.

        Raises:
            InvalidDocument: The document is wrong, and nothing was declared.
            LogError: The log did not accept it.
        """
        async with self._writing:
            await self._in_time(self._table.caught_up())
            # In a thread, since 10,000 rules take seconds: the loop goes on meanwhile.
            placed, problems = await asyncio.to_thread(judge, document, self._state.things())
            if problems:
                raise InvalidDocument(problems)
            things = sorted((item.thing for item in placed), key=_order)
            if not dry_run:
                await self._ensure_topics(things)
            return await self._write(things, dry_run=dry_run)

    async def remove(self, noun: Noun, name: str) -> bool:
        """Deletes a declaration; False when there is none.

        Raises:
            StillUsed: Another declaration names it.
            LogError: The log did not accept it.
        """
        key = f"{noun}/{name}"
        async with self._writing:
            await self._in_time(self._table.caught_up())
            if self._state.get(key) is None:
                return False
            if (reason := check_removal(key, self._state.things())) is not None:
                raise StillUsed(reason)
            (rev,) = await self._log.append([Append(topics.STATE, key, None)])
            await self._in_time(self._table.wait_for(rev))
            LOG.info("declaration deleted", action="declaration_removed", key=key, rev=rev)
            if noun == Replica.noun:
                await self._report_emptied([name])
            return True

    async def _write(self, things: Sequence[Declared], *, dry_run: bool) -> list[Change]:
        positions = self._positions(things)
        compared = {
            thing.key: compare(
                self._state.get(thing.key), thing, is_moved=self._is_moved(thing.key, positions)
            )
            async for thing in in_turns(things)
        }
        changed = [thing for thing in things if compared[thing.key][0] != "unchanged"]
        revs: dict[str, int | None] = {thing.key: None for thing in changed}
        if changed and not dry_run:
            revs |= await self._append(changed, positions)
            for key, rev in revs.items():
                LOG.info("declared", action=f"declaration_{compared[key][0]}", key=key, rev=rev)
        declared = {thing.key: thing for thing in (*self._state.things(), *things)}
        return [
            Change(key, change, revs.get(key, self._state.rev), consent.note(declared[key], declared), fields)
            async for key, (change, fields) in in_turns(compared.items())
        ]

    async def _append(self, changed: Sequence[Declared], positions: Positions) -> Mapping[str, int]:
        emptied = [thing.key.partition("/")[2] for thing in changed if self._has_other_registry(thing)]
        records = [self._record(thing, positions.get(thing.key)) async for thing in in_turns(changed)]
        offsets = await self._log.append(records)
        await self._in_time(self._table.wait_for(max(offsets)))
        await self._report_emptied(emptied)
        return {thing.key: offset for thing, offset in zip(changed, offsets, strict=True)}

    def _has_other_registry(self, thing: Declared) -> bool:
        """Only a replica is emptied by that: it is filled again. What is known of an instance stays."""
        before = self._state.get(thing.key)
        return isinstance(thing, Replica) and isinstance(before, Replica) and before.url != thing.url

    async def _report_emptied(self, replicas: Iterable[str]) -> None:
        for name in replicas:
            try:
                await self._on_emptied(name)
            except DatabaseUnavailable as error:
                LOG.warning(
                    "the database does not answer; what the replica held is shown for longer",
                    action="replica_not_forgotten", replica=name, error=str(error),
                )  # fmt: skip

    def _positions(self, things: Sequence[Declared]) -> Positions:
        """Returns the positions of the instances, which are in the order of the document."""
        before = {it.key: self._state.position_of(it.key) for it in self._state.instances()}
        known = {key: position for key, position in before.items() if position is not None}
        instances = [thing.key for thing in things if isinstance(thing, Instance)]
        return declaration_order.positions(instances, known)

    def _is_moved(self, key: str, positions: Positions) -> bool:
        return key in positions and positions[key] != self._state.position_of(key)

    def _record(self, thing: Declared, position: int | None) -> Append:
        now = self._clock.now()
        value = thing.model_dump(mode="json")
        record = StateRecord(
            id=make_id("state", thing.key, now.isoformat()), time=now, noun=thing.noun, value=value, position=position,
            first=self._first(thing, now),
        )  # fmt: skip
        return Append(topics.STATE, thing.key, codec.encode(record))

    def _first(self, thing: Declared, now: datetime) -> FirstDeclared | None:
        """None for what an earlier version declared: nobody knows since when it is there."""
        if self._state.get(thing.key) is not None:
            return self._state.first_declared(thing.key)
        return FirstDeclared(after_rev=self._state.rev, time=now)

    async def _ensure_topics(self, things: Iterable[Declared]) -> None:
        """The topics of a region exist before the region is declared."""
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

    async def _in_time(self, read_back: Awaitable[None]) -> None:
        """Waits for the log alone: judging a large document takes as long as it takes."""
        try:
            async with asyncio.timeout(_READ_BACK_TIMEOUT):
                await read_back
        except TimeoutError as error:
            raise LogUnavailable(
                f"what is declared could not be read back within {_READ_BACK_TIMEOUT:.0f} s; apply it again"
            ) from error


def _order(thing: Declared) -> int:
    """Regions come first, then instances, grants, rules and webhooks, so that readers know each name they meet."""
    return list(KINDS).index(thing.noun)
