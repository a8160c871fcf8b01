"""What `regmesh doctor` finds: each finding from its cause, and nothing where all is well."""

from datetime import UTC, datetime, timedelta

import pytest

from mesh.control.executions.parked_failures import ParkedFailures
from mesh.control.status.dead_letter_queue import DeadLetterQueue
from mesh.control.status.diagnosis import diagnose
from mesh.control.status.diagnosis_input import DiagnosisInput
from mesh.control.status.finding import Severity, UnreadEvents
from mesh.control.status.replica_status import FailureCause, ReplicaState, ReplicaStatus
from mesh.rules.state import MeshState
from mesh.rules.validation.declarations import judge
from schemas.codec import encode
from schemas.completions import Heartbeat
from schemas.dead_letters import DeadLetter, DealtWith
from schemas.names import Region
from schemas.refusals import Refusal
from schemas.state import StateRecord

NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)
MESH = {
    "regions": [{"name": "cn", "jurisdiction": "cn"}, {"name": "eu", "jurisdiction": "global"}],
    "instances": [
        {"name": "a", "account": "x", "region": "cn", "url": "http://127.0.0.1:1"},
        {"name": "b", "account": "x", "region": "eu", "url": "http://127.0.0.1:2"},
        {"name": "c", "account": "y", "region": "eu", "url": "http://127.0.0.1:3"},
    ],
    "rules": [{"name": "r", "source": "a", "destination": "b"}],
}


def state_of(document) -> MeshState:
    placed, problems = judge(document)
    assert problems == []
    state = MeshState()
    for rev, item in enumerate(placed):
        value = item.thing.model_dump(mode="json", by_alias=True)
        record = StateRecord(id=f"s{rev}", time=NOW, noun=item.thing.noun, value=value)
        state.apply(item.thing.key, encode(record), rev)
    return state


def heartbeat(state: MeshState, **fields) -> Heartbeat:
    values = {
        "agent": "eu-1",
        "region": "eu",
        "rules_rev": state.rev,
        "running": 0,
        "places": {"b": "Ready"},
    } | fields
    return Heartbeat(id="h", time=NOW, **values)


def dead_letter(position: str, reason: str) -> DeadLetter:
    return DeadLetter(id=reason, time=NOW, reason=reason, position=position, payload="", payload_size=0)


def findings(
    document=MESH, *, agents=None, dead_letters=(), failed=(), held=(), parked=(), now=NOW
) -> list[tuple[str, str, str]]:
    state = state_of(document)
    heartbeats = [heartbeat(state)] if agents is None else [heartbeat(state, **fields) for fields in agents]
    seen = DiagnosisInput(
        state=state,
        now=now,
        agents=heartbeats,
        dead_letters=dict(dead_letters),
        failed=dict(failed),
        held=dict(held),
        parked=dict(parked),
    )
    return [(found.severity.value, found.about, found.message) for found in diagnose(seen)]


def test_there_are_no_findings_when_all_is_well():
    assert findings() == []


def test_a_region_with_work_and_no_agent():
    ((severity, about, message),) = findings(agents=[])
    assert (severity, about) == (Severity.PROBLEM, "region/eu")
    assert "no agent runs there" in message


def test_a_registry_that_an_agent_cannot_use():
    ((severity, about, message),) = findings(agents=[{"places": {"b": "Failed: refused", "a": "Ready"}}])
    assert (severity, about, message) == ("problem", "instance/b", "refused (seen from eu)")


def test_an_agent_that_does_not_know_the_newest_rules():
    ((severity, about, message),) = findings(agents=[{"rules_rev": 2}])
    assert (severity, about) == (Severity.NOTE, "agent/eu-1")
    assert "revision 2 of the declared state, the newest is 5" in message


@pytest.mark.parametrize(
    ("rule", "severity", "word"),
    [
        ({"enabled": False}, "note", "not enabled"),
        ({"destination": "c"}, "problem", "declares a grant"),
    ],
)
def test_a_rule_that_copies_nothing(rule, severity, word):
    (found,) = findings(MESH | {"rules": [MESH["rules"][0] | rule]})
    assert found[:2] == (severity, "rule/r")
    assert word in found[2]


def test_tasks_that_wait_to_be_retried():
    """They are retried by themselves, but until then their tags are missing."""
    ((severity, about, message),) = findings(
        parked={"r": ParkedFailures(2, "refused"), "removed": ParkedFailures(1, "x")}
    )
    assert (severity, about) == ("problem", "rule/r")
    assert message == "2 tasks have failed for now and will be retried; the last error: refused"


