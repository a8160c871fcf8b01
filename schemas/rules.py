"""Synchronization rules: which artifacts of one instance go to another."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from schemas.declared import Declared, Noun
from schemas.names import ObjectName, PlaceName, Repository
from schemas.platforms import Platform


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _without_nul(text: str) -> str:
    if "\0" in text:  # which a database may refuse for ever, and no name holds
        raise ValueError("must not hold a NUL character")
    return text


Pattern = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_without_nul)]
Resource = Literal["image", "chart", "artifact"]
Decoration = Literal["matches", "excludes"]


class NameFilter(_Part):
    """A doublestar glob on the repository, or `re:` and an RE2 expression; `excludes` turns it round."""

    type: Literal["name"]
    value: Pattern
    decoration: Decoration = "matches"


class TagFilter(_Part):
    """The same on the tag."""

    type: Literal["tag"]
    value: Pattern
    decoration: Decoration = "matches"


class SemverFilter(_Part):
    """The tag is a semantic version within a range, as npm writes ranges: `>=1.2 <2`, `~1.2`, `^1.2.3 || 3.x`."""

    type: Literal["semver"]
    value: Pattern


class ResourceFilter(_Part):
    """What the manifest is: a container image, a Helm chart, or any other OCI artifact."""

    type: Literal["resource"]
    value: Resource


class LabelFilter(_Part):
    """A label of an image's config, or an annotation of the manifest: `key`, or `key=` and a pattern for its value."""

    type: Literal["label"]
    value: Pattern
    decoration: Decoration = "matches"


def _listed(value: Any) -> Any:
    if not isinstance(value, str | list | tuple):
        raise ValueError("must be a platform, such as linux/arm64, or a list of platforms")  # noqa: TRY004 - told by pydantic
    return (Platform(value),) if isinstance(value, str) else value


Platforms = Annotated[tuple[Platform, ...], BeforeValidator(_listed), Field(min_length=1, max_length=64)]
PlatformMode = Literal["full", "sparse", "rebuilt"]


class PlatformFilter(_Part):
    """What an image runs on: one of `value`. Of an index with such images `mode` says what is copied.

    `full`: all of it. `sparse`: the index byte for byte and only these images below it. `rebuilt`: a new index of these
    images alone, which names the digest of the original.
    """

    type: Literal["platform"]
    value: Platforms
    mode: PlatformMode = "full"


Filter = Annotated[
    NameFilter | TagFilter | SemverFilter | ResourceFilter | LabelFilter | PlatformFilter,
    Field(discriminator="type"),
]


class EventBased(_Part):
    type: Literal["event_based"] = "event_based"


class Manual(_Part):
    """Only when somebody asks: `regmesh sync`, or the API."""

    type: Literal["manual"]


class Scheduled(_Part):
    """At the times that a cron expression names, read in `timezone`."""

    type: Literal["scheduled"]
    cron: Annotated[str, Field(min_length=1, max_length=256)]
    timezone: Annotated[str, Field(min_length=1, max_length=64)] = "UTC"  # of the IANA database


Trigger = Annotated[EventBased | Manual | Scheduled, Field(discriminator="type")]
TriggerKind = Literal[
    "event_based", "manual", "scheduled", "backfill", "reconcile"
]  # what made an execution run; reconcile: somebody saw that something is missing


# As in Harbor: leading components of the repository that `destination_namespace` takes the place of; -1 = all of them
# but the last. Numbers only, since 0 and false would be taken for each other.
ReplaceCount = Annotated[int, Field(strict=True, ge=-1, le=127)]

Speed = Annotated[int, Field(strict=True, ge=1024)]  # bytes a second

# Percent of the tags it matches that a rule may delete within ten minutes; more than that, and than 20 tags, waits for
# a human.
DeletionShare = Annotated[int, Field(strict=True, ge=0, le=100)]
DEFAULT_DELETION_SHARE = 20


class Rule(Declared):
    """Copies what passes all its filters from `source` to `destination`; no filter passes everything."""

    noun: ClassVar[Noun] = "rule"

    name: ObjectName
    source: ObjectName
    destination: ObjectName
    filters: tuple[Filter, ...] = ()
    destination_namespace: Repository | None = None  # None = the source's names
    destination_namespace_replace_count: ReplaceCount = -1
    override: bool = True  # False: a tag that names something else at the destination stays as it is
    deletion: bool = False  # what is deleted at the source is deleted at the destination
    deletion_share: DeletionShare = DEFAULT_DELETION_SHARE
    speed: Speed | None = None  # of all that one agent copies for the rule; None = no limit
    public_only: bool = False  # only repositories that an anonymous client may pull
    trigger: Trigger = EventBased()
    backfill: bool = False  # copy what is there already, whenever the rule is new or changed
    prefetch: bool = False  # copy layers while their image is still being pushed
    enabled: bool = True

    @property
    def replica(self) -> PlaceName | None:
        """The replica whose rule this is; None of a declared rule."""
        return None


class ReplicaRule(Rule):
    """What a replica's being declared asks for, said as a rule: all that its instance holds, deletions too.

    Never declared itself. It bears the name of the replica, which no rule can have.
    """

    name: PlaceName  # type: ignore[assignment]  # wider than a rule's on purpose
    destination: PlaceName  # type: ignore[assignment]
    deletion: bool = True
    deletion_share: DeletionShare = 100
    backfill: bool = True
    prefetch: bool = True

    @property
    def replica(self) -> PlaceName | None:
        return self.name

    @property
    def key(self) -> str:
        """Of what is declared, the replica."""
        return f"replica/{self.name}"
