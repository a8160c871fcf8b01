"""Recorded notifications of registries: `tests/recorded/<kind>/<what>.http` holds headers and body of one request."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "recorded"


@dataclass(frozen=True)
class Request:
    """A notification that a registry sent."""

    kind: str
    what: str
    headers: Mapping[str, str]
    body: bytes

    def __str__(self) -> str:
        return f"{self.kind}/{self.what}"


def request(kind: str, what: str) -> Request:
    """Returns one recorded request."""
    head, _, body = (FOLDER / kind / f"{what}.http").read_bytes().partition(b"\n\n")
    headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
    return Request(kind, what, headers, body)


def requests() -> list[Request]:
    """Returns all recorded requests."""
    return [request(path.parent.name, path.stem) for path in sorted(FOLDER.glob("*/*.http"))]
