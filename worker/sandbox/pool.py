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
from worker.sandbox.demand import Demand

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.sandbox.container import Sandbox

__all__ = ["Acquired", "SandboxPool"]

logger = logging.getLogger(__name__)

#: How often to look after the ones that wait, seconds; one look at a socket each.
KEEP_SECONDS = 2.0
#: After a run, taking its sandbox away and starting the next wait this long, seconds: its result is told first.
MOMENT_SECONDS = 0.02


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
        size: how many to keep warm at least; 0 starts each when it is asked for. As many used ones are kept for their
            tenants.
        most: how many to keep warm when they are asked for in bursts.
        max_runs: how many strategies of one tenant, one after the other, a sandbox serves.
        max_age_seconds: since its first run, after which it serves no other.
    """

    def __init__(
        self,
        create: Callable[[], Sandbox],
        size: int = 1,
        *,
        most: int = 1,
        max_runs: int = 1,
        max_age_seconds: float = math.inf,
    ) -> None:
        self._create = create
        self._size = size
        self._demand = Demand(size, most if size else 0)
        self._max_runs = max_runs
        self._max_age_seconds = max_age_seconds
        self._lock = threading.Lock()
        #: Used, and waiting for the same tenant's next strategy; the one that waits longest first.
        self._kept: deque[Acquired] = deque()
        #: Oldest first: sandboxes that are warm or on their way.
        self._coming: deque[Future[Sandbox]] = deque()
        #: Released, and to be destroyed.
        self._leaving: deque[Sandbox] = deque()
        self._released = threading.Event()
        self._closed = threading.Event()
        self._keeper: threading.Thread | None = None
        self._threads = ThreadPoolExecutor(max_workers=max(size, most), thread_name_prefix="sandbox-start")
        # Apart: an engine that takes long to remove one must not delay the next.
        self._undertakers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sandbox-end")

    def warm(self) -> None:
        """Start what is missing of those to keep warm, and from now on what goes missing; returns at once."""
        with self._lock:
            self._have_keeper()
            while not self._closed.is_set() and len(self._coming) < self._demand.wanted:
                try:
                    self._coming.append(self._threads.submit(self._start))
                except RuntimeError:  # no more threads
                    return

    def _have_keeper(self) -> bool:
        """Return whether a thread looks after things, started now if need be; under the lock."""
        if not self._size or self._closed.is_set():
            return False
        if self._keeper is None or not self._keeper.is_alive():
            keeper = threading.Thread(target=self._keep, name="sandbox-keeper", daemon=True)
            try:
                keeper.start()
            except RuntimeError:  # no more threads
                return False
            self._keeper = keeper
        return True

    def _keep(self) -> None:
        """Take away and replace what was used, and what is gone or too much; sandboxes end with their engine."""
        while not self._closed.is_set():
            if self._released.wait(KEEP_SECONDS):
                self._closed.wait(MOMENT_SECONDS)
                self._released.clear()
            with self._lock:
                self._demand.review()
                going = [future for future in self._coming if _is_dead(future)]
                living = [future for future in self._coming if future not in going]
                going += [future for future in living[self._demand.wanted :] if future.done()]
                for future in going:
                    self._coming.remove(future)
                spent = [kept for kept in self._kept if not self._may_serve(kept.sandbox)]
                for kept in spent:
                    self._kept.remove(kept)
            for future in going:
                if future.exception() is None:
                    self._let_go(future.result(), used=False)
            for kept in spent:
                self._let_go(kept.sandbox, used=False)
            self._clear_away()
            self.warm()

    def _may_serve(self, sandbox: Sandbox) -> bool:
        """Whether a used sandbox may serve once more."""
        young = time.monotonic() - sandbox.first_used < self._max_age_seconds
        return young and sandbox.runs < self._max_runs and sandbox.alive()

    def wait_until_warm(self) -> None:
        """Block until what is to be kept warm has been started, well or badly."""
        self.warm()
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
        last = not (tenant and self._size) or sandbox.runs + 1 >= self._max_runs
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
            self._let_go(kept.sandbox, used=False)

    def _next(self) -> tuple[Sandbox, bool]:
        """Return a new sandbox, and whether it was ready. What replaces it is started when it is released.

        A start takes the better part of two processors, which a strategy that ends soon would wait for; while one runs
        on, the keeper starts the next.
        """
        while True:
            with self._lock:
                coming = self._coming.popleft() if self._coming else None
                warm = coming is not None and coming.done()
                if not warm:
                    self._demand.missed()
            if coming is None:
                return self._start(), False
            if (sandbox := self._wait_for(coming, warm=warm)) is not None:
                with self._lock:
                    left = sum(future.done() and not future.exception() for future in self._coming)
                    if warm:
                        self._demand.served(time.monotonic() - sandbox.ready_at, left)
                return sandbox, warm

    def _start(self) -> Sandbox:
        started = time.monotonic()
        try:
            sandbox = self._create()
        except SandboxError as exc:
            events.engine_failed.send(sender=SandboxPool, error=exc)
            raise
        sandbox.ready_at = time.monotonic()
        events.sandbox_started.send(sender=SandboxPool, seconds=sandbox.ready_at - started)
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
        self._let_go(sandbox, used=False)
        return None

    def release(self, acquired: Acquired, *, clean: bool) -> None:
        """Keep a used sandbox for its tenant, where it ended clean and may serve again; destroy it otherwise.

        Both that and what replaces it come a moment later, in the background, while the pool is open.
        """
        dropped: Acquired | None = acquired
        if clean and not acquired.last and self._may_serve(acquired.sandbox):
            with self._lock:
                if self._have_keeper():
                    events.sandbox_kept.send(sender=SandboxPool)
                    self._kept.append(acquired)
                    dropped = self._kept.popleft() if len(self._kept) > self._size else None
            self._released.set()
        if dropped is not None:
            self._let_go(dropped.sandbox, used=dropped is acquired)

    def _let_go(self, sandbox: Sandbox, *, used: bool) -> None:
        events.sandbox_released.send(sender=SandboxPool, used=used)
        self._leaving.append(sandbox)
        self._released.set()
        with self._lock:
            will_be_cleared = self._have_keeper()
        if not will_be_cleared:
            self._clear_away()

    def _clear_away(self) -> None:
        """Destroy what was let go, in the background while the pool is open."""
        while self._leaving:
            try:
                sandbox = self._leaving.popleft()
            except IndexError:  # another thread has it
                return
            with self._lock:
                if not self._closed.is_set():
                    with contextlib.suppress(RuntimeError):  # no more threads
                        self._undertakers.submit(_destroy, sandbox)
                        continue
            _destroy(sandbox)

    def close(self) -> None:
        """Destroy every sandbox and wait until they are gone. A second call does nothing."""
        with self._lock:
            self._closed.set()
            coming, kept = list(self._coming), list(self._kept)
            self._coming.clear()
            self._kept.clear()
        self._released.set()
        if self._keeper:
            self._keeper.join()
        started = [future for future in coming if not future.cancel()]
        for future in started:
            future.exception()  # waits for it
            _destroy_unclaimed(future)
        for each in kept:
            self._let_go(each.sandbox, used=False)
        self._clear_away()
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
