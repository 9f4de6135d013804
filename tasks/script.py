"""The one script in Redis that data sets and ledger are made of: script.lua, datasets.lua and ledger.lua."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.app import LIST_SEPARATOR, READY_PRIORITY

if TYPE_CHECKING:
    import redis

    from tasks.settings import Settings

__all__ = ["FULL_PAUSE_SECONDS", "RESULT_PREFIX", "SOURCES", "Script"]

#: Where Celery keeps state and result of a task.
RESULT_PREFIX = "celery-task-meta-"
#: When to come again to a Redis that takes nothing any more, seconds.
FULL_PAUSE_SECONDS = 5.0

SOURCES = tuple(Path(__file__).with_name(name) for name in ("script.lua", "datasets.lua", "ledger.lua"))
_SOURCE = "\n".join(path.read_text() for path in SOURCES)


class Script:
    """Calls the script's operations for one queue; what it raises are Redis' own exceptions.

    Args:
        settings: the queue.
        client: of Redis; it returns bytes.
    """

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        self._client: Any = client  # redis-py's annotations cover its asyncio form, too
        #: What every key of ours begins with.
        self.prefix = f"stratbox:{settings.queue}:"
        self._keys = (self.prefix, RESULT_PREFIX, f"{settings.queue}{LIST_SEPARATOR}{READY_PRIORITY}", "unacked")

    def accept(self, operation: str, *arguments: Any) -> Any:
        """Call an operation that takes in something new; a Redis without memory for more refuses it."""
        return self._accept(self._keys, [operation, *arguments])

    def change(self, operation: str, *arguments: Any) -> Any:
        """Call one that changes what is there: it goes on even when Redis has no memory for more."""
        return self._change(self._keys, [operation, *arguments])

    @cached_property
    def _accept(self) -> Any:
        return self._client.register_script(f"#!lua\n{_SOURCE}")

    @cached_property
    def _change(self) -> Any:
        return self._client.register_script(f"#!lua flags=allow-oom\n{_SOURCE}")
