"""Everything declared, as this node has applied it from `mesh.state`."""

from collections import defaultdict
from collections.abc import Iterable

from mesh.rules.index import RuleIndex
from mesh.rules.matching import CompiledRule
from schemas.codec import decode
from schemas.declared import Declared
from schemas.names import PlaceName, Region, Repository
from schemas.rules import Rule
from schemas.state import StateRecord
from schemas.topology import Instance, RegionDeclaration
from schemas.webhooks import Webhook


class MeshState:
    """A mutable view that one table feeds, record by record; readers see it whole between two records.

    `rev` is the offset of the last record applied, -1 before the first.
    """

    def __init__(self) -> None:
        self.rev = -1
        self.changes = 0  # grows with every change: a cheap way to see that something is new
        self._things: dict[str, Declared] = {}
        self._revs: dict[str, int] = {}
        self._rules_of: dict[str, RuleIndex] = defaultdict(RuleIndex)  # by place

    def apply(self, key: str, value: bytes | None, rev: int) -> None:
        """Take one record over; `DecodeError` or `ValidationError` when this code cannot read it."""
        thing = None if value is None else decode(value, StateRecord).thing
        compiled = CompiledRule(thing) if isinstance(thing, Rule) else None
        before = self._things.pop(key, None)
        self._revs[key] = rev
        if isinstance(before, Rule):
            self._rules_of[before.source].discard(before.name)
        if thing is not None:
            self._things[key] = thing
        if compiled is not None:
            self._rules_of[compiled.rule.source].add(compiled)
        self.rev = max(self.rev, rev)
        self.changes += 1

    def get(self, key: str) -> Declared | None:
        return self._things.get(key)

    def rev_of(self, key: str) -> int:
        """The revision by which a thing holds as it is; -1 when it was never declared."""
        return self._revs.get(key, -1)

    def things(self) -> Iterable[Declared]:
        return tuple(self._things.values())

    def region(self, name: Region) -> RegionDeclaration | None:
        found = self._things.get(f"region/{name}")
        return found if isinstance(found, RegionDeclaration) else None

    def regions(self) -> list[RegionDeclaration]:
        return [thing for thing in self._things.values() if isinstance(thing, RegionDeclaration)]

    def instance(self, name: str) -> Instance | None:
        found = self._things.get(f"instance/{name}")
        return found if isinstance(found, Instance) else None

    def instances(self) -> list[Instance]:
        return [thing for thing in self._things.values() if isinstance(thing, Instance)]

    def webhooks(self) -> list[Webhook]:
        return [thing for thing in self._things.values() if isinstance(thing, Webhook)]

    def rules(self) -> list[Rule]:
        return [thing for thing in self._things.values() if isinstance(thing, Rule)]

    def rule(self, name: str) -> CompiledRule | None:
        found = self._things.get(f"rule/{name}")
        return self._rules_of[found.source][found.name] if isinstance(found, Rule) else None

    def rules_from(self, place: PlaceName) -> Iterable[CompiledRule]:
        """The rules whose source is this place, enabled or not."""
        found = self._rules_of.get(place)
        return found.all() if found is not None else ()

    def rules_near(self, place: PlaceName, repository: Repository) -> Iterable[CompiledRule]:
        """Of these the ones that may want the repository: all that do, and few others."""
        found = self._rules_of.get(place)
        return found.near(repository) if found is not None else ()
