"""A worker's log: one line for each event, JSON where nobody watches, readable on a terminal.

Celery's records go the same way as our own. Of one execution there is one line, when it has ended; never its code, data
or output.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from structlog.typing import Processor

__all__ = ["configure"]

#: What Celery says of each task: that it came, and its result. Ours says more, in one line. And of each try to reach
#: Redis for a result: it goes on until Redis is back.
TOO_MUCH = {
    "celery.worker.strategy": logging.WARNING,
    "celery.app.trace": logging.WARNING,
    "celery.backends.base": logging.ERROR,
    "celery.backends.redis": logging.CRITICAL,
}
LOST = ("consumer: Connection to broker lost", "consumer: Cannot connect to")
FOUND = "Connected to"
#: Kombu would show what it was.
UNREADABLE = "Cannot process event on channel"
#: What Celery and kombu do on a lost connection, and nobody has to act on.
ASIDE = re.compile(
    "Skipping prefetch count reduction|Restoring .* unacknowledged|Couldn't ack |"
    "Task .* cannot be acknowledged after a connection loss"
)


class BrokerState(logging.Filter):
    """Lets one line through when Redis goes away and one when it is back, of the many that Celery has for each try."""

    def __init__(self) -> None:
        super().__init__()
        self._away_since: float | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the record is news, and say it in our words."""
        message = record.getMessage()
        if ASIDE.match(message):
            return False
        if message.startswith(LOST):
            return self._lost(record)
        if message.startswith(UNREADABLE):
            self._say(record, "left out what was published to workers, which is not JSON")
        if message.startswith(FOUND) and self._away_since is not None:
            self._say(record, f"Redis is back after {time.monotonic() - self._away_since:.0f} s")
            self._away_since = None
        return True

    def _lost(self, record: logging.LogRecord) -> bool:
        if self._away_since is not None:
            return False
        self._away_since = time.monotonic()
        self._say(record, "Redis is away, waiting for it")
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True

    @staticmethod
    def _say(record: logging.LogRecord, message: str) -> None:
        record.msg, record.args, record.exc_info = message, (), None


def configure(level: int | str | None = None) -> None:
    """Send all logging of this process to stderr in one form.

    Args:
        level: the least that is shown, as `logging` names it; by default INFO.
    """
    to_terminal = sys.stderr.isatty()
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.addFilter(BrokerState())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(to_terminal)],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level or logging.INFO)
    if root.level > logging.DEBUG:
        for name, least in TOO_MUCH.items():
            logging.getLogger(name).setLevel(least)


def _rendering(to_terminal: bool) -> list[Any]:  # noqa: FBT001  # what is asked of the stream
    if to_terminal:
        return [structlog.dev.ConsoleRenderer()]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
