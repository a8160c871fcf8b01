"""The way in: a registry's notification becomes events on its region's topic, durable before it is acknowledged.

    POST /v1/notifications/{instance}
      authenticate   the path says which registry speaks; its secret (or loopback) proves it
      receive        the body, bounded
      fence          the newest rules revision that existed when the request came
      normalise      bytes -> events, what cannot be read, and what means nothing to us   (pure, one file per kind)
      publish        events -> records of `mesh.<region>.events` and `mesh.<region>.tags`  (pure)
      append         one durable append, then dead letters for what could not be read, then 202

`intake` is the page that runs these; the steps do not know each other. Registries keep a refused notification at the
head of their queue and send it again for ever, so a payload that we cannot read is accepted and kept as a dead
letter. Only what an operator has to repair (no such instance, a wrong secret) and what time repairs (the log is away)
is refused, and `refusals` tells that on `mesh.<region>.status`, from where control knows it.

`reconcile` is the other half: it carries out executions. `listing` finds what a rule wants at its source, and each find
becomes an event on `mesh.<region>.bulk`.
"""

from producer.intake import Intake
from producer.reconcile import Reconcile

__all__ = ["Intake", "Reconcile"]
