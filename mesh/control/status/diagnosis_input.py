"""All that `regmesh doctor` looks at."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from mesh.control.executions.parked_failures import ParkedFailures
from mesh.control.status.dead_letter_queue import DeadLetterQueue
from mesh.control.status.finding import UnreadEvents
from mesh.control.status.freshness import Freshness
from mesh.control.status.replica_status import ReplicaStatus
from mesh.control.webhooks.delivery import FailingDeliveries
from mesh.rules.state import MeshState
from schemas.completions import Heartbeat
from schemas.names import Region
from schemas.refusals import Refusal


@dataclass(frozen=True, slots=True)
class DiagnosisInput:
    """All that is looked at.

    Attributes:
        state: What is declared.
        now: The present time.
        agents: The heartbeats of live agents.
        dead_letters: The open dead letters of each region.
        failed: By rule, the number of tags that failed and were not repaired since.
        held: By rule, the number of deletions that wait for a human.
        replicas: The status of each replica.
        failing: By webhook, deliveries that fail repeatedly.
        refusals: Notifications that intakes refused.
        parked: By rule and replica, the tasks that failed for now and wait to be retried.
        promised: The freshness of rules and replicas that have a promise.
        unread: Events that Kafka deletes soon, and that agents have not read.
        unread_failure: Why it is not known now whether there are any.
        database_failure: Why the sync log's database does not do what is asked.
    """

    state: MeshState
    now: datetime
    agents: Collection[Heartbeat]
    dead_letters: Mapping[Region, DeadLetterQueue]
    failed: Mapping[str, int]
    held: Mapping[str, int]
    replicas: Mapping[str, ReplicaStatus] = field(default_factory=dict)
    failing: Mapping[str, FailingDeliveries] = field(default_factory=dict)
    refusals: Collection[Refusal] = ()
    parked: Mapping[str, ParkedFailures] = field(default_factory=dict)
    promised: Mapping[str, Freshness] = field(default_factory=dict)
    unread: Collection[UnreadEvents] = ()
    unread_failure: str | None = None
    database_failure: str | None = None
