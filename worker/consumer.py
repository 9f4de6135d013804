"""How messages come to the worker: by way of the ledger, and back to it when the connection is lost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import redis
import structlog
from celery import bootsteps
from celery.worker.consumer import Consumer
from celery.worker.state import requests
from celery.worker.strategy import default
from redis.backoff import NoBackoff
from redis.retry import Retry

from tasks.client import LOWEST_PRIORITY
from tasks.connection import open_client
from tasks.document import DIGEST
from tasks.ledger import Ledger
from tasks.message import readdress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from celery import Task

    from tasks.app import StratboxApp

__all__ = ["ExecutionConsumer", "Steward", "deliver"]

#: How often to hand over what is due, seconds: the next try of what failed, and what no start or end has handed over.
REFILL_SECONDS = 1.0
#: How often to look for messages that are nowhere, seconds.
RECONCILE_SECONDS = 5.0
#: The worker's event loop waits for Redis meanwhile.
REDIS_SECONDS = 2.0

log = structlog.get_logger(__name__)


def deliver(task: Task, app: StratboxApp, consumer: Consumer, **options: Any) -> Callable[..., Any]:
    """Return Celery's way with a message, for those that the ledger has handed over; it takes in the others first."""
    run = default(task, app, consumer, **options)

    def receive(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **more: Any) -> Any:
        task_id = message.headers.get("id")
        if task_id is None:
            return run(message, body, ack, reject, callbacks, **more)
        if task_id == message.delivery_tag:
            if twin := requests.get(task_id):
                return _drop(message, twin)
            return run(message, body, ack, reject, callbacks, **more)
        try:
            _adopt(app.backend.ledger, app.settings.queue, task_id, message)
        except (LookupError, TypeError, ValueError) as exc:
            log.warning("dropped a message that is none of Celery's", task_id=str(task_id)[:64], error=str(exc)[:200])
        message.ack()
        return None

    return receive


def _drop(message: Any, twin: Any) -> None:
    """Leave it at the delivery that is in hand: Celery finds a run by its id, and would forget it at this one's end.

    Both are noted under one tag, too, so the other's acknowledgement is enough; but one that came by a connection that
    is lost is not acknowledged.
    """
    if twin.message.channel is not message.channel:
        message.ack()


def _adopt(ledger: Ledger, queue: str, task_id: Any, message: Any) -> None:
    if not isinstance(task_id, str):
        msg = "the id is not text"
        raise TypeError(msg)
    raw = message._raw  # noqa: SLF001  # kombu restores from it, too; there is no other way to it
    priority, eta, expires = (
        raw["properties"].get("priority"),
        message.headers.get("eta"),
        message.headers.get("expires"),
    )
    if expires:
        _moment(expires)  # Celery would fail on it when it is handed over
    fields = _fields(message)
    dataset = _text(fields.get("dataset"))
    ledger.adopt(
        task_id,
        readdress(raw, task_id, queue),
        tenant=_text(fields.get("user_id"))[:128],
        priority=min(max(priority, 0), LOWEST_PRIORITY) if isinstance(priority, int) else 0,
        due=_moment(eta).timestamp() if eta else None,
        dataset=dataset if DIGEST.fullmatch(dataset) else None,
    )


def _moment(text: Any) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)  # as Celery reads it


def _fields(message: Any) -> dict[str, Any]:
    """Return the arguments in a body that Celery can run; in the ledger another would be handed over for ever."""
    args, fields, embed = message.payload
    if not (isinstance(args, list) and isinstance(fields, dict) and isinstance(embed, dict | None)):
        msg = "the body is not [args, kwargs, embed]"
        raise TypeError(msg)
    return fields


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


class ExecutionConsumer(Consumer):
    """Puts the messages it had back into the queue when Redis is there again.

    Celery gives up what runs when the connection is lost, and tries to put it back at once: in vain while Redis is
    away. The message would wait for the visibility timeout, minutes after Redis is back.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._left: list[Any] = []

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Keep what kombu notes of what it has delivered; Celery forgets it here.

        Kombu knows more of it than Celery, and to its end: a channel reads a last message when it is closed.
        """
        for channel in self.connection.transport.channels:
            self._left.append(channel.qos)
            # Kombu's own attempt may meet a connection that is half taken down, and its AttributeError ends the worker.
            channel.do_restore = False
        super().on_connection_error_after_connected(exc)

    def on_close(self) -> None:
        """Disconnected: Celery clears up, and what it has taken off its watch is to be watched again."""
        super().on_close()
        _watch_again(getattr(self.pool._pool, "_pool", ()))  # noqa: SLF001  # there is no other way to them

    def on_ready(self) -> None:
        """Connected, for the first time or again: give back what is still noted in Redis as being with this worker."""
        super().on_ready()
        if self._left:
            self.app.backend.ledger.release()
        while self._left:
            for tag in self._left[-1]._delivered.keys() - self._left[-1]._dirty:  # noqa: SLF001
                self.task_consumer.channel.qos.restore_by_tag(tag)
            self._left.pop()  # only now: the connection may be lost again


def _watch_again(processes: Iterable[Any]) -> None:
    """Let Celery watch these pool processes anew when it is connected again.

    It takes one whose pipe has closed off its watch and waits for the exit code, which may come a moment later. Should
    the connection be lost in that moment, it would stumble over the process that is not watched, and end the worker.
    """
    for process in processes:
        if getattr(process, "_sentinel_poll", True) is None:
            del process._sentinel_poll  # noqa: SLF001


class Steward(bootsteps.StartStopStep):
    """Keeps the ledger's promises where no start and no end of a run does. Any number of workers may."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Consumer, **_: Any) -> None:
        self._timers: list[Any] = []
        super().__init__(consumer)

    def start(self, consumer: Consumer) -> None:
        """Connected, or connected again."""
        client = open_client(
            consumer.app.conf,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=REDIS_SECONDS,
            socket_connect_timeout=REDIS_SECONDS,
        )
        ledger = Ledger(consumer.app.settings, client)
        self._timers = [
            consumer.timer.call_repeatedly(REFILL_SECONDS, _unless_redis_is_away(ledger.refill)),
            consumer.timer.call_repeatedly(RECONCILE_SECONDS, _unless_redis_is_away(lambda: _reconcile(ledger))),
        ]

    def stop(self, consumer: Consumer) -> None:
        """Disconnected, for a while or for good."""
        del consumer
        while self._timers:
            self._timers.pop().cancel()


def _reconcile(ledger: Ledger) -> None:
    # It reads the whole list: once in a while is enough, however many workers there are.
    for task_id in ledger.reconcile(unless_within_seconds=RECONCILE_SECONDS / 2):
        log.warning("brought back a submission whose message was lost", task_id=task_id)


def _unless_redis_is_away(step: Callable[[], None]) -> Callable[[], None]:
    def careful() -> None:
        try:
            step()
        except (redis.RedisError, OSError) as exc:
            log.debug("the ledger is left alone for now", error=str(exc))  # Celery notices, too, and connects again

    return careful
