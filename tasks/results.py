"""Where submissions stand: reads and waits on what Celery keeps in Redis.

Celery's own `AsyncResult.get` shares one subscription among all threads of a process and has no async form, hence
this: subscribe, look, then wait. Each wait has a subscription of its own, from any thread or event loop; a watch has
one for many.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from celery import states

from tasks.connection import cancel_check, open_async
from tasks.errors import ResultTimeout, UnknownSubmission
from tasks.watch import AsyncWatch, Watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from celery import Celery

__all__ = ["ResultStore"]

#: A notification that Redis lost with a connection delays a waiter by this much at most, seconds.
RECHECK_SECONDS = 2.0

Meta = dict[str, Any]


class ResultStore:
    """Celery's task states in Redis, by task id.

    Every method lets Redis' own exceptions through.
    """

    def __init__(self, app: Celery) -> None:
        self._backend = app.backend
        self._conf = app.conf
        self._expires = int(app.conf.result_expires)

    def meta(self, task_id: str) -> Meta:
        """Return `status`, `result` and `traceback` of a task.

        Raises:
            UnknownSubmission: nothing is recorded under this id.
        """
        return self.decode(task_id, self._backend.client.get(self.key(task_id)))

    def wait(self, task_id: str, timeout_seconds: float | None) -> Meta:
        """Return the final state of a task, waiting for it; None waits for ever.

        Raises:
            UnknownSubmission: nothing is recorded under this id.
            ResultTimeout: it had not ended by then.
        """
        meta = self.meta(task_id)
        if meta["status"] in states.READY_STATES:
            return meta
        deadline = _deadline(timeout_seconds)
        with self._backend.client.pubsub(ignore_subscribe_messages=True) as pubsub:
            pubsub.subscribe(self.key(task_id))
            meta = self.meta(task_id)
            while meta["status"] not in states.READY_STATES:
                message = pubsub.get_message(timeout=_patience(task_id, deadline))
                # What is told is the record itself; without a message it may have been lost.
                meta = self.decode(task_id, message["data"]) if message else self.meta(task_id)
        return meta

    async def wait_async(self, task_id: str, timeout_seconds: float | None) -> Meta:
        """Do what `wait` does without blocking the event loop."""
        deadline = _deadline(timeout_seconds)
        key = self.key(task_id)
        check_cancelled = cancel_check()
        async with (
            open_async(self._conf) as client,
            client.pubsub(ignore_subscribe_messages=True) as pubsub,
        ):
            await pubsub.subscribe(key)
            meta = self.decode(task_id, await client.get(key))
            while True:
                check_cancelled()
                if meta["status"] in states.READY_STATES:
                    return meta
                message = await pubsub.get_message(timeout=_patience(task_id, deadline))
                meta = self.decode(task_id, message["data"] if message else await client.get(key))

    @contextlib.contextmanager
    def watch(self) -> Iterator[Watch]:
        """Give a watch over many tasks."""
        client = self._backend.client
        with client.pubsub() as pubsub:
            yield Watch(self, client, pubsub)

    @contextlib.asynccontextmanager
    async def watch_async(self) -> AsyncIterator[AsyncWatch]:
        """Give one that does not block the event loop."""
        async with open_async(self._conf) as client, client.pubsub() as pubsub:
            yield AsyncWatch(self, client, pubsub)

    def key(self, task_id: str) -> str:
        """Return the key of a task's record, which is the channel of its notifications, too."""
        key: bytes = self._backend.get_key_for_task(task_id)
        return key.decode()

    def decode(self, task_id: str, payload: bytes | str | None) -> Meta:
        """Return what a record says.

        Raises:
            UnknownSubmission: there is none.
        """
        if payload is None:
            msg = f"no submission {task_id!r}: check the id; results expire after {self._expires} s"
            raise UnknownSubmission(msg)
        meta: Meta = self._backend.decode_result(payload)
        return meta


def _deadline(timeout_seconds: float | None) -> float:
    return float("inf") if timeout_seconds is None else time.monotonic() + timeout_seconds


def _patience(task_id: str, deadline: float) -> float:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        msg = f"submission {task_id} has not ended yet: ask again later, or cancel it"
        raise ResultTimeout(msg)
    return min(remaining, RECHECK_SECONDS)