def test_failed_tasks_of_rules_that_are_still_declared():
    ((_, about, message),) = findings(failed={"r": 3, "gone": 7})
    assert about == "rule/r"
    assert message.startswith("3 tasks failed")


def test_deletions_that_wait_for_a_human_are_a_note():
    assert findings(held={"r": 2}) == [("note", "rule/r", "2 deletions wait for a human")]


def test_dead_letters_are_counted_and_their_last_reason_is_shown():
    queue = DeadLetterQueue()
    for number in range(150):
        queue.add(dead_letter("notifications/a", f"no shape of zot ({number})"))
    queue.add(dead_letter("mesh.cn.events[3]@17", "not JSON"))
    found = findings(dead_letters={Region("cn"): queue})
    last = " (the last at 2026-03-01 08:00)"
    assert [(about, message) for _, about, message in found] == [
        (
            "instance/a",
            f"150 notifications of notifications/a could not be read: no shape of zot (149){last}",
        ),
        ("region/cn", f"1 record of mesh.cn.events could not be read: not JSON{last}"),
    ]
    assert {severity for severity, _, _ in found} == {"problem"}
    later = findings(dead_letters={Region("cn"): queue}, now=NOW + timedelta(days=1, seconds=1))
    assert {severity for severity, _, _ in later} == {"note"}
    assert len(queue.newest) == 100


def test_problems_come_before_notes():
    document = MESH | {"rules": [*MESH["rules"], {"name": "off", "source": "a", "destination": "b", "enabled": False,
                                                  "filters": [{"type": "name", "value": "x/**"}]}]}  # fmt: skip
    assert [severity for severity, _, _ in findings(document, agents=[])] == ["problem", "note"]


@pytest.mark.parametrize(
    ("cause", "advice"),
    [
        (FailureCause.AGENTS, "regmesh agent --region cn"),
        (FailureCause.REGISTRY, "the network from region cn"),
        (FailureCause.FILL, "regmesh sync b@cn --wait"),
        (FailureCause.TASKS, "regmesh retry --failed --rule b@cn"),
        (FailureCause.CONTENT, "regmesh logs --status Skipped --replica b@cn"),
    ],
)
def test_a_failed_replica_is_one_finding_with_advice(cause, advice):
    document = MESH | {"replicas": [{"instance": "b", "region": "cn", "url": "http://127.0.0.1:4"}]}
    document |= {"regions": [{"name": name, "jurisdiction": "x"} for name in ("cn", "eu")]}
    state = state_of(document)
    status = ReplicaStatus(ReplicaState.FAILED, "something is wrong", cause, 9.0, 1, 0, None)
    agents = [heartbeat(state), heartbeat(state, agent="cn-1", region="cn", places={"b@cn": "Failed: away"})]
    seen = DiagnosisInput(
        now=NOW,
        state=state,
        agents=agents,
        dead_letters={},
        failed={"b@cn": 2},
        held={},
        replicas={"b@cn": status},
    )
    (found,) = diagnose(seen)
    assert (found.severity, found.about, found.message) == (
        Severity.PROBLEM,
        "replica/b@cn",
        "something is wrong",
    )
    assert advice in found.advice


def test_a_replica_that_syncs_is_no_problem():
    document = MESH | {"replicas": [{"instance": "b", "region": "cn", "url": "http://127.0.0.1:4"}]}
    document |= {"regions": [{"name": name, "jurisdiction": "x"} for name in ("cn", "eu")]}
    state = state_of(document)
    status = ReplicaStatus(ReplicaState.SYNCING, "it is being filled", None, 9.0, 1, 0, None)
    agents = [heartbeat(state), heartbeat(state, agent="cn-1", region="cn", places={})]
    assert diagnose(DiagnosisInput(state, NOW, agents, {}, {}, {}, {"b@cn": status})) == []


