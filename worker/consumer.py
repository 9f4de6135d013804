"""Celery's consumer, which after a lost connection gives back at once what its worker held."""

from __future__ import annotations

from typing import Any

from celery.worker.consumer import Consumer
from celery.worker.state import reserved_requests

__all__ = ["ExecutionConsumer"]


class ExecutionConsumer(Consumer):
    """Puts the messages it had back into the queue when Redis is there again.

    Celery gives up what runs when the connection is lost, and tries to put it back at once: in vain while Redis is
    away. The message would wait for the visibility timeout, minutes after Redis is back.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._held: set[str] = set()

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Note what is not acknowledged; Celery forgets it here."""
        self._held |= {request.message.delivery_tag for request in tuple(reserved_requests) if not request.acknowledged}
        for channel in self.connection.transport.channels:
            # Kombu's own attempt may meet a connection that is half taken down, and its AttributeError ends the worker.
            channel.do_restore = False
        super().on_connection_error_after_connected(exc)

    def on_ready(self) -> None:
        """Connected, for the first time or again: give back what is still noted in Redis as being with this worker."""
        super().on_ready()
        while self._held:
            tag = next(iter(self._held))
            self.task_consumer.channel.qos.restore_by_tag(tag)
            self._held.discard(tag)  # only now: the connection may be lost again
