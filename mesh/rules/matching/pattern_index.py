"""Rules by one pattern of each, so that a text finds those that may hold of it without asking every pattern.

Patterns are told apart by how what they match begins or ends. Where many are alike in both (`**/web-1/**`), RE2 looks
for a batch of them in one pass, and what it found for a text is remembered, since the same repositories are pushed
again and again. A batch is compiled again only when one of its own patterns comes or goes.
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence

from mesh.rules.matching.compiled_rule import CompiledRule
from mesh.rules.matching.patterns import compile_union, literal_prefix, literal_suffix
from schemas.names import PlaceName

_FEW_PATTERNS = 4  # are tried sooner than a batch of them is asked
_FEW_RULES = 16  # are judged sooner than they are found by the tag
_BATCH = 128  # patterns; more make a new text dearer, fewer an old one
_REMEMBERED = 20_000  # texts, and what was found for them, together


class Group:
    """Rules that are found together; with `by_tag`, and where they are many, each in turn by its tags."""

    __slots__ = ("_by_tag", "_few", "rules")

    def __init__(self, *, by_tag: bool) -> None:
        self._few = _FEW_RULES if by_tag else math.inf
        self.rules: dict[PlaceName, CompiledRule] = {}
        self._by_tag: Finder | None = None

    def add(self, compiled: CompiledRule) -> None:
        """No rule of this name may be there."""
        self.rules[compiled.rule.name] = compiled
        if self._by_tag is not None:
            self._by_tag.add(compiled, compiled.tag_patterns)
        elif len(self.rules) > self._few:
            self._by_tag = Finder()
            for one in self.rules.values():
                self._by_tag.add(one, one.tag_patterns)

    def discard(self, name: PlaceName) -> None:
        del self.rules[name]
        if self._by_tag is not None:
            self._by_tag.discard(name)

    def near(self, tag: str | None) -> Iterator[CompiledRule]:
        """Those that may want the tag; all when no tag is asked for."""
        if tag is None or self._by_tag is None:
            yield from self.rules.values()
            return
        for group in self._by_tag.near(tag):
            yield from group.rules.values()


class Finder:
    """What `near` leaves out does not hold of the text. Rules come and go one by one.

    With `by_tag` the rules that are found by one pattern are told apart by their tags, too.
    """

    def __init__(self, *, by_tag: bool = False) -> None:
        self._tells_tags = by_tag
        self._always = Group(by_tag=by_tag)  # those without a pattern
        self._groups: dict[str, Group] = {}  # by the pattern that each is found by
        self._pattern_of: dict[PlaceName, str | None] = {}
        self._by_start, self._by_end = _Batches(), _Batches()  # the latter of what is read backwards
        self._at: dict[str, tuple[_Batches, str]] = {}  # where each pattern is
        self._remembered = _Remembered()

    def add(self, compiled: CompiledRule, patterns: Sequence[str]) -> None:
        """All `patterns` match whatever the rule wants; none when it wants anything. The rule is a new one."""
        pattern = min(patterns, key=self._use, default=None)
        self._pattern_of[compiled.rule.name] = pattern
        self._group_of(pattern).add(compiled)

    def discard(self, name: PlaceName) -> None:
        pattern = self._pattern_of.pop(name)
        group = self._group_of(pattern)
        group.discard(name)
        if pattern is not None and not group.rules:
            del self._groups[pattern]
            batches, key = self._at.pop(pattern)
            batches.discard(key, pattern)  # what is remembered may name its group, which is empty

    def near(self, text: str) -> Sequence[Group]:
        """Those without a pattern, those whose pattern matches, and of the others few."""
        remembered = self._remembered.get(text)
        if remembered is not None:
            return remembered
        batches = self._by_start.of(text)
        if self._by_end:
            batches += self._by_end.of(text[::-1])
        found, is_dear = [self._always], False
        for batch in batches:
            found += batch.near(text)
            is_dear = is_dear or batch.is_asked
        if is_dear:
            self._remembered.put(text, found)
        return found

    def _group_of(self, pattern: str | None) -> Group:
        if pattern is None:
            return self._always
        group = self._groups.get(pattern)
        if group is None:
            group = self._groups[pattern] = Group(by_tag=self._tells_tags)
            batches, key = self._at[pattern] = self._place_for(pattern)
            batches.add(key, pattern, group)
            self._remembered.clear()
        return group

    def _use(self, pattern: str) -> int:
        """A rule of several patterns is found by the one that finds the fewest others."""
        group = self._groups.get(pattern)
        return 0 if group is None else len(group.rules)

    def _place_for(self, pattern: str) -> tuple["_Batches", str]:
        """Where the fewest are alike; of two such places where more is known of it."""
        start, end = literal_prefix(pattern), literal_suffix(pattern)[::-1]
        if not end:
            return self._by_start, start
        if not start:
            return self._by_end, end
        places = (self._by_start, start), (self._by_end, end)
        return min(places, key=lambda place: (place[0].count(place[1]), -len(place[1])))


class _Batches:
    """Patterns by how what they match begins."""

    def __init__(self) -> None:
        self._by_start: dict[str, list[_Batch]] = {}
        self._lengths: Counter[int] = Counter()  # how many beginnings are so long

    def count(self, start: str) -> int:
        """How many patterns are alike in it."""
        return sum(len(batch.groups) for batch in self._by_start.get(start, ()))

    def __bool__(self) -> bool:
        return bool(self._lengths)

    def add(self, start: str, pattern: str, group: Group) -> None:
        batches = self._by_start.setdefault(start, [])
        if not batches:
            self._lengths[len(start)] += 1
        batch = next((one for one in batches if len(one.groups) < _BATCH), None)
        if batch is None:
            batches.append(batch := _Batch())
        batch.add(pattern, group)

    def discard(self, start: str, pattern: str) -> None:
        batches = self._by_start[start]
        batch = next(one for one in batches if pattern in one.groups)
        batch.discard(pattern)
        if not batch.groups:
            batches.remove(batch)
        if not batches:
            del self._by_start[start]
            self._lengths[len(start)] -= 1
            self._lengths += Counter()  # without those that are none

    def of(self, text: str) -> list["_Batch"]:
        """Those that begin as it does."""
        found: list[_Batch] = []
        for length in self._lengths:
            batches = self._by_start.get(text[:length])
            if batches is not None and length <= len(text):
                found += batches
        return found


class _Batch:
    """Patterns that RE2 looks for in one pass, in fewer at once where its memory is too small for all."""

    __slots__ = ("_parts", "groups")

    def __init__(self) -> None:
        self.groups: dict[str, Group] = {}  # by pattern
        self._parts: list[_Part] = []  # none until it is asked

    @property
    def is_asked(self) -> bool:
        """Else all its patterns are tried."""
        return len(self.groups) > _FEW_PATTERNS

    def add(self, pattern: str, group: Group) -> None:
        self.groups[pattern] = group
        self._parts = []

    def discard(self, pattern: str) -> None:
        del self.groups[pattern]
        self._parts = []

    def near(self, text: str) -> Iterable[Group]:
        if not self.is_asked:
            return self.groups.values()
        if not self._parts:
            self._parts = list(_parts(list(self.groups)))
        return [self.groups[pattern] for part in self._parts for pattern in part.near(text)]


class _Part:
    __slots__ = ("_patterns", "_which")

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns
        self._which = compile_union(patterns)

    @property
    def is_too_large(self) -> bool:
        return self._which is None

    def near(self, text: str) -> Iterator[str]:
        """All where RE2 cannot tell: each rule is judged by itself afterwards."""
        found = None if self._which is None else self._which(text)
        return iter(self._patterns) if found is None else (self._patterns[index] for index in found)


def _parts(patterns: Sequence[str]) -> Iterator[_Part]:
    part = _Part(patterns)
    if not part.is_too_large or len(patterns) <= _FEW_PATTERNS:
        yield part
        return
    middle = len(patterns) // 2
    yield from _parts(patterns[:middle])
    yield from _parts(patterns[middle:])


class _Remembered:
    """What was found for the texts that were asked last."""

    def __init__(self) -> None:
        self._found: OrderedDict[str, Sequence[Group]] = OrderedDict()
        self._size = 0

    def get(self, text: str) -> Sequence[Group] | None:
        found = self._found.get(text)
        if found is not None:
            self._found.move_to_end(text)
        return found

    def put(self, text: str, found: Sequence[Group]) -> None:
        self._found[text] = found
        self._size += 1 + len(found)
        while self._size > _REMEMBERED and len(self._found) > 1:
            self._size -= 1 + len(self._found.popitem(last=False)[1])

    def clear(self) -> None:
        self._found.clear()
        self._size = 0
