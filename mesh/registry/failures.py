"""The one edge that translates a registry's error answers, aiohttp's errors and system errors to `RegistryError`."""

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
_LONGEST_RETRY_AFTER = 3600.0  # seconds; a longer Retry-After is cut to this

# Error codes of the OCI Distribution specification, "Error Codes".
_MISSING_PARTS = frozenset({"MANIFEST_BLOB_UNKNOWN", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN"})
_OTHER_CONTENT = frozenset({"DIGEST_INVALID", "SIZE_INVALID"})
_CONFIRMED_NOT_FOUND = frozenset({"NAME_UNKNOWN", "MANIFEST_UNKNOWN", "NOT_FOUND"})  # the last is Harbor's
_ENDPOINT_NOT_FOUND = frozenset({"", "UNSUPPORTED"})
_LOST_UPLOAD = frozenset({"BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID"})


@contextlib.contextmanager
def translated(place: str, side: Side) -> Iterator[None]:
    """Translates foreign errors in the block to `RegistryError`; `place` is named in their text.

    Raises:
        Rejected: An address is refused, or the answer is not HTTP.
        Unreachable: There is no answer, or the connection broke.
    """
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
        raise errors.Rejected(f"{place}: the answer is not valid HTTP", side=side) from error
    except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
        raise errors.Unreachable(f"{place}: {_reason(error)}", side=side) from error
    except ValueError as error:  # a host name that no resolver accepts, a header that HTTP cannot carry
        what = "host name" if isinstance(error, UnicodeError) else "header"
        raise errors.Rejected(f"{place}: an invalid {what} cannot be sent", side=side) from error


def _reason(error: Exception) -> str:
    """Returns a few words for people; the chained error has the details."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the name {error.host} was not found"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return "no TLS connection"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientConnectorError):
        return os.strerror(error.os_error.errno).lower() if error.os_error.errno else "no connection"
    return "the connection broke"


def error_of_response(
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
    """Returns the error for an answer. `body` may be anything; at most 64 KiB of it are parsed."""
    code, message = _first_error(body[:MAX_ERROR_BODY])
    details = errors.clean(f"{code} {message}".strip())
    text = f"{place}: {status} to {method} {_without_query(url)}" + (f": {details}" if details else "")
    if status == 429:
        return errors.Throttled(text, side=side, retry_after=retry_after(headers.get("Retry-After"), now))
    return _error_type(method, status, code)(text, side=side, status=status)


def _error_type(method: str, status: int, code: str) -> type[errors.RegistryError]:
    if status >= 500 or status == 408:
        return errors.ServerFault
    if status in (401, 403):
        return errors.Denied
    if method == "PUT" and code in _MISSING_PARTS:
        return errors.MissingParts
    if method == "PUT" and code in _OTHER_CONTENT:
        return errors.ContentMismatch
    if code in _LOST_UPLOAD and method == "PUT":
        return errors.ServerFault  # it has lost the upload session: a new one may work
    return _not_found_type(code) if status == 404 else errors.Rejected


def _not_found_type(code: str) -> type[errors.NotFound]:
    if code in _CONFIRMED_NOT_FOUND:
        return errors.ConfirmedNotFound
    return errors.EndpointNotFound if code in _ENDPOINT_NOT_FOUND else errors.NotFound


def _first_error(body: bytes) -> tuple[str, str]:
    """Returns code and message of `errors[0]` in an OCI error body; for any other body its text as the message."""
    try:
        first = orjson.loads(body)["errors"][0]
        return str(first.get("code") or ""), str(first.get("message") or "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return "", body[:256].decode(errors="replace")


def _without_query(url: URL) -> str:
    """Removes the query, which may contain a signature or an upload's state."""
    return f"{url.origin()}{url.raw_path}"


def retry_after(header: str | None, now: datetime) -> float | None:
    """Parses a Retry-After header, in seconds or as a date (RFC 9110, section 10.2.3).

    Returns:
        Seconds to wait, at most an hour; None when the header is missing or invalid.
    """
    if not header:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(_LONGEST_RETRY_AFTER, float(text[:9]))
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # a number in it may exceed the machine's integers
        return None
    seconds = (until if until.tzinfo else until.replace(tzinfo=UTC)) - now
    return min(_LONGEST_RETRY_AFTER, max(0.0, seconds.total_seconds()))
