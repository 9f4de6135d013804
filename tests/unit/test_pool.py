"""The pool: each sandbox serves once, starts never wait for each other, and none is left behind."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from typing import TYPE_CHECKING

import pytest

from worker.errors import SandboxError, SandboxStartError
from worker.sandbox.container import Sandbox
from worker.sandbox.pool import Acquired, SandboxPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 5.0


class FakeSandbox(Sandbox):
    """A sandbox without a container."""

    def __init__(self, number: int) -> None:
        self.container_id = f"fake-{number}"
        self.living = True
        self.destroyed = 0

    def alive(self) -> bool:
        """Whether nobody ended it."""
        return self.living

    def destroy(self) -> None:
        """Count how often it is ended."""
        self.living = False
        self.destroyed += 1


class Maker:
    """Makes fakes, and remembers each; `before` runs first and may block or raise."""

    def __init__(self, before: Callable[[int], object] = lambda _: None) -> None:
        self.made: list[FakeSandbox] = []
        self.asked = 0
        self._numbers = itertools.count(1)
        self._before = before

    def __call__(self) -> Sandbox:
        """Make one."""
        number = next(self._numbers)
        self.asked += 1
        self._before(number)
        sandbox = FakeSandbox(number)
        self.made.append(sandbox)
        return sandbox

    def left(self) -> list[str]:
        """Return what was not ended, or was ended more than once."""
        return [made.container_id for made in self.made if made.destroyed != 1]


@pytest.fixture
def maker() -> Maker:
    """Makes fakes at once."""
    return Maker()


@pytest.fixture
def pool(maker: Maker) -> Iterator[SandboxPool]:
    """A pool of one; at its end nothing may be left."""
    opened = SandboxPool(maker, 1)
    yield opened
    opened.close()
    assert maker.left() == []


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)


def in_threads(count: int, work: Callable[[], Acquired]) -> list[Acquired]:
    """Do the same in several threads at once."""
    done: list[Acquired] = []
    threads = [threading.Thread(target=lambda: done.append(work()), daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(done) == count, "some thread is still waiting"
    return done


def test_a_released_sandbox_is_destroyed_and_never_returned(pool: SandboxPool, maker: Maker) -> None:
    """Single use: no strategy ever meets what another left."""
    seen = set()
    for _ in range(10):
        acquired = pool.acquire()
        assert acquired.sandbox.alive()
        assert acquired.sandbox.container_id not in seen
        seen.add(acquired.sandbox.container_id)
        pool.release(acquired.sandbox)
    until(lambda: sum(made.destroyed for made in maker.made) == 10)
    assert {made.container_id for made in maker.made if made.destroyed} == seen


def test_what_was_acquired_lives_until_it_is_released(pool: SandboxPool) -> None:
    """The pool does not touch what somebody uses, whatever the others do."""
    mine = pool.acquire().sandbox
    for _ in range(5):
        pool.release(pool.acquire().sandbox)
    pool.wait_until_warm()
    assert mine.alive()
    pool.release(mine)


def test_warm_says_whether_it_was_ready_before(pool: SandboxPool) -> None:
    """The first of a pool that was not warmed is cold, the next is warm."""
    first = pool.acquire()
    pool.wait_until_warm()
    second = pool.acquire()
    assert (first.warm, second.warm) == (False, True)
    assert second.wait_seconds < 0.5
    pool.release(first.sandbox)
    pool.release(second.sandbox)


def test_a_warmed_pool_has_one_ready(pool: SandboxPool, maker: Maker) -> None:
    """Warming twice does not start two."""
    pool.warm()
    pool.warm()
    pool.wait_until_warm()
    assert len(maker.made) == 1
    acquired = pool.acquire()
    assert acquired.warm
    assert acquired.sandbox is maker.made[0]
    pool.release(acquired.sandbox)


def test_one_that_is_still_starting_is_waited_for_and_counts_as_cold() -> None:
    """Starting another would take longer; the wait is what `wait_seconds` says."""
    gate = threading.Event()
    maker = Maker(lambda number: gate.wait(PATIENCE) if number == 1 else None)
    pool = SandboxPool(maker, 1)
    pool.warm()
    threading.Timer(0.05, gate.set).start()
    acquired = pool.acquire()
    assert acquired.sandbox is maker.made[0]
    assert not acquired.warm
    assert 0.04 < acquired.wait_seconds < 1
    pool.release(acquired.sandbox)
    pool.close()
    assert maker.left() == []


def test_two_acquires_do_not_serialise() -> None:
    """Creation stands outside the lock: each of two creations waits until the other has begun."""
    both = threading.Barrier(2)
    maker = Maker(lambda _: both.wait(PATIENCE))
    pool = SandboxPool(maker, 0)
    acquired = in_threads(2, pool.acquire)
    for one in acquired:
        pool.release(one.sandbox)
    pool.close()
    assert maker.left() == []


def test_a_slow_start_blocks_nobody_else() -> None:
    """While one is on its way, the pool can be warmed, released to and acquired from."""
    gate = threading.Event()
    maker = Maker(lambda number: gate.wait(PATIENCE) if number == 2 else None)
    pool = SandboxPool(maker, 1)
    first = pool.acquire()  # number 2 starts in the background, and hangs
    until(lambda: maker.asked == 2)
    started = time.monotonic()
    pool.warm()
    pool.release(first.sandbox)
    until(lambda: maker.made[0].destroyed == 1)
    assert time.monotonic() - started < 1
    gate.set()
    pool.close()
    assert maker.left() == []


def test_many_threads_never_share_one() -> None:
    """Acquires at the same moment get different sandboxes."""
    maker = Maker()
    pool = SandboxPool(maker, 3)
    pool.warm()
    acquired = in_threads(12, pool.acquire)
    assert len({one.sandbox.container_id for one in acquired}) == 12
    for one in acquired:
        pool.release(one.sandbox)
    pool.close()
    assert maker.left() == []


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_pool_keeps_its_size(size: int) -> None:
    """No more are started ahead than were asked for, and what was taken is replaced."""
    maker = Maker()
    pool = SandboxPool(maker, size)
    pool.warm()
    pool.wait_until_warm()
    assert len(maker.made) == size
    pool.release(pool.acquire().sandbox)
    pool.wait_until_warm()
    assert len(maker.made) == size + 1
    pool.close()
    assert maker.left() == []


def test_size_0_starts_each_on_demand() -> None:
    """Nothing is started ahead, not even by `warm()`."""
    maker = Maker()
    pool = SandboxPool(maker, 0)
    pool.warm()
    pool.wait_until_warm()
    assert maker.asked == 0
    for number in (1, 2):
        acquired = pool.acquire()
        assert not acquired.warm
        assert maker.asked == number
        pool.release(acquired.sandbox)
    pool.close()
    assert maker.left() == []


def fail_first(number: int) -> None:
    """Fail the first start."""
    if number == 1:
        msg = "no space left"
        raise SandboxStartError(msg)


def test_a_start_that_failed_in_the_background_is_logged_and_tried_afresh(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever asks next gets a new attempt, not the old failure."""
    maker = Maker(fail_first)
    pool = SandboxPool(maker, 1)
    pool.warm()
    pool.wait_until_warm()
    with caplog.at_level(logging.DEBUG):
        acquired = pool.acquire()
    assert not acquired.warm
    assert [record.getMessage() for record in caplog.records] == [
        "a sandbox could not be started ahead of demand: no space left"
    ]
    pool.release(acquired.sandbox)
    pool.close()
    assert maker.left() == []


