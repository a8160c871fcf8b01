"""What `regmesh doctor` finds: each finding from its cause, and nothing where all is well."""

from datetime import UTC, datetime, timedelta

import pytest

from mesh.control.status.dead_letter_queue import DeadLetterQueue
from mesh.control.status.diagnosis import Severity, Sight, diagnose
from mesh.control.status.replica_status import Cause, ReplicaStatus, State
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


def heartbeat(state: MeshState, **told) -> Heartbeat:
    fields = {
        "agent": "eu-1",
        "region": "eu",
        "rules_rev": state.rev,
        "running": 0,
        "places": {"b": "Ready"},
    } | told
    return Heartbeat(id="h", time=NOW, **fields)


def dead_letter(position: str, reason: str) -> DeadLetter:
    return DeadLetter(id=reason, time=NOW, reason=reason, position=position, payload="", payload_size=0)


def findings(
    document=MESH, *, agents=None, boxes=(), failed=(), held=(), now=NOW
) -> list[tuple[str, str, str]]:
    state = state_of(document)
    seen = [heartbeat(state)] if agents is None else [heartbeat(state, **told) for told in agents]
    sight = Sight(state=state, now=now, agents=seen, boxes=dict(boxes), failed=dict(failed), held=dict(held))
    return [(found.severity.value, found.about, found.message) for found in diagnose(sight)]


def test_nothing_is_said_when_all_is_well():
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
    assert "revision 2, the newest is 5" in message


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


def test_failed_tasks_of_rules_that_are_still_declared():
    ((_, about, message),) = findings(failed={"r": 3, "gone": 7})
    assert about == "rule/r"
    assert message.startswith("3 tasks failed")


def test_deletions_that_wait_for_a_human_are_no_problem_but_are_told():
    assert findings(held={"r": 2}) == [("note", "rule/r", "2 deletions wait for a human")]


def test_what_could_not_be_read_is_counted_and_its_last_reason_shown():
    box = DeadLetterQueue()
    for number in range(150):
        box.take(dead_letter("notifications/a", f"no shape of zot ({number})"))
    box.take(dead_letter("mesh.cn.events[3]@17", "not JSON"))
    found = findings(boxes={Region("cn"): box})
    last = " (the last at 2026-03-01 08:00)"
    assert [(about, message) for _, about, message in found] == [
        (
            "instance/a",
            f"150 notifications of notifications/a could not be read: no shape of zot (149){last}",
        ),
        ("region/cn", f"1 record of mesh.cn.events could not be read: not JSON{last}"),
    ]
    assert {severity for severity, _, _ in found} == {"problem"}
    later = findings(boxes={Region("cn"): box}, now=NOW + timedelta(days=1, seconds=1))
    assert {severity for severity, _, _ in later} == {
        "note"
    }  # whoever does not say that they are dealt with is not told of them for ever
    assert len(box.newest) == 100


def test_problems_stand_before_notes():
    document = MESH | {"rules": [*MESH["rules"], {"name": "off", "source": "a", "destination": "b", "enabled": False,
                                                  "filters": [{"type": "name", "value": "x/**"}]}]}  # fmt: skip
    assert [severity for severity, _, _ in findings(document, agents=[])] == ["problem", "note"]


@pytest.mark.parametrize(
    ("cause", "advice"),
    [
        (Cause.AGENTS, "regmesh agent --region cn"),
        (Cause.REGISTRY, "the way to it from region cn"),
        (Cause.FILL, "regmesh sync b@cn --wait"),
        (Cause.TASKS, "regmesh retry --failed --rule b@cn"),
        (Cause.CONTENT, "regmesh logs --status Skipped --replica b@cn"),
    ],
)
def test_a_replica_that_failed_is_told_once_and_with_what_to_do(cause, advice):
    document = MESH | {"replicas": [{"instance": "b", "region": "cn", "url": "http://127.0.0.1:4"}]}
    document |= {"regions": [{"name": name, "jurisdiction": "x"} for name in ("cn", "eu")]}
    state = state_of(document)
    status = ReplicaStatus(State.FAILED, "something is wrong", cause, 9.0, 1, 0, None)
    agents = [heartbeat(state), heartbeat(state, agent="cn-1", region="cn", places={"b@cn": "Failed: away"})]
    sight = Sight(
        now=NOW, state=state, agents=agents, boxes={}, failed={"b@cn": 2}, held={}, replicas={"b@cn": status}
    )
    (found,) = diagnose(sight)
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
    status = ReplicaStatus(State.SYNCING, "it is being filled", None, 9.0, 1, 0, None)
    agents = [heartbeat(state), heartbeat(state, agent="cn-1", region="cn", places={})]
    assert diagnose(Sight(state, NOW, agents, {}, {}, {}, {"b@cn": status})) == []


