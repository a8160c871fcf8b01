"""A whole mesh in the test's process: every role on the embedded log, with built-in registries, over HTTP.

It is composed as `regmesh up` is; the test decides what is declared, and when.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from consumer.agent import Agent
from consumer.blobs.relay.serve import Relays
from consumer.settings import AgentSettings, ParkingPolicy, TaskRetries
from mesh.clock import SystemClock
from mesh.control import Control
from mesh.credentials.credentials import CredentialProvider
from mesh.credentials.secrets import Secrets
from mesh.metrics import Metrics
from mesh.node import roles, serve
from mesh.node.cli.control_client import ControlClient
from mesh.node.node import Node, Trust, open_node
from mesh.registry.builtin import BuiltinRegistry
from mesh.registry.builtin.notify import Notify
from mesh.registry.client import RegistryClient, open_endpoint
from schemas.completions import Side
from schemas.names import Digest, Region, Repository, Tag
from tests.support import images

CLOCK = SystemClock()
QUICK = AgentSettings(
    retries=TaskRetries(attempts=3, first_wait=0.02, longest_wait=0.05),
    parking=ParkingPolicy(first_wait=0.5, longest_wait=0.5, check_every=0.1),
    regions_every=0.05,
    places_every=0.5,
    drain=5,
    heartbeat_every=0.2,
    progress_every=0.05,
)
APP = Repository("game/app")


@dataclass
class MeshSite:
    """The registries by place (`cn`, `cn@shanghai`) and the agents by region of a mesh."""

    folder: Path
    node: Node
    control: Control
    url: str
    stack: AsyncExitStack
    settings: AgentSettings = QUICK
    relays: Relays = field(default_factory=Relays)
    registries: dict[str, BuiltinRegistry] = field(default_factory=dict)
    agents: dict[str, tuple[Agent, asyncio.Task[None]]] = field(default_factory=dict)

    @property
    def api(self) -> ControlClient:
        """The client of its API that the command line uses."""
        return ControlClient(self.url)

    async def registry(self, place: str, **how: Any) -> BuiltinRegistry:
        """Starts the registry of a place. That of an instance notifies the intake, that of a replica nobody."""
        notify = None if "@" in place else Notify(f"{self.url}/v1/notifications/{place}", backoff=0.1)
        made = BuiltinRegistry(self.folder / place, clock=CLOCK, notify=notify, **how)
        await made.start()
        self.stack.push_async_callback(made.stop)
        self.registries[place] = made
        return made

    async def apply(self, document: Mapping[str, Any]) -> None:
        """Declares what `document` holds."""
        await self.control.apply(document)

    async def until_fills_are_listed(self) -> None:
        """Waits until the fills of all replicas have listed their instances.

        An image that is pushed before may be copied by a fill instead of by its event.
        """

        async def listed() -> bool:
            fills = [it for it in (await self.get("executions"))["items"] if it["trigger"] == "backfill"]
            known = len((await self.get("replicas"))["items"])
            return len(fills) >= known and all(fill["total"] is not None for fill in fills)

        await until(listed)

    async def start_agent(
        self, region: str, *, sends_on: bool = True, secrets: Secrets | None = None
    ) -> Agent:
        """Starts the agent of a region, with metrics of its own; with `sends_on` it serves as a relay."""
        metrics = Metrics(CollectorRegistry())
        own = replace(self.node, metrics=metrics, secrets=secrets or self.node.secrets)
        agent = roles.agent(
            own, Region(region), self.settings, relays=self.relays, url=self.url if sends_on else None
        )
        self.agents[region] = agent, asyncio.create_task(agent.run(), name=f"agent {region}")
        return agent

    async def stop_agent(self, region: str) -> None:
        """Stops the agent of a region as SIGTERM does."""
        agent, running = self.agents.pop(region)
        agent.stop()
        await running

    async def kill_agent(self, region: str) -> None:
        """Cancels the agent of a region wherever it is, without settling anything."""
        _, running = self.agents.pop(region)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    async def push(
        self,
        place: str,
        tag: str,
        image: images.Image,
        repository: Repository = APP,
        credentials: CredentialProvider | None = None,
    ) -> Digest:
        """Pushes an image, and returns when its events are on the log."""
        async with client(self.registries[place], credentials) as registry:
            await images.push(registry, repository, Tag(tag), image)
        await self.registries[place].drained()
        return image.digest

    async def digest(self, place: str, tag: str, repository: Repository = APP) -> Digest | None:
        """Returns the digest that a tag names at a place."""
        async with client(self.registries[place]) as registry:
            found = await registry.resolve(repository, Tag(tag))
        return found.digest if found is not None else None

    async def get(self, path: str, **query: str) -> Any:
        """Returns the JSON at `path` of the API."""
        return await self.api.request("GET", f"/api/v1/{path}", query=query)

    async def logs(self, **query: str) -> list[dict[str, Any]]:
        """Returns sync log entries."""
        found: list[dict[str, Any]] = (await self.get("logs", limit="1000", **query))["items"]
        return found


async def until(look: Callable[[], Any], *, within: float = 20) -> Any:
    """Awaits `look()` again and again until its result is true, and returns that."""
    found: Any = None
    try:
        async with asyncio.timeout(within):
            while not (found := await look()):
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {within} s; last: {found!r}") from None
    return found


@asynccontextmanager
async def client(
    registry: BuiltinRegistry, credentials: CredentialProvider | None = None
) -> AsyncIterator[RegistryClient]:
    """Opens a registry client with the rights of a destination."""
    endpoint = open_endpoint("test", registry.url, credentials)
    try:
        yield endpoint.registry(Side.DESTINATION)
    finally:
        await endpoint.close()


@asynccontextmanager
async def mesh_site(
    folder: Path, settings: AgentSettings = QUICK, trust: Trust | None = None
) -> AsyncIterator[MeshSite]:
    """Runs a mesh with nothing declared and no agent."""
    async with AsyncExitStack() as stack:
        metrics = Metrics(CollectorRegistry())
        node = await stack.enter_async_context(open_node(None, folder / "data", trust or Trust(), metrics))
        control, relays = roles.control(node, None), Relays()
        intake = await stack.enter_async_context(roles.intake(node))
        url = await stack.enter_async_context(
            serve.listening("127.0.0.1:0", node, [intake.routes, control.routes, relays.routes])
        )
        await node.table.caught_up()
        running = (control, roles.reconcile(node), intake)
        serving = [asyncio.create_task(role.run()) for role in running]
        site = MeshSite(folder, node, control, url, stack, settings, relays)
        try:
            yield site
        finally:
            for region in list(site.agents):
                await site.kill_agent(region)
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)
