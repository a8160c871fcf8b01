"""What `regmesh doctor` shows."""

from dataclasses import dataclass
from enum import StrEnum


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
