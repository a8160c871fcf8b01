"""Control: takes declarations in, and answers what happened.

    API, mesh.yaml -> declarations -> mesh.state ==> every node's table
    mesh.<region>.completions  ==> sync_log.report     -> sync_log (database) -> http
                                                       -> webhooks.outbox (same transaction) -> webhooks.deliver
    mesh.<region>.tags         ==> images.locations    -> images.store (database) -> http
    mesh.<region>.status       ==> status.live_status (memory) -> status.replicas -> http
    mesh.<region>.retry        ==> executions.parked (memory) -> http
    mesh.<region>.dead-letters ==> status.dead_letters (memory) -> status.diagnosis -> http
    API, executions.schedule -> executions.commands -> mesh.commands ==> executions.store (database) -> http
    executions.prune: database -> executions.commands

`declarations` is the only writer of declared state. Several controls share the reading of completions, tags and
commands; what they read is stored so that storing it twice changes nothing.
"""

from mesh.control.control import Control
from mesh.control.declarations.changes import Change
from mesh.control.declarations.declare import InvalidDocument
from mesh.control.http.access import LOCAL_ONLY, ApiAccess
from mesh.control.settings import ControlSettings

__all__ = ["LOCAL_ONLY", "ApiAccess", "Change", "Control", "ControlSettings", "InvalidDocument"]
