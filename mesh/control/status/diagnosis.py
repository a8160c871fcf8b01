"""What is wrong with the mesh now, and what to do about it. Pure: from what control sees to findings for a human."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from http import HTTPStatus

from mesh.control.status.dead_letter_queue import DeadLetterQueue
from mesh.control.status.replica_status import Cause, ReplicaStatus, State
from mesh.control.webhooks.outbox import FailingDeliveries
from mesh.rules import consent
from mesh.rules.state import MeshState
from mesh.rules.validation.messages import name_hint
from schemas.completions import Heartbeat
from schemas.names import Region
from schemas.refusals import OTHERS, Refusal
from schemas.rules import Rule
from schemas.topology import Instance, Replica
from schemas.webhooks import Webhook

_DEAD_LETTERS_ARE_OVER = timedelta(days=1)
_REFUSALS_ARE_OVER = timedelta(hours=1)  # registries come back sooner, and what is mended is not always told
_REFUSALS_ARE_FORGOTTEN = timedelta(days=1)


class Severity(StrEnum):
    PROBLEM = "problem"  # something does not work
    NOTE = "note"  # something that a human should know


@dataclass(frozen=True, slots=True)
class Finding:
    severity: Severity
    about: str  # region/NAME, instance/NAME, replica/NAME, agent/NAME, rule/NAME, webhook/NAME
    message: str
    advice: str


@dataclass(frozen=True, slots=True)
class Sight:
    """All that is looked at. By rule: tags that `failed` and that nothing made good since, and `held` deletions."""

    state: MeshState
    now: datetime
    agents: Collection[Heartbeat]
    boxes: Mapping[Region, DeadLetterQueue]
    failed: Mapping[str, int]
    held: Mapping[str, int]
    replicas: Mapping[str, ReplicaStatus] = field(default_factory=dict)
    failing: Mapping[str, FailingDeliveries] = field(default_factory=dict)  # by webhook
    refusals: Collection[Refusal] = ()  # by intakes


def diagnose(sight: Sight) -> list[Finding]:
    """Problems first; empty when all is well."""
    found = [
        *_regions(sight), *_agents(sight), *_places(sight), *_rules(sight), *_failed(sight), *_held(sight),
        *_dead_letters(sight), *_replicas(sight), *_webhooks(sight), *_refused(sight),
    ]  # fmt: skip
    return sorted(found, key=lambda finding: (finding.severity is not Severity.PROBLEM, finding.about))


def _regions(sight: Sight) -> Iterable[Finding]:
    """Those whose agents would have work, and none lives."""
    alive = {agent.region for agent in sight.agents}
    needed = {
        destination.region
        for rule in (*sight.state.rules(), *sight.state.replica_rules())
        if rule.enabled and (destination := sight.state.place(rule.destination)) is not None
    }
    for region in sorted(needed - alive):
        yield Finding(
            Severity.PROBLEM, f"region/{region}", "no agent runs there, so nothing is copied into it",
            f"start `regmesh agent --region {region}`",
        )  # fmt: skip


def _agents(sight: Sight) -> Iterable[Finding]:
    for agent in sight.agents:
        if agent.rules_rev < sight.state.rev:
            yield Finding(
                Severity.NOTE, f"agent/{agent.agent}",
                f"told last that it knows the rules of revision {agent.rules_rev}, the newest is {sight.state.rev}",
                "should this stay so for half a minute, see whether it reaches the log",
            )  # fmt: skip


def _places(sight: Sight) -> Iterable[Finding]:
    for agent in sight.agents:
        for place, told in agent.places.items():
            if told.startswith("Failed") and place not in sight.replicas:
                yield Finding(
                    Severity.PROBLEM, f"{'replica' if '@' in place else 'instance'}/{place}",
                    f"{told.removeprefix('Failed: ')} (seen from {agent.region})",
                    "see its URL, its credentials and the way to it from that region",
                )  # fmt: skip


def _rules(sight: Sight) -> Iterable[Finding]:
    things = {thing.key: thing for thing in sight.state.things()}
    for rule in sight.state.rules():
        if not rule.enabled:
            yield Finding(
                Severity.NOTE,
                rule.key,
                "is not enabled, it copies nothing",
                "declare it with `enabled: true`",
            )
        elif (text := consent.note(rule, things)) is not None:
            yield Finding(Severity.PROBLEM, rule.key, text, "declare the grant, or remove the rule")


def _replicas(sight: Sight) -> Iterable[Finding]:
    """Those that failed, of whatever: they serve what their instance does not hold any more."""
    for name, status in sorted(sight.replicas.items()):
        if status.state is State.FAILED and status.cause is not None:
            yield Finding(
                Severity.PROBLEM, f"{Replica.noun}/{name}", status.reason or "failed", _advice(status.cause, name)
            )  # fmt: skip


def _advice(cause: Cause, name: str) -> str:
    region = name.partition("@")[2]
    return {
        Cause.AGENTS: f"start `regmesh agent --region {region}`",
        Cause.REGISTRY: f"see its URL, its credentials and the way to it from region {region}",
        Cause.FILL: f"`regmesh sync {name} --wait` brings all of it",
        Cause.TASKS: f"`regmesh logs --status Failed --replica {name}`, then `regmesh retry --failed --rule {name}`",
        Cause.CONTENT: f"`regmesh logs --status Skipped --replica {name}` names them; "
        f"`regmesh sync {name} --repository NAME` writes over them",
    }[cause]


def _failed(sight: Sight) -> Iterable[Finding]:
    for name, count in sorted(sight.failed.items()):
        if (found := sight.state.rule(name)) is not None and name not in sight.replicas:
            yield Finding(
                Severity.PROBLEM, found.rule.key, "1 task failed and nothing has made it good since" if count == 1
                else f"{count} tasks failed and nothing has made them good since",
                f"`regmesh logs --status Failed --{_kind(found.rule)} {name}`, "
                f"then `regmesh retry --failed --rule {name}`",
            )  # fmt: skip


def _kind(rule: Rule) -> str:
    return "rule" if rule.replica is None else "replica"


def _held(sight: Sight) -> Iterable[Finding]:
    for rule, count in sorted(sight.held.items()):
        waiting = f"{count} deletions wait" if count > 1 else "1 deletion waits"
        found = sight.state.rule(rule)
        kind = _kind(found.rule) if found is not None else Rule.noun
        yield Finding(
            Severity.NOTE, f"{kind}/{rule}", f"{waiting} for a human",
            f"`regmesh logs --status Skipped --{kind} {rule} -o wide`, "
            "then `regmesh retry TASK` for those that shall go",
        )  # fmt: skip


def _webhooks(sight: Sight) -> Iterable[Finding]:
    """Those that are declared and whose receiver hears nothing."""
    for name, found in sorted(sight.failing.items()):
        if sight.state.get(f"{Webhook.noun}/{name}") is not None:
            several = f"{found.count} deliveries are" if found.count > 1 else "1 delivery is"
            yield Finding(
                Severity.PROBLEM, f"{Webhook.noun}/{name}", f"{several} tried again and again: {found.reason}",
                "see its URL, its secret and its receiver; they are sent again by themselves, for three days",
            )  # fmt: skip


def _refused(sight: Sight) -> Iterable[Finding]:
    """What registries sent and nobody took. A note when it is mended: what was refused may be lost."""
    for name in sorted({one.instance for one in sight.refusals}):
        told = [one for one in sight.refusals if one.instance == name and _is_recent(one, sight.now)]
        if not told:
            continue
        last = max(told, key=lambda one: one.last)
        is_mended = _is_mended(last, told, sight.state)
        count = sum(one.count for one in told)
        is_over = is_mended or sight.now - last.last > _REFUSALS_ARE_OVER
        yield Finding(
            Severity.NOTE if is_over else Severity.PROBLEM, f"{Instance.noun}/{name}",
            f"{count} notification{'s were' if count > 1 else ' was'} refused ({last.status}), the last at "
            f"{last.last:%Y-%m-%d %H:%M}{_sent_by(last)}" + ("; since then it is mended" if is_mended else ""),
            "`regmesh sync RULE` brings what was missed" if is_mended else _how_to_mend(last, sight.state),
        )  # fmt: skip


def _is_recent(refusal: Refusal, now: datetime) -> bool:
    return now - refusal.last <= _REFUSALS_ARE_FORGOTTEN


def _is_mended(last: Refusal, told: Iterable[Refusal], state: MeshState) -> bool:
    taken = any(one.taken is not None and one.taken >= last.last for one in told)
    return taken or (last.status == HTTPStatus.NOT_FOUND and state.instance(last.instance) is not None)


def _sent_by(refusal: Refusal) -> str:
    return f" from {refusal.sender}" if refusal.sender is not None else ""


def _how_to_mend(refusal: Refusal, state: MeshState) -> str:
    if refusal.status != HTTPStatus.NOT_FOUND or refusal.instance == OTHERS:
        return refusal.reason
    return (
        f"{refusal.reason}; {name_hint(Instance.noun, refusal.instance, (it.key for it in state.things()))}"
    )


def _dead_letters(sight: Sight) -> Iterable[Finding]:
    """A note when none came for a day; nothing of those that a human has dealt with."""
    for region, box in sorted(sight.boxes.items()):
        for origin, count in sorted(box.counts.items()):
            noun, _, name = origin.partition("/")
            is_notification = noun == "notifications" and name
            last = box.last(origin)
            reason = box.last_reason(origin) or "older than those that are kept here"
            is_over = sight.now - last > _DEAD_LETTERS_ARE_OVER
            yield Finding(
                Severity.NOTE if is_over else Severity.PROBLEM,
                f"instance/{name}" if is_notification else f"region/{region}",
                f"{count} {'notification' if is_notification else 'record'}{'s' if count > 1 else ''} of "
                f"{origin} could not be read: {reason} (the last at {last:%Y-%m-%d %H:%M})",
                (
                    "see that the instance's `kind` is what it is"
                    if is_notification
                    else "see whether an older version of regmesh is running"
                )
                + "; `regmesh get dead-letters` shows them, `regmesh delete dead-letter ID` (or `--all`) says that "
                "one is dealt with",
            )
