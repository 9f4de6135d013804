"""How messages come to the worker: by way of the ledger, and back to it when the connection is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis
import structlog
from celery import bootsteps, states
from celery.exceptions import NotRegistered
from celery.worker.consumer import Consumer
from celery.worker.state import requests
from redis.backoff import NoBackoff
from redis.retry import Retry

from tasks.app import STRATEGY_EXECUTION
from tasks.client import LOWEST_PRIORITY
from tasks.connection import open_client
from tasks.document import DIGEST
from tasks.errors import InvalidRequest
from tasks.ledger import Ledger
from tasks.message import readdress
from tasks.refusal import rejection
from tasks.summary import describe
from worker import events
from worker.incoming import examine, id_of
from worker.transport import REDIS_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from worker.incoming import Incoming

__all__ = ["ExecutionConsumer", "Steward"]

#: How often to hand over what is due, seconds: the next try of what failed, and what no start or end has handed over.
REFILL_SECONDS = 1.0
#: How often to look for messages that are nowhere, seconds.
RECONCILE_SECONDS = 5.0
#: The worker's event loop waits for Redis meanwhile.
REDIS_SECONDS = 2.0

log = structlog.get_logger(__name__)


class ExecutionConsumer(Consumer):
    """Runs what the ledger has handed over, takes in the rest, and puts back what it had when Redis has been away.

    Of a message that is neither the log has one line, without its body, and whoever waits for its id is told.

    Celery gives up what runs when the connection is lost, and tries to put it back at once: in vain while Redis is
    away. The message would wait for the visibility timeout, minutes after Redis is back.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._left: list[Any] = []

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        """Return what is done with a message, which ends no worker whatever it holds."""
        run = super().create_task_handler(*args, **options)

        def receive(message: Any) -> None:
            try:
                self._receive(message, run)
            except REDIS_ERRORS:
                raise  # it is given back when Redis is there again
            except InvalidRequest as exc:
                self._refuse(message, str(exc))
            except Exception as exc:  # noqa: BLE001  # Celery would raise it, and end
                self._refuse(message, f"nothing can be done with it ({type(exc).__name__})")

        return receive

    def on_decode_error(self, message: Any, exc: Exception) -> None:  # noqa: ARG002  # the message has it, too
        """Take what kombu could not unpack as any other; Celery would log the body."""
        self.task_consumer.on_message(message)

    def _receive(self, message: Any, run: Callable[[Any], Any]) -> None:
        incoming = examine(message)
        task_id = incoming.task_id
        if message.delivery_tag != task_id or not self.app.backend.ledger.knows(task_id):
            self._adopt(message, incoming)
            message.ack()
        elif twin := requests.get(task_id):
            _put_aside(message, twin)
        else:
            message.headers = incoming.headers
            run(message)

    def _adopt(self, message: Any, incoming: Incoming) -> None:
        task_id, fields, headers, due = incoming
        priority, dataset = message.properties.get("priority"), _text(fields.get("dataset"))
        headers = headers | {"kwargsrepr": describe(fields)}
        self.app.backend.ledger.adopt(
            task_id,
            readdress(task_id, message.body, headers, self.app.settings.queue),
            tenant=_text(fields.get("user_id"))[:128],
            priority=int(min(max(priority, 0), LOWEST_PRIORITY)) if isinstance(priority, int) else 0,
            due=due,
            dataset=dataset if DIGEST.fullmatch(dataset) else None,
        )

    def _refuse(self, message: Any, reason: str) -> None:
        """Drop a message; whoever waits for its id is told, unless it is that of another message."""
        ledger: Ledger = self.app.backend.ledger
        task_id, name = id_of(message), message.headers.get("task")
        log.warning("dropped a message", task_id=task_id, error=reason)
        if task_id and (message.delivery_tag == task_id or not ledger.knows(task_id)):
            if isinstance(name, str) and name != STRATEGY_EXECUTION:  # its producer expects what Celery answers
                failure = self.app.backend.prepare_exception(NotRegistered(name[:200]))
                ledger.refuse(task_id, states.FAILURE, failure, reason)
            else:
                result = rejection(reason)
                ledger.refuse(task_id, states.SUCCESS, result.model_dump(mode="json"), reason)
                events.executed.send(sender=type(self), user_id="", result=result)
        if not message.acknowledged:
            message.ack()

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


def _put_aside(message: Any, twin: Any) -> None:
    """Leave it at the delivery that is in hand: Celery finds a run by its id, and would forget it at this one's end.

    Both are noted under one tag, too, so the other's acknowledgement is enough; but one that came by a connection that
    is lost is not acknowledged.
    """
    if twin.message.channel is not message.channel:
        message.ack()


def _text(value: Any) -> str:
    return value.encode(errors="replace").decode() if isinstance(value, str) else ""


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
