"""Every metric with its help text. docs/metrics.md lists them; an architecture test compares the two.

No digest, tag or repository is a label: the number of series must not grow with what is pushed.
"""

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Metrics:
    """Holds the metrics of a process; a test creates its own with a registry of its own."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry

        self._of_the_node()
        self._of_the_producer()
        self._of_the_consumer()
        self._of_transfers()
        self._of_the_log()
        self._of_control()
        self._of_the_gateway()

    def _of_the_node(self) -> None:
        self.http_connections = self._gauge(
            "http_connections", "Open connections of clients to a listener of this process.", "listener"
        )
        self.http_connections_ended = self._counter(
            "http_connections_ended_total",
            "Connections refused (full, replaced) or ended without progress (headers, body, send).",
            "listener",
            "reason",
        )

    def _of_the_producer(self) -> None:
        counter, histogram = self._counter, self._histogram
        self.notifications = counter(
            "notifications_total",
            "Notifications by their answer: accepted, bad, refused, unavailable.",
            "instance",
            "answer",
        )
        self.events = counter("events_total", "Events published, by action.", "instance", "action")
        self.ignored_events = counter(
            "ignored_events_total", "Events of notifications that need no action, such as pulls.", "instance"
        )
        self.intake_seconds = histogram(
            "intake_seconds", "From the last byte of a notification to its durable append."
        )
        self.spooled_records = counter(
            "spooled_records_total", "Records kept in the spool of an intake because the log was away."
        )
        self.spool_bytes = self._gauge("spool_bytes", "Size of the spool of an intake; 0 while it is empty.")
        self.stale_stamps = counter(
            "stale_stamps_total",
            "Events stamped with the last known rules revision because the newest could not be read.",
        )

    def _of_the_consumer(self) -> None:
        counter, gauge, histogram = self._counter, self._gauge, self._histogram
        self.consumed = counter("consumed_total", "Events read from a region's topic.", "source_region")
        self.waiting_for_rules = gauge(
            "waiting_for_rules",
            "1 while an event waits for newer rules than this agent has.",
            "source_region",
        )
        self.tasks = counter("tasks_total", "Tasks ended, by rule and status.", "rule", "status")
        self.running_tasks = gauge("running_tasks", "Tasks running now, by destination.", "destination")
        self.lag_seconds = histogram(
            "replication_lag_seconds",
            "From a push, by its registry's clock, to the end of the task that succeeded.",
            "rule",
        )
        self.parked_tasks = gauge(
            "parked_tasks", "Parked tasks: waiting for a retry, or still running.", "destination"
        )
        self.speed_wait_seconds = counter(
            "speed_wait_seconds_total", "Seconds that transfers waited for a speed limit.", "limit"
        )
        self.retries = counter("retries_total", "Attempts of a task after its first.", "destination", "code")
        self.place_up = gauge(
            "place_up",
            "1 when the place's registry answered the last health check and accepted our credentials.",
            "place",
        )

    def _of_transfers(self) -> None:
        counter, gauge = self._counter, self._gauge
        self.blob_bytes = counter(
            "blob_bytes_total", "Bytes of blobs sent from one place to another.", "source", "destination"
        )
        self.blobs = counter(
            "blobs_total",
            "Blobs by how they arrived: present, mounted, transferred, or twice when another agent sent the same.",
            "destination",
            "how",
        )
        self.relayed_bytes = counter(
            "relayed_bytes_total",
            "Bytes of blobs that this region's relay sent on to another.",
            "region",
            "to",
        )
        self.awake_regions = gauge(
            "awake_regions",
            "Other regions with replicas of the same instances that have live agents.",
            "region",
        )
        self.sources_dropped = counter(
            "sources_dropped_total",
            "Relays and near places that failed and are skipped for a while, by reason.",
            "code",
        )
        self.prefetch_bytes = gauge(
            "prefetch_bytes", "Bytes of prefetched blobs whose manifest has not arrived yet."
        )
        self.never_named_bytes = counter(
            "never_named_bytes_total",
            "Bytes of prefetched blobs that no manifest named within an hour.",
            "destination",
        )

    def _of_the_log(self) -> None:
        counter, gauge = self._counter, self._gauge
        self.group_lag = gauge(
            "group_lag_records",
            "Records between an agent's last commit and the end of its share.",
            "region",
            "topic",
        )
        self.dead_letters = counter(
            "dead_letters_total", "Records and payloads that could not be read.", "topic"
        )

    def _of_control(self) -> None:
        counter, gauge = self._counter, self._gauge
        self.unread_expiring = gauge(
            "unread_expiring_events",
            "Events older than half of their topic's retention that a region's agents have not read.",
            "region",
            "source_region",
        )
        self.database_failing = gauge(
            "database_failing", "1 while the sync log's database does not do what control asks of it."
        )
        self.replica_lag = gauge(
            "replica_lag_seconds",
            "Age of the oldest event that a replica has not applied; NaN while unknown.",
            "replica",
        )
        self.replica_state = gauge(
            "replica_state",
            "1 for the state that a replica is in: Syncing, Synced, Failed.",
            "replica",
            "state",
        )
        self._of_freshness()
        self.completions = counter(
            "completions_total", "Completions written to the sync log, by status.", "status"
        )
        self.webhook_deliveries = counter(
            "webhook_deliveries_total",
            "Deliveries by outcome: delivered, retried, given_up.",
            "webhook",
            "outcome",
        )

    def _of_freshness(self) -> None:
        gauge = self._gauge
        self.freshness_promise = gauge(
            "freshness_promise_seconds", "The freshness promise of a rule or replica.", "rule"
        )
        self.oldest_push = gauge(
            "oldest_push_seconds",
            "Age of the oldest push that a rule or replica with a promise has not applied; NaN while unknown.",
            "rule",
        )
        self.freshness_missed = gauge(
            "freshness_missed", "1 while the freshness promise of a rule or replica is being missed.", "rule"
        )
        self.freshness_kept = gauge(
            "freshness_kept_ratio",
            "Share of the tasks of a window (1h, 1d) that kept the promise; NaN without tasks.",
            "rule",
            "window",
        )
        self.freshness_burn_rate = gauge(
            "freshness_burn_rate",
            "How many times faster than the objective allows a promise was missed in a window (5m, 30m, 1h, 6h).",
            "rule",
            "window",
        )

    def _of_the_gateway(self) -> None:
        counter, gauge = self._counter, self._gauge
        self.gateway_requests = counter(
            "gateway_requests_total",
            "Pulls by the place that answered them (none: no place did) and status.",
            "place",
            "status",
        )
        self.gateway_bytes = counter(
            "gateway_bytes_total", "Bytes of bodies that a place served to clients of a gateway.", "place"
        )
        self.gateway_misses = counter(
            "gateway_misses_total",
            "Manifests that a replica in the gateway's region did not have and another place had.",
            "place",
        )
        self.gateway_resumed = counter(
            "gateway_resumed_total",
            "Blobs that another place continued after this one disconnected.",
            "place",
        )
        self.gateway_place_up = gauge(
            "gateway_place_up",
            "1 when the place answered the gateway's last health check or request.",
            "place",
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"regmesh_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"regmesh_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"regmesh_{name}", text, labels, registry=self.registry, buckets=_SECONDS)
