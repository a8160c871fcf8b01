"""What a client asks for: a path below `/v2/` parsed into a value, or refused as the specification says. Pure.

Only what reads is taken: names are parsed here, and every request to a place is written anew from the parsed ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import parse_qsl, urlencode

from schemas.names import Digest, Reference, Repository, Tag

READING = ("GET", "HEAD")
_ALLOW = {"Allow": ", ".join(READING)}
_MIRRORED = "ns"  # containerd names the registry it was asked for, where it asks another host in its place


class What(StrEnum):
    BASE = "base"
    MANIFEST = "manifest"
    BLOB = "blob"
    TAGS = "tags"
    REFERRERS = "referrers"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that a place can be asked. Without a repository it is `/v2/` itself."""

    method: str
    what: What
    repository: Repository | None = None
    reference: Reference | None = None
    query: str = ""

    @property
    def path(self) -> str:
        """Below `/v2/`."""
        match self.what:
            case What.BASE:
                return ""
            case What.TAGS:
                return f"{self.repository}/tags/list"
            case What.REFERRERS:
                return f"{self.repository}/referrers/{self.reference}"
            case _:
                return f"{self.repository}/{self.what}s/{self.reference}"

    @property
    def is_by_name(self) -> bool:
        """Whether the answer depends on who is asked. What a digest names is the same everywhere."""
        return not isinstance(self.reference, Digest)


class Refused(Exception):
    """An answer with an error code of the specification."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers or {}


def parse(method: str, path: str, query: str) -> Asked:
    """`path` is what follows `/v2/`, decoded; `query` is raw. `Refused` when it is nothing to ask a place."""
    if method not in READING:
        raise Refused(405, "UNSUPPORTED", "this is a gateway for pulls: push to the instance itself", _ALLOW)
    if path == "":
        return Asked(method, What.BASE)
    if path == "_catalog":
        raise Refused(405, "UNSUPPORTED", "a gateway lists no repositories: ask the instance itself", _ALLOW)
    name, what, last = _split(path)
    repository = _repository(name)
    if what is What.TAGS:
        return Asked(method, what, repository, None, _passed_on(query))
    found = _tag_or_digest(last) if what is What.MANIFEST else _digest(last)
    return Asked(method, what, repository, found, _passed_on(query) if what is What.REFERRERS else "")


def mirrored_host(query: str) -> str | None:
    """The registry that containerd was asked for, as `HOST[:PORT]`."""
    return next((value for name, value in parse_qsl(query) if name == _MIRRORED), None)


def unknown(asked: Asked) -> Refused:
    """No place has it."""
    match asked.what:
        case What.BLOB:
            return Refused(404, "BLOB_UNKNOWN", f"no place of this domain has the blob {asked.reference}")
        case What.MANIFEST | What.REFERRERS:
            mark = ":" if asked.is_by_name else "@"
            name = f"{asked.repository}{mark}{asked.reference}"
            return Refused(404, "MANIFEST_UNKNOWN", f"no place of this domain has {name}")
        case _:
            return Refused(
                404, "NAME_UNKNOWN", f"no place of this domain has a repository {asked.repository}"
            )


def _split(path: str) -> tuple[str, What, str]:
    """Repository, what of it, and the last part. The words stand second to last, so a repository may hold them."""
    head, _, last = path.rpartition("/")
    repository, _, word = head.rpartition("/")
    words = {"manifests": What.MANIFEST, "blobs": What.BLOB, "referrers": What.REFERRERS}
    if word == "tags" and last == "list":
        return repository, What.TAGS, last
    if word not in words:
        raise Refused(404, "UNSUPPORTED", "no such path: use manifests, blobs, tags/list or referrers")
    return repository, words[word], last


def _repository(text: str) -> Repository:
    try:
        return Repository(text)
    except ValueError as error:
        raise Refused(400, "NAME_INVALID", str(error)) from error


def _tag_or_digest(text: str) -> Reference:
    if ":" in text:
        return _digest(text)
    try:
        return Tag(text)
    except ValueError as error:
        raise Refused(404, "MANIFEST_UNKNOWN", f"no manifest can be named so: {error}") from error


def _digest(text: str) -> Digest:
    try:
        return Digest(text)
    except ValueError as error:
        raise Refused(400, "DIGEST_INVALID", str(error)) from error


def _passed_on(query: str) -> str:
    """Pages and filters, in the registry's own words."""
    return urlencode([(name, value) for name, value in parse_qsl(query) if name != _MIRRORED])
