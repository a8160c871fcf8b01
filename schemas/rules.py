"""Synchronization rules: which artifacts of one instance go to another."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from schemas.declared import Declared, Noun
from schemas.durations import Duration
from schemas.names import ObjectName, PlaceName, Repository
from schemas.platforms import Platform


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _without_nul(text: str) -> str:
    if "\0" in text:  # no name contains it, and PostgreSQL refuses it
        raise ValueError("must not hold a NUL character")
    return text


Pattern = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_without_nul)]
Resource = Literal["image", "chart", "artifact"]
Decoration = Literal["matches", "excludes"]


class NameFilter(_Part):
    """A doublestar glob on the repository, or `re:` and an RE2 expression. `excludes` passes what does not match."""

    type: Literal["name"]
    value: Pattern
    decoration: Decoration = "matches"


class TagFilter(_Part):
    """A glob or expression on the tag, as in a `NameFilter`."""

    type: Literal["tag"]
    value: Pattern
    decoration: Decoration = "matches"


class SemverFilter(_Part):
    """A range of semantic versions for the tag, in npm's notation: `>=1.2 <2`, `~1.2`, `^1.2.3 || 3.x`."""

    type: Literal["semver"]
    value: Pattern


class ResourceFilter(_Part):
    """What the manifest must be: a container image, a Helm chart, or any other OCI artifact."""

    type: Literal["resource"]
    value: Resource


class LabelFilter(_Part):
    """A label of an image's config, or an annotation of the manifest: `key`, or `key=` and a pattern for its value."""

    type: Literal["label"]
    value: Pattern
    decoration: Decoration = "matches"


def _listed(value: Any) -> Any:
    if not isinstance(value, str | list | tuple):
        raise ValueError("must be a platform, such as linux/arm64, or a list of platforms")  # noqa: TRY004 - pydantic reports it
    return (Platform(value),) if isinstance(value, str) else value


Platforms = Annotated[tuple[Platform, ...], BeforeValidator(_listed), Field(min_length=1, max_length=64)]
PlatformMode = Literal["full", "sparse", "rebuilt"]


class PlatformFilter(_Part):
    """Platforms of which an image must have one. For an index with such images `mode` selects what is copied.

    `full`: all of it. `sparse`: the unchanged index, and of its images only these. `rebuilt`: a new index of only these
    images, which names the digest of the original.
    """

    type: Literal["platform"]
    value: Platforms
    mode: PlatformMode = "full"


Filter = Annotated[
    NameFilter | TagFilter | SemverFilter | ResourceFilter | LabelFilter | PlatformFilter,
    Field(discriminator="type"),
]


class EventBased(_Part):
    """Runs the rule on each push."""

    type: Literal["event_based"] = "event_based"


class Manual(_Part):
    """Runs the rule on request only: by `regmesh sync`, or the API."""

    type: Literal["manual"]


class Scheduled(_Part):
    """Runs the rule at the times of a cron expression, in a time zone."""

    type: Literal["scheduled"]
    cron: Annotated[str, Field(min_length=1, max_length=256)]
    timezone: Annotated[str, Field(min_length=1, max_length=64)] = "UTC"  # a name of the IANA database


Trigger = Annotated[EventBased | Manual | Scheduled, Field(discriminator="type")]
# What started an execution; reconcile: something was found missing.
TriggerKind = Literal["event_based", "manual", "scheduled", "backfill", "reconcile"]


# As in Harbor: how many leading components of the repository `destination_namespace` replaces; -1 = all but the last.
# Strict, since YAML's `false` would pass for 0.
ReplaceCount = Annotated[int, Field(strict=True, ge=-1, le=127)]

Speed = Annotated[int, Field(strict=True, ge=1024)]  # bytes a second

# Percent of its matching tags that a rule may delete within ten minutes. Above that, and above 20 tags, deletions wait
# for confirmation.
DeletionShare = Annotated[int, Field(strict=True, ge=0, le=100)]
DEFAULT_DELETION_SHARE = 20

# Within which time of a push its task should have ended; None = no promise. A declaration without one is written as
# before, so that older versions can read it.
Freshness = Annotated[Duration | None, Field(exclude_if=lambda freshness: freshness is None)]


class Rule(Declared):
    """A rule that copies what passes all its filters from `source` to `destination`; without filters, everything."""

    noun: ClassVar[Noun] = "rule"

    name: ObjectName
    source: ObjectName
    destination: ObjectName
    filters: tuple[Filter, ...] = ()
    destination_namespace: Repository | None = None  # None = names stay as at the source
    destination_namespace_replace_count: ReplaceCount = -1
    override: bool = True  # whether a tag that names something else at the destination is overwritten
    deletion: bool = False  # whether deletions at the source are repeated at the destination
    deletion_share: DeletionShare = DEFAULT_DELETION_SHARE
    speed: Speed | None = None  # of all copies for the rule by one agent; None = no limit
    public_only: bool = False  # only repositories that an anonymous client may pull
    trigger: Trigger = EventBased()
    backfill: bool = False  # whether existing artifacts are copied when the rule is declared or changed
    prefetch: bool = False  # whether layers are copied while their image is still being pushed
    freshness: Freshness = None
    enabled: bool = True

    @property
    def replica(self) -> PlaceName | None:
        """Returns the replica that the rule stands for; None for a declared rule."""
        return None


class ReplicaRule(Rule):
    """The rule that a declared replica stands for: it copies all that the instance holds, deletions included.

    It is never declared itself. Its name is the replica's, which no declared rule can have.
    """

    name: PlaceName  # type: ignore[assignment]  # wider than a rule's on purpose
    destination: PlaceName  # type: ignore[assignment]
    deletion: bool = True
    deletion_share: DeletionShare = 100
    backfill: bool = True
    prefetch: bool = True

    @property
    def replica(self) -> PlaceName | None:
        """Returns the replica's name, which is the rule's."""
        return self.name

    @property
    def key(self) -> str:
        """Returns the key of the replica, which is what is declared."""
        return f"replica/{self.name}"
