"""What both engines check before they write, so that they refuse the same records and topics."""

from mesh.errors import LogError
from mesh.log.port import Append
from schemas import topics
from schemas.codec import MAX_RECORD
from schemas.topics import TopicSettings


def encoded_key(record: Append) -> bytes:
    """Returns the bytes of the key of a record that may be written.

    Raises:
        LogError: The record is too large, or its key is not valid text.
    """
    if len(record.value or b"") > MAX_RECORD:
        raise LogError(
            f"a record of {record.topic} exceeds the limit of {MAX_RECORD} bytes; this is a bug of regmesh"
        )
    try:
        return record.key.encode()
    except UnicodeEncodeError as error:
        raise LogError(f"a key of a record of {record.topic} is not valid text") from error


def topic_settings(topic: str) -> TopicSettings:
    """Returns the settings of a topic.

    Raises:
        LogError: The name is not in the table of topics.
    """
    try:
        return topics.settings(topic)
    except KeyError as error:
        raise LogError(f"{topic!r} is not a topic of regmesh") from error
