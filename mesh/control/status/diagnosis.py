"""Finds what is wrong with the mesh, and advises what to do about it. Pure."""

from collections.abc import Iterable
from datetime import timedelta
from http import HTTPStatus

from mesh.control.status.diagnosis_input import DiagnosisInput
from mesh.control.status.finding import Finding, Severity
from mesh.control.status.freshness import lateness
from mesh.control.status.replica_status import FailureCause, ReplicaState
from mesh.rules import consent
from mesh.rules.state import MeshState
from mesh.rules.validation.messages import name_hint
from schemas import topics
from schemas.refusals import OTHERS, Refusal
from schemas.rules import Rule
from schemas.topology import Instance, Replica
from schemas.webhooks import Webhook

_DEAD_LETTER_IS_RECENT = timedelta(days=1)
_REFUSAL_IS_PROBLEM = timedelta(hours=1)  # registries send again sooner; a repair is not always noticed
_REFUSAL_IS_SHOWN = timedelta(days=1)


def diagnose(seen: DiagnosisInput) -> list[Finding]:
    """Returns the findings, problems first; an empty list when all is well."""
    found = [
        *_database(seen), *_regions(seen), *_agents(seen), *_places(seen), *_rules(seen), *_failed_tasks(seen),
        *_parked_tasks(seen), *_held_deletions(seen), *_dead_letters(seen), *_replicas(seen), *_webhooks(seen),
        *_refused_notifications(seen), *_missed_promises(seen), *_unread_events(seen),
    ]  # fmt: skip
    return sorted(found, key=lambda finding: (finding.severity is not Severity.PROBLEM, finding.about))


def _regions(seen: DiagnosisInput) -> Iterable[Finding]:
    with_agents = {agent.region for agent in seen.agents}
    needed = {
        destination.region
        for rule in (*seen.state.rules(), *seen.state.replica_rules())
        if rule.enabled and (destination := seen.state.place(rule.destination)) is not None
    }
    for region in sorted(needed - with_agents):
        yield Finding(
            Severity.PROBLEM, f"region/{region}", "no agent runs there, so nothing is copied into it",
            f"start `regmesh agent --region {region}`",
        )  # fmt: skip


def _database(seen: DiagnosisInput) -> Iterable[Finding]:
    if seen.database_failure is not None:
        yield Finding(
            Severity.PROBLEM, "control", seen.database_failure,
            "what is missing in the sync log comes from the log when the database works again; "
            "check its disk, and that no newer version of regmesh has used it",
        )  # fmt: skip


def _agents(seen: DiagnosisInput) -> Iterable[Finding]:
    for agent in seen.agents:
        if agent.rules_rev < seen.state.rev:
            yield Finding(
                Severity.NOTE, f"agent/{agent.agent}",
                f"reports revision {agent.rules_rev} of the declared state, the newest is {seen.state.rev}",
                "if this stays for more than 30 s, check that the agent reaches the log",
            )  # fmt: skip


def _places(seen: DiagnosisInput) -> Iterable[Finding]:
    for agent in seen.agents:
        for place, state in agent.places.items():
            if state.startswith("Failed") and place not in seen.replicas:
                yield Finding(
                    Severity.PROBLEM, f"{'replica' if '@' in place else 'instance'}/{place}",
                    f"{state.removeprefix('Failed: ')} (seen from {agent.region})",
                    f"check its URL, its credentials and the network from region {agent.region}",
                )  # fmt: skip


def _rules(seen: DiagnosisInput) -> Iterable[Finding]:
    declared = {thing.key: thing for thing in seen.state.things()}
    for rule in seen.state.rules():
        if not rule.enabled:
            yield Finding(
                Severity.NOTE, rule.key, "is not enabled, so it copies nothing", "apply it with `enabled: true`"
            )  # fmt: skip
        elif (missing_grant := consent.note(rule, declared)) is not None:
            yield Finding(Severity.PROBLEM, rule.key, missing_grant, "declare the grant, or delete the rule")


