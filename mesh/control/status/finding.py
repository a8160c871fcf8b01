"""What `regmesh doctor` shows, and what control knows of events that were not read."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from schemas.names import Region


class Severity(StrEnum):
    """`problem`: something does not work. `note`: an operator should know."""

    PROBLEM = "problem"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with `about`, which is `region/NAME`, `instance/NAME`, `replica/NAME`, `agent/NAME` and so on."""

    severity: Severity
    about: str
    message: str
    advice: str


@dataclass(frozen=True, slots=True)
class UnreadEvents:
    """Events that are deleted unread soon.

    Attributes:
        region: The region whose agents have not read them.
        source: The region whose events they are.
        records: How many there are.
        kept_for: For how long the topic keeps its records.
    """

    region: Region
    source: Region
    records: int
    kept_for: timedelta
