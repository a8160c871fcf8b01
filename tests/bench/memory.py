"""Resident memory of the process that copies, after one blob of a given size, with a new mesh for each size.

On the embedded log that process runs every role; on Kafka it is the agent.
"""

import time
from collections.abc import Iterator

from tests.bench import mesh_between, workplace
from tests.bench.client import Client, MiB
from tests.bench.table import Options, Row, progress

NEEDS = ("docker-registry",)


def rows(options: Options) -> Iterator[Row]:
    """Yields the rows of the group `memory`."""
    sizes = [16 * MiB] if options.quick else [1024 * MiB, 8192 * MiB] if options.long else [1024 * MiB]
    for log in mesh_between.logs():
        for size in sizes:
            yield _row(options, log, size)


def _row(options: Options, log: str, size: int) -> Row:
    with (
        workplace.on_disk() as folder,
        workplace.for_blobs(options, 2 * size) as (blobs, place),
        mesh_between.mesh_on(log, folder, blobs) as mesh,
    ):
        idle = mesh.agent.peak_memory()
        client, there = Client(mesh.source), Client(mesh.destination)
        manifest = client.push_blobs("game/huge", [size])
        digest = client.put_manifest("game/huge", "v1", manifest)
        began = time.perf_counter()
        mesh.until("the copy", lambda: there.head("game/huge", "v1") == digest, within=900, every=0.1)
        peak = mesh.agent.peak_memory()
        progress(f"memory: {size // MiB} MiB in {time.perf_counter() - began:.0f} s, peak {peak // MiB} MiB")
    process = "`regmesh up`" if log == mesh_between.EMBEDDED else "`regmesh agent`"
    return Row(
        f"resident memory of {process}, one blob of {size // MiB} MiB", f"{place}, {log}",
        f"peak {peak / MiB:.0f} MiB; {idle / MiB:.0f} MiB before", "under 150 MiB",
    )  # fmt: skip