def _replicas(seen: DiagnosisInput) -> Iterable[Finding]:
    """A failed replica may serve what its instance no longer holds."""
    for name, status in sorted(seen.replicas.items()):
        if status.state is ReplicaState.FAILED and status.cause is not None:
            yield Finding(
                Severity.PROBLEM, f"{Replica.noun}/{name}", status.reason or "failed",
                _replica_advice(status.cause, name),
            )  # fmt: skip


def _replica_advice(cause: FailureCause, name: str) -> str:
    region = name.partition("@")[2]
    return {
        FailureCause.AGENTS: f"start `regmesh agent --region {region}`",
        FailureCause.REGISTRY: f"check its URL, its credentials and the network from region {region}",
        FailureCause.FILL: f"`regmesh sync {name} --wait` copies all of it",
        FailureCause.TASKS: _retry_advice("replica", name),
        FailureCause.CONTENT: f"`regmesh logs --status Skipped --replica {name}` lists the tags; "
        f"`regmesh sync {name} --repository NAME` overwrites them",
    }[cause]


def _failed_tasks(seen: DiagnosisInput) -> Iterable[Finding]:
    for name, count in sorted(seen.failed.items()):
        if (found := seen.state.rule(name)) is not None and name not in seen.replicas:
            tasks = "1 task" if count == 1 else f"{count} tasks"
            yield Finding(
                Severity.PROBLEM, found.rule.key, f"{tasks} failed and no later task has succeeded",
                _retry_advice(_noun(found.rule), name),
            )  # fmt: skip


def _parked_tasks(seen: DiagnosisInput) -> Iterable[Finding]:
    """Of a failed replica the cause is found already."""
    for name, parked in sorted(seen.parked.items()):
        replica = seen.replicas.get(name)
        has_cause = replica is not None and replica.state is ReplicaState.FAILED
        if (found := seen.state.rule(name)) is not None and not has_cause:
            tasks = "1 task has" if parked.tasks == 1 else f"{parked.tasks} tasks have"
            yield Finding(
                Severity.PROBLEM, found.rule.key,
                f"{tasks} failed for now and will be retried; the last error: {parked.message}",
                f"`regmesh get parked` lists them; `regmesh retry --failed --rule {name}` retries them at once",
            )  # fmt: skip


def _missed_promises(seen: DiagnosisInput) -> Iterable[Finding]:
    """Of a failed replica the cause is found already."""
    for name, fresh in sorted(seen.promised.items()):
        found, replica = seen.state.rule(name), seen.replicas.get(name)
        has_cause = replica is not None and replica.state is ReplicaState.FAILED
        if fresh.promise_missed and found is not None and not has_cause:
            yield Finding(
                Severity.PROBLEM, found.rule.key,
                f"misses its freshness promise of {found.rule.freshness}: {lateness(fresh)}",
                _freshness_advice(found.rule, name),
            )  # fmt: skip


def _unread_events(seen: DiagnosisInput) -> Iterable[Finding]:
    if seen.unread_failure is not None:
        yield Finding(
            Severity.NOTE, "log",
            f"it is not known whether events are deleted before they are read: {seen.unread_failure}",
            "control has to read the settings of topics and the commits of the agents' groups",
        )  # fmt: skip
    for one in seen.unread:
        days = one.kept_for.total_seconds() / 86_400
        yield Finding(
            Severity.PROBLEM, f"region/{one.region}",
            f"its agents have not read {one.records} events of {one.source} that are older than {days / 2:.3g} days; "
            f"Kafka deletes them after {days:.3g} days",
            f"start more `regmesh agent --region {one.region}`, or find what holds them up; meanwhile raise "
            f"`retention.ms` of {topics.events(one.source)} and {topics.bulk(one.source)}",
        )  # fmt: skip


def _freshness_advice(rule: Rule, name: str) -> str:
    option = "--replica" if rule.replica is not None else "--rule"
    return (
        f"`regmesh logs {option} {name} -o wide` shows how long each task took, `regmesh get parked` what is retried; "
        "more agents in that region copy more at once; or declare a longer `freshness`"
    )


def _retry_advice(noun: str, name: str) -> str:
    return f"`regmesh logs --status Failed --{noun} {name}`, then `regmesh retry --failed --rule {name}`"


