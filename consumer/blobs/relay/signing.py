"""Signs the requests of relays. Pure.

A pair of regions has a key of its own, which both derive from the mesh's relay secret. The secret is never sent, and a
request is signed for one blob, one relay's address and one time: who sees it learns nothing to ask for anything else
with, or as anybody else, or another relay. So an address that a forged heartbeat announces gets nothing that the
region's real relay accepts. Within the time that a signature is accepted it can be sent again, for the same bytes.

    k(S)    = HMAC(secret, S)    the region S serves with it: all keys of requests to S follow from it
    k(S, C) = HMAC(k(S), C)      the region C asks S with it

An agent that is trusted with less than the secret gets the keys of its own region C, `RegionKeys`: k(C), and k(S, C) of
the regions S that it may ask. With them it can speak as no other region.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple, Protocol

from mesh.errors import InvalidInput
from schemas.names import Digest, PlaceName, Region, Repository

REGION_HEADER = "Regmesh-Region"
TIME_HEADER = "Regmesh-Time"
SIGNATURE_HEADER = "Authorization"
ACCEPTED_SECONDS = 300  # by which the time of a request may differ from the clock of the relay

_SCHEME = "Regmesh-HMAC-SHA256 "
_LABEL = b"regmesh relay 1\n"
_PREFIX = "regmesh-relay-keys-1 "
_KEY_BYTES = 32


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
        return _mac(self._served_by(serving), asking.encode())

    def keys_of_region(self, region: Region, asked: Iterable[Region]) -> "RegionKeys":
        """Returns the keys of one region, which may ask the relays of the regions `asked`."""
        pairs = {serving: self.key_of(serving, region) for serving in asked if serving != region}
        return RegionKeys(region, self._served_by(region), pairs)

    def _served_by(self, region: Region) -> bytes:
        return _mac(self._secret, _LABEL + region.encode())


class RegionKeys:
    """The keys of one region: that which it serves with, and one for each region whose relays it may ask."""

    def __init__(self, region: Region, own: bytes, pairs: Mapping[Region, bytes]) -> None:
        self.region, self._own, self._pairs = region, own, pairs

    def key_of(self, serving: Region, asking: Region) -> bytes | None:
        if serving == self.region:
            return _mac(self._own, asking.encode())
        return self._pairs.get(serving) if asking == self.region else None

    def text(self) -> str:
        """Returns the keys as one line, which `parse_keys` reads."""
        pairs = (f"{serving}={key.hex()}" for serving, key in sorted(self._pairs.items()))
        return " ".join([f"{_PREFIX}{self.region}={self._own.hex()}", *pairs])


def parse_keys(text: str) -> MeshKeys | RegionKeys:
    """Returns the keys that the value of a secret stands for: those of one region, else those of the mesh.

    Raises:
        InvalidInput: It is empty, or starts as the keys of a region do and something in it is none.
    """
    if not text:
        raise InvalidInput("the relay secret is empty, so anybody could sign: store a long random text")
    if not text.startswith(_PREFIX):
        return MeshKeys(text)
    try:
        named = [entry.partition("=") for entry in text.removeprefix(_PREFIX).split()]
        keys = {Region(name): bytes.fromhex(key) for name, _, key in named}
        region, own = next(iter(keys.items()))
    except (ValueError, StopIteration):
        raise InvalidInput("the keys of a region are not as `regmesh relay-keys` prints them") from None
    if any(len(key) != _KEY_BYTES for key in keys.values()) or len(keys) != len(named):
        raise InvalidInput(
            "the keys of a region are not complete: store all that `regmesh relay-keys` prints"
        )
    return RegionKeys(region, own, {name: key for name, key in keys.items() if name != region})


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
