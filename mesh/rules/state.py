"""Everything declared, as this node has applied it from `mesh.state`."""

from collections import defaultdict
from collections.abc import Iterable

from mesh.rules.matching.compiled_rule import CompiledRule
from mesh.rules.matching.rule_index import RuleIndex
from schemas.codec import decode
from schemas.declared import Declared
from schemas.names import PlaceName, Region, Repository, Tag
from schemas.rules import ReplicaRule, Rule
from schemas.state import StateRecord
from schemas.topology import Instance, Place, RegionDeclaration, Replica
from schemas.webhooks import Webhook

_LAST = 2**31  # of those without a position


class MeshState:
    """A mutable view that one table feeds, record by record; readers see it whole between two records.

    `rev` is the offset of the last record applied, -1 before the first.
    """

    def __init__(self) -> None:
        self.rev = -1
        self.changes = 0  # grows with every change: a cheap way to see that something is new
        self._things: dict[str, Declared] = {}
        self._revs: dict[str, int] = {}
        self._positions: dict[str, int] = {}
        self._removed: dict[str, int] = {}
        self._rules_of: dict[str, RuleIndex] = defaultdict(RuleIndex)  # by place

    def apply(self, key: str, value: bytes | None, rev: int) -> None:
        """Take one record over; `DecodeError` or `ValidationError` when this code cannot read it."""
        record = None if value is None else decode(value, StateRecord)
        thing = None if record is None else record.thing
        rule = _rule_of(thing)
        compiled = CompiledRule(rule) if rule is not None else None
        before = self._things.pop(key, None)
        self._revs[key] = rev
        if record is None:
            self._removed[key] = rev
        self._positions.pop(key, None)
        if record is not None and record.position is not None:
            self._positions[key] = record.position
        if (old := _rule_of(before)) is not None:
            self._rules_of[old.source].discard(PlaceName(old.name))
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

    def last_removed(self, key: str) -> int:
        """The revision by which it was declared no more, though it may be again; -1 when this node saw none."""
        return self._removed.get(key, -1)

    def position_of(self, key: str) -> int | None:
        """Where an instance stands among the others; None when whoever declared it did not say."""
        return self._positions.get(key)

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

    def instances_of(self, domain: str) -> list[Instance]:
        """Those that are pulled under this name, as they are listed: the first has the say."""
        found = [thing for thing in self.instances() if thing.domain == domain]
        return sorted(found, key=lambda it: (self._positions.get(it.key, _LAST), it.name))

    def replicas(self) -> list[Replica]:
        return [thing for thing in self._things.values() if isinstance(thing, Replica)]

    def place(self, name: str) -> Place | None:
        """The instance or the replica of this name; None also of a replica whose instance is not declared."""
        if (instance := self.instance(name)) is not None:
            return instance.as_place()
        replica = self._things.get(f"replica/{name}")
        if not isinstance(replica, Replica) or (mirrored := self.instance(replica.instance)) is None:
            return None
        return replica.as_place(mirrored.account)

    def places(self) -> list[Place]:
        """All of them, instances first."""
        names = [*(it.place for it in self.instances()), *(it.name for it in self.replicas())]
        return [place for name in names if (place := self.place(name)) is not None]

    def webhooks(self) -> list[Webhook]:
        return [thing for thing in self._things.values() if isinstance(thing, Webhook)]

    def rules(self) -> list[Rule]:
        """Those that are declared."""
        return [thing for thing in self._things.values() if isinstance(thing, Rule)]

    def replica_rules(self) -> list[Rule]:
        """What the declared replicas ask for, as rules."""
        return [_rule_of_replica(replica) for replica in self.replicas()]

    def rule(self, name: str) -> CompiledRule | None:
        """The rule of this name, or that of the replica of this name."""
        found = _rule_of(self._things.get(f"rule/{name}") or self._things.get(f"replica/{name}"))
        return self._rules_of[found.source][PlaceName(found.name)] if found is not None else None

    def rules_from(self, place: PlaceName) -> Iterable[CompiledRule]:
        """The rules whose source is this place, enabled or not, those of its replicas too."""
        found = self._rules_of.get(place)
        return found.all() if found is not None else ()

    def rules_near(
        self, place: PlaceName, repository: Repository, tag: Tag | None = None
    ) -> Iterable[CompiledRule]:
        """Of these the ones that may want the repository, or the tag of it: all that do, and few others."""
        found = self._rules_of.get(place)
        return found.near(repository, tag) if found is not None else ()


def _rule_of(thing: Declared | None) -> Rule | None:
    if isinstance(thing, Replica):
        return _rule_of_replica(thing)
    return thing if isinstance(thing, Rule) else None


def _rule_of_replica(replica: Replica) -> Rule:
    return ReplicaRule(name=replica.name, source=replica.instance, destination=replica.name)
