"""How long one strategy takes on an idle machine, and how many a saturated one does in a second."""

from __future__ import annotations

import contextlib
import random
import statistics
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.contenders import Contender

#: From one look at the machine's CPUs to the next, seconds, and how much of it they may be at work to count as idle.
LOOK_SECONDS, IDLE_SHARE = 0.15, 0.1
#: What a busy neighbour may cost: after so long, seconds, the next strategy comes anyway.
CALM_SECONDS = 10.0
#: Runs at the start of a saturated window that do not count.
RAMP_SECONDS = 2.0
TICKS_PER_SECOND = 100


@dataclass(frozen=True)
class Spread:
    """What a number of measurements came to."""

    count: int
    least: float
    p25: float
    p50: float
    p75: float
    p95: float
    p99: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Take it of at least one value; a percentile is a measured value that so many of a hundred are below."""
        ordered = sorted(values)

        def at(share: float) -> float:
            return ordered[min(len(ordered) - 1, int(len(ordered) * share))]

        p50 = statistics.median(ordered)
        return cls(len(ordered), ordered[0], at(0.25), p50, at(0.75), at(0.95), at(0.99), ordered[-1])


@dataclass(frozen=True)
class Idle:
    """One strategy at a time, the machine idle before each: milliseconds from the call to the answer."""

    contender: str
    milliseconds: Spread


@dataclass(frozen=True)
class Saturated:
    """As many as there is room for: strategies a second, and CPU seconds of the whole machine for each."""

    contender: str
    at_once: int
    per_second: Spread
    cpu_seconds: Spread


def idle(contenders: Sequence[type[Contender]], rounds: int, seed: int, tell: Callable[[str], None]) -> list[Idle]:
    """Time every contender once a round, each round in an order of its own; each has run once before."""
    dice = random.Random(seed)
    times: dict[str, list[float]] = {one.name: [] for one in contenders}
    with contextlib.ExitStack() as stack:
        ready = [stack.enter_context(one(1)) for one in contenders]
        answers = {one.run() for one in ready}
        _agree(answers)
        for number in range(rounds):
            tell(f"idle: round {number + 1} of {rounds}")
            for one in dice.sample(ready, len(ready)):
                calm()
                before = time.perf_counter()
                answers.add(one.run())
                times[one.name].append((time.perf_counter() - before) * 1000)
        _agree(answers)
    return [Idle(name, Spread.of(values)) for name, values in times.items()]


def saturated(  # noqa: PLR0913  # what a benchmark can be told
    contenders: Sequence[type[Contender]],
    at_once: Sequence[int],
    *,
    windows: int,
    seconds: float,
    seed: int,
    tell: Callable[[str], None],
) -> list[Saturated]:
    """Keep every contender busy for a number of windows, the contenders taking turns."""
    dice = random.Random(seed)
    rates: dict[tuple[str, int], list[tuple[float, float]]] = {
        (one.name, number): [] for one in contenders for number in at_once
    }
    for window in range(windows):
        for number in at_once:
            for one in dice.sample(list(contenders), len(contenders)):
                tell(f"saturated: window {window + 1} of {windows}, {number} at once, {one.name}")
                with one(number) as ready:
                    rates[one.name, number].append(_window(ready, seconds))
    return [
        Saturated(name, number, Spread.of([one[0] for one in found]), Spread.of([one[1] for one in found]))
        for (name, number), found in rates.items()
    ]


def _window(contender: Contender, seconds: float) -> tuple[float, float]:
    """Return strategies a second, and CPU seconds for each."""
    over = threading.Event()
    ended: list[float] = []
    answers: set[str] = set()
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            while not over.is_set():
                answers.add(contender.run())
                ended.append(time.perf_counter())
        except BaseException as exc:  # noqa: BLE001  # raised below
            failures.append(exc)

    callers = [threading.Thread(target=ask) for _ in range(contender.callers)]
    for caller in callers:
        caller.start()
    time.sleep(RAMP_SECONDS)
    begun, cpu_begun = time.perf_counter(), busy_seconds()
    time.sleep(seconds)
    done, cpu = time.perf_counter(), busy_seconds() - cpu_begun
    over.set()
    for caller in callers:
        caller.join()
    if failures:
        raise failures[0]
    _agree(answers)
    count = sum(1 for moment in ended if begun <= moment < done)
    if not count:
        msg = f"{contender.name} ended none in {seconds:g} s"
        raise RuntimeError(msg)
    return count / (done - begun), cpu / count


def _agree(answers: set[str]) -> None:
    if len(answers) > 1:
        msg = f"the answers differ: {answers}"
        raise RuntimeError(msg)


def calm() -> None:
    """Wait until the machine is idle: what the last one left behind is done, and the next is warm."""
    deadline = time.monotonic() + CALM_SECONDS
    while time.monotonic() < deadline:
        before, begun = busy_seconds(), time.monotonic()
        time.sleep(LOOK_SECONDS)
        if busy_seconds() - before <= (time.monotonic() - begun) * IDLE_SHARE:
            return


def busy_seconds() -> float:
    """Return how long the machine's CPUs have been at work, all together, in steps of a hundredth of a second."""
    fields = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _waiting, irq, soft_irq, _stolen = fields
    return (user + nice + system + irq + soft_irq) / TICKS_PER_SECOND
