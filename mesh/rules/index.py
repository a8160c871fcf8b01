"""The rules of one source by how the repositories begin that they want, so that an event is judged by few of them."""

from collections import defaultdict
from collections.abc import Iterator

from mesh.rules.matching import CompiledRule
from schemas.names import PlaceName, Repository


class RuleIndex:
    """Rules come and go one by one; what `near` leaves out does not want the repository."""

    def __init__(self) -> None:
        self._rules: dict[PlaceName, CompiledRule] = {}
        self._by_prefix: dict[str, dict[PlaceName, CompiledRule]] = defaultdict(dict)
        self._lengths: list[int] = []  # of the prefixes, ascending

    def __getitem__(self, name: PlaceName) -> CompiledRule:
        return self._rules[name]

    def add(self, compiled: CompiledRule) -> None:
        """The place of one with the same name is taken."""
        name, prefix = compiled.rule.name, compiled.name_prefix
        self.discard(name)
        self._rules[name] = compiled
        self._by_prefix[prefix][name] = compiled
        if len(prefix) not in self._lengths:
            self._lengths = sorted([*self._lengths, len(prefix)])

    def discard(self, name: PlaceName) -> None:
        before = self._rules.pop(name, None)
        if before is None:
            return
        alike = self._by_prefix[before.name_prefix]
        del alike[name]
        if not alike:
            del self._by_prefix[before.name_prefix]
            self._lengths = sorted({len(prefix) for prefix in self._by_prefix})

    def all(self) -> Iterator[CompiledRule]:
        return iter(self._rules.values())

    def near(self, repository: Repository) -> Iterator[CompiledRule]:
        """Those that may want it; the names of all others begin otherwise."""
        for length in self._lengths:
            if length > len(repository):
                return
            found = self._by_prefix.get(repository[:length])
            if found is not None:
                yield from found.values()
