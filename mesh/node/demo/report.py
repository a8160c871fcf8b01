"""The report of the demo: it prints where the images are and who sent what, and checks each promise."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
from rich.console import Console

from mesh.node.cli.output import print_table, size
from mesh.node.demo import topology
from mesh.node.demo.progress import Progress
from mesh.node.demo.release import Image
from mesh.node.demo.stage import Stage
from mesh.registry.manifests import OCI_MANIFEST
from mesh.registry.port import digest_of

_STATUS_SECONDS = 30.0  # in which the agents report what they have copied
_MAX_SENT = 1.5  # times an image: on a slow machine a relay may be skipped now and then


async def show(stage: Stage, images: Sequence[Image], seen: Progress, console: Console) -> list[str]:
    """Prints the report and returns what of it does not hold."""
    console.print("[bold]where the images are[/bold] (regmesh where)")
    problems = await _where(stage, images[0])
    console.print("[bold]what each region sent[/bold] (regmesh usage)")
    problems += await _usage(stage, images, console)
    console.print("[bold]nearby access[/bold] from singapore (regmesh gateway)")
    problems += await _nearby(stage, images[0], console)
    console.print("[bold]the border[/bold]")
    problems += await _border(stage, images, console)
    last = max(max(place.pullable.values()) for place in seen.places.values())
    console.print(f"everything was pullable {last:.1f} s after the push started")
    return problems


async def _where(stage: Stage, image: Image) -> list[str]:
    """Shows what `regmesh where` shows, once the agents have reported everything."""
    held = 0
    for _ in range(int(_STATUS_SECONDS / 0.2)):
        rows = [
            *(await _locations(stage, topology.CN, image)),
            *(await _locations(stage, topology.EU, image)),
        ]
        held = sum(row["digest"] == image.manifest.digest for row in rows)
        if held == len(rows):
            break
        await asyncio.sleep(0.2)
    print_table(rows, {
        "PLACE": lambda it: it["place"], "TAG": lambda it: it["tag"], "SHA256": lambda it: str(it["digest"])[7:17],
        "STATE": lambda it: it["state"],
        "LAG": lambda it: "-" if it["lag_ms"] is None else f"{it['lag_ms'] / 1000:.1f} s",
        "SEEN BY": lambda it: it["seen_by"],
    })  # fmt: skip
    return [] if held == len(rows) else ["`regmesh where` does not show all places as current"]


async def _locations(stage: Stage, instance: str, image: Image) -> list[dict[str, Any]]:
    path = f"/api/v1/images/{instance}/{image.repository}"
    found = (await stage.api.request("GET", path))["items"]
    return [
        {**place, "tag": tag["tag"]}
        for tag in found
        for place in tag["places"]
        if place["place"].startswith(instance)
    ]


async def _usage(stage: Stage, images: Sequence[Image], console: Console) -> list[str]:
    """Checks that the source on each side sent each byte once, whatever the number of replicas."""
    usage: Mapping[str, Any] = await stage.api.request("GET", "/api/v1/usage")
    sent: Counter[str] = Counter()
    for link in usage["links"]:
        sent[link["from"]] += link["bytes"]
    rows = [{"region": region, "bytes": count} for region, count in sent.most_common()]
    print_table(rows, {"REGION": lambda it: it["region"], "SENT": lambda it: size(it["bytes"])})
    once = sum(image.size for image in images) + images[0].size  # to one replica, and to Frankfurt
    problems = []
    ratios = sent["beijing"] / once, sent["frankfurt"] / images[0].size
    mainland, outside = len(topology.MAINLAND), len(topology.OUTSIDE)
    console.print(
        f"  beijing sent its images {ratios[0]:.2f} times, for {mainland} replicas and once to frankfurt"
    )
    console.print(f"  frankfurt sent its images {ratios[1]:.2f} times, for {outside} replicas")
    if max(ratios) > _MAX_SENT:
        problems.append("a source sent its images more than once")
    return problems


async def _nearby(stage: Stage, image: Image, console: Console) -> list[str]:
    problems = []
    first = await _pull(stage, image)
    console.print(f"  pulled {image.repository}:{topology.GLOBAL_TAG} from {first}")
    if first != f"{topology.EU}@singapore":
        problems.append(f"singapore pulled from {first}")
    await stage.registries[f"{topology.EU}@singapore"].stop()
    second = await _pull(stage, image)
    console.print(f"  after its registry was stopped, the next pull came from {second}")
    if second != f"{topology.EU}@mumbai":
        problems.append(f"the second nearest place of singapore was {second}")
    return problems


async def _pull(stage: Stage, image: Image) -> str:
    """Pulls and verifies manifest and blobs; returns the place that sent the most bytes."""
    before = _sent_to_clients(stage)
    async with aiohttp.ClientSession(headers={"Accept": OCI_MANIFEST}) as session:
        await _read(
            session,
            f"{stage.gateway}/v2/{image.repository}/manifests/{topology.GLOBAL_TAG}",
            image.manifest.digest,
        )
        for blob in image.blobs:
            await _read(session, f"{stage.gateway}/v2/{image.repository}/blobs/{blob.digest}", blob.digest)
    sent = _sent_to_clients(stage) - before
    return sent.most_common(1)[0][0] if sent else "nobody"


async def _read(session: aiohttp.ClientSession, url: str, digest: str) -> None:
    async with session.get(url) as answer:
        body = await answer.read()
        if answer.status != 200 or digest_of(body) != digest:
            raise AssertionError(f"{url} answered {answer.status}, or content that is not {digest}")


def _sent_to_clients(stage: Stage) -> Counter[str]:
    """Returns the bytes that each place has sent to the gateway's clients so far."""
    found: Counter[str] = Counter()
    for family in stage.node.metrics.registry.collect():
        for sample in family.samples:
            if sample.name == "regmesh_gateway_bytes_total":
                found[sample.labels["place"]] += int(sample.value)
    return found


async def _border(stage: Stage, images: Sequence[Image], console: Console) -> list[str]:
    """Checks at the registries outside that they have no tag and no blob that belongs on the mainland only."""
    problems = []
    outside = [
        place
        for place in stage.registries
        if place.startswith(topology.EU) and not place.endswith("singapore")
    ]
    secret = [blob for blob in images[1].blobs if blob.digest not in images[0].bodies]
    for place in outside:
        async with stage.client(place) as registry:
            tags = [tag async for tag in registry.tags(images[0].repository)]
            leaked = [
                blob
                for blob in secret
                if await registry.blob_size(images[1].repository, blob.digest) is not None
            ]
        if tags != [topology.GLOBAL_TAG] or leaked:
            problems.append(f"{place} has {tags} and {len(leaked)} blobs that belong on the mainland only")
    if not problems:
        console.print(
            f"  outside: no {topology.MAINLAND_TAG}, no {images[1].repository}, none of their layers"
        )
    return problems
