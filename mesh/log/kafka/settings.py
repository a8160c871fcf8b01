"""The limits of the Kafka engine that an operator may change."""

from pydantic import Field

from mesh.settings import Settings


class KafkaTimeouts(Settings):
    """How long the Kafka engine waits. The defaults suit a wide-area network."""

    request: float = Field(10.0, gt=0)
    """How long any one call may take, such as an append or a commit, in seconds."""

    session: float = Field(20.0, gt=0)
    """How long a group waits for a heartbeat before it gives the member's partitions to others, in seconds."""

    heartbeat: float = Field(3.0, gt=0)
    """How long a member waits between two heartbeats, in seconds."""

    rebalance: float = Field(60.0, gt=0)
    """How long the members of a group have to rejoin it in a rebalance, in seconds."""

    poll: float = Field(300.0, gt=0)
    """How long a member may go without a read before it leaves its group, in seconds."""

    stall: float = Field(120.0, gt=0)
    """How long a consumer may be without an assignment or progress before it is replaced, in seconds."""

    stop: float = Field(5.0, gt=0)
    """How long a client has to stop before its connections are closed by force, in seconds."""
