"""Records to bytes and back."""

from typing import TypeVar

import orjson
from pydantic import ValidationError

from schemas.envelope import Record

R = TypeVar("R", bound=Record)

MAX_RECORD = 900 * 1024  # bytes; less than Kafka's default of 1 MiB for a batch, and far more than any record


class DecodeError(ValueError):
    """These bytes are not the record that the topic should hold; `raw` keeps them."""

    def __init__(self, reason: str, raw: bytes) -> None:
        super().__init__(reason)
        self.reason = reason
        self.raw = raw


def encode(record: Record) -> bytes:
    """Returns the record as the log stores it: one JSON object with its `kind`."""
    return orjson.dumps({"kind": record.kind, **record.model_dump(mode="json")})


def decode(raw: bytes, model: type[R]) -> R:
    """Returns the record in `raw`.

    Raises:
        DecodeError: It is not a record of this model, or one of another major version.
    """
    found = _parse(raw)
    if found.pop("kind", None) != model.kind:
        raise DecodeError(f"not a record of kind {model.kind!r}", raw)
    version = str(found.get("version", ""))
    if version.partition(".")[0] != str(model.major):
        raise DecodeError(f"version {version[:20]!r} of {model.kind!r} is not {model.major}.x", raw)
    try:
        return model.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DecodeError(f"{model.kind}: {where}: {first['msg']}"[:500], raw) from error


def kind_of(raw: bytes) -> str:
    """Returns the `kind` that these bytes claim.

    Raises:
        DecodeError: They are not a JSON object.
    """
    return str(_parse(raw).get("kind", ""))


def _parse(raw: bytes) -> dict[str, object]:
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise DecodeError(f"not JSON: {error}"[:500], raw) from error
    if not isinstance(found, dict):
        raise DecodeError("not a JSON object", raw)
    return found
