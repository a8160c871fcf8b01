"""Logs: one JSON object a line (or colours for a terminal), each with an `action` from the code, none with a secret."""

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import Processor


def set_up(*, json: bool, level: str = "info", stream: TextIO | None = None) -> None:
    """Configure structlog and the standard library's loggers for this process."""
    out = stream or sys.stderr
    threshold = logging.getLevelName(level.upper())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last = _for_programs() if json else _for_people(colors=out.isatty())
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    formatter = structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[remove_meta, *last])
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)
    # What aiokafka calls errors, our engine tries again or raises with the reason; it would repeat them each 100 ms.
    kafka = logging.getLogger("aiokafka")
    kafka.propagate = False
    kafka.addHandler(logging.NullHandler())


# Both name files and lines of an error and never the frames' variables, as structlog would: those hold passwords.
def _for_programs() -> list[Processor]:
    errors = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [structlog.processors.ExceptionRenderer(errors), structlog.processors.JSONRenderer()]


def _for_people(*, colors: bool) -> list[Processor]:
    return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)]