def test_what_a_human_dealt_with_is_told_no_more_and_what_comes_after_it_is():
    box = DeadLetterQueue()
    for number in range(150):
        box.take(dead_letter("notifications/a", f"no shape of zot ({number})"))
    assert (box.count_until(NOW), box.count_until(NOW - timedelta(seconds=1))) == (150, 0)
    box.deal(DealtWith(id="d", time=NOW, until=NOW - timedelta(seconds=1)))
    box.deal(DealtWith(id="d", time=NOW, letter="no shape of zot (149)"))
    assert box.counts == {"notifications/a": 149}
    box.deal(DealtWith(id="d", time=NOW))
    assert findings(boxes={Region("cn"): box}) == []
    box.take(dead_letter("notifications/a", "no shape of zot (149)"))
    ((_, _, message),) = findings(boxes={Region("cn"): box})
    assert message.startswith("1 notification of notifications/a could not be read: no shape of zot (149)")


def refusal(**told) -> Refusal:
    fields = {"intake": "i-1", "instance": "a", "status": 401, "reason": "send it", "count": 3, "last": NOW}
    return Refusal(id="r", time=NOW, **fields | told)


def of_refusals(*told: Refusal, after: timedelta = timedelta()) -> list[tuple[str, str, str, str]]:
    state = state_of(MESH)
    sight = Sight(state, NOW + after, [heartbeat(state)], {}, {}, {}, refusals=told)
    return [(it.severity.value, it.about, it.message, it.advice) for it in diagnose(sight)]


def test_what_intakes_refuse_is_added_up_and_told_with_what_to_do():
    earlier = refusal(intake="i-2", count=4, last=NOW - timedelta(minutes=3), reason="something else")
    assert of_refusals(refusal(sender="10.0.0.7"), earlier) == [
        ("problem", "instance/a", "7 notifications were refused (401), the last at 2026-03-01 08:00 from 10.0.0.7",
         "send it"),
    ]  # fmt: skip


def test_a_name_that_nobody_declared_is_told_with_what_was_meant():
    state = MESH | {"instances": [*MESH["instances"], MESH["instances"][0] | {"name": "game-cn"}]}
    sight = Sight(
        state_of(state), NOW, [], {}, {}, {}, refusals=[refusal(instance="game-xn", status=404, count=1)]
    )
    (found,) = [it for it in diagnose(sight) if it.about == "instance/game-xn"]
    assert found.message == "1 notification was refused (404), the last at 2026-03-01 08:00"
    assert found.advice == "send it; did you mean 'game-cn'?"


@pytest.mark.parametrize(
    ("told", "after", "severity"),
    [
        ({}, timedelta(minutes=59), "problem"),
        ({}, timedelta(minutes=61), "note"),
        ({"taken": NOW}, timedelta(), "note"),
        ({"status": 404}, timedelta(), "note"),  # it is declared now
        ({"instance": "nobody", "status": 404}, timedelta(), "problem"),
    ],
)
def test_what_was_refused_and_is_mended_is_a_note(told, after, severity):
    assert [it[0] for it in of_refusals(refusal(**told), after=after)] == [severity]


def test_what_another_intake_took_before_the_last_refusal_mends_nothing():
    taken = refusal(intake="i-2", last=NOW - timedelta(hours=1), taken=NOW - timedelta(minutes=1))
    assert [it[0] for it in of_refusals(taken, refusal())] == ["problem"]


def test_what_was_refused_a_day_ago_is_not_told():
    assert of_refusals(refusal(), after=timedelta(days=1, seconds=1)) == []
