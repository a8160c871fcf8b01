"""The one edge where a registry's refusals, aiohttp's errors and the system's become errors of ours."""

import contextlib
import os
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
import orjson
from yarl import URL

from mesh import errors
from mesh.registry.egress import EgressRefused
from schemas.completions import Side

MAX_ERROR_BODY = 64 * 1024
_LONGEST_WAIT = 3600.0  # seconds; a registry that asks for more is asked again after an hour

_MISSING = frozenset({"MANIFEST_BLOB_UNKNOWN", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN"})
_OTHER_CONTENT = frozenset({"DIGEST_INVALID", "SIZE_INVALID"})
_NOT_KNOWN = frozenset({"NAME_UNKNOWN", "MANIFEST_UNKNOWN"})
_UNKNOWN_REQUEST = frozenset({"", "UNSUPPORTED"})
_LOST_UPLOAD = frozenset({"BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID"})


@contextlib.contextmanager
def translated(place: str, side: Side) -> Iterator[None]:
    """Foreign errors in the block leave it as `RegistryError`; `place` is named in their text."""
    try:
        yield
    except EgressRefused as error:
        raise errors.Rejected(f"{place}: {error}", side=side) from error
    except (aiohttp.ClientConnectorCertificateError, ssl.SSLError) as error:
        raise errors.Unreachable(f"{place}: its certificate is not trusted", side=side) from error
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, EgressRefused):
            raise errors.Rejected(f"{place}: {error.os_error}", side=side) from error
        raise errors.Unreachable(f"{place}: {_reason(error)}", side=side) from error
    except (aiohttp.InvalidURL, aiohttp.ClientResponseError) as error:
        raise errors.Rejected(f"{place}: not an HTTP answer that we understand", side=side) from error
    except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
        raise errors.Unreachable(f"{place}: {_reason(error)}", side=side) from error
    except ValueError as error:  # a host name that no resolver takes, a header that HTTP cannot carry
        what = "a host name" if isinstance(error, UnicodeError) else "a header"
        raise errors.Rejected(f"{place}: {what} that cannot be sent", side=side) from error


def _reason(error: Exception) -> str:
    """A few words for people; the chained error has the rest."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the name {error.host} was not found"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return "no TLS connection"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientConnectorError):
        return os.strerror(error.os_error.errno).lower() if error.os_error.errno else "no connection"
    return "the connection broke"


def of_answer(
    *,
    place: str,
    method: str,
    url: URL,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    now: datetime,
    side: Side,
) -> errors.RegistryError:
    """The error that an answer stands for. `body` may be anything; at most 64 KiB of it are looked at."""
    code, said = _first_error(body[:MAX_ERROR_BODY])
    said = errors.clean(f"{code} {said}".strip())
    text = f"{place}: {status} to {method} {_without_query(url)}" + (f": {said}" if said else "")
    if status == 429:
        return errors.Throttled(text, side=side, retry_after=retry_after(headers.get("Retry-After"), now))
    return _kind(method, status, code)(text, side=side, status=status)


def _kind(method: str, status: int, code: str) -> type[errors.RegistryError]:
    if status >= 500 or status == 408:
        return errors.ServerFault
    if status in (401, 403):
        return errors.Denied
    if method == "PUT" and code in _MISSING:
        return errors.MissingParts
    if method == "PUT" and code in _OTHER_CONTENT:
        return errors.ContentMismatch
    if code in _LOST_UPLOAD and method == "PUT":
        return errors.ServerFault  # it has forgotten an upload it began: beginning anew helps
    return _missing(code) if status == 404 else errors.Rejected


def _missing(code: str) -> type[errors.NotFound]:
    if code in _NOT_KNOWN:
        return errors.NotKnown
    return errors.NotOffered if code in _UNKNOWN_REQUEST else errors.NotFound


def _first_error(body: bytes) -> tuple[str, str]:
    """`errors[0]` of an OCI error body as code and message; of any other body its text as the message."""
    try:
        first = orjson.loads(body)["errors"][0]
        return str(first.get("code") or ""), str(first.get("message") or "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return "", body[:256].decode(errors="replace")


def _without_query(url: URL) -> str:
    """A query may hold a signature or an upload's state."""
    return f"{url.origin()}{url.raw_path}"


def retry_after(header: str | None, now: datetime) -> float | None:
    """Seconds to wait, of a Retry-After in seconds or as a date; None when it says neither. An hour at most."""
    if not header:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(_LONGEST_WAIT, float(text[:9]))
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # a number may be longer than the machine's
        return None
    seconds = (until if until.tzinfo else until.replace(tzinfo=UTC)) - now
    return min(_LONGEST_WAIT, max(0.0, seconds.total_seconds()))
