"""A mesh under random faults: an instance with two replicas, a rule to another jurisdiction, and a replica there.

Clients push, move and delete tags; registries misbehave, agents are killed, notifications are lost. The seed sets the
steps and their order; time is real, so that the same seed differs in timing from run to run.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mesh.node.cli.control_client import ApiError
from mesh.registry.builtin import BuiltinRegistry
from mesh.registry.builtin.faults import Cut, Fail, Faults, HalfWritten, Lie, Throttle
from mesh.registry.builtin.store import Store
from schemas.names import Repository, Tag
from tests.support import attached, images
from tests.support.mesh_site import MeshSite, client, mesh_site

REPOSITORIES = [Repository(name) for name in ("game/app", "game/web", "base/os/tools")]
TAGS = [Tag(name) for name in ("v1", "v2", "v1-global", "v2-global")]
REPLICAS = {"cn@shanghai": "cn", "cn@chengdu": "cn", "eu@virginia": "eu"}
REGIONS = {"beijing": "cn", "shanghai": "cn", "chengdu": "cn", "frankfurt": "global", "virginia": "global"}
RULE = "release-to-eu"


def goes_abroad(tag: Tag) -> bool:
    """Returns whether the rule copies the tag."""
    return tag.endswith("-global")


@dataclass
class World:
    """The mesh, its random source and its faults."""

    site: MeshSite
    chance: random.Random
    report: Callable[[str], None]
    declared: dict[str, object]
    pool: list[images.Image] = field(default_factory=list)
    unwatched: set[str] = field(default_factory=set)  # places that were not declared for a while
    down: dict[str, int] = field(default_factory=dict)  # ports of the registries that are down

    def store(self, place: str) -> Store:
        """Returns the store of a registry, which can be read without a request."""
        return self.site.registries[place]._store

    async def step(self) -> None:
        """Takes one random step and waits a moment."""
        do = self.chance.choices(
            [self._push, self._delete_tag, self._delete_digest, self._attach, self._misbehave, self._lose_agent,
             self._lose_notifications, self._sync, self._lose_registry, self._redeclare],
            weights=[12, 3, 1, 2, 4, 2, 1, 1, 2, 1],
        )[0]  # fmt: skip
        await do()
        await asyncio.sleep(self.chance.choice([0, 0.01, 0.05, 0.2]))

    async def heal(self) -> None:
        """Ends all faults: starts registries and agents, declares everything, and waits for notifications."""
        for place in [*self.down]:
            await self._start_registry(place)
        await self.site.apply(self.declared)
        for registry in self.site.registries.values():
            _clear(registry.faults)
        for region in REGIONS.keys() - self.site.agents.keys():
            await self.site.start_agent(region)
        for instance in ("cn", "eu"):
            await self.site.registries[instance].drained()

    async def _push(self) -> None:
        """Pushes a new image or one that was pushed before, under any tag."""
        if not self.pool or self.chance.random() < 0.5:
            self.pool.append(self._image())
        repository, tag, image = self.chance.choice(REPOSITORIES), self._tag(), self.chance.choice(self.pool)
        self.report(f"push {repository}:{tag} {image.digest[7:15]}")
        async with client(self.site.registries["cn"]) as registry:
            await images.push(registry, repository, tag, image)

    def _image(self) -> images.Image:
        layers = [self.chance.randbytes(self.chance.choice([100, 5_000, 200_000])) for _ in range(3)]
        if self.pool and (known := [*self.chance.choice(self.pool).blobs.values()]):
            layers.append(known[-1])
        one = images.image(layers=layers)
        if self.chance.random() < 0.25:
            return images.index([one, images.image(layers=layers[1:])])
        return one

    async def _delete_tag(self) -> None:
        repository, tag = self.chance.choice(REPOSITORIES), self._tag()
        if self.store("cn").tagged(repository, tag) is not None:
            self.report(f"delete {repository}:{tag}")
            async with client(self.site.registries["cn"]) as registry:
                await registry.delete_manifest(repository, tag)

    async def _delete_digest(self) -> None:
        """Deletes a digest; the registry notifies of the digest, and not of the tags that named it."""
        repository, tag = self.chance.choice(REPOSITORIES), self._tag()
        if (digest := self.store("cn").tagged(repository, tag)) is not None:
            self.report(f"delete {repository}@{digest[7:15]}")
            async with client(self.site.registries["cn"]) as registry:
                await registry.delete_manifest(repository, digest)

    async def _attach(self) -> None:
        repository, tag = self.chance.choice(REPOSITORIES), self._tag()
        if (digest := self.store("cn").tagged(repository, tag)) is None:
            return
        subject = next(image.manifest for image in self.pool if image.digest == digest)
        sbom = attached.attachment(subject, attached.SBOM, self.chance.randbytes(50))
        self.report(f"attach {sbom.digest[7:15]} to {repository}@{digest[7:15]}")
        async with client(self.site.registries["cn"]) as registry:
            await attached.push(registry, repository, subject, sbom)

    async def _misbehave(self) -> None:
        """Makes one registry misbehave for a few requests; the instance only to readers, so that pushes succeed."""
        place = self.chance.choice([*self.site.registries])
        faults, times = self.site.registries[place].faults, self.chance.randint(1, 4)
        kinds: dict[str, Callable[[], None]] = {
            "cut": lambda: setattr(faults, "cut", Cut(times, after=self.chance.choice([0, 50, 3000]))),
            "lie": lambda: setattr(faults, "lie", Lie(times)),
            "slow": lambda: setattr(faults, "slow", 500_000),
            "none": lambda: _clear(faults),
        }
        if place != "cn":
            kinds |= {
                "429": lambda: setattr(faults, "throttle", Throttle(times, retry_after=None)),
                "500": lambda: setattr(
                    faults, "fail", Fail(times, status=self.chance.choice([500, 502, 503]))
                ),
                "half": lambda: setattr(
                    faults, "half_written", HalfWritten(times, head_says_there=self.chance.random() < 0.5)
                ),
            }
        kind = self.chance.choice([*kinds])
        self.report(f"{place}: {kind} {times}")
        kinds[kind]()

    async def _lose_agent(self) -> None:
        """Kills or stops an agent, or starts one that does not run."""
        region = self.chance.choice([*REGIONS])
        if region not in self.site.agents:
            self.report(f"agent {region} starts")
            await self.site.start_agent(region)
        elif self.chance.random() < 0.7:
            self.report(f"agent {region} is killed")
            await self.site.kill_agent(region)
        else:
            self.report(f"agent {region} stops")
            await self.site.stop_agent(region)

    async def _lose_registry(self) -> None:
        """Stops the registry of a destination, or starts it again."""
        place = self.chance.choice([place for place in self.site.registries if place != "cn"])
        if place in self.down:
            self.report(f"{place} is back")
            await self._start_registry(place)
        else:
            self.report(f"{place} is down")
            registry = self.site.registries[place]
            self.down[place] = int(registry.url.rpartition(":")[2])
            await registry.stop()

    async def _start_registry(self, place: str) -> None:
        await self.site.registries[place].start(port=self.down.pop(place))

    async def _redeclare(self) -> None:
        """Deletes the declaration of a replica or of the rule, or declares everything again."""
        if self.chance.random() < 0.5:
            self.report("everything is declared")
            await self.site.apply(self.declared)
            return
        place = self.chance.choice(["eu", *REPLICAS])
        path = f"rules/{RULE}" if place == "eu" else f"replicas/{place}"
        self.report(f"{path} is deleted")
        self.unwatched |= {place, "eu@virginia"} if place == "eu" else {place}
        with contextlib.suppress(ApiError):  # it was deleted before
            await self.site.api.request("DELETE", f"/api/v1/{path}")

    async def _lose_notifications(self) -> None:
        """Deletes a tag without a notification, unless the rule copies it: a rule deletes only announced tags."""
        repository = self.chance.choice(REPOSITORIES)
        tag = self.chance.choice([tag for tag in TAGS if not goes_abroad(tag)])
        if self.store("cn").delete_tag(repository, tag):
            self.report(f"deleted without a notification: {repository}:{tag}")

    async def _sync(self) -> None:
        name = self.chance.choice([RULE, *REPLICAS])
        with contextlib.suppress(ApiError):  # it is not declared now
            await self.site.api.request("POST", "/api/v1/executions", body={"rule": name})
            self.report(f"sync {name}")

    def _tag(self) -> Tag:
        return self.chance.choice(TAGS)


def _clear(faults: Faults) -> None:
    faults.slow = None
    faults.cut = faults.throttle = faults.fail = faults.half_written = faults.lie = None


@asynccontextmanager
async def world(folder: Path, seed: int, report: Callable[[str], None]) -> AsyncIterator[World]:
    """Yields a mesh in which everything is declared and every agent runs."""
    chance = random.Random(seed)
    async with mesh_site(folder) as site:
        for instance in ("cn", "eu"):
            await site.registry(instance)
        for replica in REPLICAS:
            await site.registry(replica, referrers=chance.random() < 0.7)
        document = _document(site.registries)
        await site.apply(document)
        for region in REGIONS:
            await site.start_agent(region)
        yield World(site, chance, report, document)


def _document(registries: dict[str, BuiltinRegistry]) -> dict[str, object]:
    homes = {"cn": "beijing", "eu": "frankfurt"}
    return {
        "regions": [{"name": name, "jurisdiction": where} for name, where in REGIONS.items()],
        "instances": [
            {"name": name, "account": "game", "region": region, "url": registries[name].url}
            for name, region in homes.items()
        ],
        "replicas": [
            {"instance": instance, "region": name.partition("@")[2], "url": registries[name].url}
            for name, instance in REPLICAS.items()
        ],
        "rules": [
            {
                "name": RULE, "source": "cn", "destination": "eu", "deletion": True,
                "filters": [{"type": "tag", "value": "*-global"}],
            }
        ],
    }  # fmt: skip
