"""Webhooks: whom to tell when a task ends, and what they are told."""

from datetime import datetime
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, field_validator

from schemas.declared import Declared, Noun
from schemas.names import Account, ObjectName, SecretName

EventType = Literal["replication.succeeded", "replication.failed", "replication.skipped"]


class Webhook(Declared):
    """One HTTP receiver. With an `account` it sees only completions that touch that account's instances."""

    noun: ClassVar[Noun] = "webhook"

    name: ObjectName
    url: str
    account: Account | None = None
    event_types: tuple[EventType, ...] = Field(
        default=("replication.succeeded", "replication.failed"), min_length=1
    )
    secret: SecretName | None = None  # a `whsec_...` key; without one the delivery is not signed

    @field_validator("url")
    @classmethod
    def _is_a_url(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("must be an http:// or https:// URL")
        _ = url.port  # raises ValueError when it is no port
        if url.username is not None or url.password is not None:
            raise ValueError("must not carry a user or password; name a `secret` instead")
        return value


class CloudEvent(BaseModel):
    """The body of a delivery: CloudEvents 1.0 in JSON; `data` is the sync log entry."""

    specversion: Literal["1.0"] = "1.0"
    id: str  # the same for every try of one delivery
    source: str
    type: EventType
    subject: str
    time: datetime
    datacontenttype: Literal["application/json"] = "application/json"
    data: dict[str, object]
