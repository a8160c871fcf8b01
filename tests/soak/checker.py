"""The walk over all registries at the end of a soak: is every tag of the ledger at every destination, whole?

It asks the registries over plain HTTP and uses nothing of the product.
"""

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from http.client import HTTPException

from tests.soak.ledger import Ledger, Name
from tests.soak.wire import Registry, digest_of

_CONCURRENT = 4


class Kind(StrEnum):
    """What is wrong with a tag at a destination."""

    LOST = "lost"  # the source has it, the destination does not
    WRONG = "wrong"  # another digest, a tag that the source does not have, or bytes that are not right
    SOURCE = "source"  # the source itself does not hold what it acknowledged: no fault of the mesh


@dataclass(frozen=True)
class Finding:
    """One tag that is not as it should be."""

    kind: Kind
    place: str
    name: Name
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.place} {self.name}: {self.what}"


def walk(source: str, places: Mapping[str, str], ledger: Ledger, *, deep: bool = True) -> list[Finding]:
    """Returns everything that differs between the source and the destinations.

    Args:
        source: The source's URL.
        places: The URL of each destination, by the name of its place.
        ledger: What was pushed. Tags that the source has and the ledger does not are compared too.
        deep: Reads and verifies every manifest and blob, instead of the digests of tags alone.
    """
    names = sorted(
        {*ledger.names(), *_all_names(source), *(it for url in places.values() for it in _all_names(url))}
    )

    def look(name: Name) -> list[Finding]:
        with Registry(source) as registry:
            present = registry.digest(*name)
        found = _source_findings(name, present, ledger)
        for place, url in places.items():
            with Registry(url) as registry:
                found += _destination_findings(place, registry, name, present, deep=deep)
        return found

    with ThreadPoolExecutor(_CONCURRENT) as pool:
        return [finding for findings in pool.map(look, names) for finding in findings]


def settle(source: str, places: Mapping[str, str], ledger: Ledger, *, within: float) -> float | None:
    """Waits until the digests of all tags agree; returns after how many seconds, or None when they never do."""
    began = time.monotonic()
    while time.monotonic() < began + within:
        try:
            if not any(it.kind is not Kind.SOURCE for it in walk(source, places, ledger, deep=False)):
                return time.monotonic() - began
        except (OSError, HTTPException):
            pass  # a registry that was just started
        time.sleep(0.5)
    return None


def _all_names(url: str) -> list[Name]:
    with Registry(url) as registry:
        return [Name(it, tag) for it in registry.repositories() for tag in registry.tags(it)]


def _source_findings(name: Name, present: str | None, ledger: Ledger) -> list[Finding]:
    acknowledged = ledger.wanted().get(name)
    if acknowledged is None:
        return []
    possible = {it.digest for it in ledger.history(name) if it.number >= acknowledged.number}
    if present in possible:
        return []
    return [Finding(Kind.SOURCE, "source", name, f"{present} instead of {acknowledged.digest}")]


def _destination_findings(
    place: str, registry: Registry, name: Name, present: str | None, *, deep: bool
) -> list[Finding]:
    found = registry.digest(*name)
    if found is None and present is not None:
        return [Finding(Kind.LOST, place, name, f"the source has {present}")]
    if found != present:
        return [Finding(Kind.WRONG, place, name, f"{found}, and the source has {present}")]
    problems = _content_problems(registry, name, found) if deep and found is not None else []
    return [Finding(Kind.WRONG, place, name, problem) for problem in problems]


def _content_problems(registry: Registry, name: Name, digest: str) -> Sequence[str]:
    try:
        body = registry.manifest(name.repository, name.tag)
    except OSError as error:
        return [f"the manifest cannot be read: {error}"]
    if digest_of(body) != digest:
        return [f"the manifest's bytes are {digest_of(body)}, not {digest}"]
    manifest = json.loads(body)
    problems = []
    for part in (manifest["config"], *manifest["layers"]):
        try:
            blob = registry.blob(name.repository, part["digest"])
        except OSError as error:
            problems.append(f"the blob {part['digest']} cannot be read: {error}")
            continue
        if digest_of(blob) != part["digest"] or len(blob) != part["size"]:
            problems.append(f"the blob {part['digest']} has {len(blob)} bytes with {digest_of(blob)}")
    return problems
