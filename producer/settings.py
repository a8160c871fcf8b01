"""The limits of a producer that an operator may change."""

from pydantic import Field

from mesh.retry import Backoff, RetryPolicy
from mesh.settings import Settings


class ProducerSettings(Settings):
    """Limits of the intake of notifications, and of the listings that executions ask for."""

    max_body_bytes: int = Field(8 * 1024 * 1024, gt=0)
    """Largest body of a notification, in bytes. A larger one becomes a dead letter with its first 256 KiB."""

    body_timeout: float = Field(10.0, gt=0)
    """How long the body of a notification may take to arrive, in seconds."""

    rules_revision_timeout: float = Field(0.5, gt=0)
    """How long a notification waits for the newest rules revision, in seconds; registries give up after 1 s."""

    spool_bytes: int = Field(1024 * 1024 * 1024, ge=0)
    """Largest size of the file in which notifications wait while Kafka is away, in bytes. 0 keeps none."""

    spool_after: float = Field(2.0, gt=0)
    """How long Kafka may take to acknowledge a notification, in seconds; then the notification goes to the file."""

    refusal_report_interval: float = Field(5.0, gt=0)
    """How long the reporter of refused notifications pauses between two reports, in seconds."""

    concurrent_listings: int = Field(4, gt=0)
    """How many executions of one partition of `mesh.commands` are listed at once."""

    listing_requests: int = Field(16, gt=0)
    """How many requests one listing sends to its registry at once."""

    listing_attempts: int = Field(5, gt=0)
    """How often one request of a listing is attempted."""

    listing_first_wait: float = Field(0.5, gt=0)
    """How long the first wait between two attempts of a request is, in seconds; it doubles with each failure."""

    listing_longest_wait: float = Field(15.0, gt=0)
    """How long a wait between two attempts of a request may be, in seconds."""

    listing_longest_throttled: float = Field(900.0, ge=0)
    """How long the waits of one request for a registry that answers 429 may be in sum, in seconds."""

    @property
    def retry_policy(self) -> RetryPolicy:
        """Returns the policy for the requests of a listing."""
        backoff = Backoff(self.listing_first_wait, self.listing_longest_wait)
        return RetryPolicy(self.listing_attempts, backoff, self.listing_longest_throttled)