def test_dead_letters_that_were_dealt_with_are_no_finding_and_later_ones_are():
    queue = DeadLetterQueue()
    for number in range(150):
        queue.add(dead_letter("notifications/a", f"no shape of zot ({number})"))
    assert (queue.count_until(NOW), queue.count_until(NOW - timedelta(seconds=1))) == (150, 0)
    queue.close(DealtWith(id="d", time=NOW, until=NOW - timedelta(seconds=1)))
    queue.close(DealtWith(id="d", time=NOW, letter="no shape of zot (149)"))
    assert queue.counts == {"notifications/a": 149}
    queue.close(DealtWith(id="d", time=NOW))
    assert findings(dead_letters={Region("cn"): queue}) == []
    queue.add(dead_letter("notifications/a", "no shape of zot (149)"))
    ((_, _, message),) = findings(dead_letters={Region("cn"): queue})
    assert message.startswith("1 notification of notifications/a could not be read: no shape of zot (149)")


def refusal(**fields) -> Refusal:
    values = {"intake": "i-1", "instance": "a", "status": 401, "reason": "send it", "count": 3, "last": NOW}
    return Refusal(id="r", time=NOW, **values | fields)


def of_refusals(*refusals: Refusal, after: timedelta = timedelta()) -> list[tuple[str, str, str, str]]:
    state = state_of(MESH)
    seen = DiagnosisInput(state, NOW + after, [heartbeat(state)], {}, {}, {}, refusals=refusals)
    return [(it.severity.value, it.about, it.message, it.advice) for it in diagnose(seen)]


def test_refused_notifications_are_added_up_with_advice():
    earlier = refusal(intake="i-2", count=4, last=NOW - timedelta(minutes=3), reason="something else")
    assert of_refusals(refusal(sender="10.0.0.7"), earlier) == [
        ("problem", "instance/a", "7 notifications were refused (401), the last at 2026-03-01 08:00 from 10.0.0.7",
         "send it"),
    ]  # fmt: skip


def test_an_undeclared_instance_comes_with_the_name_that_was_meant():
    state = MESH | {"instances": [*MESH["instances"], MESH["instances"][0] | {"name": "game-cn"}]}
    seen = DiagnosisInput(
        state_of(state), NOW, [], {}, {}, {}, refusals=[refusal(instance="game-xn", status=404, count=1)]
    )
    (found,) = [it for it in diagnose(seen) if it.about == "instance/game-xn"]
    assert found.message == "1 notification was refused (404), the last at 2026-03-01 08:00"
    assert found.advice == "send it; did you mean 'game-cn'?"


@pytest.mark.parametrize(
    ("fields", "after", "severity"),
    [
        ({}, timedelta(minutes=59), "problem"),
        ({}, timedelta(minutes=61), "note"),
        ({"taken": NOW}, timedelta(), "note"),
        ({"status": 404}, timedelta(), "note"),  # it is declared now
        ({"instance": "nobody", "status": 404}, timedelta(), "problem"),
    ],
)
def test_refusals_are_a_note_after_a_repair_or_an_hour(fields, after, severity):
    assert [it[0] for it in of_refusals(refusal(**fields), after=after)] == [severity]


def test_a_notification_that_was_accepted_before_the_last_refusal_is_no_repair():
    taken = refusal(intake="i-2", last=NOW - timedelta(hours=1), taken=NOW - timedelta(minutes=1))
    assert [it[0] for it in of_refusals(taken, refusal())] == ["problem"]


def test_refusals_of_a_day_ago_are_no_finding():
    assert of_refusals(refusal(), after=timedelta(days=1, seconds=1)) == []


def test_events_that_are_deleted_soon_and_not_read_are_a_problem_of_the_region():
    state = state_of(MESH)
    unread = UnreadEvents(Region("eu"), Region("cn"), records=12, kept_for=timedelta(days=14))
    seen = DiagnosisInput(
        state=state, now=NOW, agents=[heartbeat(state)], dead_letters={}, failed={}, held={}, unread=[unread]
    )
    (found,) = diagnose(seen)
    assert (found.severity, found.about) == (Severity.PROBLEM, "region/eu")
    assert found.message == (
        "its agents have not read 12 events of cn that are older than 7 days; Kafka deletes them after 14 days"
    )
    assert "mesh.cn.events" in found.advice


def test_a_look_for_unread_events_that_failed_is_a_note():
    state = state_of(MESH)
    seen = DiagnosisInput(
        state=state, now=NOW, agents=[heartbeat(state)], dead_letters={}, failed={}, held={},
        unread_failure="Kafka refused",
    )  # fmt: skip
    (found,) = diagnose(seen)
    assert (found.severity, found.about) == (Severity.NOTE, "log")
    assert "Kafka refused" in found.message
