"""The pool: a sandbox serves once, or one tenant; starts never wait for each other, and none is left behind."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from typing import TYPE_CHECKING

import pytest

from worker.errors import SandboxError, SandboxStartError
from worker.sandbox.container import Sandbox
from worker.sandbox.pool import KEEP_SECONDS, Acquired, SandboxPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 5.0


class FakeSandbox(Sandbox):
    """A sandbox without a container."""

    def __init__(self, number: int) -> None:
        self.container_id = f"fake-{number}"
        self.runs = 0
        self.ready_at = self.first_used = 0.0
        self.living = True
        self.destroyed = 0

    def alive(self) -> bool:
        """Whether nobody ended it."""
        return self.living

    def serve(self) -> None:
        """Note a run, as a sandbox does when it is told to run something."""
        self.runs += 1
        self.first_used = self.first_used or time.monotonic()

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
        pool.release(acquired, clean=True)
    until(lambda: sum(made.destroyed for made in maker.made) == 10)
    assert {made.container_id for made in maker.made if made.destroyed} == seen


def test_what_was_acquired_lives_until_it_is_released(pool: SandboxPool, maker: Maker) -> None:
    """The pool does not touch what somebody uses, whatever the others do."""
    mine = pool.acquire()
    for _ in range(5):
        pool.release(pool.acquire(), clean=True)
    until(lambda: sum(made.destroyed for made in maker.made) == 5)
    pool.wait_until_warm()
    assert mine.sandbox.alive()
    pool.release(mine, clean=True)


def test_warm_says_whether_it_was_ready_before(pool: SandboxPool, maker: Maker) -> None:
    """The first of a pool that was not warmed is cold, the next is warm."""
    first = pool.acquire()
    pool.release(first, clean=True)
    until(lambda: len(maker.made) == 2)
    pool.wait_until_warm()
    second = pool.acquire()
    assert (first.warm, second.warm) == (False, True)
    assert second.wait_seconds < 0.5
    pool.release(second, clean=True)


def test_a_warmed_pool_has_one_ready(pool: SandboxPool, maker: Maker) -> None:
    """Warming twice does not start two."""
    pool.warm()
    pool.warm()
    pool.wait_until_warm()
    assert len(maker.made) == 1
    acquired = pool.acquire()
    assert acquired.warm
    assert acquired.sandbox is maker.made[0]
    pool.release(acquired, clean=True)


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
    pool.release(acquired, clean=True)
    pool.close()
    assert maker.left() == []


def test_two_acquires_do_not_serialise() -> None:
    """Creation stands outside the lock: each of two creations waits until the other has begun."""
    both = threading.Barrier(2)
    maker = Maker(lambda _: both.wait(PATIENCE))
    pool = SandboxPool(maker, 0)
    acquired = in_threads(2, pool.acquire)
    for one in acquired:
        pool.release(one, clean=True)
    pool.close()
    assert maker.left() == []


def test_a_slow_start_blocks_nobody_else() -> None:
    """While one is on its way, the pool can be warmed, released to and acquired from."""
    gate = threading.Event()
    maker = Maker(lambda number: gate.wait(PATIENCE) if number == 2 else None)
    pool = SandboxPool(maker, 1)
    first = pool.acquire()
    pool.warm()  # number 2 starts in the background, and hangs
    until(lambda: maker.asked == 2)
    started = time.monotonic()
    pool.warm()
    pool.release(first, clean=True)
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
        pool.release(one, clean=True)
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
    pool.release(pool.acquire(), clean=True)
    until(lambda: len(maker.made) == size + 1)
    pool.close()
    assert len(maker.made) == size + 1
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
        pool.release(acquired, clean=True)
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
    pool.release(acquired, clean=True)
    pool.close()
    assert maker.left() == []


def test_a_start_that_fails_on_demand_is_raised() -> None:
    """The caller learns why, and the pool works on."""
    maker = Maker(fail_first)
    pool = SandboxPool(maker, 1)
    with pytest.raises(SandboxStartError, match="no space left"):
        pool.acquire()
    pool.release(pool.acquire(), clean=True)
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
    pool.release(acquired, clean=True)


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
    pool.release(acquired, clean=True)


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
    pool.release(pool.acquire(), clean=True)
    until(lambda: len(maker.made) == 4)
    pool.wait_until_warm()
    pool.release(pool.acquire(), clean=True)
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
    pool.release(acquired, clean=True)
    assert maker.left() == []


# More where they are used up at once.


def ready(pool: SandboxPool) -> int:
    """Return how many wait for whoever asks next."""
    return sum(coming.done() for coming in pool._coming)


def test_spares_follow_bursts(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is kept ready after a burst, up to the most, and given up when nobody needs it."""
    monkeypatch.setattr("worker.sandbox.pool.KEEP_SECONDS", 0.3)
    pool = SandboxPool(maker, 1, most=2)
    pool.warm()
    for spares in (1, 2, 2):
        until(lambda expected=spares: ready(pool) == expected)  # type: ignore[misc]
        for made in maker.made:
            made.ready_at -= 2  # a while ago
        burst = [pool.acquire() for _ in range(spares + 1)]
        assert [one.warm for one in burst] == [True] * spares + [False]
        for one in burst:
            pool.release(one, clean=True)
    until(lambda: ready(pool) == 2)
    monkeypatch.setattr("worker.sandbox.demand.REVIEW_SECONDS", 0.0)
    until(lambda: ready(pool) == 1)
    pool.close()
    assert maker.left() == []


