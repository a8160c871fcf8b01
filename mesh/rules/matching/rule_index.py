"""The rules of one source, so that an event is judged by few of them, whatever their patterns look like."""

from collections.abc import Iterator

from mesh.rules.matching.compiled_rule import CompiledRule
from mesh.rules.matching.pattern_index import Finder
from schemas.names import PlaceName, Repository, Tag


class RuleIndex:
    """Rules come and go one by one; what `near` leaves out does not want the repository, or not that tag of it."""

    def __init__(self) -> None:
        self._rules: dict[PlaceName, CompiledRule] = {}
        self._by_name = Finder(by_tag=True)

    def __getitem__(self, name: PlaceName) -> CompiledRule:
        return self._rules[name]

    def add(self, compiled: CompiledRule) -> None:
        """The place of one with the same name is taken."""
        self.discard(compiled.rule.name)
        self._rules[compiled.rule.name] = compiled
        self._by_name.add(compiled, compiled.name_patterns)

    def discard(self, name: PlaceName) -> None:
        if self._rules.pop(name, None) is not None:
            self._by_name.discard(name)

    def all(self) -> Iterator[CompiledRule]:
        return iter(self._rules.values())

    def near(self, repository: Repository, tag: Tag | None = None) -> Iterator[CompiledRule]:
        """Those that may want it. Without a tag it is asked by the repository alone."""
        for group in self._by_name.near(repository):
            yield from group.near(tag)
