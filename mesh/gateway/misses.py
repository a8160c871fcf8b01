"""What a replica here does not have and another place has: its replication is started, so that the next pull is near.

The gateway copies nothing. It asks on `mesh.commands`, as a human would, for this one image; the producer lists it and
the region's agent copies it, by their own rules. Of what is missed by digest nobody here knows the tag, and replication
goes by tags: there the repository is asked for, whose other tags cost the agent a look each.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

import structlog

from mesh.clock import Clock
from mesh.errors import LogError
from mesh.gateway.request import Asked, What
from mesh.gateway.search import Found, claimed_digest
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

_QUIET_SECONDS = 60.0  # for one image at one replica
_QUIET_SECONDS_OF_REPOSITORIES = 600.0
_MOST_REMEMBERED = 10_000

_Image = tuple[str, Repository, Tag | None]  # without a tag the whole repository


@dataclass(slots=True)
class Misses:
    """`notice` never waits and never fails; `close` waits for what is being written."""

    region: Region
    log: Log
    state: MeshState
    clock: Clock
    metrics: Metrics
    _started: OrderedDict[_Image, float] = field(default_factory=OrderedDict)
    _writing: set[asyncio.Task[None]] = field(default_factory=set)

    def notice(self, asked: Asked, found: Found) -> None:
        replica = missing_at(asked, found, self.region)
        if replica is None or asked.repository is None:
            return
        self.metrics.gateway_misses.labels(replica.name).inc()
        tag = asked.reference if isinstance(asked.reference, Tag) else None
        if self._is_quiet((replica.name, asked.repository, tag)):
            return
        command = self._command(replica, asked.repository, tag, _digest(found))
        if command is not None:
            task = asyncio.create_task(self._write(command, replica), name=f"miss at {replica.name}")
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def close(self) -> None:
        await asyncio.gather(*self._writing)

    def _is_quiet(self, image: _Image) -> bool:
        """Whether it was started a moment ago; notes it otherwise."""
        replica, repository, tag = image
        now, quiet = self.clock.monotonic(), _quiet_seconds(tag)
        if now - self._started.get(image, -quiet) < quiet:
            return True
        for noted in {image, (replica, repository, None)}:  # who pulls by tag asks for digests next
            self._started[noted] = now
            self._started.move_to_end(noted)
        while len(self._started) > _MOST_REMEMBERED:
            self._started.popitem(last=False)
        return False

    def _command(
        self, replica: Place, repository: Repository, tag: Tag | None, digest: Digest | None
    ) -> ExecutionStart | None:
        source = self.state.instance(replica.instance)
        if source is None:
            return None
        now = self.clock.now()
        # One for all gateways of the region that miss it about now, another when it is missed again later.
        when = str(int(now.timestamp() / _quiet_seconds(tag)))
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
            LOG.warning("a miss was not replicated", action="miss_lost", place=replica.name, error=str(error))
        else:
            LOG.info(
                "a miss is replicated", action="miss", place=replica.name, execution=command.execution_id
            )


def _quiet_seconds(tag: Tag | None) -> float:
    return _QUIET_SECONDS if tag is not None else _QUIET_SECONDS_OF_REPOSITORIES


def missing_at(asked: Asked, found: Found, region: Region) -> Place | None:
    """The replica in `region` that should have had a manifest which another place of its instance served."""
    if asked.what is not What.MANIFEST or found.response.status != 200:
        return None
    return next(
        (
            place
            for place in found.absent
            if place.region == region and place.is_replica and place.instance == found.place.instance
        ),
        None,
    )


def _digest(found: Found) -> Digest | None:
    return claimed_digest(found.response.headers) if found.body is None else digest_of(found.body)
