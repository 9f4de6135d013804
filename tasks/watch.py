"""Whichever of many submissions ends next: one subscription for all of them, where `ResultStore.wait` has one for each.

What Redis tells is the record itself. Notifications that were lost with a connection are made good by a look at all
records, when it is silent and every now and then.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from celery import states

from tasks.connection import cancel_check

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tasks.results import Meta, ResultStore

__all__ = ["AsyncWatch", "Watch"]

#: After so long without a word the records are looked at, and after so long in any case, seconds.
SILENCE_SECONDS = 2.0
LOOK_SECONDS = 10.0


class _Watched:
    """Which submissions are watched, and which of them have ended."""

    def __init__(self, store: ResultStore) -> None:
        self._store = store
        self._ids: dict[str, str] = {}  # by key
        self._ended: deque[tuple[str, Meta | None]] = deque()
        self._looked = time.monotonic()

    def _note(self, key: str, payload: bytes | None) -> bool:
        """Take down what is said of one; return whether it has ended with that."""
        if (task_id := self._ids.get(key)) is None:
            return False  # it has ended, and was told of before
        # Without a record there is nothing to wait for: Redis has lost it, or its result has expired.
        meta = None if payload is None else self._store.decode(task_id, payload)
        if meta and meta["status"] not in states.READY_STATES:
            return False
        del self._ids[key]
        self._ended.append((task_id, meta))
        return True

    def _note_all(self, payloads: Iterable[bytes | None]) -> list[str]:
        """Take down what a look at all records has shown; return the keys of those that have ended."""
        self._looked = time.monotonic()
        return [key for key, payload in zip(list(self._ids), payloads, strict=True) if self._note(key, payload)]

    def _heard(self, message: dict[str, Any] | None) -> list[str]:
        """Take down a notification; return the keys of those that have ended."""
        if message is None or message["type"] != "message":  # a subscription is confirmed
            return []
        key = message["channel"].decode()
        return [key] if self._note(key, message["data"]) else []

    def _should_look(self, message: dict[str, Any] | None, patience: float) -> bool:
        age = time.monotonic() - self._looked
        return bool(self._ids) and (age > LOOK_SECONDS or (message is None and patience >= SILENCE_SECONDS))


class Watch(_Watched):
    """Waits for whichever ends next. For one thread; every method lets Redis' own exceptions through.

    Args:
        store: where the records are.
        client: of Redis.
        pubsub: a subscription of its own.
    """

    def __init__(self, store: ResultStore, client: Any, pubsub: Any) -> None:
        super().__init__(store)
        self._client = client
        self._pubsub = pubsub

    def add(self, task_id: str) -> None:
        """Watch one more."""
        key = self._store.key(task_id)
        self._ids[key] = task_id
        self._pubsub.subscribe(key)
        if self._note(key, self._client.get(key)):  # before the subscription
            self._pubsub.unsubscribe(key)

    def next(self, timeout_seconds: float | None) -> tuple[str, Meta | None] | None:
        """Return one that has ended, with its record; None when none has within this time.

        One whose record is gone has ended, too, with None in its place.
        """
        deadline = float("inf") if timeout_seconds is None else time.monotonic() + timeout_seconds
        while not self._ended:
            patience = min(max(0.0, deadline - time.monotonic()), SILENCE_SECONDS)
            message = self._pubsub.get_message(timeout=patience)
            ended = self._heard(message)
            if self._should_look(message, patience):
                with self._client.pipeline(transaction=False) as pipe:
                    for key in self._ids:
                        pipe.get(key)
                    ended += self._note_all(pipe.execute())
            if ended:
                self._pubsub.unsubscribe(*ended)
            elif message is None and time.monotonic() >= deadline:
                return None
        return self._ended.popleft()


class AsyncWatch(_Watched):
    """Does what `Watch` does without blocking the event loop; the arguments are those of `redis.asyncio`."""

    def __init__(self, store: ResultStore, client: Any, pubsub: Any) -> None:
        super().__init__(store)
        self._client = client
        self._pubsub = pubsub

    async def add(self, task_id: str) -> None:
        """Watch one more."""
        check_cancelled = cancel_check()
        key = self._store.key(task_id)
        self._ids[key] = task_id
        await self._pubsub.subscribe(key)
        if self._note(key, await self._client.get(key)):
            await self._pubsub.unsubscribe(key)
        check_cancelled()

    async def next(self, timeout_seconds: float | None) -> tuple[str, Meta | None] | None:
        """Return one that has ended, with its record; None when none has within this time."""
        deadline = float("inf") if timeout_seconds is None else time.monotonic() + timeout_seconds
        check_cancelled = cancel_check()
        while not self._ended:
            check_cancelled()
            patience = min(max(0.0, deadline - time.monotonic()), SILENCE_SECONDS)
            message = await self._pubsub.get_message(timeout=patience)
            ended = self._heard(message)
            if self._should_look(message, patience):
                async with self._client.pipeline(transaction=False) as pipe:
                    for key in self._ids:
                        pipe.get(key)
                    ended += self._note_all(await pipe.execute())
            if ended:
                await self._pubsub.unsubscribe(*ended)
            elif message is None and time.monotonic() >= deadline:
                return None
        check_cancelled()
        return self._ended.popleft()
