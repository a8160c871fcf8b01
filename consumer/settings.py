"""The limits of an agent that an operator may need to change."""

from pydantic import Field

from mesh.retry import Backoff, Random, RetryPolicy
from mesh.settings import Settings


class TaskRetries(Settings):
    """How often a task is attempted before it is parked or fails."""

    attempts: int = Field(3, gt=0)
    """Attempts of a task before it is parked; a parked task gets as many each time it is due."""

    first_wait: float = Field(0.5, ge=0)
    """Seconds between the first two attempts; doubled after each further one."""

    longest_wait: float = Field(8.0, ge=0)
    """Longest wait between two attempts, in seconds."""

    longest_throttled: float = Field(900.0, ge=0)
    """Seconds that one task waits in all for registries that answer 429; such a wait uses up no attempt."""

    @property
    def policy(self) -> RetryPolicy:
        """Returns the retry policy of one task."""
        return RetryPolicy(self.attempts, Backoff(self.first_wait, self.longest_wait), self.longest_throttled)


class ParkingPolicy(Settings):
    """When a task that failed all its attempts is due again, and when it is given up."""

    first_wait: float = Field(30.0, gt=0)
    """Seconds until a task that is parked for the first time is due; doubled each time it is parked again."""

    longest_wait: float = Field(3600.0, gt=0)
    """Longest time until a parked task is due, in seconds."""

    give_up_after: float = Field(24 * 3600.0, ge=0)
    """Seconds after its first parking from which a task that fails again ends `Failed`; 0 parks nothing."""

    check_every: float = Field(1.0, gt=0)
    """Seconds between two searches for parked tasks that are due."""

    due_per_destination: int = Field(100, gt=0)
    """Parked tasks of one destination that may be queued or running at once, so that a dead one blocks no other."""

    def wait(self, rounds: int, random: Random) -> float:
        """Returns the seconds until a task that is parked for the `rounds`th time is due."""
        return Backoff(self.first_wait, self.longest_wait, jitter=0.25).wait(rounds, random)


class ReadWindow(Settings):
    """How much of the log an agent works on at once, and how soon it commits."""

    records_per_partition: int = Field(256, gt=0)
    """Records of one partition that may be unfinished; the partition is paused when there are as many."""

    commit_every: float = Field(1.0, ge=0)
    """Seconds between two commits of finished records."""

    commit_after: int = Field(100, gt=0)
    """Finished records after which a commit happens sooner."""

    poll: float = Field(0.5, gt=0)
    """Longest wait of one read for new records, in seconds."""

    poll_while_idle: float = Field(5.0, gt=0)
    """The same while nothing is unfinished, in seconds; a new record ends the wait at once."""

    poll_while_holding: float = Field(0.02, gt=0)
    """The same while records that were read wait for a free place or for newer rules, in seconds."""

    alarm_after: float = Field(30.0, gt=0)
    """Seconds for which events wait for newer rules before an error is logged."""


class TransferLimits(Settings):
    """How many blobs are copied concurrently."""

    blobs_per_task: int = Field(4, gt=0)
    """Blobs that one task copies concurrently."""

    transfers: int = Field(16, gt=0)
    """Blobs that the agent copies concurrently; this bounds its memory. Listings get half of them at most."""

    prefetches: int = Field(4, gt=0)
    """Blobs that are prefetched concurrently, within `transfers`."""

    prefetch_bytes: int = Field(10 * 1024**3, ge=0)
    """Bytes that may be prefetched into the region and not named by a manifest yet; 0 prefetches nothing."""


class ImageLimits(Settings):
    """How large an image may be; a larger one ends `Failed` with the limit in its error."""

    manifests: int = Field(10_000, gt=0)
    """Manifests of one image, an index and all below it."""

    manifest_bytes: int = Field(64 * 1024**2, gt=0)
    """Bytes of all manifests of one image; they are in memory until the root manifest is written."""

    referrers: int = Field(1000, gt=0)
    """Referrers of one image (signatures, SBOMs, attestations), with the referrers of referrers."""


class AgentSettings(Settings):
    """Limits of one agent."""

    tasks_per_destination: int = Field(8, gt=0)
    """Tasks that run concurrently for one destination, for events."""

    bulk_tasks_per_destination: int = Field(6, gt=0)
    """Tasks that run concurrently for one destination besides these, for what listings found."""

    drain: float = Field(25.0, ge=0)
    """Seconds that running tasks have to finish when the agent is stopped."""

    heartbeat_every: float = Field(10.0, gt=0)
    """Seconds between two heartbeats; agents without one for 30 s count as dead."""

    places_every: float = Field(30.0, gt=0)
    """Seconds between two checks of the registries."""

    failing_places_every: float = Field(3.0, gt=0)
    """Seconds between two checks of a registry that does not answer; what waits for it runs when it does."""

    progress_every: float = Field(1.0, gt=0)
    """Seconds between two progress records of a running task."""

    regions_every: float = Field(1.0, gt=0)
    """Seconds until a newly declared region is consumed, and a newly declared registry checked."""

    retries: TaskRetries = TaskRetries()
    parking: ParkingPolicy = ParkingPolicy()
    window: ReadWindow = ReadWindow()
    transfers: TransferLimits = TransferLimits()
    images: ImageLimits = ImageLimits()
