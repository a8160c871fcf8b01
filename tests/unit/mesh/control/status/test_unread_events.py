"""The watch asks the log once for each pair of regions between which something is copied."""

from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry

from mesh.clock import SystemClock
from mesh.control.ports import ControlPorts
from mesh.control.settings import ControlSettings
from mesh.control.status.unread_events import UnreadEventsWatch
from mesh.errors import LogError
from mesh.log.port import Expiring
from mesh.metrics import Metrics
from tests.unit.mesh.control.status.test_diagnosis import MESH, state_of

KEPT = timedelta(days=14)


class Log:
    def __init__(self, answers):
        self.answers, self.asked = answers, []

    async def missing(self, names):
        return [name for name in names if self.answers.get(name) == "missing"]

    async def expiring(self, group, topic):
        self.asked.append((group, topic))
        answer = self.answers.get(topic)
        if isinstance(answer, Exception):
            raise answer
        return answer


def watch(log, document=MESH):
    metrics = Metrics(CollectorRegistry())
    ports = ControlPorts(
        log=log, state=state_of(document), clock=SystemClock(), metrics=metrics, random=lambda: 0.0
    )
    return UnreadEventsWatch(ports, ControlSettings()), metrics


async def test_pairs_are_asked_once_whatever_the_number_of_rules():
    rules = [
        {
            "name": f"r{number}",
            "source": "a",
            "destination": "b",
            "filters": [{"type": "name", "value": f"n{number}"}],
        }
        for number in range(3)
    ]
    log = Log({})
    watching, _ = watch(log, MESH | {"rules": rules})
    await watching.look()
    assert log.asked == [
        ("mesh.eu.agent.from.cn", "mesh.cn.events"), ("mesh.eu.agent.bulk.from.cn", "mesh.cn.bulk"),
    ]  # fmt: skip
    assert list(watching.found) == []


async def test_what_is_found_is_shown_until_it_is_read():
    log = Log({"mesh.cn.events": Expiring(3, KEPT), "mesh.cn.bulk": Expiring(4, KEPT / 2)})
    watching, metrics = watch(log)
    await watching.look()
    (found,) = watching.found
    assert (found.region, found.source, found.records, found.kept_for) == ("eu", "cn", 7, KEPT / 2)
    labels = {"region": "eu", "source_region": "cn"}
    assert metrics.registry.get_sample_value("regmesh_unread_expiring_events", labels) == 7
    log.answers.clear()
    await watching.look()
    assert list(watching.found) == []
    assert metrics.registry.get_sample_value("regmesh_unread_expiring_events", labels) is None


async def test_a_topic_that_does_not_exist_yet_is_no_finding():
    log = Log({"mesh.cn.events": "missing"})
    watching, _ = watch(log)
    await watching.look()
    assert list(watching.found) == []
    assert [topic for _, topic in log.asked] == ["mesh.cn.bulk"]
    assert watching.failure is None


async def test_what_kafka_does_not_let_control_read_is_not_taken_for_good_news():
    log = Log({"mesh.cn.events": LogError("read the commits of a group: Kafka refused")})
    watching, _ = watch(log)
    with pytest.raises(LogError):
        await watching.look()
    assert watching.failure == "read the commits of a group: Kafka refused"
    log.answers.clear()
    await watching.look()
    assert watching.failure is None
