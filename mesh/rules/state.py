"""All declarations, as this node has applied them from `mesh.state`."""

from collections import defaultdict
from collections.abc import Iterable
from typing import TypeVar

from mesh.rules.matching.compiled_rule import CompiledRule
from mesh.rules.matching.rule_index import RuleIndex
from schemas.codec import decode
from schemas.declared import Declared
from schemas.names import PlaceName, Region, Repository, Tag
from schemas.rules import ReplicaRule, Rule
from schemas.state import FirstDeclared, StateRecord
from schemas.topology import Instance, Place, RegionDeclaration, Replica
from schemas.webhooks import Webhook

D = TypeVar("D", bound=Declared)

_LAST = 2**31  # sorts instances without a position behind all others


class MeshState:
    """A mutable view that one table feeds, record by record; readers see it whole between two records.

    `rev` is the offset of the last record applied, -1 before the first.
    """

    def __init__(self) -> None:
        self.rev = -1
        self.changes = 0  # grows with every change, so that readers can cache what they derive
        self._things: dict[str, Declared] = {}
        self._of_kind: dict[type[Declared], dict[str, Declared]] = defaultdict(dict)
        self._revs: dict[str, int] = {}
        self._positions: dict[str, int] = {}
        self._first: dict[str, FirstDeclared] = {}
        self._removed: dict[str, int] = {}
        self._rules_of: dict[str, RuleIndex] = defaultdict(RuleIndex)  # by place

    def apply(self, key: str, value: bytes | None, rev: int) -> None:
        """Applies one record of `mesh.state`; the key alone with no value is a removal.

        Raises:
            DecodeError: The bytes are no state record.
            pydantic.ValidationError: The declared thing has a shape that this version does not know.
        """
        record = None if value is None else decode(value, StateRecord)
        thing = None if record is None else record.thing
        rule = _rule_of(thing)
        compiled = CompiledRule(rule) if rule is not None else None
        before = self._things.pop(key, None)
        if before is not None:
            del self._of_kind[type(before)][key]
        self._revs[key] = rev
        if record is None:
            self._removed[key] = rev
        self._positions.pop(key, None)
        if record is not None and record.position is not None:
            self._positions[key] = record.position
        self._first.pop(key, None)
        if record is not None and record.first is not None:
            self._first[key] = record.first
        if (old := _rule_of(before)) is not None:
            self._rules_of[old.source].discard(PlaceName(old.name))
        if thing is not None:
            self._things[key] = self._of_kind[type(thing)][key] = thing
        if compiled is not None:
            self._rules_of[compiled.rule.source].add(compiled)
        self.rev = max(self.rev, rev)
        self.changes += 1

    def get(self, key: str) -> Declared | None:
        """Returns the thing that is declared at `kind/name`."""
        return self._things.get(key)

    def rev_of(self, key: str) -> int:
        """Returns the revision that declared or removed a thing last; -1 when it was never declared."""
        return self._revs.get(key, -1)

    def last_removed(self, key: str) -> int:
        """Returns the revision of a thing's last removal, though it may be declared again; -1 when there was none."""
        return self._removed.get(key, -1)

    def position_of(self, key: str) -> int | None:
        """Returns an instance's position in the list of all; None when its record has none."""
        return self._positions.get(key)

    def first_declared(self, key: str) -> FirstDeclared | None:
        """Returns when a thing was declared first; None when it is not declared, or an earlier version declared it."""
        return self._first.get(key)

    def things(self) -> Iterable[Declared]:
        """Returns all that is declared."""
        return tuple(self._things.values())

    def region(self, name: Region) -> RegionDeclaration | None:
        """Returns the declared region of this name."""
        found = self._things.get(f"region/{name}")
        return found if isinstance(found, RegionDeclaration) else None

    def regions(self) -> list[RegionDeclaration]:
        """Returns the declared regions."""
        return self._all(RegionDeclaration)

    def link_cost(self, one: Region, other: Region) -> int | None:
        """Returns the declared cost of moving bytes from `one` to `other`: 0 within a region, None where unknown."""
        if one == other:
            return 0
        region = self.region(one)
        links = region.links if region is not None else ()
        return next((link.cost for link in links if link.to == other), None)

    def instance(self, name: str) -> Instance | None:
        """Returns the declared instance of this name."""
        found = self._things.get(f"instance/{name}")
        return found if isinstance(found, Instance) else None

    def instances(self) -> list[Instance]:
        """Returns the declared instances."""
        return self._all(Instance)

    def instances_of(self, domain: str) -> list[Instance]:
        """Returns the instances with this domain, in the order of listing: the first has priority."""
        found = [thing for thing in self.instances() if thing.domain == domain]
        return sorted(found, key=lambda it: (self._positions.get(it.key, _LAST), it.name))

    def replicas(self) -> list[Replica]:
        """Returns the declared replicas."""
        return self._all(Replica)

    def place(self, name: str) -> Place | None:
        """Returns the instance or the replica of this name; None also for a replica whose instance is not declared."""
        if (instance := self.instance(name)) is not None:
            return instance.as_place()
        replica = self._things.get(f"replica/{name}")
        if not isinstance(replica, Replica) or (mirrored := self.instance(replica.instance)) is None:
            return None
        return replica.as_place(mirrored.account)

    def places(self) -> list[Place]:
        """Returns all places, instances first."""
        names = [*(it.place for it in self.instances()), *(it.name for it in self.replicas())]
        return [place for name in names if (place := self.place(name)) is not None]

    def webhooks(self) -> list[Webhook]:
        """Returns the declared webhooks."""
        return self._all(Webhook)

    def rules(self) -> list[Rule]:
        """Returns the declared rules, without those of replicas."""
        return self._all(Rule)

    def replica_rules(self) -> list[Rule]:
        """Returns the rules that the declared replicas stand for."""
        return [_rule_of_replica(replica) for replica in self.replicas()]

    def rule(self, name: str) -> CompiledRule | None:
        """Returns the compiled rule of this name, or of the replica of this name."""
        found = _rule_of(self._things.get(f"rule/{name}") or self._things.get(f"replica/{name}"))
        return self._rules_of[found.source][PlaceName(found.name)] if found is not None else None

    def rules_from(self, place: PlaceName) -> Iterable[CompiledRule]:
        """Returns the rules whose source is this place, enabled or not, those of its replicas too."""
        found = self._rules_of.get(place)
        return found.all() if found is not None else ()

    def candidate_rules(
        self, place: PlaceName, repository: Repository, tag: Tag | None = None
    ) -> Iterable[CompiledRule]:
        """Returns all of these rules that want the repository, or the tag of it, and few others."""
        found = self._rules_of.get(place)
        return found.candidates(repository, tag) if found is not None else ()

    def _all(self, kind: type[D]) -> list[D]:
        """Returns the things of a kind, without a look at the others."""
        return [thing for thing in self._of_kind[kind].values() if isinstance(thing, kind)]


def _rule_of(thing: Declared | None) -> Rule | None:
    if isinstance(thing, Replica):
        return _rule_of_replica(thing)
    return thing if isinstance(thing, Rule) else None


def _rule_of_replica(replica: Replica) -> Rule:
    return ReplicaRule(
        name=replica.name, source=replica.instance, destination=replica.name, freshness=replica.freshness
    )
