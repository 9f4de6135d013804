"""A fleet of workers, and what can go wrong with it and with Redis, each as a function."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.chaos.servers import ROOT
from tests.waiting import until

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from tests.chaos.servers import RedisServer

#: A worker finishes what runs before it leaves.
STOP_SECONDS = 90.0
#: What a supervisor waits before it starts a replacement, as `RestartSec=` of systemd.
RESTART_SECONDS = 0.5


class Worker:
    """One worker: its main process, its pool processes and its log."""

    def __init__(self, log: Path, environment: dict[str, str], concurrency: int) -> None:
        command = [sys.executable, "-m", "worker.cli", "worker", "--concurrency", str(concurrency)]
        self.log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | environment, stdout=stream, stderr=stream, start_new_session=True
            )
        self.pid = self.process.pid
        #: Whether somebody here has ended it; if not, it did so by itself.
        self.doomed = False

    def ready(self) -> bool:
        """Whether it has said that it takes strategies."""
        return b" ready." in self.log.read_bytes()

    def alive(self) -> bool:
        """Whether its main process is there."""
        return self.process.poll() is None

    def children(self) -> list[int]:
        """Return its pool processes."""
        with contextlib.suppress(OSError):
            pids = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
            return [int(pid) for pid in pids if self._is_pool_process(pid)]
        return []

    @staticmethod
    def _is_pool_process(pid: str) -> bool:
        with contextlib.suppress(OSError):
            # The reaper is a child, too; one that has ended and is not yet reaped has no command.
            return b"worker.app" in Path(f"/proc/{pid}/cmdline").read_bytes()
        return False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the main process."""
        self.doomed |= number in {signal.SIGKILL, signal.SIGTERM}
        self.process.send_signal(number)

    def memory_bytes(self) -> int:
        """Return the resident set of its main process; 0 when it is gone."""
        with contextlib.suppress(OSError):
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return 0


class Fleet:
    """Keeps a number of workers alive: a replacement is started for each that ends, as systemd would.

    Args:
        folder: for their logs.
        environment: theirs, beside this process's own.
        size: how many workers; the first is the elder, whose main process `victim` never chooses.
        concurrency: pool processes of each.
        elder_concurrency: those of the elder, where it is to do more; as the others by default.
    """

    def __init__(
        self,
        folder: Path,
        environment: dict[str, str],
        size: int,
        concurrency: int = 2,
        *,
        elder_concurrency: int | None = None,
    ) -> None:
        self._folder = folder
        self._environment = environment | {"STRATBOX_METRICS_PORT": "0"}
        self._size = size
        self._concurrency = concurrency
        self._elder_concurrency = elder_concurrency or concurrency
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise)
        #: All there have been.
        self.workers: list[Worker] = []

    @property
    def elder(self) -> Worker:
        """The one that was there first."""
        return self.workers[0]

    def alive(self) -> list[Worker]:
        """Return those whose main process is there."""
        return [worker for worker in list(self.workers) if worker.alive()]

    def victim(self, dice: random.Random) -> Worker | None:
        """Choose a worker that takes strategies; None when there is none to spare."""
        ready = [worker for worker in self.alive() if worker is not self.elder and worker.ready() and not worker.doomed]
        return dice.choice(ready) if ready else None

    def logs(self) -> Iterator[Path]:
        """Return the logs of all there have been."""
        return (worker.log for worker in list(self.workers))

    def _start_one(self) -> None:
        with self._lock:
            if not self._closing.is_set():
                log = self._folder / f"worker-{len(self.workers)}.log"
                concurrency = self._concurrency if self.workers else self._elder_concurrency
                self.workers.append(Worker(log, self._environment, concurrency))

    def _supervise(self) -> None:
        while not self._closing.wait(RESTART_SECONDS):
            for _ in range(self._size - len(self.alive())):
                self._start_one()

    def __enter__(self) -> Self:
        """Start them, and wait until they take strategies."""
        for _ in range(self._size):
            self._start_one()
        self._supervisor.start()
        try:
            until(lambda: all(worker.ready() for worker in self.workers), what="the start of the workers")
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End all, those first that are asleep; no replacements any more."""
        with self._lock:
            self._closing.set()
        self._supervisor.join()
        alive = self.alive()
        for worker in alive:
            worker.signal(signal.SIGCONT)
            worker.signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for worker in alive:
            try:
                worker.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait(10)

    def __exit__(self, *_: object) -> None:
        """End them."""
        self.close()


def cut_connections(server: RedisServer, kind: str) -> None:
    """Close all connections of a kind, `normal` or `pubsub`, from Redis' side."""
    server.client.client_kill_filter(_type=kind, skipme=True)


def kill_child(worker: Worker, dice: random.Random) -> bool:
    """Kill one of a worker's pool processes with -9; False when it has none."""
    for pid in dice.sample(children := worker.children(), len(children)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
    return False


@contextlib.contextmanager
def asleep(worker: Worker, *, pool_too: bool = False) -> Iterator[None]:
    """Stop a worker's main process for a while, as a machine that swaps or is moved would."""
    pids = [worker.pid, *(worker.children() if pool_too else [])]
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def redeliver_now(server: RedisServer) -> None:
    """Let minutes pass for all that is not acknowledged: kombu's next sweep puts it into the queue, and it may be run.

    What was begun counts as alive for a time below the visibility timeout, so both are over.
    """
    for tag in server.client.hkeys("unacked"):
        for name in ("unacked_index", "stratbox:celery:started"):
            server.client.zadd(name, {str(tag): 1.0}, xx=True)
