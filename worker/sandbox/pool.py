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

from worker.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.sandbox.container import Sandbox

__all__ = ["Acquired", "SandboxPool"]

logger = logging.getLogger(__name__)


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
        self._closed = False
        self._threads = ThreadPoolExecutor(max_workers=max(size, 1), thread_name_prefix="sandbox-start")
        # Apart: an engine that takes long to remove one must not delay the next.
        self._undertakers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sandbox-end")

    def warm(self) -> None:
        """Start what is missing to `size`; returns at once."""
        with self._lock:
            while not self._closed and len(self._coming) < self._size:
                try:
                    self._coming.append(self._threads.submit(self._create))
                except RuntimeError:  # the interpreter is on its way out: no more threads
                    return

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
                sandbox, warm = self._create(), False
            else:
                warm = coming.done()
                if (waiting := self._wait_for(coming, warm=warm)) is None:
                    continue
                sandbox = waiting
            self.warm()
            return Acquired(sandbox, warm, time.monotonic() - started)

    def _wait_for(self, coming: Future[Sandbox], *, warm: bool) -> Sandbox | None:
        """Return the sandbox, or None when it failed or died while nobody was asking for it."""
        try:
            sandbox = coming.result()
        except SandboxError as exc:
            if not warm:
                raise
            logger.warning("a sandbox could not be started ahead of demand: %s", exc)
            return None
        except BaseException:
            # A time limit or Ctrl-C while waiting: nobody else will ever ask for this one.
            coming.add_done_callback(_destroy_unclaimed)
            raise
        if sandbox.alive():
            return sandbox
        logger.warning("container %s died while it was waiting", sandbox.container_id)
        self.release(sandbox)
        return None

    def release(self, sandbox: Sandbox) -> None:
        """Destroy a used sandbox, in the background while the pool is open."""
        with self._lock:
            if not self._closed:
                with contextlib.suppress(RuntimeError):  # the interpreter is on its way out: no more threads
                    self._undertakers.submit(sandbox.destroy)
                    return
        sandbox.destroy()

    def close(self) -> None:
        """Destroy every sandbox and wait until they are gone. A second call does nothing."""
        with self._lock:
            self._closed = True
            coming = list(self._coming)
            self._coming.clear()
        started = [future for future in coming if not future.cancel()]
        for future in started:
            future.exception()  # waits for it
            _destroy_unclaimed(future)
        self._threads.shutdown()
        self._undertakers.shutdown()  # waits until the last is gone


def _destroy_unclaimed(coming: Future[Sandbox]) -> None:
    if not coming.cancelled() and coming.exception() is None:
        coming.result().destroy()
