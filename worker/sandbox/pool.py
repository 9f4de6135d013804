"""Keeps the next sandbox warm. A sandbox serves one strategy, unless the operator allows one tenant's to share it."""

from __future__ import annotations

import contextlib
import logging
import math
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
    #: Whose run it is for.
    tenant: str = ""
    #: Whether it serves no other after this one.
    last: bool = True


class SandboxPool:
    """Starts sandboxes ahead of demand, in threads, never under a lock.

    Args:
        create: makes one sandbox; blocks until it is ready, raises `SandboxError`.
        size: how many to keep warm; 0 starts each when it is asked for. As many used ones are kept for their tenants.
        max_runs: how many strategies of one tenant, one after the other, a sandbox serves.
        max_age_seconds: since its first run, after which it serves no other.
    """

    def __init__(
        self, create: Callable[[], Sandbox], size: int = 1, *, max_runs: int = 1, max_age_seconds: float = math.inf
    ) -> None:
        self._create = create
        self._size = size
        self._max_runs = max_runs
        self._max_age_seconds = max_age_seconds
        self._lock = threading.Lock()
        #: Used, and waiting for the same tenant's next strategy; the one that waits longest first.
        self._kept: deque[Acquired] = deque()
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
        """Replace what is gone: in use for long, or died while nobody asked; sandboxes end with their engine."""
        while not self._closed.wait(KEEP_SECONDS):
            with self._lock:
                dead = [future for future in self._coming if _is_dead(future)]
                for future in dead:
                    self._coming.remove(future)
                spent = [kept for kept in self._kept if not self._may_serve(kept.sandbox)]
                for kept in spent:
                    self._kept.remove(kept)
            for future in dead:
                if future.exception() is None:
                    self._retire(future.result(), used=False)
            for kept in spent:
                self._retire(kept.sandbox, used=False)
            self.warm()

    def _may_serve(self, sandbox: Sandbox) -> bool:
        """Whether a used sandbox may serve once more."""
        young = time.monotonic() - sandbox.first_used < self._max_age_seconds
        return young and sandbox.runs < self._max_runs and sandbox.alive()

    def wait_until_warm(self) -> None:
        """Block until every start under way has ended, well or badly."""
        with self._lock:
            coming = list(self._coming)
        wait(coming)

    def acquire(self, tenant: str = "") -> Acquired:
        """Return a sandbox for one run: the tenant's own, where one is kept, or one that has served nobody.

        Raises:
            SandboxError: none could be started.
        """
        started = time.monotonic()
        kept = self._take_kept(tenant)
        sandbox, warm = (kept, True) if kept else self._next()
        last = not tenant or sandbox.runs + 1 >= self._max_runs
        acquired = Acquired(sandbox, warm, time.monotonic() - started, tenant, last)
        events.sandbox_acquired.send(sender=SandboxPool, acquired=acquired)
        return acquired

    def _take_kept(self, tenant: str) -> Sandbox | None:
        while True:
            with self._lock:
                kept = next((kept for kept in reversed(self._kept) if kept.tenant == tenant), None)
                if kept is None:
                    return None
                self._kept.remove(kept)
            if self._may_serve(kept.sandbox):
                return kept.sandbox
            self._retire(kept.sandbox, used=False)

    def _next(self) -> tuple[Sandbox, bool]:
        """Return a new sandbox, and whether it was ready. What replaces it is started when it is released.

        A start takes the better part of two processors, which a strategy that ends soon would wait for; while one runs
        on, the keeper starts the next.
        """
        while True:
            with self._lock:
                coming = self._coming.popleft() if self._coming else None
            if coming is None:
                return self._start(), False
            warm = coming.done()
            if (sandbox := self._wait_for(coming, warm=warm)) is not None:
                return sandbox, warm

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

    def release(self, acquired: Acquired, *, clean: bool) -> None:
        """Keep a used sandbox for its tenant, where it ended clean and may serve again; destroy it otherwise.

        It is destroyed in the background while the pool is open.
        """
        dropped: Acquired | None = acquired
        if clean and not acquired.last and self._may_serve(acquired.sandbox):
            with self._lock:
                if self._size and not self._closed.is_set():
                    events.sandbox_kept.send(sender=SandboxPool)
                    self._kept.append(acquired)
                    dropped = self._kept.popleft() if len(self._kept) > self._size else None
        if dropped is not None:
            self._retire(dropped.sandbox, used=dropped is acquired)
        self.warm()

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
            coming, kept = list(self._coming), list(self._kept)
            self._coming.clear()
            self._kept.clear()
        if self._keeper:
            self._keeper.join()
        started = [future for future in coming if not future.cancel()]
        for future in started:
            future.exception()  # waits for it
            _destroy_unclaimed(future)
        for each in kept:
            self._retire(each.sandbox, used=False)
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
