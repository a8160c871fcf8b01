"""Logs: one JSON object per line (or colours on a terminal). Each has an `action`, and none contains a secret."""

import logging
import sys
import time
from collections.abc import Callable
from typing import TextIO

import structlog
from cachetools import TTLCache
from structlog.typing import EventDict, Processor

_QUIET_SECONDS = 10.0  # between two lines of one cause
_MOST_CAUSES = 1000


def set_up(*, json: bool, level: str = "info", stream: TextIO | None = None) -> None:
    """Configures structlog and the standard library's loggers for this process.

    Args:
        json: Writes JSON instead of text for people.
        level: The lowest level to write.
        stream: Where to write; standard error by default.
    """
    out = stream or sys.stderr
    threshold = logging.getLevelName(level.upper())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers = _json_renderers() if json else _console_renderers(colors=out.isatty())
    structlog.configure(
        processors=[OneLineForEachCause(), *shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[remove_meta, *renderers]
    )
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)
    # The Kafka engine retries these errors or raises them with the reason; aiokafka would log each one every 100 ms.
    kafka = logging.getLogger("aiokafka")
    kafka.propagate = False
    kafka.addHandler(logging.NullHandler())


class OneLineForEachCause:
    """Drops lines that say of another waiting step what was just said of one, and counts them in the next such line.

    While Kafka is away, a process has as many waiting steps as topics, and each attempts again every few seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._said: TTLCache[tuple[str, str], bool] = TTLCache(_MOST_CAUSES, _QUIET_SECONDS, monotonic)
        self._dropped: dict[tuple[str, str], int] = {}

    def __call__(self, _logger: object, _method: str, line: EventDict) -> EventDict:
        action = str(line.get("action", ""))
        if not (action.endswith("_waits") or action == "log_away"):
            return line
        cause = action, str(line.get("error"))
        if cause in self._said:
            self._dropped[cause] = self._dropped.get(cause, 0) + 1
            raise structlog.DropEvent
        self._said[cause] = True
        if dropped := self._dropped.pop(cause, 0):
            line["repeated"] = dropped
        if len(self._dropped) > _MOST_CAUSES:
            self._dropped.clear()
        return line


# Both show files and lines of an error, and never local variables as structlog would: these may hold passwords.
def _json_renderers() -> list[Processor]:
    errors = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [structlog.processors.ExceptionRenderer(errors), structlog.processors.JSONRenderer()]


def _console_renderers(*, colors: bool) -> list[Processor]:
    return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)]
