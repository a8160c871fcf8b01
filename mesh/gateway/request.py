"""What a client requests: a path below `/v2/`, parsed into a value, or refused as the specification says.

Only pulls are served. Names are parsed here, and each request to a place is written anew from the parsed ones.
Source: the endpoints and error codes of the OCI Distribution Specification.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import parse_qsl, urlencode

from schemas.names import Digest, Reference, Repository, Tag

_METHODS = ("GET", "HEAD")
_ALLOW = {"Allow": ", ".join(_METHODS)}
_MIRRORED = "ns"  # containerd names the registry it mirrors in this parameter


class Endpoint(StrEnum):
    """The endpoints that a gateway serves."""

    BASE = "base"
    MANIFEST = "manifest"
    BLOB = "blob"
    TAGS = "tags"
    REFERRERS = "referrers"


@dataclass(frozen=True, slots=True)
class Pull:
    """A parsed request, which can be forwarded to a place. Without a repository it is `/v2/` itself."""

    method: str
    endpoint: Endpoint
    repository: Repository | None = None
    reference: Reference | None = None
    query: str = ""

    @property
    def path(self) -> str:
        """Returns the path below `/v2/`."""
        match self.endpoint:
            case Endpoint.BASE:
                return ""
            case Endpoint.TAGS:
                return f"{self.repository}/tags/list"
            case Endpoint.REFERRERS:
                return f"{self.repository}/referrers/{self.reference}"
            case _:
                return f"{self.repository}/{self.endpoint}s/{self.reference}"

    @property
    def is_by_name(self) -> bool:
        """Returns whether instances may answer differently. What a digest names is the same everywhere."""
        return not isinstance(self.reference, Digest)


class ErrorResponse(Exception):
    """A response with an error code of the specification."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers or {}


def parse(method: str, path: str, query: str) -> Pull:
    """Returns the parsed request.

    Args:
        method: The HTTP method.
        path: What follows `/v2/`, percent-decoded.
        query: The raw query string.

    Raises:
        ErrorResponse: It is no request that a gateway forwards.
    """
    if method not in _METHODS:
        raise ErrorResponse(
            405, "UNSUPPORTED", "this is a gateway for pulls: push to the instance itself", _ALLOW
        )
    if path == "":
        return Pull(method, Endpoint.BASE)
    if path == "_catalog":
        raise ErrorResponse(
            405, "UNSUPPORTED", "a gateway lists no repositories: ask the instance itself", _ALLOW
        )
    name, endpoint, last = _split(path)
    repository = _repository(name)
    if endpoint is Endpoint.TAGS:
        return Pull(method, endpoint, repository, None, _forwarded(query))
    found = _tag_or_digest(last) if endpoint is Endpoint.MANIFEST else _digest(last)
    return Pull(
        method, endpoint, repository, found, _forwarded(query) if endpoint is Endpoint.REFERRERS else ""
    )


def mirrored_host(query: str) -> str | None:
    """Returns the registry that containerd was asked for, as `HOST[:PORT]`; None when the query names none."""
    return next((value for name, value in parse_qsl(query) if name == _MIRRORED), None)


def not_found(pull: Pull) -> ErrorResponse:
    """Returns the 404 for what no place has."""
    match pull.endpoint:
        case Endpoint.BLOB:
            return ErrorResponse(
                404, "BLOB_UNKNOWN", f"no place of this domain has the blob {pull.reference}"
            )
        case Endpoint.MANIFEST | Endpoint.REFERRERS:
            name = f"{pull.repository}{':' if pull.is_by_name else '@'}{pull.reference}"
            return ErrorResponse(404, "MANIFEST_UNKNOWN", f"no place of this domain has {name}")
        case _:
            return ErrorResponse(
                404, "NAME_UNKNOWN", f"no place of this domain has a repository {pull.repository}"
            )


def _split(path: str) -> tuple[str, Endpoint, str]:
    """Splits off the last two parts, of which one names the endpoint: a repository may contain these words too."""
    head, _, last = path.rpartition("/")
    repository, _, word = head.rpartition("/")
    words = {"manifests": Endpoint.MANIFEST, "blobs": Endpoint.BLOB, "referrers": Endpoint.REFERRERS}
    if word == "tags" and last == "list":
        return repository, Endpoint.TAGS, last
    if word not in words:
        raise ErrorResponse(404, "UNSUPPORTED", "no such path: use manifests, blobs, tags/list or referrers")
    return repository, words[word], last


def _repository(text: str) -> Repository:
    try:
        return Repository(text)
    except ValueError as error:
        raise ErrorResponse(400, "NAME_INVALID", str(error)) from error


def _tag_or_digest(text: str) -> Reference:
    if ":" in text:
        return _digest(text)
    try:
        return Tag(text)
    except ValueError as error:
        raise ErrorResponse(404, "MANIFEST_UNKNOWN", f"no manifest can have this name: {error}") from error


def _digest(text: str) -> Digest:
    try:
        return Digest(text)
    except ValueError as error:
        raise ErrorResponse(400, "DIGEST_INVALID", str(error)) from error


def _forwarded(query: str) -> str:
    """Returns the registry's own parameters, such as pages and filters."""
    return urlencode([(name, value) for name, value in parse_qsl(query) if name != _MIRRORED])
