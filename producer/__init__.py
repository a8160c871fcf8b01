"""The producer turns notifications and listings of registries into events on the log.

A notification is durable on the topics of its registry's region before it is acknowledged:

    POST /v1/notifications/{instance}
      authenticate    checks the secret of the instance that the path names, or that the peer is local
      receive         reads the body up to a limit
      rules_revision  reads the newest revision of the rules that existed when the request arrived
      normalise       parses the bytes into events: pure, one file per kind of registry
      publish         turns events into records of `mesh.<region>.events` and `mesh.<region>.tags`: pure
      append          one durable append, to the log or its spool; then dead letters for what is unreadable, then 202

`intake` runs these steps, which do not import each other. Registries keep a refused notification at the head of their
queue and send it again for ever, so an unreadable payload is accepted and kept as a dead letter. Only what an operator
has to repair (an unknown instance, a wrong secret) or what time repairs (the log and its spool are unavailable) is
refused, and `refusals` reports it on `mesh.<region>.status`, where control reads it.

`reconcile` carries out executions: `listing` finds what a rule wants at its source, and each find becomes an event on
`mesh.<region>.bulk`.
"""

from producer.intake import Intake
from producer.known_instances import KnownInstances
from producer.reconcile import Reconcile
from producer.settings import ProducerSettings

__all__ = ["Intake", "KnownInstances", "ProducerSettings", "Reconcile"]