def fail_second(number: int) -> None:
    """Fail once."""
    if number == 2:
        msg = "no space left"
        raise SandboxStartError(msg)


def test_a_start_that_failed_is_no_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is nobody's: what is learned of demand does not count it."""
    monkeypatch.setattr("worker.sandbox.pool.KEEP_SECONDS", 60)
    maker = Maker(fail_second)
    pool = SandboxPool(maker, 2)
    pool.wait_until_warm()
    left: list[int] = []
    monkeypatch.setattr(pool._demand, "served", lambda _seconds, spares: left.append(spares))
    pool.release(pool.acquire(), clean=True)
    assert left == [0]
    pool.close()


# The keeper: what it does must not depend on that it lives.


class NoThread(threading.Thread):
    """A thread that the machine has no room for."""

    def start(self) -> None:
        """Fail as the standard library does."""
        msg = "can't start new thread"
        raise RuntimeError(msg)


def test_without_a_keeper_a_release_destroys_at_once(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread to be had: runs go on, and leave nothing; there is a keeper when there is room again."""
    pool = SandboxPool(maker, 1, max_runs=3)
    with monkeypatch.context() as patch:
        patch.setattr("worker.sandbox.pool.threading.Thread", NoThread)
        for _ in range(3):
            pool.release(Acquired(maker(), warm=False, wait_seconds=0.0, tenant="ann", last=False), clean=True)
        assert maker.left() == []
    pool.warm()
    until(lambda: ready(pool) == 1)
    pool.close()
    assert maker.left() == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_keeper_that_died_is_replaced(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whatever: the next release starts another, which clears away."""
    monkeypatch.setattr("worker.sandbox.pool.KEEP_SECONDS", 60)
    pool = SandboxPool(maker, 1)
    pool.wait_until_warm()
    with monkeypatch.context() as patch:
        patch.setattr(pool._demand, "review", lambda: 1 / 0)
        pool._released.set()
        until(lambda: pool._keeper is not None and not pool._keeper.is_alive())
    released = pool.acquire()
    pool.release(released, clean=True)
    until(lambda: not released.sandbox.alive() and ready(pool) == 1)
    pool.close()
    assert maker.left() == []


# The moment after a run: its result is told first.


def test_a_result_goes_before_the_end_of_its_sandbox_and_the_start_of_the_next(
    maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both take the processor that the result needs; they come a moment later."""
    monkeypatch.setattr("worker.sandbox.pool.MOMENT_SECONDS", 0.2)
    pool = SandboxPool(maker, 1)
    acquired = pool.acquire()
    released = time.monotonic()
    pool.release(acquired, clean=True)
    assert time.monotonic() - released < 0.1
    assert (maker.made[0].destroyed, maker.asked) == (0, 1)
    until(lambda: maker.made[0].destroyed == 1 and maker.asked == 2)
    assert time.monotonic() - released >= 0.2
    pool.close()
    assert maker.left() == []


def test_many_results_at_once_wait_for_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was released meanwhile is taken away with it, and replaced."""
    monkeypatch.setattr("worker.sandbox.pool.MOMENT_SECONDS", 0.2)
    maker = Maker()
    pool = SandboxPool(maker, 3)
    acquired = in_threads(6, pool.acquire)
    released = time.monotonic()
    for one in acquired:
        pool.release(one, clean=True)
    until(lambda: sum(made.destroyed for made in maker.made) == 6 and maker.asked == 9)
    assert 0.2 <= time.monotonic() - released < 1
    pool.close()
    assert maker.left() == []


def test_whoever_waits_until_it_is_warm_waits_for_what_replaces_the_last(pool: SandboxPool) -> None:
    """Right after a run as well, when its start has not begun."""
    pool.warm()
    pool.wait_until_warm()
    pool.release(pool.acquire(), clean=True)
    pool.wait_until_warm()
    acquired = pool.acquire()
    pool.release(acquired, clean=True)
    assert acquired.warm


def test_close_does_not_wait_for_the_moment(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that stops ends its sandboxes now."""
    monkeypatch.setattr("worker.sandbox.pool.MOMENT_SECONDS", 60.0)
    pool = SandboxPool(maker, 1)
    pool.release(pool.acquire(), clean=True)
    started = time.monotonic()
    pool.close()
    assert time.monotonic() - started < 1
    assert maker.left() == []


# One tenant's strategies, one after the other.


@pytest.fixture
def shared(maker: Maker) -> Iterator[SandboxPool]:
    """A pool of two whose sandboxes serve three strategies of one tenant; at its end nothing may be left."""
    opened = SandboxPool(maker, 2, max_runs=3, max_age_seconds=60.0)
    yield opened
    opened.close()
    assert maker.left() == []


def start(pool: SandboxPool, tenant: str) -> Acquired:
    """Have one strategy of a tenant begin to run."""
    acquired = pool.acquire(tenant)
    assert isinstance(acquired.sandbox, FakeSandbox)
    acquired.sandbox.serve()
    return acquired


def serve(pool: SandboxPool, tenant: str, *, clean: bool = True) -> Acquired:
    """Have one strategy of a tenant run to its end."""
    acquired = start(pool, tenant)
    pool.release(acquired, clean=clean)
    return acquired


def test_a_tenant_s_next_strategy_gets_the_same_sandbox(shared: SandboxPool) -> None:
    """It is ready at once, and is told who it serves."""
    first, second = serve(shared, "ann"), serve(shared, "ann")
    assert second.sandbox is first.sandbox
    assert (first.warm, second.warm) == (False, True)
    assert (first.tenant, second.tenant) == ("ann", "ann")


def test_a_sandbox_serves_so_many_and_no_more(shared: SandboxPool, maker: Maker) -> None:
    """The last of them is told so: its runner leaves afterwards."""
    served = [serve(shared, "ann") for _ in range(7)]
    assert [served.count(one) for one in served] == [1] * 7
    assert [one.last for one in served] == [False, False, True] * 2 + [False]
    sandboxes = [one.sandbox.container_id for one in served]
    assert sandboxes == [sandboxes[0]] * 3 + [sandboxes[3]] * 3 + [sandboxes[6]]
    assert len(set(sandboxes)) == 3
    until(lambda: sum(made.destroyed for made in maker.made) == 2)


def test_unless_the_operator_allows_it_a_sandbox_serves_once(pool: SandboxPool, maker: Maker) -> None:
    """However clean it ended, and whoever it was."""
    served = [serve(pool, "ann") for _ in range(3)]
    assert all(one.last for one in served)
    assert len({one.sandbox.container_id for one in served}) == 3
    until(lambda: sum(made.destroyed for made in maker.made) == 3)


def test_another_tenant_never_gets_it(shared: SandboxPool) -> None:
    """Neither while it is kept nor when theirs has had an end."""
    ann, bob = serve(shared, "ann").sandbox, serve(shared, "bob").sandbox
    assert ann is not bob
    assert serve(shared, "ann").sandbox is ann
    assert serve(shared, "bob", clean=False).sandbox is bob
    assert serve(shared, "bob").sandbox not in (ann, bob)
    assert serve(shared, "ann").sandbox is ann


@pytest.mark.parametrize("other", ["Ann", "ann ", " ann", "an", "anna", ""])
def test_tenants_are_told_apart_to_the_letter(shared: SandboxPool, other: str) -> None:
    """Nothing is trimmed or folded."""
    assert serve(shared, "ann").sandbox is not serve(shared, other).sandbox


def test_nobody_s_strategies_never_share(shared: SandboxPool, maker: Maker) -> None:
    """An empty name is no tenant: two of its strategies may be of two people."""
    served = [serve(shared, "") for _ in range(3)]
    assert all(one.last for one in served)
    assert len({one.sandbox.container_id for one in served}) == 3
    until(lambda: sum(made.destroyed for made in maker.made) == 3)


def test_after_anything_but_a_clean_end_it_is_destroyed(shared: SandboxPool) -> None:
    """The tenant's next strategy meets nothing of it."""
    first = serve(shared, "ann", clean=False).sandbox
    assert isinstance(first, FakeSandbox)
    assert serve(shared, "ann").sandbox is not first
    until(lambda: first.destroyed == 1)


def test_one_in_use_serves_nobody_else(shared: SandboxPool) -> None:
    """Two strategies of one tenant at the same time have two sandboxes; both are kept."""
    first = [start(shared, "ann") for _ in range(2)]
    assert first[0].sandbox is not first[1].sandbox
    for one in first:
        shared.release(one, clean=True)
    second = in_threads(2, lambda: start(shared, "ann"))
    assert {one.sandbox.container_id for one in second} == {one.sandbox.container_id for one in first}
    for one in second:
        shared.release(one, clean=True)


def test_an_old_one_serves_no_other(shared: SandboxPool, maker: Maker) -> None:
    """Its age counts from its first run, whether it was in use or waited when its time came."""
    acquired = start(shared, "ann")
    acquired.sandbox.first_used -= 61
    shared.release(acquired, clean=True)
    second = serve(shared, "ann").sandbox
    assert second is not acquired.sandbox
    second.first_used -= 61
    third = serve(shared, "ann").sandbox
    assert third not in (acquired.sandbox, second)
    until(lambda: [made.destroyed for made in maker.made if made in (acquired.sandbox, second)] == [1, 1])


def test_waiting_for_a_strategy_does_not_make_it_old(shared: SandboxPool, maker: Maker) -> None:
    """One that has served nobody has no age."""
    shared.warm()
    shared.wait_until_warm()
    assert [made.first_used for made in maker.made] == [0.0, 0.0]
    assert serve(shared, "ann").sandbox is serve(shared, "ann").sandbox


def test_a_kept_one_that_died_is_skipped(shared: SandboxPool) -> None:
    """The tenant gets another, as if none had been kept."""
    first = serve(shared, "ann").sandbox
    assert isinstance(first, FakeSandbox)
    first.living = False
    assert serve(shared, "ann").sandbox is not first
    until(lambda: first.destroyed == 1)


@pytest.mark.parametrize("end", ["it dies", "it is old"])
@pytest.mark.parametrize("warmed", [True, False], ids=["warmed", "not warmed"])
def test_a_kept_one_is_taken_away_without_anybody_asking(
    shared: SandboxPool, monkeypatch: pytest.MonkeyPatch, end: str, *, warmed: bool
) -> None:
    """A tenant that never comes back leaves no container behind, whether or not `warm()` was called before."""
    monkeypatch.setattr("worker.sandbox.pool.KEEP_SECONDS", 0.01)
    if warmed:
        shared.warm()
    kept = serve(shared, "ann").sandbox
    assert isinstance(kept, FakeSandbox)
    if end == "it dies":
        kept.living = False
    else:
        kept.first_used -= 61
    until(lambda: kept.destroyed == 1)


def test_what_is_kept_is_replaced_among_the_warm(shared: SandboxPool, maker: Maker) -> None:
    """As soon as what was used up is: another tenant's strategy finds one that is ready."""
    shared.warm()
    shared.wait_until_warm()
    serve(shared, "ann")
    released = time.monotonic()
    until(lambda: len(maker.made) == 3)
    assert time.monotonic() - released < KEEP_SECONDS / 2, "it took the keeper's next round"
    shared.wait_until_warm()
    assert [serve(shared, tenant).warm for tenant in ("bob", "eve")] == [True, True]


def test_as_many_are_kept_as_are_warm(shared: SandboxPool, maker: Maker) -> None:
    """The one that waits longest goes first."""
    ann, bob, eve = (serve(shared, tenant).sandbox for tenant in ("ann", "bob", "eve"))
    until(lambda: sum(made.destroyed for made in maker.made) == 1)
    assert isinstance(ann, FakeSandbox)
    assert ann.destroyed == 1
    assert [serve(shared, tenant).sandbox for tenant in ("eve", "bob")] == [eve, bob]


def test_without_warm_ones_none_is_kept(maker: Maker) -> None:
    """A pool of none leaves nothing behind between two runs."""
    pool = SandboxPool(maker, 0, max_runs=3)
    first, second = (serve(pool, "ann") for _ in range(2))
    assert first.sandbox is not second.sandbox
    assert first.last, "its runner need not make ready for another"
    until(lambda: sum(made.destroyed for made in maker.made) == 2)
    pool.close()
    assert maker.left() == []


def test_close_destroys_what_is_kept(maker: Maker) -> None:
    """A kept sandbox ends with its worker; one that comes back later is not kept any more."""
    pool = SandboxPool(maker, 2, max_runs=3)
    late = start(pool, "ann")
    serve(pool, "bob")
    pool.close()
    assert [made.destroyed for made in maker.made if made is not late.sandbox] == [1] * (len(maker.made) - 1)
    pool.release(late, clean=True)
    assert maker.left() == []


def test_threads_of_many_tenants_never_share(maker: Maker) -> None:
    """At every moment a sandbox serves one strategy, and in all its life one tenant."""
    pool = SandboxPool(maker, 3, max_runs=4)
    served: list[tuple[str, str]] = []
    busy: set[str] = set()
    clashes: list[str] = []

    def work(tenant: str) -> None:
        for number in range(30):
            acquired = start(pool, tenant)
            name = acquired.sandbox.container_id
            clashes.extend([name] * (name in busy))
            busy.add(name)
            served.append((name, tenant))
            time.sleep(0)  # the others' turn
            busy.discard(name)
            pool.release(acquired, clean=number % 5 > 0)

    threads = [threading.Thread(target=work, args=(tenant,), daemon=True) for tenant in ("ann", "bob", "ann", "eve")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    pool.close()
    assert maker.left() == []
    assert clashes == []
    assert len(served) == 4 * 30
    owners = {name: {tenant for other, tenant in served if other == name} for name, _ in served}
    assert all(len(tenants) == 1 for tenants in owners.values())
    assert 1 < max(made.runs for made in maker.made) <= 4
