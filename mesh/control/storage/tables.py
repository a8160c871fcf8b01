"""The tables of control's database. They use nothing that only one engine supports."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Dialect,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    literal_column,
)
from sqlalchemy.types import TypeDecorator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Moment(TypeDecorator[datetime]):
    """A time in UTC, stored as microseconds since 1970, so that it sorts and compares alike on every engine."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else _EPOCH + value * _MICROSECOND


metadata = MetaData()

OLD_INDEXES = ("sync_log_by_execution",)  # of earlier versions; other indexes replace them

sync_log = Table(
    "sync_log",
    metadata,
    Column("task_id", Text, primary_key=True),
    Column("execution_id", Text, nullable=False),
    Column("rule", Text),
    Column("replica", Text),
    Column("trigger", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("resource_type", Text),
    Column("account", Text, nullable=False),
    Column("destination_account", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("source_region", Text, nullable=False),
    Column("destination_region", Text, nullable=False),
    Column("repository", Text, nullable=False),
    Column("tag", Text),
    Column("digest", Text),
    Column("status", Text, nullable=False),
    Column("start_time", Moment, nullable=False),
    Column("end_time", Moment, nullable=False),
    Column("bytes_total", BigInteger, nullable=False),
    Column("bytes_transferred", BigInteger, nullable=False),
    Column("bytes_skipped", BigInteger, nullable=False),
    Column("blobs_mounted", BigInteger, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("lag_ms", BigInteger, nullable=False),
    Column("rules_rev", BigInteger, nullable=False),
    Column("error_code", Text),
    Column("error_side", Text),
    Column("error_message", Text),
    Column("rebuilt_from", Text),
    Column("bytes_from", JSON),  # transferred bytes by the region that sent them
    Column("origin", Text),
    Column("hops", Integer),
    Index("sync_log_by_time", "end_time", "task_id"),
    Index("sync_log_by_status", "status", "end_time", "task_id"),
    Index("sync_log_by_repository", "repository", "end_time", "task_id"),
    Index("sync_log_by_image", "repository", "tag", "end_time", "task_id"),
    Index("sync_log_by_digest", "digest", "end_time", "task_id"),
    Index("sync_log_by_rule", "rule", "end_time", "task_id"),
    Index("sync_log_by_replica", "replica", "end_time", "task_id"),
    Index("sync_log_of_execution", "execution_id", "end_time", "task_id"),
    # All columns that an execution is counted by, so that its tasks are counted from the index alone.
    Index(
        "sync_log_sums",
        "execution_id",
        "status",
        "error_code",
        "bytes_total",
        "bytes_transferred",
        "bytes_skipped",
    ),
)

# What deleted entries of the sync log had sent, by day. `bytes` and `tasks` count each entry once, `link_bytes` counts
# what each region had sent of it.
usage_days = Table(
    "usage_days",
    metadata,
    Column("day", Moment, primary_key=True),  # its start
    Column("account", Text, primary_key=True),
    Column("rule", Text, primary_key=True),  # empty for a replica
    Column("replica", Text, primary_key=True),  # empty for a rule
    Column("sender", Text, primary_key=True),  # the region that sent
    Column("destination_region", Text, primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("tasks", BigInteger, nullable=False),
    Column("link_bytes", BigInteger, nullable=False),
)

# Held deletions are few, and `doctor` counts them, so they have a partial index. The condition is a literal: with a
# bound value the planner does not see that it may use the index.
IS_HELD = sync_log.c.error_code == literal_column("'deletion_held'")
Index(
    "sync_log_held",
    sync_log.c.end_time,
    sync_log.c.task_id,
    sqlite_where=IS_HELD,
    postgresql_where=IS_HELD,
)

# Tags of a replica with content that somebody else wrote, which were left alone: counted for each replica status.
IS_FOREIGN = (sync_log.c.error_code == literal_column("'other_content'")) & (
    sync_log.c.operation == literal_column("'copy'")
)
Index(
    "sync_log_others",
    sync_log.c.end_time,
    sync_log.c.task_id,
    sqlite_where=IS_FOREIGN,
    postgresql_where=IS_FOREIGN,
)

# The outbox: a delivery is written in one transaction with the entry that it reports.
deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Text, primary_key=True),  # the `webhook-id` of every attempt
    Column("webhook", Text, nullable=False),
    Column("task_id", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("body", Text, nullable=False),  # as it is sent; every attempt sends the same bytes
    Column("state", Text, nullable=False),  # pending, delivered, given_up, closed
    Column("tries", Integer, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column(
        "next_try_at", Moment, nullable=False
    ),  # of a pending one; in the future while an attempt is in progress
    Column("ended_at", Moment),
    Column("last_error", Text),  # of the last failed attempt, also after a success
    Column("failed_at", Moment),  # time of the last failed attempt
    Index("webhook_deliveries_due", "state", "webhook", "next_try_at"),
    Index("webhook_deliveries_ended", "webhook", "state", "ended_at"),
    Index("webhook_deliveries_failed", "webhook", "failed_at"),
    Index("webhook_deliveries_expired", "state", "ended_at"),
)

# What a dead receiver leaves behind is counted by a partial index, without reading the bodies. The condition is a
# literal for the same reason as above.
FAILING_ATTEMPTS = 3  # made within seconds; a single failure may be a receiver that restarts
IS_FAILING = (deliveries.c.state == literal_column("'pending'")) & (
    deliveries.c.tries >= literal_column(str(FAILING_ATTEMPTS))
)
Index(
    "webhook_deliveries_failing",
    deliveries.c.webhook,
    deliveries.c.failed_at,
    deliveries.c.state,  # and `tries`: without them SQLite reads the rows to check the condition again
    deliveries.c.tries,
    sqlite_where=IS_FAILING,
    postgresql_where=IS_FAILING,
)

# The outcome of the tasks is counted from the sync log when it is asked for, so nothing is counted twice.
executions = Table(
    "executions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("rule", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("region", Text, nullable=False),  # of the source: the key of its commands
    Column("trigger", Text, nullable=False),
    Column("repository", Text),
    Column("tag", Text),
    Column("dry_run", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("stopping", Integer, nullable=False),
    Column("total", BigInteger),  # None until the listing has ended
    Column("start_time", Moment, nullable=False),
    Column("end_time", Moment),
    Column("error_code", Text),
    Column("error_side", Text),
    Column("error_message", Text),
    Column("operation", Text),
    Column("is_whole", Integer),  # 1: over all that the rule matches
    Column(
        "surplus", BigInteger
    ),  # of a whole one of a replica: the number of orphaned tags; None until compared
    Column("destination", Text),  # of the rule, when it was started
    Column("rules_rev", BigInteger),  # of the declared state, when it was started
    Index("executions_by_time", "start_time", "id"),
    Index("executions_by_rule", "rule", "start_time", "id"),
    Index("executions_by_status", "status"),
)

# How many tasks of each rule or replica ended in each minute, and in each hour, and of those that count for its
# freshness promise (in seconds; 0: it has none) how many kept it.
task_counts = Table(
    "task_counts",
    metadata,
    Column("rule", Text, primary_key=True),
    Column("promise", BigInteger, primary_key=True),
    Column("span", Integer, primary_key=True),  # 60 or 3600 seconds
    Column("start", Moment, primary_key=True),
    Column("ended", BigInteger, nullable=False),
    Column("counted", BigInteger, nullable=False),
    Column("kept", BigInteger, nullable=False),
    Index("task_counts_by_time", "span", "start"),
)

# When each scheduled rule runs next, so that a tick during a restart is not missed.
schedules = Table(
    "schedules",
    metadata,
    Column("rule", Text, primary_key=True),
    Column(
        "spec", Text, nullable=False
    ),  # cron and time zone; when they change, the next time is computed anew
    Column("next_time", Moment, nullable=False),
)

# Which digest each place holds under a tag. A deleted tag stays for a day without a digest, so that older records do
# not bring it back.
images = Table(
    "images",
    metadata,
    Column("place", Text, primary_key=True),
    Column("repository", Text, primary_key=True),
    Column("tag", Text, primary_key=True),
    Column("digest", Text),
    Column("since", Moment, nullable=False),  # when it got this digest, or was deleted
    Column("written_by", Text, nullable=False),
    Column("tag_version", BigInteger, nullable=False),
    Column("seen_at", Moment),  # when its registry was last seen to hold it; None: it was only announced
)

# The referrers that a place holds: signatures, SBOMs, attestations.
image_referrers = Table(
    "image_referrers",
    metadata,
    Column("place", Text, primary_key=True),
    Column("repository", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("referrer", Text, primary_key=True),
)