def test_a_start_that_fails_on_demand_is_raised() -> None:
    """The caller learns why, and the pool works on."""
    maker = Maker(fail_first)
    pool = SandboxPool(maker, 1)
    with pytest.raises(SandboxStartError, match="no space left"):
        pool.acquire()
    pool.release(pool.acquire().sandbox)
    pool.close()
    assert maker.left() == []


def test_a_start_that_fails_while_it_is_waited_for_is_raised() -> None:
    """It was tried just now: trying again at once would only double the wait."""
    gate = threading.Event()

    def fail_late(_: int) -> None:
        gate.wait(PATIENCE)
        msg = "too slow"
        raise SandboxStartError(msg)

    maker = Maker(fail_late)
    pool = SandboxPool(maker, 1)
    pool.warm()
    threading.Timer(0.05, gate.set).start()
    with pytest.raises(SandboxStartError, match="too slow"):
        pool.acquire()
    assert maker.asked == 1
    pool.close()


def test_every_failure_on_demand_is_raised_not_looped() -> None:
    """With an engine that is down, an acquire ends."""

    def fail(_: int) -> None:
        raise SandboxError

    maker = Maker(fail)
    pool = SandboxPool(maker, 2)
    pool.warm()
    pool.wait_until_warm()
    with pytest.raises(SandboxError):
        pool.acquire()
    pool.close()


