"""What must hold after any faults: at every moment, and when the mesh is idle again."""

import json
from collections.abc import Iterator

from mesh.registry.builtin.store import Store
from schemas.names import Digest, Repository
from tests.simulation.world import REPLICAS, REPOSITORIES, TAGS, World, goes_abroad

_DESTINATIONS = {"eu": "cn", **REPLICAS}


def broken_now(world: World) -> list[str]:
    """Returns tags at destinations that lack content, or that must never be there."""
    found = []
    for place in _DESTINATIONS:
        store = world.store(place)
        for repository in REPOSITORIES:
            for tag in store.tags(repository):
                if place.startswith("eu") and tag in TAGS and not goes_abroad(tag):
                    found.append(f"{place}/{repository}:{tag} crossed the border")
                digest = store.tagged(repository, tag)
                if digest is not None:
                    found += [
                        f"{place}/{repository}:{tag} {it}" for it in _missing(store, repository, digest)
                    ]
    return found


def differences(world: World) -> list[str]:
    """Returns the differences in tags and referrers between each destination and what it should hold."""
    found = []
    for place, instance in _DESTINATIONS.items():
        has, wanted = world.store(place), world.store(instance)
        for repository in REPOSITORIES:
            for tag in TAGS:
                digest = wanted.tagged(repository, tag)
                if place == "eu" and not goes_abroad(tag):
                    continue
                there = has.tagged(repository, tag)
                if digest is None and place in world.unwatched:
                    continue  # a tag deleted in the meantime stays: nobody knows that the mesh copied it
                if there != digest:
                    found.append(f"{place}/{repository}:{tag} is {_short(there)}, should be {_short(digest)}")
                elif digest is not None:
                    found += _referrers(wanted, has, place, repository, digest)
    return found


def _referrers(
    wanted: Store, has: Store, place: str, repository: Repository, subject: Digest
) -> Iterator[str]:
    for entry in wanted.referrers(repository, subject):
        digest = Digest(str(entry["digest"]))
        if has.manifest(repository, digest) is None:
            yield f"{place}/{repository}@{_short(subject)} lacks its referrer {_short(digest)}"


def _missing(store: Store, repository: Repository, digest: Digest) -> Iterator[str]:
    stored = store.manifest(repository, digest)
    if stored is None:
        yield f"names {_short(digest)}, which is missing"
        return
    document = json.loads(stored.path.read_bytes())
    for child in document.get("manifests", []):
        yield from _missing(store, repository, Digest(child["digest"]))
    for part in [document["config"], *document["layers"]] if "layers" in document else []:
        if store.blob_size(repository, Digest(part["digest"])) != part["size"]:
            yield f"lacks the blob {_short(Digest(part['digest']))}"


def _short(digest: Digest | None) -> str:
    return "nothing" if digest is None else digest[7:15]
