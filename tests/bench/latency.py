"""From a push at one registry to a pull at another, on an idle mesh.

The time runs from the answer to the PUT of the tag at the source until a HEAD at the destination, sent every 5 ms,
finds it. The source sends the notification. The steps in between come from the event on the log (when the registry
announced it, when the intake received it) and from the sync log (when the task started and ended).
"""

import random
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from mesh.clock import SystemClock
from tests.bench import mesh_between, workplace
from tests.bench.client import Client, MiB
from tests.bench.mesh_between import Mesh
from tests.bench.table import Options, Row, load, progress, quantile

NEEDS = ("docker-registry",)
REPOSITORY = "game/app"
_LAYERS = [4 * MiB, MiB]
_PUSHES = 40
_LOOK_EVERY = 0.005  # seconds


@dataclass(frozen=True)
class _Push:
    tag: str
    answered: datetime
    seconds: float  # until pullable


def rows(options: Options) -> Iterator[Row]:
    """Yields the rows of the group `latency`."""
    for log in mesh_between.logs():
        with (
            workplace.on_disk() as folder,
            workplace.for_blobs(options, 2 * _PUSHES * sum(_LAYERS)) as (blobs, place),
            mesh_between.mesh_on(log, folder, blobs) as mesh,
        ):
            pushes = _pushes(mesh, 3 if options.quick else _PUSHES)
            yield from _rows(mesh, pushes, f"5 MiB image, {place}, {log}")


def _pushes(mesh: Mesh, count: int) -> list[_Push]:
    source, destination = Client(mesh.source), Client(mesh.destination)
    _push(mesh, source, destination, "warm")
    made = []
    for number in range(count):
        time.sleep(random.uniform(0.3, 0.8))  # idle, and out of step with every timer
        made.append(_push(mesh, source, destination, f"v{number}"))
    slowest = max(push.seconds for push in made)
    progress(f"latency: {count} pushes, the slowest {slowest:.3f} s ({load()})")
    return made


def _push(mesh: Mesh, source: Client, destination: Client, tag: str) -> _Push:
    manifest = source.push_blobs(REPOSITORY, _LAYERS)
    digest = source.put_manifest(REPOSITORY, tag, manifest)
    began, answered = time.perf_counter(), SystemClock().now()
    mesh.until(tag, lambda: destination.head(REPOSITORY, tag) == digest, within=60, every=_LOOK_EVERY)
    return _Push(tag, answered, time.perf_counter() - began)


def _rows(mesh: Mesh, pushes: list[_Push], where: str) -> Iterator[Row]:
    seconds = [push.seconds for push in pushes]
    p50, p95 = statistics.median(seconds), quantile(seconds, 0.95)
    measured = f"p50 {p50:.3f} s, p95 {p95:.3f} s, max {max(seconds):.3f} s of {len(seconds)}"
    yield Row("push to pullable", where, measured, "p50 under 0.3 s")
    steps = _steps(mesh, pushes)
    text = ", ".join(
        f"{name} {statistics.median(after) * 1000:+.0f} ms (p95 {quantile(after, 0.95) * 1000:+.0f})"
        for name, after in steps.items()
    )
    yield Row("push to pullable: its steps, p50 after the push was answered", where, text)


def _steps(mesh: Mesh, pushes: list[_Push]) -> Mapping[str, list[float]]:
    """Returns seconds after the answer to the push by step; negative when the registry notified before it answered."""
    entries = {
        push.tag: mesh.until(push.tag, lambda push=push: mesh.entry(push.tag), within=30, every=0.05)
        for push in pushes
    }
    mesh.stop()
    events = {event.tag: event for event in mesh.events() if event.tag is not None}
    steps: dict[str, list[float]] = {"announced": [], "at the intake": [], "task began": [], "task ended": []}
    for push in pushes:
        event, entry = events[push.tag], entries[push.tag]
        began, ended = (datetime.fromisoformat(entry[name]) for name in ("start_time", "end_time"))
        for name, at in zip(steps, (event.occurred_at, event.time, began, ended), strict=True):
            steps[name].append((at - push.answered) / timedelta(seconds=1))
    return steps
