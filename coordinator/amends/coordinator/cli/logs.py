"""How log lines are written: for people, or as one JSON object per line. They go to standard error."""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

import structlog

from amends.brokers.settings import Settings

_LIBRARIES: Final = ("aiormq", "aio_pika", "aiokafka", "kafka")
"""They log every attempt to reach a server that is away. What we say of it ourselves, once, is enough."""


def configure_logs(settings: Settings, worker: int | None = None, *, for_good: bool = False) -> None:
    """Set up structlog, and the standard library's logging the same way, as libraries use that.

    With a worker's number, each line carries it. `for_good` is faster: loggers that were used once stay as they are.
    """
    steps: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if worker is not None:
        steps.append(lambda logger, method, event: {**event, "worker": worker})
    if settings.log == "json":
        steps += [structlog.processors.dict_tracebacks]
        renderer: Any = structlog.processors.JSONRenderer()
    else:
        traces = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=traces)
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[*steps, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=for_good,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*steps, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
    for library in _LIBRARIES:
        logging.getLogger(library).setLevel(logging.NOTSET if level <= logging.DEBUG else logging.CRITICAL + 1)
