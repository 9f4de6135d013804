"""How many sandboxes are wanted: more after bursts, fewer when nobody needs them, never more on a busy machine."""

from __future__ import annotations

import pytest

from worker.sandbox.demand import IDLE_SECONDS, Demand


def burst(wanted: Demand, *, idle_seconds: float = IDLE_SECONDS) -> None:
    """Let somebody come for each that is ready, and one more."""
    for left in reversed(range(wanted.wanted)):
        wanted.served(idle_seconds, left)
    wanted.missed()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time as the test has it."""
    now = [1000.0]
    monkeypatch.setattr("worker.sandbox.demand.time.monotonic", lambda: now[0])
    return now


def test_each_burst_adds_one_up_to_the_most() -> None:
    """What was ready was used up, and it was not enough."""
    wanted = Demand(1, 3)
    seen = []
    for _ in range(4):
        burst(wanted)
        seen.append(wanted.wanted)
    assert seen == [2, 3, 3, 3]


def test_a_busy_machine_does_not_get_busier() -> None:
    """Where each is used as soon as it is there, or is waited for, more at a time would not come sooner."""
    wanted = Demand(1, 3)
    for _ in range(10):
        burst(wanted, idle_seconds=0.1)
        wanted.missed()
    assert wanted.wanted == 1


def test_one_at_a_time_needs_one() -> None:
    """However many there are, and a first one that finds nothing ready is no burst."""
    wanted = Demand(1, 3)
    wanted.missed()
    for _ in range(10):
        wanted.served(5.0, 0)
    assert wanted.wanted == 1


def test_what_nobody_needs_is_given_up(clock: list[float]) -> None:
    """One each minute, down to the least; not one that was needed in that minute."""
    wanted = Demand(1, 3)
    burst(wanted)
    burst(wanted)
    seen = []
    for used_up in (True, False, False, False):
        wanted.served(5.0, 0 if used_up else 1)
        clock[0] += 61.0
        wanted.review()
        seen.append(wanted.wanted)
    assert seen == [3, 2, 1, 1]


def test_a_minute_in_which_nobody_comes_gives_one_up(clock: list[float]) -> None:
    """It was ready all the time."""
    wanted = Demand(1, 3)
    burst(wanted)
    clock[0] += 61.0
    wanted.review()
    assert wanted.wanted == 2, "in the first minute there was a burst"
    clock[0] += 30.0
    wanted.review()
    assert wanted.wanted == 2, "the minute is not over"
    clock[0] += 31.0
    wanted.review()
    assert wanted.wanted == 1


def test_none_is_wanted_where_none_is_kept() -> None:
    """Each starts when it is asked for, however many come."""
    wanted = Demand(0, 0)
    burst(wanted)
    assert wanted.wanted == 0
