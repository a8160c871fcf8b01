"""Webhooks: who is notified when a task ends, and the body of the notification."""

from datetime import datetime
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, field_validator

from schemas.declared import Declared, Noun
from schemas.names import Account, ObjectName, SecretName

EventType = Literal["replication.succeeded", "replication.failed", "replication.skipped"]


class Webhook(Declared):
    """An HTTP receiver. With an `account` it gets only completions that involve that account's instances."""

    noun: ClassVar[Noun] = "webhook"

    name: ObjectName
    url: str
    account: Account | None = None
    event_types: tuple[EventType, ...] = Field(
        default=("replication.succeeded", "replication.failed"), min_length=1
    )
    secret: SecretName | None = None  # of a `whsec_...` key; None = deliveries are not signed

    @field_validator("url")
    @classmethod
    def _is_a_url(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("must be an http:// or https:// URL")
        _ = url.port  # raises ValueError when it is invalid
        if url.username is not None or url.password is not None:
            raise ValueError("must not carry a user or password; name a `secret` instead")
        return value


class CloudEvent(BaseModel):
    """The body of a delivery: CloudEvents 1.0 in JSON; `data` is the sync log entry."""

    specversion: Literal["1.0"] = "1.0"
    id: str  # the same for every attempt of one delivery
    source: str
    type: EventType
    subject: str
    time: datetime
    datacontenttype: Literal["application/json"] = "application/json"
    data: dict[str, object]