def test_a_warm_one_that_died_is_skipped(pool: SandboxPool, maker: Maker, caplog: pytest.LogCaptureFixture) -> None:
    """The engine may have been restarted under it: it is destroyed, another serves."""
    pool.warm()
    pool.wait_until_warm()
    maker.made[0].living = False
    with caplog.at_level(logging.DEBUG):
        acquired = pool.acquire()
    assert acquired.sandbox.alive()
    assert acquired.sandbox is not maker.made[0]
    assert not acquired.warm
    assert [record.getMessage() for record in caplog.records] == ["container fake-1 died while it was waiting"]
    until(lambda: maker.made[0].destroyed == 1)
    pool.release(acquired.sandbox)


def test_one_that_dies_while_nobody_asks_is_replaced(
    pool: SandboxPool, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle worker is warm again after its engine was restarted."""
    monkeypatch.setattr("worker.sandbox.pool.KEEP_SECONDS", 0.01)
    pool.warm()
    pool.wait_until_warm()
    maker.made[0].living = False
    until(lambda: len(maker.made) == 2)
    until(lambda: maker.made[0].destroyed == 1)
    acquired = pool.acquire()
    assert acquired.warm
    assert acquired.sandbox is maker.made[1]
    pool.release(acquired.sandbox)


def test_starts_that_fail_are_tried_again_until_one_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without anybody asking: the engine may be back by now."""
    monkeypatch.setattr("worker.sandbox.pool.KEEP_SECONDS", 0.01)

    def fail_thrice(number: int) -> None:
        if number <= 3:
            raise SandboxStartError

    maker = Maker(fail_thrice)
    pool = SandboxPool(maker, 1)
    pool.warm()
    until(lambda: len(maker.made) == 1)
    assert maker.asked == 4
    pool.close()
    assert maker.left() == []


def test_close_destroys_what_is_warm_and_what_is_leaving(maker: Maker) -> None:
    """All of it, once, before it returns."""
    pool = SandboxPool(maker, 3)
    pool.release(pool.acquire().sandbox)
    pool.wait_until_warm()
    pool.close()
    assert len(maker.made) == 4
    assert maker.left() == []


def test_close_destroys_one_that_is_being_created() -> None:
    """It waits for the start to end, then ends it."""
    gate = threading.Event()
    maker = Maker(lambda _: gate.wait(PATIENCE))
    pool = SandboxPool(maker, 1)
    pool.warm()
    until(lambda: maker.asked == 1)
    threading.Timer(0.05, gate.set).start()
    pool.close()
    assert len(maker.made) == 1
    assert maker.left() == []


def test_close_survives_a_start_that_failed() -> None:
    """The others are destroyed all the same."""
    maker = Maker(fail_first)
    pool = SandboxPool(maker, 3)
    pool.warm()
    pool.close()
    assert maker.left() == []


def test_closing_twice_does_nothing(maker: Maker) -> None:
    """As a context manager inside a finaliser does."""
    pool = SandboxPool(maker, 1)
    pool.warm()
    pool.close()
    pool.close()
    assert maker.left() == []


def test_after_close_nothing_is_started_ahead_and_a_release_destroys_at_once(maker: Maker) -> None:
    """A run that outlives the pool still ends clean."""
    pool = SandboxPool(maker, 1)
    acquired = pool.acquire()
    pool.close()
    pool.warm()
    pool.wait_until_warm()
    pool.release(acquired.sandbox)
    assert maker.left() == []
