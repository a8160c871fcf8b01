"""Checks whether a rule wants an image: first by name and tag alone, later by what its manifest turned out to be."""

from collections.abc import Callable, Iterable

from mesh.rules.matching import platforms
from mesh.rules.matching.patterns import Labels, compile_label, compile_pattern
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
    """A rule with its patterns ready to run.

    Raises:
        BadPattern: One of its patterns does not compile.
    """

    __slots__ = ("_names", "_tags", "name_patterns", "platform", "rule", "tag_patterns")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._names = [compile_text_filter(part) for part in rule.filters if isinstance(part, NameFilter)]
        self._tags = [
            compile_text_filter(part) for part in rule.filters if isinstance(part, TagFilter | SemverFilter)
        ]
        self.platform = next((part for part in rule.filters if isinstance(part, PlatformFilter)), None)
        self.name_patterns = _patterns(part for part in rule.filters if isinstance(part, NameFilter))
        self.tag_patterns = _patterns(part for part in rule.filters if isinstance(part, TagFilter))

    def wants(self, repository: str, tag: str) -> bool:
        """Checks that the rule is enabled and its name and tag filters pass. The texts may be no valid names."""
        return (
            self.rule.enabled
            and all(passes(repository) for passes in self._names)
            and all(passes(tag) for passes in self._tags)
        )

    def wants_repository(self, repository: str) -> bool:
        """Checks the name filters alone, as for a referrer, whose subject's tag was checked."""
        return self.rule.enabled and all(passes(repository) for passes in self._names)

    @property
    def takes_parts(self) -> bool:
        """Returns whether the rule may copy only some of an index's manifests."""
        return self.platform is not None and self.platform.mode != "full"

    @property
    def asks_for_labels(self) -> bool:
        """Returns whether the rule has a label filter, so that the image's config has to be read."""
        return any(isinstance(part, LabelFilter) for part in self.rule.filters)

    def wants_platform(self, platform: Platform | None) -> bool:
        """Checks the platform filter, if there is one."""
        return self.platform is None or platforms.covers(self.platform.value, platform)

    def early_miss(self, repository: Repository, tag: Tag) -> str | None:
        """Returns a message about the first name or tag filter that does not pass; None when all do."""
        for at, part in enumerate(self.rule.filters):
            if isinstance(part, NameFilter | TagFilter | SemverFilter):
                text = repository if isinstance(part, NameFilter) else tag
                if not compile_text_filter(part)(text):
                    return f"{_named(at, part)} does not hold of {text}"
        return None

    def late_miss(
        self, resource: Resource, labels: Iterable[Labels], platforms_there: Iterable[Platform | None]
    ) -> str | None:
        """Returns a message about the first filter on the content that does not pass; None when all do."""
        for at, part in enumerate(self.rule.filters):
            if isinstance(part, ResourceFilter) and part.value != resource:
                return f"{_named(at, part)} does not hold: this is of resource {resource!r}"
            if isinstance(part, LabelFilter) and not _compile_label_filter(part)(labels):
                return f"{_named(at, part)} does not hold of its labels and annotations"
            if isinstance(part, PlatformFilter):
                found = list(platforms_there)
                if not any(platforms.covers(part.value, one) for one in found):
                    return f"{_named(at, part)} does not hold: it runs on {_listed(found)}"
        return None


def compile_text_filter(part: NameFilter | TagFilter | SemverFilter) -> Callable[[str], bool]:
    """Returns a check whether a repository or tag passes the filter.

    Raises:
        BadPattern: The pattern or the range does not compile.
    """
    if isinstance(part, SemverFilter):
        return compile_range(part.value)
    matches = compile_pattern(part.value)
    return matches if part.decoration == "matches" else lambda text: not matches(text)


def _compile_label_filter(part: LabelFilter) -> Callable[[Iterable[Labels]], bool]:
    has = compile_label(part.value)
    return has if part.decoration == "matches" else lambda found: not has(found)


def _patterns(parts: Iterable[NameFilter | TagFilter]) -> tuple[str, ...]:
    """Returns the patterns that match all that the rule wants; excluding ones cannot find a rule."""
    return tuple(part.value for part in parts if part.decoration == "matches")


def _named(at: int, part: Filter) -> str:
    value = part.value if isinstance(part.value, str) else ", ".join(part.value)
    negation = "excludes " if getattr(part, "decoration", None) == "excludes" else ""
    return f"filters[{at}] ({part.type} {negation}{value[:60]})"


def _listed(found: Iterable[Platform | None]) -> str:
    names = sorted({str(one) for one in found if one is not None})
    return ", ".join(names[:5]) or "no platform that it names"
