"""The rules of one source, indexed by one pattern of each, so that an event is checked against few of them.

Patterns are grouped by what their matches begin or end with. Where many share both (`**/web-1/**`), RE2 looks for a
batch of them in one pass, and the result for a text is cached, since the same repositories are pushed again and again.
A batch is compiled again only when one of its own patterns is added or removed.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from cachetools import LRUCache

from mesh.rules.matching.compiled_rule import CompiledRule
from mesh.rules.matching.patterns import compile_union, literal_prefix, literal_suffix
from schemas.names import PlaceName, Repository, Tag

_FEW_PATTERNS = 4  # so few are checked one by one: faster than a pass for a batch of them
_FEW_RULES = 16  # so few are checked one by one: faster than an index by tag
_BATCH = 128  # patterns; more slow down new texts, fewer known ones
_CACHE_SIZE = 20_000  # texts, and groups found for them, in total


class RuleIndex:
    """The rules of one source; `candidates` omits only such as do not want an image."""

    def __init__(self) -> None:
        self._rules: dict[PlaceName, CompiledRule] = {}
        self._by_name = _PatternIndex(by_tag=True)

    def __getitem__(self, name: PlaceName) -> CompiledRule:
        return self._rules[name]

    def add(self, compiled: CompiledRule) -> None:
        """Adds a rule in place of one with the same name."""
        self.discard(compiled.rule.name)
        self._rules[compiled.rule.name] = compiled
        self._by_name.add(compiled, compiled.name_patterns)

    def discard(self, name: PlaceName) -> None:
        """Removes the rule of this name, if there is one."""
        if self._rules.pop(name, None) is not None:
            self._by_name.discard(name)

    def all(self) -> Iterator[CompiledRule]:
        """Iterates over all rules."""
        return iter(self._rules.values())

    def candidates(self, repository: Repository, tag: Tag | None = None) -> Iterator[CompiledRule]:
        """Yields the rules that may want the repository, or the tag of it."""
        for group in self._by_name.candidates(repository):
            yield from group.candidates(tag)


class _Group:
    """The rules that one pattern finds; with `by_tag`, where they are many, indexed by their tag patterns in turn."""

    __slots__ = ("_by_tag", "_few", "rules")

    def __init__(self, *, by_tag: bool) -> None:
        self._few = _FEW_RULES if by_tag else math.inf
        self.rules: dict[PlaceName, CompiledRule] = {}
        self._by_tag: _PatternIndex | None = None

    def add(self, compiled: CompiledRule) -> None:
        self.rules[compiled.rule.name] = compiled
        if self._by_tag is not None:
            self._by_tag.add(compiled, compiled.tag_patterns)
        elif len(self.rules) > self._few:
            self._by_tag = _PatternIndex()
            for one in self.rules.values():
                self._by_tag.add(one, one.tag_patterns)

    def discard(self, name: PlaceName) -> None:
        del self.rules[name]
        if self._by_tag is not None:
            self._by_tag.discard(name)

    def candidates(self, tag: str | None) -> Iterator[CompiledRule]:
        if tag is None or self._by_tag is None:
            yield from self.rules.values()
            return
        for group in self._by_tag.candidates(tag):
            yield from group.rules.values()


class _PatternIndex:
    """Rules by one pattern of each. The patterns given with a rule match all that it wants."""

    def __init__(self, *, by_tag: bool = False) -> None:
        self._groups_by_tag = by_tag
        self._unconditional = _Group(by_tag=by_tag)  # rules without a pattern
        self._groups: dict[str, _Group] = {}  # by the pattern that each is found by
        self._pattern_of: dict[PlaceName, str | None] = {}
        self._by_prefix, self._by_suffix = _Batches(), _Batches()  # the latter of texts read backwards
        self._batches_of: dict[str, tuple[_Batches, str]] = {}  # and the prefix in them, by pattern
        self._found: LRUCache[str, Sequence[_Group]] = _cache()

    def add(self, compiled: CompiledRule, patterns: Sequence[str]) -> None:
        pattern = min(patterns, key=self._use, default=None)
        self._pattern_of[compiled.rule.name] = pattern
        self._group_of(pattern).add(compiled)

    def discard(self, name: PlaceName) -> None:
        pattern = self._pattern_of.pop(name)
        group = self._group_of(pattern)
        group.discard(name)
        if pattern is not None and not group.rules:
            del self._groups[pattern]
            batches, prefix = self._batches_of.pop(pattern)
            batches.discard(prefix, pattern)  # the cache may still hold the group, which is empty

    def candidates(self, text: str) -> Sequence[_Group]:
        """Returns the groups without a pattern, those whose pattern matches, and few others."""
        cached = self._found.get(text)
        if cached is not None:
            return cached
        batches = self._by_prefix.of(text)
        if self._by_suffix:
            batches += self._by_suffix.of(text[::-1])
        found, is_expensive = [self._unconditional], False
        for batch in batches:
            found += batch.candidates(text)
            is_expensive = is_expensive or batch.is_searched
        if is_expensive and len(found) < _CACHE_SIZE:
            self._found[text] = found
        return found

    def _group_of(self, pattern: str | None) -> _Group:
        if pattern is None:
            return self._unconditional
        group = self._groups.get(pattern)
        if group is None:
            group = self._groups[pattern] = _Group(by_tag=self._groups_by_tag)
            batches, prefix = self._batches_of[pattern] = self._batches_for(pattern)
            batches.add(prefix, pattern, group)
            self._found = _cache()
        return group

    def _use(self, pattern: str) -> int:
        """Counts the rules that are found by the pattern: a rule is found by its least used one."""
        group = self._groups.get(pattern)
        return 0 if group is None else len(group.rules)

    def _batches_for(self, pattern: str) -> tuple["_Batches", str]:
        """Chooses between prefix and suffix: the one that fewer patterns share, then the longer one."""
        start, end = literal_prefix(pattern), literal_suffix(pattern)[::-1]
        if not end:
            return self._by_prefix, start
        if not start:
            return self._by_suffix, end
        choices = (self._by_prefix, start), (self._by_suffix, end)
        return min(choices, key=lambda choice: (choice[0].count(choice[1]), -len(choice[1])))


def _cache() -> LRUCache[str, Sequence[_Group]]:
    return LRUCache(_CACHE_SIZE, getsizeof=lambda found: 1 + len(found))


class _Batches:
    """Batches of patterns by the prefix of their matches."""

    def __init__(self) -> None:
        self._by_prefix: dict[str, list[_Batch]] = {}
        self._lengths: Counter[int] = Counter()  # how many prefixes have this length

    def __bool__(self) -> bool:
        return bool(self._lengths)

    def count(self, prefix: str) -> int:
        """Returns how many patterns share the prefix."""
        return sum(len(batch.groups) for batch in self._by_prefix.get(prefix, ()))

    def add(self, prefix: str, pattern: str, group: _Group) -> None:
        batches = self._by_prefix.setdefault(prefix, [])
        if not batches:
            self._lengths[len(prefix)] += 1
        batch = next((one for one in batches if len(one.groups) < _BATCH), None)
        if batch is None:
            batches.append(batch := _Batch())
        batch.add(pattern, group)

    def discard(self, prefix: str, pattern: str) -> None:
        batches = self._by_prefix[prefix]
        batch = next(one for one in batches if pattern in one.groups)
        batch.discard(pattern)
        if not batch.groups:
            batches.remove(batch)
        if not batches:
            del self._by_prefix[prefix]
            self._lengths[len(prefix)] -= 1
            self._lengths += Counter()  # drops zero counts

    def of(self, text: str) -> list["_Batch"]:
        """Returns the batches whose prefix the text begins with."""
        found: list[_Batch] = []
        for length in self._lengths:
            batches = self._by_prefix.get(text[:length])
            if batches is not None and length <= len(text):
                found += batches
        return found


class _Batch:
    """Patterns that RE2 looks for in one pass, or in several where its memory is too small for all."""

    __slots__ = ("_parts", "groups")

    def __init__(self) -> None:
        self.groups: dict[str, _Group] = {}  # by pattern
        self._parts: list[_BatchPart] = []  # compiled by the first search

    @property
    def is_searched(self) -> bool:
        """Returns whether RE2 searches the batch; a small one is returned whole."""
        return len(self.groups) > _FEW_PATTERNS

    def add(self, pattern: str, group: _Group) -> None:
        self.groups[pattern] = group
        self._parts = []

    def discard(self, pattern: str) -> None:
        del self.groups[pattern]
        self._parts = []

    def candidates(self, text: str) -> Iterable[_Group]:
        if not self.is_searched:
            return self.groups.values()
        if not self._parts:
            self._parts = list(_split(list(self.groups)))
        return [self.groups[pattern] for part in self._parts for pattern in part.candidates(text)]


class _BatchPart:
    __slots__ = ("_patterns", "_search")

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns
        self._search = compile_union(patterns)

    @property
    def is_too_large(self) -> bool:
        return self._search is None

    def candidates(self, text: str) -> Iterator[str]:
        """Yields matching patterns, or all where RE2 gives up: each rule is checked by itself afterwards."""
        found = None if self._search is None else self._search(text)
        return iter(self._patterns) if found is None else (self._patterns[index] for index in found)


def _split(patterns: Sequence[str]) -> Iterator[_BatchPart]:
    part = _BatchPart(patterns)
    if not part.is_too_large or len(patterns) <= _FEW_PATTERNS:
        yield part
        return
    middle = len(patterns) // 2
    yield from _split(patterns[:middle])
    yield from _split(patterns[middle:])
