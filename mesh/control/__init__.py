"""Control: what is declared goes in here, and what happened comes out.

    API, mesh.yaml -> declare -> mesh.state ==> every node's table
    mesh.<region>.completions ==> report -> sync_log (database) -> api
    mesh.<region>.tags ==> locations -> images (database) -> where -> api
                                         -> outbox (same transaction) -> deliver -> webhooks
    mesh.<region>.status ==> running (memory) -> replica_status -> api
    mesh.<region>.retry ==> parked (memory) -> api
    mesh.<region>.dead-letters ==> letters, mailbox (memory) -> diagnosis -> api -> mesh.<region>.dead-letters
    API, schedule -> commands -> mesh.commands ==> executions (database) -> api
                     executions, images, sync_log -> surplus -> commands

`declare` is the only writer of declared state. `report` and `locations` are groups, so several controls share the work;
`sync_log`, `outbox` and `images` make doing it twice harmless. `entry`, `log_query`, `webhooks`, `held`, `where`,
`mailbox`, `replica_status` and `diagnosis` decide without any I/O.
"""

import asyncio
from collections.abc import Callable

from aiohttp import web

from mesh.clock import Clock
from mesh.control.declare import Change, Declare
from mesh.control.executions.commands import Commands
from mesh.control.executions.parked import ParkedTasks
from mesh.control.executions.prune import OrphanedTags
from mesh.control.executions.retries import Retries
from mesh.control.executions.schedule import Schedule
from mesh.control.executions.store import Executions
from mesh.control.http import guard
from mesh.control.http.doctor import DoctorApi
from mesh.control.http.executions import ExecutionsApi
from mesh.control.http.images import WhereApi
from mesh.control.http.parked import ParkedApi
from mesh.control.http.server import Api
from mesh.control.http.usage import UsageApi
from mesh.control.images.locations import Locations
from mesh.control.images.store import Images
from mesh.control.patience import Patience
from mesh.control.status.agents import Running
from mesh.control.status.dead_letters import DeadLetters
from mesh.control.status.replicas import Replicas
from mesh.control.storage.database import Database
from mesh.control.sync_log.report import Report
from mesh.control.sync_log.store import SyncLog
from mesh.control.sync_log.usage import Usage
from mesh.control.webhooks import signing
from mesh.control.webhooks.deliver import Deliver
from mesh.control.webhooks.outbox import Outbox
from mesh.credentials.secrets import Secrets
from mesh.errors import LogError
from mesh.log.port import Log
from mesh.log.table import Table
from mesh.metrics import Metrics
from mesh.rules.state import MeshState

__all__ = ["Change", "Control"]


class Control:
    """The role, made of its parts. Whoever builds it follows `mesh.state` with `table` into `state`."""

    def __init__(
        self,
        *,
        log: Log,
        state: MeshState,
        table: Table,
        clock: Clock,
        metrics: Metrics,
        secrets: Secrets,
        random: Callable[[], float],
        database: str,
        tries: signing.RetryPolicy | None = None,
    ) -> None:
        """`database` is an URL of SQLAlchemy (`InvalidInput` when it is none); it is opened at its first use."""
        self._table, self._clock, self._random = table, clock, random
        self._database = Database(database)
        sync_log, images, outbox = SyncLog(self._database), Images(self._database), Outbox(self._database)
        self._deliver = Deliver(
            outbox, state=state, secrets=secrets, clock=clock, metrics=metrics, random=random,
            tries=tries or signing.RetryPolicy(), caught_up=table.caught_up,
        )  # fmt: skip
        self._report = Report(
            sync_log, log=log, state=state, clock=clock, metrics=metrics, random=random, also=images.ended,
            written=self._tasks_ended,
        )  # fmt: skip
        self._locations = Locations(images, log=log, state=state, clock=clock, metrics=metrics, random=random)
        self._running = Running(log=log, state=state, clock=clock, metrics=metrics, random=random)
        self._dead_letters = DeadLetters(log=log, state=state, clock=clock, random=random)
        self._declare = Declare(log=log, state=state, table=table, clock=clock, emptied=images.forget_place)
        executions = Executions(self._database)
        self._commands = Commands(
            executions, log=log, state=state, clock=clock, metrics=metrics, random=random
        )
        self._schedule = Schedule(self._database, self._commands, state=state, clock=clock, random=random)
        self._surplus = OrphanedTags(self._database, self._commands, state=state, clock=clock, random=random)
        self._parked = ParkedTasks(log=log, state=state, clock=clock, random=random)
        retries = Retries(self._database, self._commands, state, self._parked)
        self._replicas = Replicas(
            state=state, running=self._running, executions=executions, retries=retries, clock=clock, metrics=metrics,
            random=random,
        )  # fmt: skip
        parts = (
            ExecutionsApi(executions, self._commands, retries, self._parked),
            ParkedApi(self._parked),
            DoctorApi(
                state=state,
                running=self._running,
                dead_letters=self._dead_letters,
                retries=retries,
                replicas=self._replicas,
                outbox=outbox,
                clock=clock,
            ),
            WhereApi(images, state=state, clock=clock),
            UsageApi(Usage(self._database), clock=clock),
        )
        self._api = Api(
            declare=self._declare, state=state, sync_log=sync_log, running=self._running, replicas=self._replicas,
            parked=self._parked, outbox=outbox, parts=parts, clock=clock,
        )  # fmt: skip

    async def run(self) -> None:
        """Report, follow and deliver until cancelled. Once: then the database is closed."""
        try:
            await self._wait_for_state()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._report.run(), name="control report")
                tasks.create_task(self._locations.run(), name="control image locations")
                tasks.create_task(self._locations.forget(), name="control forgets images")
                tasks.create_task(self._running.run(), name="control running")
                tasks.create_task(self._parked.run(), name="control parked tasks")
                tasks.create_task(self._replicas.run(), name="control replica status")
                tasks.create_task(self._dead_letters.run(), name="control dead letters")
                tasks.create_task(self._deliver.run(), name="control deliver")
                tasks.create_task(self._commands.run(), name="control executions")
                tasks.create_task(self._schedule.run(), name="control schedule")
                tasks.create_task(self._surplus.run(), name="control compares replicas")
        finally:
            await self._database.close()

    def routes(self, app: web.Application) -> None:
        """Add `/api/v1`. What no route of the application takes is answered in JSON too."""
        app.middlewares.append(guard.answer_unknown_paths)
        app.add_subapp("/api/v1", self._api.application())

    async def apply(self, document: object, *, dry_run: bool = False) -> list[Change]:
        """As `POST /api/v1/apply`. `InvalidInput` with all problems, `LogError` when the log does not take it."""
        return await self._declare.apply(document, dry_run=dry_run)

    def _tasks_ended(self) -> None:
        self._deliver.wake()
        self._commands.wake()

    def readiness(self) -> list[str]:
        """Why it cannot work yet. A database or receiver that is away is no reason: the rest goes on."""
        return [] if self._table.ready else ["what is declared was not read to its end yet"]

    async def _wait_for_state(self) -> None:
        """Before that a webhook that is declared would look as if it were not, and its deliveries be closed."""
        patience = Patience("control", self._clock, self._random)
        while True:
            try:
                return await self._table.caught_up()
            except LogError as error:
                await patience.wait(error)
