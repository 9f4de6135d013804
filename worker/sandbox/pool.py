"""Keeps the next sandbox warm. A sandbox serves one strategy: release means destroy, never return to the pool."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker import events
from worker.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.sandbox.container import Sandbox

__all__ = ["Acquired", "SandboxPool"]

logger = logging.getLogger(__name__)

#: How often to look after the ones that wait, seconds; one look at a socket each.
KEEP_SECONDS = 2.0


@dataclass(frozen=True)
class Acquired:
    """A sandbox for one run."""

    sandbox: Sandbox
    #: Whether it had been ready before it was asked for.
    warm: bool
    #: How long the caller waited for it.
    wait_seconds: float


class SandboxPool:
    """Starts sandboxes ahead of demand, in threads, never under a lock.

    Args:
        create: makes one sandbox; blocks until it is ready, raises `SandboxError`.
        size: how many to keep warm; 0 starts each when it is asked for.
    """

    def __init__(self, create: Callable[[], Sandbox], size: int = 1) -> None:
        self._create = create
        self._size = size
        self._lock = threading.Lock()
        #: Oldest first: sandboxes that are warm or on their way.
        self._coming: deque[Future[Sandbox]] = deque()
        self._closed = threading.Event()
        self._keeper: threading.Thread | None = None
        self._threads = ThreadPoolExecutor(max_workers=max(size, 1), thread_name_prefix="sandbox-start")
        # Apart: an engine that takes long to remove one must not delay the next.
        self._undertakers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sandbox-end")

    def warm(self) -> None:
        """Start what is missing to `size`, and from now on what goes missing; returns at once."""
        with self._lock:
            if self._size and self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, name="sandbox-keeper", daemon=True)
                self._keeper.start()
            while not self._closed.is_set() and len(self._coming) < self._size:
                try:
                    self._coming.append(self._threads.submit(self._start))
                except RuntimeError:  # the interpreter is on its way out: no more threads
                    return

    def _keep(self) -> None:
        """Replace what died while nobody asked for it: sandboxes end with their engine, and it comes back."""
        while not self._closed.wait(KEEP_SECONDS):
            with self._lock:
                dead = [future for future in self._coming if _is_dead(future)]
                for future in dead:
                    self._coming.remove(future)
            for future in dead:
                if future.exception() is None:
                    self._retire(future.result(), used=False)
            self.warm()

    def wait_until_warm(self) -> None:
        """Block until every start under way has ended, well or badly."""
        with self._lock:
            coming = list(self._coming)
        wait(coming)

    def acquire(self) -> Acquired:
        """Return a sandbox for one run and start warming the next.

        Raises:
            SandboxError: none could be started.
        """
        started = time.monotonic()
        while True:
            with self._lock:
                coming = self._coming.popleft() if self._coming else None
            if coming is None:
                sandbox, warm = self._start(), False
            else:
                warm = coming.done()
                if (waiting := self._wait_for(coming, warm=warm)) is None:
                    continue
                sandbox = waiting
            self.warm()
            acquired = Acquired(sandbox, warm, time.monotonic() - started)
            events.sandbox_acquired.send(sender=SandboxPool, acquired=acquired)
            return acquired

    def _start(self) -> Sandbox:
        started = time.monotonic()
        try:
            sandbox = self._create()
        except SandboxError as exc:
            events.engine_failed.send(sender=SandboxPool, error=exc)
            raise
        events.sandbox_started.send(sender=SandboxPool, seconds=time.monotonic() - started)
        return sandbox

    def _wait_for(self, coming: Future[Sandbox], *, warm: bool) -> Sandbox | None:
        """Return the sandbox, or None when it failed or died while nobody was asking for it."""
        try:
            sandbox = coming.result()
        except SandboxError as exc:
            if not warm:
                raise
            logger.debug("a sandbox could not be started ahead of demand: %s", exc)
            return None
        except BaseException:
            # A time limit or Ctrl-C while waiting: nobody else will ever ask for this one.
            coming.add_done_callback(_destroy_unclaimed)
            raise
        if sandbox.alive():
            return sandbox
        logger.debug("container %s died while it was waiting", sandbox.container_id)
        self._retire(sandbox, used=False)
        return None

    def release(self, sandbox: Sandbox) -> None:
        """Destroy a used sandbox, in the background while the pool is open."""
        self._retire(sandbox, used=True)

    def _retire(self, sandbox: Sandbox, *, used: bool) -> None:
        events.sandbox_released.send(sender=SandboxPool, used=used)
        with self._lock:
            if not self._closed.is_set():
                with contextlib.suppress(RuntimeError):  # the interpreter is on its way out: no more threads
                    self._undertakers.submit(_destroy, sandbox)
                    return
        _destroy(sandbox)

    def close(self) -> None:
        """Destroy every sandbox and wait until they are gone. A second call does nothing."""
        with self._lock:
            self._closed.set()
            coming = list(self._coming)
            self._coming.clear()
        if self._keeper:
            self._keeper.join()
        started = [future for future in coming if not future.cancel()]
        for future in started:
            future.exception()  # waits for it
            _destroy_unclaimed(future)
        self._threads.shutdown()
        self._undertakers.shutdown()  # waits until the last is gone


def _is_dead(coming: Future[Sandbox]) -> bool:
    return coming.done() and (coming.exception() is not None or not coming.result().alive())


def _destroy_unclaimed(coming: Future[Sandbox]) -> None:
    if not coming.cancelled() and coming.exception() is None:
        events.sandbox_released.send(sender=SandboxPool, used=False)
        _destroy(coming.result())


def _destroy(sandbox: Sandbox) -> None:
    started = time.monotonic()
    sandbox.destroy()
    events.sandbox_destroyed.send(sender=SandboxPool, seconds=time.monotonic() - started)
