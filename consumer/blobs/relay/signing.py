"""Signs the requests of relays. Pure.

A pair of regions has a key of its own, which both derive from the mesh's relay secret. The secret is never sent, and a
request is signed for one blob, one relay's address and one time: who sees it learns nothing to ask for anything else
with, or as anybody else, or another relay. So an address that a forged heartbeat announces gets nothing that the
region's real relay accepts. Within the time that a signature is accepted it can be sent again, for the same bytes.
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple, Protocol

from schemas.names import Digest, PlaceName, Region, Repository

REGION_HEADER = "Regmesh-Region"
TIME_HEADER = "Regmesh-Time"
SIGNATURE_HEADER = "Authorization"
ACCEPTED_SECONDS = 300  # by which the time of a request may differ from the clock of the relay

_SCHEME = "Regmesh-HMAC-SHA256 "
_LABEL = b"regmesh relay 1\n"


class RelayRequest(NamedTuple):
    """What a signature is about: `region` asks for bytes of a blob from `offset` on, as `place` has it.

    `url` is the relay's as its heartbeat announces it, whatever a proxy makes of it on the way.
    """

    url: str
    region: Region
    place: PlaceName
    repository: Repository
    digest: Digest
    size: int
    offset: int

    @property
    def serving(self) -> Region:
        """Returns the region whose relay is asked."""
        return Region(self.place.partition("@")[2])


class RelayKeys(Protocol):
    """The keys of one process."""

    def key_of(self, serving: Region, asking: Region) -> bytes | None:
        """Returns the key for requests of `asking` to `serving`, or None when this process must not know it."""
        ...


class MeshKeys:
    """All keys of a mesh, from its relay secret."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def key_of(self, serving: Region, asking: Region) -> bytes:
        return _mac(_mac(self._secret, _LABEL + serving.encode()), asking.encode())


def headers_of(request: RelayRequest, keys: RelayKeys, now: datetime) -> dict[str, str]:
    """Returns the headers that sign a request; none of them is the secret or helps to find another signature."""
    time = str(int(now.timestamp()))
    headers = {REGION_HEADER: str(request.region), TIME_HEADER: time}
    if (key := keys.key_of(request.serving, request.region)) is not None:
        headers[SIGNATURE_HEADER] = _SCHEME + _signature(key, request, time)
    return headers


def why_refused(
    request: RelayRequest, keys: RelayKeys | None, headers: Mapping[str, str], now: datetime
) -> str | None:
    """Returns why a request is not proved to come from its region, or None when it is."""
    key = keys.key_of(request.serving, request.region) if keys is not None else None
    given, time = headers.get(SIGNATURE_HEADER, ""), headers.get(TIME_HEADER, "")
    if key is None or not given.startswith(_SCHEME):
        return "the signature is missing, or this relay knows no key for it"
    expected = _SCHEME + _signature(key, request, time)
    if not hmac.compare_digest(given.encode(errors="replace"), expected.encode()):
        return "the signature is wrong: the relay secrets differ, or another region signed"
    if not time.isascii() or not time.isdigit() or len(time) > 12:
        return "the time is not in seconds since 1970"
    behind = now.timestamp() - int(time)
    if abs(behind) > ACCEPTED_SECONDS:
        return f"the request is {behind:.0f} s old by this relay's clock; set both clocks"
    return None


def _signature(key: bytes, request: RelayRequest, time: str) -> str:
    """Signs names instead of the URL: a proxy may write a URL in another way."""
    fields = ("GET", *request, time)
    return _mac(key, "\n".join(map(str, fields)).encode(errors="replace")).hex()


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, hashlib.sha256)
