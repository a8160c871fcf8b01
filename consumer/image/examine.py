"""Configs of images, read from the source because a filter asks what is in them."""

import asyncio
from collections.abc import Mapping, Sequence

from consumer.task import Task
from mesh.concurrency import all_of
from mesh.registry.configs import Config, config_of, read_config
from mesh.registry.port import Manifest, Registry
from schemas.names import Digest

_CONCURRENT_READS = 4


async def read_configs(
    source: Registry, task: Task, manifests: Sequence[Manifest]
) -> Mapping[Digest, Config]:
    """By the manifest's digest. `ContentRefused` when one is over 4 MiB or no config of an image."""
    lanes = asyncio.Semaphore(_CONCURRENT_READS)

    async def read(manifest: Manifest) -> Config:
        async with lanes, source.read_blob(task.repository, config_of(manifest)) as chunks:
            return read_config(b"".join([chunk async for chunk in chunks]))

    found = await all_of(read(manifest) for manifest in manifests)
    return {manifest.digest: config for manifest, config in zip(manifests, found, strict=True)}
