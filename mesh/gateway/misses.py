"""Misses: what a replica in this region does not have and another place has. Its replication is started.

The gateway copies nothing itself. It requests an execution for this one image on `mesh.commands`, as an operator would;
the producer lists it and the region's agent copies it, by their own rules. A miss by digest does not show the tag, and
replication goes by tags: there the whole repository is requested, and the agent checks the digest of each other tag.
"""

import asyncio
from dataclasses import dataclass, field

import structlog
from cachetools import TTLCache

from mesh.clock import Clock
from mesh.errors import LogError
from mesh.gateway.request import Endpoint, Pull
from mesh.gateway.search import Served, claimed_digest
from mesh.gateway.settings import GatewaySettings
from mesh.log.port import Append, Log
from mesh.metrics import Metrics
from mesh.registry.port import digest_of
from mesh.rules.state import MeshState
from schemas import codec, topics
from schemas.envelope import make_id
from schemas.executions import ExecutionStart, ImageName
from schemas.names import Digest, Region, Repository, Tag
from schemas.topology import Place

LOG = structlog.get_logger()

_CACHE_SIZE = 10_000

_Image = tuple[str, Repository, Tag | None]  # replica, repository and tag; without a tag the whole repository


@dataclass(slots=True)
class Misses:
    """Starts replications of missed images. `close` waits for commands that are being written."""

    region: Region
    log: Log
    state: MeshState
    clock: Clock
    metrics: Metrics
    settings: GatewaySettings
    _tags: TTLCache[_Image, None] = field(init=False)  # replicated recently
    _repositories: TTLCache[_Image, None] = field(init=False)
    _writing: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._tags = self._cache(self.settings.miss_interval)
        self._repositories = self._cache(self.settings.repository_miss_interval)

    def notice(self, pull: Pull, served: Served) -> None:
        """Starts a replication when a replica of this region should have served. Never waits and never fails."""
        replica = missing_at(pull, served, self.region)
        if replica is None or pull.repository is None:
            return
        self.metrics.gateway_misses.labels(replica.name).inc()
        tag = pull.reference if isinstance(pull.reference, Tag) else None
        if self._is_recent((replica.name, pull.repository, tag)):
            return
        command = self._command(replica, pull.repository, tag, _digest(served))
        if command is not None:
            task = asyncio.create_task(self._write(command, replica), name=f"miss at {replica.name}")
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def close(self) -> None:
        """Waits until all commands are written."""
        await asyncio.gather(*self._writing)

    def _cache(self, seconds: float) -> TTLCache[_Image, None]:
        return TTLCache(_CACHE_SIZE, seconds, timer=self.clock.monotonic)

    def _is_recent(self, image: _Image) -> bool:
        """Returns whether the image was replicated recently, and records it otherwise."""
        replica, repository, tag = image
        if image in (self._repositories if tag is None else self._tags):
            return True
        if tag is not None:
            self._tags[image] = None
        self._repositories[replica, repository, None] = None  # a pull by tag requests digests next
        return False

    def _command(
        self, replica: Place, repository: Repository, tag: Tag | None, digest: Digest | None
    ) -> ExecutionStart | None:
        source = self.state.instance(replica.instance)
        if source is None:
            return None
        now = self.clock.now()
        # All gateways of the region that miss it in one interval name the same execution; a later miss names another.
        interval = self.settings.repository_miss_interval if tag is None else self.settings.miss_interval
        when = str(int(now.timestamp() / interval))
        execution_id = make_id(
            "miss", replica.name, repository, tag, digest if tag is not None else None, when
        )
        return ExecutionStart(
            id=make_id("start", execution_id), time=now, execution_id=execution_id, region=source.region,
            rule=replica.name, source=source.name, destination=replica.name, trigger="reconcile",
            repository=repository if tag is None else None,
            images=(ImageName(repository=repository, tag=tag),) if tag is not None else (), rules_rev=self.state.rev,
        )  # fmt: skip

    async def _write(self, command: ExecutionStart, replica: Place) -> None:
        try:
            await self.log.ensure([topics.COMMANDS])
            await self.log.append([Append(topics.COMMANDS, command.key, codec.encode(command))])
        except LogError as error:
            LOG.warning(
                "a miss is not replicated", action="miss_failed", place=replica.name, error=str(error)
            )
        else:
            LOG.info(
                "a miss is replicated", action="miss", place=replica.name, execution=command.execution_id
            )


def missing_at(pull: Pull, served: Served, region: Region) -> Place | None:
    """Returns the replica in `region` that does not have a manifest which another place of its instance served."""
    if pull.endpoint is not Endpoint.MANIFEST or served.response.status != 200:
        return None
    return next(
        (
            place
            for place in served.absent
            if place.region == region and place.is_replica and place.instance == served.place.instance
        ),
        None,
    )


def _digest(served: Served) -> Digest | None:
    return claimed_digest(served.response.headers) if served.body is None else digest_of(served.body)
