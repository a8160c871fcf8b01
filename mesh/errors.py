"""One tree of errors. Each error knows whether a retry can help and which side of a task has to act.

Foreign errors are translated at one edge each: `mesh.registry.failures`, the two log engines and
`mesh.control.storage.database`. No code matches on an error's text.
"""

import re
from collections.abc import Sequence

from schemas.completions import Side, TaskError

_SHOWN, _LONGEST_SHOWN = 3, 40  # unreadable names in a message, and characters of each
# Control characters, and those that change the direction of text or end a line.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")


def clean(text: str, longest: int = 256) -> str:
    """Makes a peer's text safe for a log line or an answer: replaces control characters and truncates."""
    return _UNPRINTABLE.sub(" ", text).strip()[:longest]


class RegmeshError(Exception):
    """The base of all errors. `code` is stable and for programs; the text is for people."""

    code = "internal"
    retryable = False
    side = Side.MESH

    def __init__(self, message: str) -> None:
        super().__init__(clean(message, 1000))
        self.lines = [str(self)]  # for a terminal: one line for each problem

    def as_task_error(self) -> TaskError:
        """Returns the error as a completion records it."""
        return TaskError(code=self.code, side=self.side, message=clean(str(self)))


class InvalidInput(RegmeshError):
    """A person's input is wrong; the message says how to correct it."""

    code = "invalid_input"


class NotDeclared(InvalidInput):
    """The input names something that is not declared."""

    code = "not_found"


class LogError(RegmeshError):
    """The log did not do what was asked."""

    code = "log_error"
    side = Side.LOG


class LogUnavailable(LogError):
    """The log is not reachable now. A write that timed out may still arrive."""

    code = "log_unavailable"
    retryable = True


class LogInUse(LogError):
    """Another process has the embedded log open."""

    code = "log_in_use"


class DatabaseUnavailable(RegmeshError):
    """The sync log's database did not do what was asked."""

    code = "database_unavailable"
    retryable = True


class DatabaseRefused(DatabaseUnavailable):
    """The database cannot store a value, so repeating the same does not help."""

    code = "database_refused"
    retryable = False


class RegistryError(RegmeshError):
    """A registry did not do what was asked. `side` is the side of the task that its client was opened for."""

    code = "registry_error"
    side = Side.SOURCE

    def __init__(self, message: str, *, side: Side, status: int | None = None) -> None:
        super().__init__(message)
        self.side = side
        self.status = status  # of the HTTP answer; None when there was none


class Unreachable(RegistryError):
    """There was no answer, or the connection broke."""

    code = "unreachable"
    retryable = True


class Throttled(RegistryError):
    """The registry answered 429."""

    code = "throttled"
    retryable = True

    def __init__(self, message: str, *, side: Side, retry_after: float | None) -> None:
        super().__init__(message, side=side, status=429)
        self.retry_after = retry_after  # seconds; None when the registry did not say


class ServerFault(RegistryError):
    """The registry answered 5xx or 408."""

    code = "server_fault"
    retryable = True


class Denied(RegistryError):
    """The registry answered 401 or 403."""

    code = "denied"


class NotFound(RegistryError):
    """The registry answered 404: the repository, manifest or blob is missing."""

    code = "not_found"


class ConfirmedNotFound(NotFound):
    """A 404 with the registry API's own code for a missing repository or manifest.

    Another 404 may come from a proxy, so only this one is a reason to delete something.
    """


class EndpointNotFound(NotFound):
    """A 404 without a code of the registry API: the registry does not have this endpoint."""


class AbsenceUnconfirmed(RegistryError):
    """A 404 that may be a proxy's: it does not prove that the registry has lost the tag or manifest."""

    code = "absence_unconfirmed"
    retryable = True


class Rejected(RegistryError):
    """The registry answered another 4xx, or with something that the protocol does not allow."""

    code = "rejected"


class MissingParts(Rejected):
    """The registry says that content named by the manifest is missing, so cached knowledge of it was stale."""

    code = "missing_parts"
    retryable = True


class SparseRefused(Rejected):
    """The registry does not accept an index of which some children are left out."""

    code = "sparse_refused"


class TagDeleteUnsupported(Rejected):
    """The registry cannot delete a tag alone, and other tags need the digest."""

    code = "tag_delete_unsupported"


class DeleteRefused(Rejected):
    """The registry does not delete anything, or not this artifact."""

    code = "delete_refused"


class UnreadableNames(Rejected):
    """A list contains invalid names. Raised at its end, after all valid names: the list is incomplete.

    `names` are some of the invalid names, at most 100 of at most 255 characters; `count` is how many there were.
    """

    code = "unreadable_names"

    def __init__(self, where: str, names: Sequence[str], count: int, *, side: Side) -> None:
        self.where, self.names, self.count = where, tuple(names), count
        some = [repr(name[:_LONGEST_SHOWN]) for name in names[:_SHOWN]]
        shown = f": {', '.join(some)}{', ...' if count > len(some) else ''}" if some else ""
        what = "1 name is" if count == 1 else f"{count} names are"
        super().__init__(f"{what} not valid for a repository or tag{shown} (in {where})", side=side)


class ContentMismatch(RegistryError):
    """The bytes do not match their digest or size. Retryable, as a proxy or a disk may have truncated them."""

    code = "content_mismatch"
    retryable = True


class ContentRefused(RegistryError):
    """The content is not copied: it is too large, of an unknown type or nested too deep."""

    code = "content_refused"


class HelperFailed(RegistryError):
    """The credential helper did not return credentials. Retryable, as it asks other services."""

    code = "credential_helper"
    retryable = True
