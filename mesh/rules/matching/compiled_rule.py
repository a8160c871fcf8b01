"""Does a rule want an image? First by name and tag alone, later by what its manifest turned out to be."""

from collections.abc import Callable, Iterable

from mesh.rules.matching import platforms
from mesh.rules.matching.labels import Labels, compile_label
from mesh.rules.matching.patterns import compile_pattern
from mesh.rules.matching.versions import compile_range
from schemas.names import Repository, Tag
from schemas.platforms import Platform
from schemas.rules import (
    Filter,
    LabelFilter,
    NameFilter,
    PlatformFilter,
    Resource,
    ResourceFilter,
    Rule,
    SemverFilter,
    TagFilter,
)


class CompiledRule:
    """A rule with its patterns ready to run; `BadPattern` when one cannot be."""

    __slots__ = ("_names", "_tags", "name_patterns", "platform", "rule", "tag_patterns")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._names = [_text_test(part) for part in rule.filters if isinstance(part, NameFilter)]
        self._tags = [_text_test(part) for part in rule.filters if isinstance(part, TagFilter | SemverFilter)]
        self.platform = next((part for part in rule.filters if isinstance(part, PlatformFilter)), None)
        self.name_patterns = _patterns(part for part in rule.filters if isinstance(part, NameFilter))
        self.tag_patterns = _patterns(part for part in rule.filters if isinstance(part, TagFilter))

    def wants(self, repository: str, tag: str) -> bool:
        """By name and tag, be they such as we can say or not: all such filters hold, and the rule is enabled."""
        return (
            self.rule.enabled
            and all(test(repository) for test in self._names)
            and all(test(tag) for test in self._tags)
        )

    def wants_repository(self, repository: str) -> bool:
        """By name alone: enough for what follows another, whose tag was judged."""
        return self.rule.enabled and all(test(repository) for test in self._names)

    @property
    def takes_parts(self) -> bool:
        """Of an index it may copy less than all."""
        return self.platform is not None and self.platform.mode != "full"

    @property
    def asks_for_labels(self) -> bool:
        return any(isinstance(part, LabelFilter) for part in self.rule.filters)

    def wants_platform(self, platform: Platform | None) -> bool:
        return self.platform is None or platforms.covers(self.platform.value, platform)

    def early_miss(self, repository: Repository, tag: Tag) -> str | None:
        """The first filter by name or tag that does not hold, for people; None when all do."""
        for at, part in enumerate(self.rule.filters):
            if isinstance(part, NameFilter | TagFilter | SemverFilter):
                text = repository if isinstance(part, NameFilter) else tag
                if not _text_test(part)(text):
                    return f"{_named(at, part)} does not hold of {text}"
        return None

    def late_miss(
        self, resource: Resource, labels: Iterable[Labels], platforms_there: Iterable[Platform | None]
    ) -> str | None:
        """The first filter by what it is that does not hold, for people; None when all do."""
        for at, part in enumerate(self.rule.filters):
            if isinstance(part, ResourceFilter) and part.value != resource:
                return f"{_named(at, part)} does not hold: this is of resource {resource!r}"
            if isinstance(part, LabelFilter) and not _label_test(part)(labels):
                return f"{_named(at, part)} does not hold of its labels and annotations"
            if isinstance(part, PlatformFilter):
                found = list(platforms_there)
                if not any(platforms.covers(part.value, one) for one in found):
                    return f"{_named(at, part)} does not hold: it runs on {_listed(found)}"
        return None


def _text_test(part: NameFilter | TagFilter | SemverFilter) -> Callable[[str], bool]:
    if isinstance(part, SemverFilter):
        return compile_range(part.value)
    matches = compile_pattern(part.value)
    return matches if part.decoration == "matches" else lambda text: not matches(text)


def _label_test(part: LabelFilter) -> Callable[[Iterable[Labels]], bool]:
    has = compile_label(part.value)
    return has if part.decoration == "matches" else lambda found: not has(found)


def _patterns(parts: Iterable[NameFilter | TagFilter]) -> tuple[str, ...]:
    """Those that match whatever the rule wants; what is excluded finds no rule."""
    return tuple(part.value for part in parts if part.decoration == "matches")


def _named(at: int, part: Filter) -> str:
    value = part.value if isinstance(part.value, str) else ", ".join(part.value)
    turned = "excludes " if getattr(part, "decoration", None) == "excludes" else ""
    return f"filters[{at}] ({part.type} {turned}{value[:60]})"


def _listed(found: Iterable[Platform | None]) -> str:
    return (
        ", ".join(sorted({str(one) for one in found if one is not None})[:5]) or "no platform that it names"
    )
