"""What the agents of a region report: live agents and tasks in progress."""

from datetime import timedelta

import pytest

from consumer.pipeline.complete import make_progress
from consumer.pipeline.region_status import RegionStatus
from consumer.progress import TaskProgress, TaskRun
from mesh.log.port import Partition, Record
from schemas import codec, topics
from schemas.completions import AGENT_LIVES_FOR, Heartbeat
from schemas.names import Region
from tests.unit.consumer.blobs.test_blob_source import task
from tests.unit.consumer.image.test_admission import NOW

SHANGHAI = Region("shanghai")
STATUS = Partition(topics.status(SHANGHAI), 0)


def record(key: str, value: bytes | None, *, ago: timedelta = timedelta()) -> Record:
    return Record(STATUS, 0, key, value, NOW - ago)


def heartbeat(agent: str, *, ago: timedelta = timedelta(), behind: timedelta = timedelta()) -> Record:
    """Written so long ago, by an agent whose clock is so much behind that of the log."""
    found = Heartbeat(
        id=agent, time=NOW - ago - behind, agent=agent, region=SHANGHAI, rules_rev=1, running=0, places={}
    )
    return record(agent, codec.encode(found), ago=ago)


def status_now() -> RegionStatus:
    return RegionStatus(lambda: NOW)


def test_agents_are_live_until_their_heartbeat_is_too_old_or_removed() -> None:
    status = status_now()
    status.apply(heartbeat("live"))
    status.apply(heartbeat("silent", ago=AGENT_LIVES_FOR))
    status.apply(heartbeat("left"))
    status.apply(record("left", None))
    assert status.live_agents() == {"live"}


@pytest.mark.parametrize("behind", [timedelta(hours=1), timedelta(hours=-1)])
def test_the_clock_of_an_agent_does_not_matter(behind: timedelta) -> None:
    status = status_now()
    status.apply(heartbeat("live", behind=behind))
    status.apply(heartbeat("silent", ago=AGENT_LIVES_FOR, behind=behind))
    assert status.live_agents() == {"live"}


def test_a_task_is_in_progress_until_its_end() -> None:
    status, run = status_now(), TaskRun(task(), TaskProgress(started=NOW))
    status.apply(record(run.task.task_id, codec.encode(make_progress(run, "agent", NOW))))
    assert status.operation_in_progress(run.task.task_id) == "copy"
    status.apply(record(run.task.task_id, None))
    assert status.operation_in_progress(run.task.task_id) is None


def test_what_is_no_status_is_refused() -> None:
    with pytest.raises(codec.DecodeError):
        status_now().apply(record("agent", b"not JSON"))
