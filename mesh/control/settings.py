"""The limits of control that an operator may need to change."""

from pydantic import Field

from mesh.retry import Backoff
from mesh.settings import Settings
from schemas.completions import AGENT_LIVES_FOR

# Completions may be read again while the log has them: an entry that was deleted earlier would come back. Orphaned tags
# are found by entries that are up to a week old.
_COMPLETIONS_RETENTION = 30 * 24 * 3600.0


class ControlSettings(Settings):
    """Limits of webhooks, the database, status and retention. Times are in seconds."""

    webhook_timeout: float = Field(10.0, gt=0)
    """Seconds for one attempt to deliver a webhook, from connecting to the answer."""

    webhook_first_wait: float = Field(1.0, gt=0)
    """Seconds before a failed delivery is attempted again. The wait doubles with each failure."""

    webhook_longest_wait: float = Field(3600.0, gt=0)
    """The longest wait between two attempts of one delivery, in seconds."""

    webhook_give_up_after: float = Field(3 * 24 * 3600.0, gt=0)
    """Seconds after which a delivery that still fails is given up."""

    webhook_concurrency: int = Field(4, gt=0)
    """Deliveries that are sent at the same time, for each webhook."""

    webhook_retention: float = Field(7 * 24 * 3600.0, gt=0)
    """Seconds for which a finished delivery is kept in the database."""

    webhook_failure_retention: float = Field(30 * 24 * 3600.0, gt=0)
    """Seconds for which a delivery that was given up is kept in the database."""

    database_statement_timeout: float = Field(30.0, gt=0)
    """Seconds after which PostgreSQL cancels a statement. SQLite has no such limit."""

    sync_log_retention: float = Field(90 * 24 * 3600.0, ge=_COMPLETIONS_RETENTION)
    """Seconds for which an entry of the sync log is kept, from the end of its task. Daily sums of its bytes stay."""

    execution_retention: float = Field(90 * 24 * 3600.0, ge=_COMPLETIONS_RETENTION)
    """Seconds for which an execution is kept after its end. The last one over a whole rule or replica stays."""

    silent_agent_retention: float = Field(24 * 3600.0, gt=AGENT_LIVES_FOR.total_seconds())
    """Seconds after which the last report of an agent that was killed, or of what it worked on, is deleted."""

    log_search_rows: int = Field(1000, gt=0)
    """Rows of the sync log that one step of a search reads. A larger number blocks the writer for longer."""

    log_search_steps: int = Field(20, gt=0)
    """Steps after which a search of the sync log ends its page, even if it found few entries."""

    document_bytes: int = Field(16 << 20, gt=0)
    """The largest document that `regmesh apply` may declare at once, in bytes; 16 MiB are about 100,000 rules."""

    replica_status_interval: float = Field(10.0, gt=0)
    """Seconds between two updates of the replica gauges."""

    freshness_objective: float = Field(0.99, gt=0, lt=1)
    """The share of tasks that should keep the freshness promise of their rule. Burn rates are measured against it."""

    freshness_interval: float = Field(10.0, gt=0)
    """Seconds between two updates of what is known of freshness promises, and of their metrics."""

    unread_events_interval: float = Field(300.0, gt=0)
    """Seconds between two looks for events that Kafka deletes soon and that agents have not read."""

    deleted_tag_retention: float = Field(24 * 3600.0, gt=0)
    """Seconds for which a deleted tag is remembered, so that late news of it is recognised as outdated."""

    @property
    def webhook_backoff(self) -> Backoff:
        """Returns the back-off between the attempts of one delivery."""
        return Backoff(self.webhook_first_wait, self.webhook_longest_wait)
