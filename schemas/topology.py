"""Where artifacts live: regions and the instances in them."""

from typing import ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, field_validator

from schemas.declared import Declared, Noun
from schemas.names import Account, ObjectName, PlaceName, Region, SecretName
from schemas.rules import Speed

# The notification formats that the intake reads; docs/registries.md tells how each registry is set up.
RegistryKind = Literal["distribution", "gitlab", "harbor", "zot", "quay", "acr", "ecr", "google", "tcr"]


class Link(BaseModel):
    """The way of bytes from the region that declares it to another one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    to: Region
    speed: Speed | None = None  # of all that one agent brings along it; None = no limit


class RegionDeclaration(Declared):
    """A place with its own agents. Replication never leaves a jurisdiction; a sync rule may."""

    noun: ClassVar[Noun] = "region"

    name: Region
    jurisdiction: ObjectName
    links: tuple[Link, ...] = ()  # those that are limited; the others need no mention


class Instance(Declared):
    """A named registry: account, home region, URL."""

    noun: ClassVar[Noun] = "instance"

    name: ObjectName
    account: Account
    region: Region
    url: str
    kind: RegistryKind = "distribution"
    credentials: SecretName | None = (
        None  # user:password, or a bearer token; None = anonymous or Docker config
    )
    intake_secret: SecretName | None = None  # None = notifications are taken from loopback only

    @field_validator("url")
    @classmethod
    def _is_a_base_url(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("must be http://HOST[:PORT] or https://HOST[:PORT]")
        if url.username is not None or url.password is not None:
            raise ValueError("must not carry a user or password; name a secret in `credentials` instead")
        if url.path.strip("/") or url.query or url.fragment:
            raise ValueError("must be the registry's base, without a path or query")
        _ = url.port  # raises ValueError when it is no port
        return f"{url.scheme}://{url.netloc}"

    @property
    def place(self) -> PlaceName:
        return PlaceName(self.name)
