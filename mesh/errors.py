"""One tree of errors. Each knows whether trying again can help, and who has to act.

    RegmeshError
      InvalidInput            what a human gave is wrong; the message says what to do
        NotDeclared             it names something that is not there
      LogError                the log did not do what was asked (side: log)
        LogUnavailable          not now; a write that timed out may still land
        LogInUse                the embedded log is open in another process
      DatabaseUnavailable     the sync log's database did not do what was asked
      RegistryError           a registry did not do what was asked (side: source or destination)
        Unreachable             no answer, or the connection broke
        Throttled               429; carries how long to wait
        ServerFault             5xx
        Denied                  401 or 403
        NotFound                404: the repository, manifest or blob is not there
          NotKnown                404, in the API's own words: it knows no such repository, or no such manifest in it
          NotOffered              404, and no word of the API's own: it knows no such request
        Rejected                another 4xx, or an answer that the protocol does not allow
          MissingParts            the registry says that what a manifest names is not there
          SparseRefused           it takes no index of which parts are left out
          TagDeleteUnsupported    it cannot delete a tag alone, and other tags need the digest
          DeleteRefused           it deletes nothing, or not this
          UnreadableNames         a list names what no repository or tag may be called
        ContentMismatch         the bytes are not what their digest or size says
        HelperFailed            the program that keeps the credentials for it did not give them
        ContentRefused          we will not copy this: too large, of an unknown type, nested too deep

Foreign errors are translated at one edge each: `mesh.registry.failures`, the two log engines, `mesh.control.database`.
Nobody matches on text.
"""

import re
from collections.abc import Sequence

from schemas.completions import Side, TaskError

_SHOWN, _LONGEST_SHOWN = 3, 40  # of names that nobody can read, and characters of each
# Control characters, and those that turn the direction of what follows or end a line.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")


def clean(text: str, longest: int = 256) -> str:
    """What a peer said, made safe for a log line or an answer: no control characters, cut."""
    return _UNPRINTABLE.sub(" ", text).strip()[:longest]


class RegmeshError(Exception):
    """The base: `code` is stable and for programs, the text is for people."""

    code = "internal"
    retryable = False
    side = Side.MESH

    def __init__(self, message: str) -> None:
        super().__init__(clean(message, 1000))
        self.lines = [str(self)]  # for a terminal; of what has several problems, one for each

    def as_task_error(self) -> TaskError:
        return TaskError(code=self.code, side=self.side, message=clean(str(self)))


class InvalidInput(RegmeshError):
    code = "invalid_input"


class NotDeclared(InvalidInput):
    code = "not_found"


class LogError(RegmeshError):
    code = "log_error"
    side = Side.LOG


class LogUnavailable(LogError):
    code = "log_unavailable"
    retryable = True


class LogInUse(LogError):
    code = "log_in_use"


class DatabaseUnavailable(RegmeshError):
    code = "database_unavailable"
    retryable = True


class RegistryError(RegmeshError):
    """`side` is set by the client that failed: it was opened for one side of a task."""

    code = "registry_error"
    side = Side.SOURCE

    def __init__(self, message: str, *, side: Side, status: int | None = None) -> None:
        super().__init__(message)
        self.side = side
        self.status = status  # of the HTTP answer; None when there was none


class Unreachable(RegistryError):
    code = "unreachable"
    retryable = True


class Throttled(RegistryError):
    code = "throttled"
    retryable = True

    def __init__(self, message: str, *, side: Side, retry_after: float | None) -> None:
        super().__init__(message, side=side, status=429)
        self.retry_after = retry_after  # seconds; None when the registry did not say


class ServerFault(RegistryError):
    code = "server_fault"
    retryable = True


class Denied(RegistryError):
    code = "denied"


class NotFound(RegistryError):
    code = "not_found"


class NotKnown(NotFound):
    pass  # for who acts upon it; another 404 may be a gate's


class NotOffered(NotFound):
    pass  # for who asks what not every registry has; for all others what was asked for is not there


class Rejected(RegistryError):
    code = "rejected"


class MissingParts(Rejected):
    code = "missing_parts"
    retryable = True  # our knowledge of what is there was stale: forget it and send again


class SparseRefused(Rejected):
    code = "sparse_refused"


class TagDeleteUnsupported(Rejected):
    code = "tag_delete_unsupported"


class DeleteRefused(Rejected):
    code = "delete_refused"


class UnreadableNames(Rejected):
    """Raised at the end of a list, after all that could be read: whoever needs the whole list has not got it.

    `names` are some of them as they are, 100 at most and none over 255 characters; `count` is how many there were.
    """

    code = "unreadable_names"

    def __init__(self, where: str, names: Sequence[str], count: int, *, side: Side) -> None:
        self.where, self.names, self.count = where, tuple(names), count
        some = [repr(name[:_LONGEST_SHOWN]) for name in names[:_SHOWN]]
        shown = f": {', '.join(some)}{', ...' if count > len(some) else ''}" if some else ""
        what = "1 name is" if count == 1 else f"{count} names are"
        super().__init__(f"{what} none that a repository or tag may have{shown} (in {where})", side=side)


class ContentMismatch(RegistryError):
    code = "content_mismatch"
    retryable = True  # once more: a proxy or a disk may have cut it; attempts are bounded


class ContentRefused(RegistryError):
    code = "content_refused"


class HelperFailed(RegistryError):
    code = "credential_helper"
    retryable = True  # it asks others, who may be away