def _noun(rule: Rule) -> str:
    return Rule.noun if rule.replica is None else Replica.noun


def _held_deletions(seen: DiagnosisInput) -> Iterable[Finding]:
    for name, count in sorted(seen.held.items()):
        found = seen.state.rule(name)
        noun = _noun(found.rule) if found is not None else Rule.noun
        deletions = f"{count} deletions wait" if count > 1 else "1 deletion waits"
        yield Finding(
            Severity.NOTE, f"{noun}/{name}", f"{deletions} for a human",
            f"`regmesh logs --status Skipped --{noun} {name} -o wide` lists them, "
            "`regmesh retry TASK` carries one out",
        )  # fmt: skip


def _webhooks(seen: DiagnosisInput) -> Iterable[Finding]:
    for name, found in sorted(seen.failing.items()):
        if seen.state.get(f"{Webhook.noun}/{name}") is not None:
            deliveries = f"{found.count} deliveries fail" if found.count > 1 else "1 delivery fails"
            yield Finding(
                Severity.PROBLEM, f"{Webhook.noun}/{name}", f"{deliveries} repeatedly: {found.reason}",
                "check its URL, its secret and its receiver; deliveries are retried automatically",
            )  # fmt: skip


def _refused_notifications(seen: DiagnosisInput) -> Iterable[Finding]:
    """After a repair it is a note: what was refused may be lost."""
    for name in sorted({one.instance for one in seen.refusals}):
        recent = [
            one for one in seen.refusals if one.instance == name and seen.now - one.last <= _REFUSAL_IS_SHOWN
        ]
        if not recent:
            continue
        last = max(recent, key=lambda one: one.last)
        is_repaired = _is_repaired(last, recent, seen.state)
        count = sum(one.count for one in recent)
        is_note = is_repaired or seen.now - last.last > _REFUSAL_IS_PROBLEM
        sender = f" from {last.sender}" if last.sender is not None else ""
        yield Finding(
            Severity.NOTE if is_note else Severity.PROBLEM, f"{Instance.noun}/{name}",
            f"{count} notification{'s were' if count > 1 else ' was'} refused ({last.status}), the last at "
            f"{last.last:%Y-%m-%d %H:%M}{sender}" + ("; notifications are accepted again" if is_repaired else ""),
            "`regmesh sync RULE` copies what was missed" if is_repaired else _refusal_advice(last, seen.state),
        )  # fmt: skip


def _is_repaired(last: Refusal, refusals: Iterable[Refusal], state: MeshState) -> bool:
    accepted = any(one.taken is not None and one.taken >= last.last for one in refusals)
    return accepted or (last.status == HTTPStatus.NOT_FOUND and state.instance(last.instance) is not None)


def _refusal_advice(refusal: Refusal, state: MeshState) -> str:
    if refusal.status != HTTPStatus.NOT_FOUND or refusal.instance == OTHERS:
        return refusal.reason
    return (
        f"{refusal.reason}; {name_hint(Instance.noun, refusal.instance, (it.key for it in state.things()))}"
    )


def _dead_letters(seen: DiagnosisInput) -> Iterable[Finding]:
    """A note when none came for a day."""
    for region, queue in sorted(seen.dead_letters.items()):
        for origin, count in sorted(queue.counts.items()):
            noun, _, instance = origin.partition("/")
            is_notification = noun == "notifications" and instance
            last = queue.last(origin)
            reason = queue.last_reason(origin) or "reason not kept, it is older than the newest 100"
            what = f"{'notification' if is_notification else 'record'}{'s' if count > 1 else ''}"
            check = (
                "check the instance's `kind`"
                if is_notification
                else "check whether an older version of regmesh is running"
            )
            yield Finding(
                Severity.NOTE if seen.now - last > _DEAD_LETTER_IS_RECENT else Severity.PROBLEM,
                f"instance/{instance}" if is_notification else f"region/{region}",
                f"{count} {what} of {origin} could not be read: {reason} (the last at {last:%Y-%m-%d %H:%M})",
                f"{check}; `regmesh get dead-letters` lists them, `regmesh delete dead-letter ID` (or `--all`) marks "
                "them as dealt with",
            )
