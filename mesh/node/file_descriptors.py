"""How many files and connections this process may have open, and how many of them clients may take."""

import resource
from contextlib import suppress

_ENOUGH = 65_536  # some kernels allow a thousand million, for which programs allocate tables
_SHARE_OF_CLIENTS = (
    3  # one third; a gateway opens one connection of its own for each client's; the rest copies
)
_FEWEST = 8  # connections of one listener, however low the limit is


def raise_limit() -> int:
    """Raises the soft limit of open files to the hard one, and returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # a sandbox may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return open_files()


def open_files() -> int:
    """Returns how many files and connections this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _ENOUGH if soft == resource.RLIM_INFINITY else soft


def most_connections(setting: int, open_files: int, listeners: int) -> int:
    """Returns how many connections of clients one of `listeners` listeners accepts.

    That is the setting, or less where the limit of open files is low: what copies images, writes the log and reads
    registries keeps two thirds of the limit.
    """
    return min(setting, max(_FEWEST, open_files // _SHARE_OF_CLIENTS // listeners))
