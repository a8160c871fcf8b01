"""The composition of the role: its parts, its HTTP API and its background tasks."""

import asyncio

from aiohttp import web

from mesh.control.declarations.changes import Change
from mesh.control.declarations.declare import Declare
from mesh.control.executions.commands import Commands
from mesh.control.executions.parked import ParkedTasks
from mesh.control.executions.prune import OrphanedTags
from mesh.control.executions.retention import Retention as ExecutionRetention
from mesh.control.executions.retries import Retries
from mesh.control.executions.schedule import Schedule
from mesh.control.executions.store import Executions
from mesh.control.http import server
from mesh.control.http.access import LOCAL_ONLY, ApiAccess
from mesh.control.http.declarations import DeclarationsResource
from mesh.control.http.doctor import DoctorResource
from mesh.control.http.executions import ExecutionsResource
from mesh.control.http.images import ImagesResource
from mesh.control.http.sync_log import SyncLogResource
from mesh.control.http.tasks import TasksResource
from mesh.control.images.locations import Locations
from mesh.control.images.store import Images
from mesh.control.ports import ControlPorts
from mesh.control.settings import ControlSettings
from mesh.control.status.dead_letters import DeadLetters
from mesh.control.status.live_status import LiveStatus
from mesh.control.status.promises import FreshnessPromises
from mesh.control.status.replicas import Replicas
from mesh.control.status.unread_events import UnreadEventsWatch
from mesh.control.storage.database import Database
from mesh.control.sync_log.report import Report
from mesh.control.sync_log.retention import Retention as SyncLogRetention
from mesh.control.sync_log.store import SyncLog
from mesh.control.sync_log.task_counts import TaskCountStore
from mesh.control.sync_log.usage import Usage
from mesh.control.webhooks.deliver import Deliver
from mesh.control.webhooks.outbox import Outbox
from mesh.credentials.secrets import Secrets
from mesh.errors import LogError
from mesh.log.table import Table


