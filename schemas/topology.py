"""Where artifacts are stored: regions, the instances in them, and their replicas in other regions."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from schemas.declared import Declared, Noun
from schemas.names import Account, ObjectName, PlaceName, Region, SecretName
from schemas.rules import Freshness, Speed

# The notification formats that the intake reads; docs/registries.md describes how each registry is set up.
RegistryKind = Literal["distribution", "gitlab", "harbor", "zot", "quay", "acr", "ecr", "google", "tcr"]


Cost = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]


_LOOKED_UP = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+", re.ASCII)


def _base_url(value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError("must be http://HOST[:PORT] or https://HOST[:PORT]")
    if url.username is not None or url.password is not None:
        raise ValueError("must not carry a user or password; name a secret in `credentials` instead")
    if url.path.strip("/") or url.query or url.fragment:
        raise ValueError("must be the registry's base, without a path or query")
    _ = url.port  # raises ValueError when it is invalid
    if not _is_name(url.hostname):
        raise ValueError("must name a host: letters, digits and -, in parts of 1 to 63 between its dots")
    return f"{url.scheme}://{url.netloc}"


def _is_name(host: str) -> bool:
    """Checks whether a resolver accepts the name."""
    try:
        return _LOOKED_UP.fullmatch(host.encode("idna").decode()) is not None
    except UnicodeError:
        return False


BaseUrl = Annotated[str, AfterValidator(_base_url)]

_HOST = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*", re.ASCII)


def _domain(value: str) -> str:
    if len(value) > 253 or not _HOST.fullmatch(value):
        raise ValueError("must be a host name in lower case without a port, such as hub.example.com")
    return value


Domain = Annotated[str, AfterValidator(_domain)]


class Relay(BaseModel):
    """How agents forward blobs to agents of other regions while they are still receiving them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    secret: SecretName  # the same in all regions of a mesh; agents authenticate with it
    url: BaseUrl | None = None
    """Where agents of other regions reach this region's; None = at each agent's `--relay-url`, if it has one."""


class Link(BaseModel):
    """The network link from the region that declares it to another one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    to: Region
    speed: Speed | None = None  # of all that one agent transfers over it; None = no limit
    cost: Cost | None = None  # relative to other links to the same region; None = agents measure it


class RegionDeclaration(Declared):
    """A region with its own agents. Replication never leaves a jurisdiction; a synchronization rule may."""

    noun: ClassVar[Noun] = "region"

    name: Region
    jurisdiction: ObjectName
    links: tuple[Link, ...] = ()  # only those with a limit or a cost
    relay: Relay | None = None  # None = blobs are read from registries only


class Instance(Declared):
    """A registry of an account, in its home region."""

    noun: ClassVar[Noun] = "instance"

    name: ObjectName
    account: Account
    region: Region
    url: BaseUrl
    kind: RegistryKind = "distribution"
    credentials: SecretName | None = None
    """A secret with `user:password` or a bearer token; None = anonymous, or from the Docker config."""
    intake_secret: SecretName | None = None  # None = notifications are accepted from loopback only
    domain: Domain | None = None  # the name under which clients pull from it through a gateway

    @property
    def place(self) -> PlaceName:
        """Returns its name as a place."""
        return PlaceName(self.name)

    def as_place(self) -> "Place":
        """Returns the instance as a place."""
        return Place(
            name=self.place, instance=self.name, account=self.account, region=self.region, url=self.url,
            credentials=self.credentials,
        )  # fmt: skip


class Replica(Declared):
    """A registry in another region that mirrors a whole instance; clients only pull from it.

    Its name is `instance@region`, and may be left out.
    """

    noun: ClassVar[Noun] = "replica"

    name: PlaceName
    instance: ObjectName
    region: Region
    url: BaseUrl
    credentials: SecretName | None = None
    freshness: Freshness = None

    @model_validator(mode="before")
    @classmethod
    def _named_by_where_it_is(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or value.get("name") is not None:
            return value
        try:
            name = PlaceName(f"{value.get('instance')}@{value.get('region')}")
        except ValueError:
            name = PlaceName("nobody@nowhere")  # the two have problems of their own
        return {**value, "name": name}

    @model_validator(mode="after")
    def _is_named_by_where_it_is(self) -> Self:
        if self.name not in (f"{self.instance}@{self.region}", "nobody@nowhere"):
            raise ValueError(f"is named {self.instance}@{self.region}, by its instance and region")
        return self

    def as_place(self, account: Account) -> "Place":
        """Returns the replica as a place of its instance's account."""
        return Place(
            name=self.name, instance=self.instance, account=account, region=self.region, url=self.url,
            credentials=self.credentials,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """A registry that tasks read from or write to: an instance, or a replica of one."""

    name: PlaceName
    instance: ObjectName  # the instance itself, or the one that the replica mirrors
    account: Account
    region: Region
    url: str
    credentials: SecretName | None = None

    @property
    def is_replica(self) -> bool:
        """Returns whether the place is a replica."""
        return self.name != self.instance
