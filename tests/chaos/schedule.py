"""Which faults, and when: a list that depends on the seed alone, and the thread that lets them happen."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.chaos.faults import Fleet, Worker, asleep, cut_connections, kill_child

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.servers import Engine, RedisServer

#: How often each occurs in a whole run.
FAULTS = {
    "kill -9 of a pool process": 12,
    "normal connections cut": 8,
    "pubsub connections cut": 6,
    "SIGTERM of a worker": 6,
    "kill -9 of a main process": 6,
    "Redis killed with -9": 5,
    "Redis away": 3,
    "main process asleep": 4,
    "engine restarted": 4,
}
#: What a run of a minute can bear: what a killed main process held comes back after the visibility timeout only.
SHORT_FAULTS = {
    "kill -9 of a pool process": 2,
    "normal connections cut": 1,
    "pubsub connections cut": 1,
    "SIGTERM of a worker": 1,
    "Redis killed with -9": 1,
    "main process asleep": 1,
}
#: In which part of the run they occur; the rest is for what they have delayed.
FIRST, LAST = 0.03, 0.7
AWAY_SECONDS = (1.0, 4.0)
ASLEEP_SECONDS = (2.0, 12.0)


@dataclass(frozen=True)
class Appointment:
    """A fault, and after how many accepted submissions it occurs."""

    accepted: int
    fault: str


def plan(faults: dict[str, int], submissions: int, seed: int) -> list[Appointment]:
    """Return the appointments of a run, the earliest first."""
    dice = random.Random(f"faults {seed}")
    names = [name for name, count in faults.items() for _ in range(count)]
    dice.shuffle(names)
    moments = sorted(int(submissions * dice.uniform(FIRST, LAST)) for _ in names)
    return [Appointment(moment, name) for moment, name in zip(moments, names, strict=True)]


class Chaos(threading.Thread):
    """Lets the faults happen, one after the other.

    Args:
        appointments: in their order.
        accepted: how many submissions have been accepted by now.
        server: the Redis.
        fleet: the workers.
        engine: the private engine, if there is one.
        seed: of the choice of victims and of how long something is away.
    """

    def __init__(  # noqa: PLR0913  # what faults can hit
        self,
        appointments: list[Appointment],
        accepted: Callable[[], int],
        *,
        server: RedisServer,
        fleet: Fleet,
        engine: Engine | None,
        seed: int,
    ) -> None:
        super().__init__(name="chaos")
        self._appointments = appointments
        self._accepted = accepted
        self._server, self._fleet, self._engine = server, fleet, engine
        self._dice = random.Random(f"victims {seed}")
        self._over = threading.Event()
        self.done: Counter[str] = Counter()
        #: Each with the seconds since the start, for whoever looks for a cause.
        self.diary: list[tuple[float, str]] = []
        #: What went wrong with the faults themselves.
        self.failure: BaseException | None = None
        self._began = time.monotonic()

    def run(self) -> None:
        """Keep the appointments."""
        try:
            for appointment in self._appointments:
                while self._accepted() < appointment.accepted:
                    if self._over.wait(0.1):
                        return
                self._inject(appointment.fault)
        except BaseException as exc:  # noqa: BLE001  # told by the main thread
            self.failure = exc

    def stop(self) -> None:
        """Keep no more of them."""
        self._over.set()
        if self.is_alive():
            self.join()

    def _inject(self, fault: str) -> None:
        began = time.monotonic() - self._began
        happened = self._happen(fault)
        self.done[fault] += happened
        self.diary.append((began, fault if happened else f"{fault}: nothing to hit"))

    def _happen(self, fault: str) -> bool:
        match fault:
            case "kill -9 of a pool process":
                alive = [worker for worker in self._fleet.alive() if worker.ready()]
                return bool(alive) and kill_child(self._dice.choice(alive), self._dice)
            case "normal connections cut":
                cut_connections(self._server, "normal")
            case "pubsub connections cut":
                cut_connections(self._server, "pubsub")
            case "Redis killed with -9":
                self._server.kill()
                self._server.start()
            case "Redis away":
                self._server.stop()
                self._over.wait(self._dice.uniform(*AWAY_SECONDS))
                self._server.start()
            case "engine restarted" if self._engine:
                self._engine.stop()
                self._engine.start()
            case _:
                return self._hit_a_worker(fault)
        return True

    def _hit_a_worker(self, fault: str) -> bool:
        victim = self._await_victim()
        if victim is None:
            return False
        if fault == "main process asleep":
            with asleep(victim):
                self._over.wait(self._dice.uniform(*ASLEEP_SECONDS))
            return True
        victim.signal(signal.SIGTERM if fault == "SIGTERM of a worker" else signal.SIGKILL)
        return True

    def _await_victim(self) -> Worker | None:
        # A replacement may still be on its way.
        for _ in range(200):
            victim = self._fleet.victim(self._dice)
            if victim or self._over.wait(0.1):
                return victim
        return None