class Control:
    """The role. Its owner runs `table`, which follows `mesh.state` into the declared state of `ports`."""

    def __init__(
        self,
        ports: ControlPorts,
        *,
        table: Table,
        secrets: Secrets,
        database: str,
        settings: ControlSettings | None = None,
        access: ApiAccess = LOCAL_ONLY,
    ) -> None:
        """Builds all parts; nothing runs before `run`.

        Args:
            ports: The log, the declared state, time, randomness and metrics.
            table: Follows `mesh.state`.
            secrets: The values of the secrets that webhooks name.
            database: An URL of SQLAlchemy; the database is opened at its first use.
            settings: The limits.
            access: Who may call the API; by default callers on this machine.

        Raises:
            InvalidInput: `database` is not the URL of a supported database.
        """
        self._settings = settings = settings or ControlSettings()
        self._ports, self._table, self._access = ports, table, access
        self._database = Database(database, settings, ports.clock)
        ports.metrics.database_failing.set_function(lambda: float(self._database.failure is not None))
        self._sync_log, self._outbox = SyncLog(self._database, settings), Outbox(self._database)
        self._images, self._executions = Images(self._database), Executions(self._database)
        self._deliver = Deliver(
            self._outbox, ports=ports, secrets=secrets, settings=settings, caught_up=table.caught_up
        )  # fmt: skip
        self._report = Report(
            self._sync_log, ports=ports, take_images=self._images.take_completions, on_news=self._wake
        )  # fmt: skip
        self._locations = Locations(self._images, ports=ports, settings=settings)
        self._live_status, self._dead_letters = LiveStatus(ports, settings), DeadLetters(ports)
        self._declare = Declare(ports, table, on_emptied=self._images.delete_place)
        self._commands = Commands(self._executions, ports)
        self._schedule = Schedule(
            self._database, self._executions, self._commands, self._live_status.place_states,
            self._live_status.registry_processes, ports,
        )  # fmt: skip
        self._orphaned_tags = OrphanedTags(self._database, self._commands, ports)
        self._parked = ParkedTasks(ports)
        self._retries = Retries(self._database, self._commands, ports.state)
        self._trimmed = (
            SyncLogRetention(self._database, ports=ports, settings=settings),
            ExecutionRetention(self._database, ports=ports, settings=settings),
        )
        self._promises = FreshnessPromises(
            TaskCountStore(self._database), self._live_status, ports=ports, settings=settings
        )  # fmt: skip
        self._unread_events = UnreadEventsWatch(ports, settings)
        self._replicas = Replicas(
            self._live_status, self._executions, self._retries, gap_of=self._schedule.gap_of, ports=ports,
            settings=settings,
        )  # fmt: skip

    async def run(self) -> None:
        """Runs all parts until cancelled, then closes the database. It can run only once."""
        try:
            await self._wait_for_state()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._report.run(), name="control reads completions")
                tasks.create_task(self._locations.run(), name="control reads image locations")
                tasks.create_task(self._locations.clean_up(), name="control cleans up image locations")
                tasks.create_task(self._live_status.run(), name="control follows status")
                tasks.create_task(self._live_status.clean_up(), name="control deletes old status")
                for one in self._trimmed:
                    tasks.create_task(one.run(), name="control deletes old entries and executions")
                tasks.create_task(self._parked.run(), name="control follows parked tasks")
                tasks.create_task(self._dead_letters.run(), name="control follows dead letters")
                tasks.create_task(self._replicas.run(), name="control updates replica gauges")
                tasks.create_task(self._promises.run(), name="control watches freshness promises")
                tasks.create_task(self._unread_events.run(), name="control looks for unread events")
                tasks.create_task(self._deliver.run(), name="control delivers webhooks")
                tasks.create_task(self._commands.run(), name="control runs executions")
                tasks.create_task(self._schedule.run(), name="control schedules executions")
                tasks.create_task(self._orphaned_tags.run(), name="control compares replicas")
        finally:
            await self._database.close()

    def routes(self, app: web.Application) -> None:
        """Adds the API under `/api/v1`; paths without a route are answered as JSON too."""
        state, clock = self._ports.state, self._ports.clock
        resources = (
            ExecutionsResource(self._executions, self._commands, self._parked),
            TasksResource(self._retries, self._parked),
            DoctorResource(
                ports=self._ports, live_status=self._live_status, dead_letters=self._dead_letters,
                retries=self._retries, replicas=self._replicas, outbox=self._outbox, parked=self._parked,
                promises=self._promises, unread_events=self._unread_events,
                database_failure=lambda: self._database.failure,
            ),
            ImagesResource(self._images, state=state, clock=clock),
            SyncLogResource(
                self._sync_log, Usage(self._database), live_status=self._live_status, parked=self._parked,
                state=state, clock=clock,
            ),
            DeclarationsResource(
                self._declare, state=state, live_status=self._live_status, replicas=self._replicas,
                outbox=self._outbox, settings=self._settings, promises=self._promises,
                baseline_of=self._schedule.baseline_of,
            ),
        )  # fmt: skip
        server.mount(app, resources, self._access)

    async def apply(self, document: object, *, dry_run: bool = False) -> list[Change]:
        """Declares a document, as `POST /api/v1/apply` does.

        Raises:
            InvalidDocument: The document is wrong; the error has all problems.
            LogError: The log did not accept it.
        """
        return await self._declare.apply(document, dry_run=dry_run)

    def notes(self) -> list[str]:
        """Returns what an operator should know though control can work."""
        return [self._database.failure] if self._database.failure is not None else []

    def _wake(self) -> None:
        self._deliver.wake()
        self._commands.wake()

    async def _wait_for_state(self) -> None:
        """Until the state is read, declared webhooks seem to be deleted, and their deliveries would be closed."""
        retry = self._ports.retry_loop("control")
        while True:
            try:
                return await self._table.caught_up()
            except LogError as error:
                await retry.wait(error)
